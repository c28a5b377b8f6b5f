"""Every fault of issue 14 as a named case: `python -m tests.faults.cases` (part of `make faults`).

Each case makes its fault, proves that it is there, measures, and writes its row of
docs/reliability.toml. A case is either run here on a service under traffic (`live_faults`), or is a
selection of tests that make, prove and judge the fault themselves. What can't be run is written
down with the reason.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from sqlalchemy import make_url

from tests.docs.pages import ROOT
from tests.faults import live_faults
from tests.faults.live_outage import Figures, prepare_field
from tests.faults.outcomes import OUTCOMES, FaultOutcome, current_commit, record_outcome, today
from tests.faults.own_server import own_server
from tests.faults.test_real_disks import NAMESPACE

MOUNTS, NETWORK = ["unshare", "--mount"], ["unshare", "--net"]
COMMAND = "python -m tests.faults.cases"


@dataclass(frozen=True)
class FaultCase:
    """A fault on an engine.

    Attributes:
        row: the row of the issue's table that promises something else; 0 for the others.
        measure: makes, proves and ends the fault in a folder; returns the figures.
        find_obstacle: returns why it can't be run here, or "".
    """

    fault: str
    engine: str
    row: int
    measure: Callable[[Path], Figures]
    find_obstacle: Callable[[], str] = str


def run_inside(namespace, name, folder, **arguments):
    """Run a fault of `live_faults` in a namespace of its own, as a process; return its figures."""
    words = [sys.executable, "-m", "tests.faults.cases", "--inside", name]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, [ROOT, *_search_path()]))}
    done = subprocess.run(
        [*namespace, *words, str(folder), json.dumps(arguments)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return Figures(**json.loads(done.stdout.splitlines()[-1]))


def _search_path():
    return [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]


def run_tests(folder, *, nodes, figures):
    """Run tests that make and judge a fault; return the figures that they assert, and how many."""
    environment = os.environ | {"TMPDIR": str(folder), "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *nodes]
    done = subprocess.run(
        words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert " skipped" not in done.stdout, done.stdout[-500:]
    return Figures(tried=int(re.search(r"(\d+) passed", done.stdout)[1]), **figures)


def run_network_cut(folder):
    """Put a server behind a cable in a network namespace, and cut it."""
    with own_server() as server:
        key = prepare_field(server.url)
        socket_path = f"{make_url(server.url).query['host']}/.s.PGSQL.5432"
        folder = folder / "service"
        return run_inside(NETWORK, "run_cut", folder, socket_path=socket_path, key=key)


def find_namespace_obstacle(namespace, *, needs_root=False):
    """Return why a namespace can't be made here, or ""."""
    if needs_root and os.geteuid():
        return "needs root"
    probe = [*namespace, "true"] if shutil.which("unshare") else ["false"]
    is_refused = subprocess.run(probe, check=False, capture_output=True).returncode
    return f"`{' '.join(namespace)}` is refused here" if is_refused else ""


def find_faketime_obstacle():
    """Return why no clock can be faked here, or ""."""
    if live_faults.find_faketime() is None:
        return "libfaketime is not installed; run `pip install libfaketime`"
    return ""


def _tested(row, fault, engine, *nodes, **figures):
    return FaultCase(fault, engine, row, partial(run_tests, nodes=nodes, figures=figures))


def _clock_cases():
    for clock in ("wall", "boot", "database"):
        for direction in ("forwards", "backwards"):
            node = f"{CLOCKS}[{clock}-{direction}-sqlite]"
            fault = f"{clock} clock jumps an hour {direction}"
            yield _tested(0, fault, "sqlite", node, wider=0, late_stops=0)
    for offset, direction in (("+3600", "forwards"), ("-3600", "backwards")):
        yield FaultCase(
            f"libfaketime moves a replica's wall clock an hour {direction}",
            "postgresql",
            0,
            lambda folder, offset=offset: live_faults.run_clock_jump(folder, offset),
            find_faketime_obstacle,
        )


