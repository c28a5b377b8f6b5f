"""How long the search for a cause takes at 100,000 judged units, with the read from SQLite.

One cell whose cases have six attributes, one of them different in each case. Two tables: the page's
figures for an operator, who reads all units, and for a reviewer, who reads closed ones in batches;
and the search alone over as many values as a search compares at most.

Example:
    python benchmarks/causes.py
"""

import argparse
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TypeVar

import numpy as np
import polars as pl
from reported_figures import report_figure

from rollout.data.database.migrations import upgrade
from rollout.data.database.session import Database
from rollout.engine.decide.commands import Actor
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.engine.evidence.frames import (
    ATTRIBUTE_PREFIX,
    REMARK_SCHEMA,
    RecordFrames,
    build_cases_schema,
    build_decisions_schema,
    build_outcomes_schema,
    build_predictions_schema,
)
from rollout.features.access.authentication import Authenticator
from rollout.features.incidents.incident_causes import load_cause
from rollout.features.records.record_import import import_records
from rollout.features.reports.figures.incident_cause import JudgedUnits, find_incident_cause
from rollout.kernel.statistics.value_search import MAX_VALUES, MAX_VALUES_OF_A_KIND, ValueKind
from rollout.kernel.units import UnitSelection
from rollout.live.clock import ManualClock
from rollout.live.policy_application import apply_policy
from rollout.live.service import build_service
from rollout.live.tick_passes import Ticker

Result = TypeVar("Result")
SECOND = 1_000_000
START, DAYS = datetime(2027, 1, 4, tzinfo=UTC), 25
END = START + timedelta(days=DAYS + 3)
ATTRIBUTES = {"camera": 100, "lens": 2, "firmware": 12, "crew": 40, "lane": 8}
"""How many values each attribute has; a sixth is different in each case."""
POLICY = """
rollout: bench
timezone: Europe/London
levers: [{id: parcel, labels: [damaged, sound]}]
sites: [dock]
evidence: {unit: case, grace: 1h, outside: blind}
gates: [{to: supervised, require: [{measure: agreement, at_least: 99%}]}]
tick: 1h
"""
READERS = {"operator": ("viewer", "operator"), "reviewer": ("viewer", "reviewer")}


def main() -> None:
    """Read the command line, print the CPU seconds of whole loads and of one search."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--units", type=int, default=100_000, help="judged units")
    parser.add_argument("--folder", type=Path, help="keep the database here, to measure again")
    arguments = parser.parse_args()
    with TemporaryDirectory() as made:
        print_loads(arguments.folder or Path(made), arguments.units)
    units = build_units(arguments.units)
    spent, cause = measure(lambda: find_incident_cause(units, int(units.occurred[-1])))
    values = len(cause.search.values)
    report_figure(f"search alone, {arguments.units} units", "s of CPU", [spent])
    print(f"search alone, {arguments.units} units, {values} values: {spent:.2f} s of CPU")


def print_loads(folder: Path, number: int) -> None:
    """Print what reading and searching a cell's units costs, by reader."""
    url = f"sqlite:///{folder / 'causes.db'}"
    if not (folder / "causes.db").exists():
        upgrade(url)
        fill(Database(url), number)
    database, clock = Database(url), ManualClock(END)
    service = build_service(database, Authenticator(database, clock), clock)
    query = UnitSelection("v1", "dock")
    for name, roles in READERS.items():
        caller = Caller(name, role_assignments=tuple(map(AssignedRole, roles)))
        spent, loaded = measure(partial(load_cause, service, caller, "bench", query, at=END))
        judged = loaded.cause.before.n + loaded.cause.since.n
        values = len(loaded.cause.search.values)
        report_figure(f"{name}, {number} units read and searched", "s of CPU", [spent])
        print(f"{name}, {judged} units read, {values} values: {spent:.2f} s of CPU")


def measure(load: Callable[[], Result]) -> tuple[float, Result]:
    """Return the CPU seconds of a call, the median of five, and its result."""
    took = []
    for _ in range(5):
        started = time.process_time()
        result = load()
        took.append(time.process_time() - started)
    return median(took), result


def fill(database: Database, number: int) -> None:
    """Store judged cases of one cell, more of which differ in the last fifth, and count them."""
    apply_policy(database, POLICY, Actor("zoe"), START, salt=bytes(32))
    import_records(database, "bench", build_history(number), END - timedelta(hours=1))
    Ticker(database, "bench", "filling").tick(END)


def build_history(number: int) -> RecordFrames:
    """Return cases at even distances over the days, answered by v1 and judged blind."""
    random = np.random.default_rng(1)
    step = DAYS * 86_400 * SECOND // number
    index = np.arange(number)
    share = np.where(index < number * 4 // 5, 0.03, 0.2)
    differs = random.random(number) < share
    values = {
        f"{ATTRIBUTE_PREFIX}{name}": pl.Series(random.integers(0, size, number)).cast(pl.String)
        for name, size in ATTRIBUTES.items()
    }
    frame = pl.DataFrame(
        {
            "case_key": pl.Series(index).cast(pl.String).str.zfill(7),
            "at": pl.Series(index * step).cast(pl.Duration("us")) + START,
            "value": np.where(index % 3 == 0, "damaged", "sound"),
            "other": np.where(index % 3 == 0, "sound", "damaged"),
            "differs": differs,
            "reviewer": pl.Series(index % 12).cast(pl.String),
            f"{ATTRIBUTE_PREFIX}serial": pl.Series(index).cast(pl.String),
            **values,
        }
    ).with_columns(site=pl.lit("dock"), version=pl.lit("v1"))
    answers = frame.with_columns(
        **{"value:parcel": pl.when("differs").then("other").otherwise("value")}
    )
    judged = frame.with_columns(
        unsure=pl.lit(value=False), exposure=pl.lit("blind"), **{"value:parcel": pl.col("value")}
    )
    none = pl.DataFrame(schema=REMARK_SCHEMA)
    names = [name.removeprefix(ATTRIBUTE_PREFIX) for name in ("serial", *ATTRIBUTES)]
    return RecordFrames(
        cases=_fit(frame.with_columns(occurred_at="at"), build_cases_schema(names)),
        predictions=_fit(answers, build_predictions_schema(["parcel"])),
        decisions=_fit(judged, build_decisions_schema(["parcel"])),
        outcomes=pl.DataFrame(schema=build_outcomes_schema(["parcel"])),
        rejected=none,
        notes=none,
        row_counts={},
    )


def _fit(frame: pl.DataFrame, schema: dict[str, pl.DataType]) -> pl.DataFrame:
    """Return a frame with the columns of a schema, null where it has none."""
    return frame.select(
        (pl.col(name) if name in frame.columns else pl.lit(None)).cast(kind).alias(name)
        for name, kind in schema.items()
    )


def build_units(number: int) -> JudgedUnits:
    """Return units a second apart, of which more differ in the last fifth."""
    random = np.random.default_rng(1)
    names = tuple(f"v{value}" for value in range(2 * MAX_VALUES_OF_A_KIND))
    kinds = tuple(
        ValueKind(f"k{kind}", names, random.integers(0, len(names), number))
        for kind in range(MAX_VALUES // MAX_VALUES_OF_A_KIND)
    )
    index = np.arange(number)
    share = np.where(index < number * 4 // 5, 0.03, 0.2)
    return JudgedUnits(index * SECOND, index // 86_400, random.random(number) < share, kinds)


if __name__ == "__main__":
    main()
