"""Each promise of issue 14's table broken again, in a copy of the program: its case has to fail.

`python -m tests.faults.mends` takes one mend away at a time and runs the tests that prove it. It
answers for the past: what those tests find was there before the mend.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.docs.pages import ROOT

FOLDERS = ("api", "config", "docs", "examples", "migrations", "rollout", "tests")
FILES = ("pyproject.toml", "README.md", "CHANGELOG.md")
UNUSED = shutil.ignore_patterns("node_modules")


@dataclass(frozen=True)
class Mend:
    """One way to take a mend away.

    Attributes:
        row: the row of the issue's table.
        file: the module that holds the mend.
        old: text of it, there once; `new` stands in its place.
        node: a test of the row's case.
    """

    row: int
    file: str
    old: str
    new: str
    node: str


EVIDENCE = "tests/live/test_evidence_check.py"
MENDS = (
    Mend(
        1,
        "rollout/data/records/record_check.py",
        'bytes(row["record_hash"]) != record_hash:',
        "False:",
        f"{EVIDENCE}::test_an_edit_of_one_column_is_found",
    ),
    Mend(
        2,
        "rollout/live/autonomy.py",
        "any(name in {rollout_name, ACCESS_CHAIN.name}",
        "not any(name in {rollout_name, ACCESS_CHAIN.name}",
        "tests/api/assignments/test_autonomy.py",
    ),
    Mend(
        3,
        "rollout/features/assignments/assignments.py",
        "if client_head is None or has_client_head(",
        "if True or has_client_head(",
        "tests/api/assignments/test_assignments.py::"
        "test_a_ledger_that_was_set_back_stops_everybody_once_one_client_brings_its_head",
    ),
    Mend(
        4,
        "rollout/data/database/append_failures.py",
        "if _is_unreachable(error):",
        "if False:",
        "tests/faults/test_database_outages.py",
    ),
    Mend(
        5,
        "rollout/features/backups/backups.py",
        "eras = accept_restore(\n                copy,",
        "eras = (lambda *_, **__: ())(\n                copy,",
        "tests/features/backups/test_backups.py::"
        "test_a_backup_under_traffic_is_restored_whole_and_stopped",
    ),
    Mend(
        6,
        "api/serve.py",
        "    signal.signal(signal.SIGTERM, _exit_normally)\n",
        "",
        "tests/api/test_serve.py::"
        "test_it_answers_says_how_the_first_person_comes_in_and_ends_when_told",
    ),
    Mend(
        7,
        "rollout/engine/ledger/ledger.py",
        "if stored_hash == checkpoint.hash:",
        "if True:",
        "tests/features/ledger/test_checkpoints.py::test_a_ledger_that_was_rewritten_whole_is_found",
    ),
    Mend(
        8,
        "rollout/data/erasure/contents.py",
        "delete_case_rows(",
        "(lambda *_: {})(",
        "tests/features/erasure/test_case_erasure.py::"
        "test_an_erased_case_leaves_no_trace_in_any_table",
    ),
    Mend(
        9,
        "rollout/features/access/credentials.py",
        "MIN_STRENGTH: Final = 3",
        "MIN_STRENGTH: Final = 0",
        "tests/features/access/test_sign_in.py::test_a_password_that_is_easy_to_guess_is_refused",
    ),
    Mend(
        10,
        "rollout/data/records/history.py",
        "if row.source == UNNAMED:",
        "if False:",
        "tests/attacks/test_invented_decisions.py",
    ),
    Mend(
        11,
        "rollout/engine/records/policy_actions.py",
        " if is_policy_action(policy, prediction, lever, action) else OTHER_ACTION\n",
        "\n",
        "tests/attacks/test_acts_that_nobody_asked_for.py",
    ),
)


def copy_without(mend, folder):
    """Copy the program to a folder, without a mend."""
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=UNUSED)
    for name in FILES:
        shutil.copy(ROOT / name, folder / name)
    file = folder / mend.file
    file.write_text(take_away(mend, file.read_text(encoding="utf-8")), encoding="utf-8")


def take_away(mend, text):
    """Return the module's text without the mend."""
    assert text.count(mend.old) == 1, f"{mend.file}: not once: {mend.old}"
    return text.replace(mend.old, mend.new)


def find_failures(mend):
    """Return the lines of the failed tests, and the last line, of a copy without the mend.

    With the mend they pass in the same copy, else they would fail for another reason.
    """
    with tempfile.TemporaryDirectory(prefix="rollout-mend-") as name:
        folder = Path(name)
        copy_without(mend, folder)
        lines = run_test(mend.node, folder).stdout.splitlines()
        shutil.copy(ROOT / mend.file, folder / mend.file)
        whole = run_test(mend.node, folder)
        assert whole.returncode == 0, f"{mend.node} fails with the mend too: {whole.stdout}"
    return [line for line in lines if line.startswith("FAILED ")], lines[-1]


def run_test(node, folder):
    """Run a test in a copy of the program."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", node],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder), "ROLLOUT_TEST_SAMPLE": ""},
        capture_output=True,
        text=True,
        check=False,
    )


def main(words):
    """Take the mends of these rows away, or all; return how many no test missed."""
    unseen, rows = 0, {int(word) for word in words}
    mends = [mend for mend in MENDS if not rows or mend.row in rows]
    for mend in mends:
        failures, summary = find_failures(mend)
        unseen += not failures
        print(f"{mend.row:>2} {mend.file}: {summary}", flush=True)  # noqa: T201 - a command
        for line in failures[:3]:
            print(f"   {line[:160]}", flush=True)  # noqa: T201 - a command
    print(f"{len(mends)} mends taken away, {unseen} unseen")  # noqa: T201 - a command
    return unseen


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