EVIDENCE = "tests/live/test_evidence_check.py"
HEADS = "tests/api/assignments/test_assignments.py"
DISKS = "tests/faults/test_real_disks.py"
CHECKPOINTS = "tests/features/ledger/test_checkpoints.py"
CLOCKS = "tests/faults/test_clocks.py::test_a_clock_that_jumps_widens_nothing"
FACTORS = "tests/features/access/test_second_factors.py"
CASES = (
    _tested(
        1,
        "records edited in the database",
        "both",
        f"{EVIDENCE}::test_an_edit_of_one_column_is_found",
        f"{EVIDENCE}::test_an_edit_with_the_right_hash_is_found_by_the_unit",
        f"{EVIDENCE}::test_an_edit_with_the_right_hashes_everywhere_is_found_by_the_digest",
        f"{EVIDENCE}::test_a_deleted_record_is_found",
        f"{EVIDENCE}::test_a_sample_finds_an_edit",
        f"{EVIDENCE}::test_content_that_is_edited_under_cover_of_an_erasure_is_found",
        note="each edit named by `doctor --rebuild`, or by its scheduled sample",
    ),
    FaultCase(
        "disk full, with a reserve",
        "sqlite",
        2,
        partial(run_inside, NAMESPACE, "run_full_disk", reserve=2),
        partial(find_namespace_obstacle, NAMESPACE),
    ),
    FaultCase(
        "disk full, without a reserve",
        "sqlite",
        2,
        partial(run_inside, NAMESPACE, "run_full_disk", reserve=0),
        partial(find_namespace_obstacle, NAMESPACE),
    ),
    FaultCase(
        "server's disk full",
        "postgresql",
        2,
        partial(run_inside, MOUNTS, "run_full_server"),
        partial(find_namespace_obstacle, MOUNTS, needs_root=True),
    ),
    _tested(
        2,
        "disk read-only",
        "sqlite",
        f"{DISKS}::test_a_stop_on_a_failing_disk_is_obeyed_until_and_after_a_restart[read-only]",
        wider=0,
        late_stops=0,
        note="remounted between two starts: a volume with open files can't be",
    ),
    _tested(
        2,
        "ledger pages overwritten",
        "sqlite",
        f"{DISKS}::test_a_stop_on_corrupt_pages_is_obeyed_until_an_admin_clears_the_damage",
        "tests/features/process/test_damaged_pages.py",
        wider=0,
        late_stops=0,
        note="`doctor` has a sentence for each; humans decide until an admin clears the damage",
    ),
    FaultCase("write lock held by another process", "sqlite", 0, live_faults.run_locked),
    _tested(
        3,
        "older copy of the database put back",
        "both",
        f"{HEADS}::test_an_older_copy_put_back_under_a_running_service_stops_everybody",
        f"{HEADS}::test_a_ledger_that_was_set_back_stops_everybody_once_one_client_brings_its_head",
        f"{HEADS}::test_a_replica_that_read_the_lost_rows_stops_everybody_without_a_client",
        "tests/attacks/test_files_put_back.py",
        wider=0,
        note="a client or replica that holds a newer head finds it; then humans decide everywhere",
    ),
    FaultCase("server frozen", "postgresql", 4, live_faults.run_frozen),
    FaultCase("server killed", "postgresql", 4, live_faults.run_killed),
    FaultCase(
        "network to the server cut",
        "postgresql",
        4,
        run_network_cut,
        partial(find_namespace_obstacle, NETWORK, needs_root=True),
    ),
    _tested(
        5,
        "database lost, backup restored",
        "both",
        "tests/features/backups/test_backups.py::"
        "test_a_backup_under_traffic_is_restored_whole_and_stopped",
        lost=0,
        doubled=0,
        wider=0,
        note="a backup made under traffic; after the restore every cell is stopped",
    ),
    _tested(
        5,
        "two program versions at once",
        "both",
        "tests/migrations/test_rolling_upgrade.py::"
        "test_two_replicas_are_upgraded_one_after_the_other_under_traffic",
        lost=0,
        doubled=0,
        late_stops=0,
        note="an upgrade of two replicas under traffic, stops and ticks on both, the way back, and"
        " the end, after which the former ones hand their cases to humans",
    ),
    _tested(
        6,
        "SIGTERM",
        "sqlite",
        "tests/api/test_serve.py::"
        "test_it_answers_says_how_the_first_person_comes_in_and_ends_when_told",
        "tests/api/test_serve.py::test_a_request_in_flight_is_answered_when_it_is_told_to_end",
        note="exit 0, no WAL left, requests in flight answered",
    ),
    _tested(
        7,
        "whole ledger rewritten",
        "sqlite",
        f"{CHECKPOINTS}::test_a_ledger_that_was_rewritten_whole_is_found",
        f"{CHECKPOINTS}::test_the_doctor_finds_a_rewritten_ledger",
        note="found by a checkpoint kept elsewhere",
    ),
    _tested(
        8,
        "a case and a person erased",
        "both",
        "tests/features/erasure/test_case_erasure.py::"
        "test_an_erased_case_leaves_no_trace_in_any_table",
        "tests/features/erasure/test_name_erasure.py::"
        "test_an_erased_user_leaves_no_trace_and_everything_verifies",
        note="no trace is left in any table, and every ledger still verifies",
    ),
    _tested(
        9,
        "guessed passwords, copied codes, missing factors",
        "both",
        "tests/features/access/test_sign_in.py::test_a_password_that_is_easy_to_guess_is_refused",
        "tests/features/access/test_sign_in.py::"
        "test_failures_from_everywhere_never_slow_an_address_that_was_used_before",
        f"{FACTORS}::test_a_code_works_once_and_one_step_to_each_side",
        f"{FACTORS}::test_without_a_factor_an_operator_looks_stops_and_rejects_but_does_not_widen",
        wider=0,
        note="easy passwords and used codes are refused; without a second factor nobody widens",
    ),
    _tested(
        10,
        "one key sends predictions and invented decisions",
        "both",
        "tests/attacks/test_invented_decisions.py",
        wider=0,
        note="such decisions are no evidence, so no gate opens",
    ),
    _tested(
        11,
        "action differs from the answer asked about",
        "both",
        "tests/attacks/test_acts_that_nobody_asked_for.py",
        note="such an action is unauthorized",
    ),
    _tested(
        0,
        "what guards see",
        "both",
        "tests/faults/test_what_guards_see.py",
        wider=0,
        note="ticks stop, the clock steps back or stands still, the queue is stuck, evidence can't"
        " be read: a model that is wrong from then on gives more wrong answers than in the same"
        " run without the fault only for three slots or 10 minutes, and a lease; readiness names"
        " the rollout",
    ),
    *_clock_cases(),
)


