"""A live rollout of many cells on SQLite: what a tick costs in which little or nothing is new."""

import resource
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from time import process_time

import polars as pl
from reported_figures import report_figure
from sqlalchemy import func, select

from rollout.data.database.migrations import upgrade
from rollout.data.database.session import Database
from rollout.data.tables.tables import counted_units
from rollout.engine.decide.commands import Actor
from rollout.engine.evidence.frames import (
    REMARK_SCHEMA,
    RecordFrames,
    build_cases_schema,
    build_decisions_schema,
    build_outcomes_schema,
    build_predictions_schema,
)
from rollout.features.records.record_import import import_records
from rollout.live.policy_application import apply_policy
from rollout.live.tick_passes import Ticker

START = datetime(2027, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = START + 30 * HOUR
WINDOWS = 4
POLICY = """
rollout: bench
timezone: UTC
levers: [{{id: parcel, labels: [damaged, sound]}}]
sites: [{sites}]
windows:
  - {{id: night, hours: "00:00-06:00"}}
  - {{id: morning, hours: "06:00-12:00"}}
  - {{id: afternoon, hours: "12:00-18:00"}}
  - {{id: evening, hours: 24/7}}
stages: [{{id: supervised, blind: 50%}}]
evidence: {{unit: case, grace: 1h, outside: blind}}
gates:
  - to: supervised
    require:
      - {{measure: agreement, at_least: 95%}}
      - {{measure: recall, label: damaged, at_least: 85%}}
      - {{measure: precision, label: damaged, at_least: 85%}}
      - {{measure: cost, at_most: 0.05}}
guards:
  - {{measure: agreement, at_least: 90%, false_alarm_every: 200}}
  - {{measure: failures, at_most: 20%, over: 6h, then: suspend}}
tick: 1h
"""


def policy_text(cells: int) -> str:
    """Return a policy with `cells` cells, four measures in its one gate."""
    return POLICY.format(sites=", ".join(f"site-{n}" for n in range(cells // WINDOWS)))


def history(cells: int, each: int, first: datetime, apart: int = 6) -> RecordFrames:
    """Return `each` cases of every cell, answered and judged, from `first` on.

    With the windows' starts less than 6 h apart, all are in one window.
    """
    rows = [
        {
            "case_key": f"{first:%y%m%d%H}-{site}-{window}-{number}",
            "site": f"site-{site}",
            "at": first + apart * window * HOUR + timedelta(minutes=number),
        }
        for number in range(each)
        for site in range(cells // WINDOWS)
        for window in range(WINDOWS)
    ]
    frame = pl.DataFrame(rows, schema_overrides={"at": pl.Datetime("us", "UTC")})
    label = pl.lit("sound")
    none = pl.DataFrame(schema=REMARK_SCHEMA)
    return RecordFrames(
        cases=_fitted(frame.with_columns(occurred_at="at"), build_cases_schema()),
        predictions=_fitted(
            frame.with_columns(version=pl.lit("v1"), **{"value:parcel": label}),
            build_predictions_schema(["parcel"]),
        ),
        decisions=_fitted(
            frame.with_columns(
                pl.col("at") + timedelta(minutes=5),
                reviewer=pl.lit("ana"),
                unsure=pl.lit(value=False),
                exposure=pl.lit("blind"),
                **{"value:parcel": label},
            ),
            build_decisions_schema(["parcel"]),
        ),
        outcomes=pl.DataFrame(schema=build_outcomes_schema(["parcel"])),
        rejected=none,
        notes=none,
        row_counts={},
    )


def _fitted(frame: pl.DataFrame, schema: dict[str, pl.DataType]) -> pl.DataFrame:
    """Return a frame with the columns of a schema, null where it has none."""
    there = set(frame.columns)
    return frame.select(
        (pl.col(name) if name in there else pl.lit(None)).cast(kind).alias(name)
        for name, kind in schema.items()
    )


def fill(folder: Path, cells: int, each: int = 2) -> None:
    """Make a database in which `each` cases of every cell were counted."""
    upgrade(_url(folder))
    database = Database(_url(folder))
    apply_policy(database, policy_text(cells), Actor("bench"), START, salt=bytes(32))
    import_records(database, "bench", history(cells, each, START), START)
    Ticker(database, "bench", "filling").tick(DAY)


def _url(folder: Path) -> str:
    return f"sqlite:///{folder / 'live.db'}"


def live_ticks(folder: Path, cells: int) -> Callable[[], str]:
    """Fill a database in a process of its own; return a run of ticks over it."""
    command = [sys.executable, str(Path(__file__)), str(folder), str(cells)]
    subprocess.run(command, check=True)  # noqa: S603 - our own file
    few = history(min(cells, 100), 1, DAY + 3.5 * HOUR, apart=0)

    def run() -> str:
        database = Database(_url(folder))
        ticker = Ticker(database, "bench", "one")
        first = _took(lambda: ticker.tick(DAY + HOUR))
        idle_ticks = [_took(partial(ticker.tick, DAY + n * HOUR)) for n in (2, 3, 4)]
        rest = _resident()
        import_records(database, "bench", few, DAY + 5 * HOUR)
        before = _count_units(database)
        some = _took(lambda: ticker.tick(DAY + 6 * HOUR))
        if _count_units(database) != before + 2 * few.cases.height:  # by gates and by guards
            raise RuntimeError("the tick has not counted the new pairs")
        report_figure("first tick of a process", "s of CPU", [first])
        report_figure("idle tick", "s of CPU", idle_ticks, 1)
        report_figure("tick with 100 new pairs", "s of CPU", [some])
        return (
            f"first {first:.2f} s CPU, idle {min(idle_ticks) * 1000:.0f} ms, "
            f"100 new pairs {some * 1000:.0f} ms, at rest {rest:.0f} MiB"
        )

    return run


def _count_units(database: Database) -> int:
    with database.begin_read() as transaction:
        query = select(func.count()).select_from(counted_units)
        return int(transaction.execute(query).scalar_one())


def _took(work: Callable[[], object]) -> float:
    start = process_time()
    work()
    return process_time() - start


def _resident() -> float:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    fill(Path(sys.argv[1]), int(sys.argv[2]))