def record_case(case, outcome_file):
    """Run a case and write its row; return what went wrong, or ""."""
    obstacle = case.find_obstacle()
    run = {"command": COMMAND, "date": today(), "commit": current_commit()}
    if obstacle:
        figures, wrong = Figures(tried=0, note=f"not run: {obstacle}"), ""
    else:
        with tempfile.TemporaryDirectory(prefix="rollout-case-") as folder:
            figures = case.measure(Path(folder))
        bad = (figures.lost, figures.doubled, figures.wider, figures.late_stops)
        wrong = "" if not any(bad) else f"{figures}"
    if outcome_file is not None:
        values = asdict(figures)
        record_outcome(outcome_file, FaultOutcome(case.fault, case.engine, **values, **run))
    print(f"{case.fault} · {case.engine}: {figures}", flush=True)  # noqa: T201 - the answer
    return wrong


def _run_inside_namespace(name, folder, text):
    Path(folder).mkdir(exist_ok=True)
    figures = getattr(live_faults, name)(Path(folder), **json.loads(text))
    print(json.dumps(asdict(figures)))  # noqa: T201 - read by `run_inside`


def main(words=None):
    """Run cases; the exit code says whether all held."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", help="name of a fault (repeatable)")
    parser.add_argument("--list", action="store_true", help="print the faults and end")
    parser.add_argument("--no-record", action="store_true", help="write no rows")
    parser.add_argument("--inside", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args(words)
    if arguments.inside:
        return _run_inside_namespace(*arguments.inside)
    unknown = set(arguments.only or ()) - {case.fault for case in CASES}
    if unknown:
        parser.error(f"no such fault: {', '.join(sorted(unknown))}; see --list")
    chosen = [case for case in CASES if not arguments.only or case.fault in arguments.only]
    if arguments.list:
        for case in chosen:
            print(f"{case.row or '-':>2}  {case.engine:<11} {case.fault}")  # noqa: T201
        return 0
    failed = 0
    for case in chosen:
        try:
            wrong = record_case(case, None if arguments.no_record else OUTCOMES)
        except Exception as error:  # noqa: BLE001 - the others are run too
            wrong = f"{type(error).__name__}: {error}"
        if wrong:
            failed += 1
            print(f"FAILED {case.fault} · {case.engine}: {wrong}", flush=True)  # noqa: T201
    print(f"{len(chosen)} cases, {failed} failed")  # noqa: T201 - the answer
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
