"""The timeline of one cell over two years, from SQLite to the bytes of the API and of the page.

A cell with 40 judged cases a day, two versions and an incident a week. Time is that of the whole
request, the first of a process and later ones.

Example:
    PYTHONPATH=. python benchmarks/timeline.py
"""

import argparse
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
from console_pages import fit_schema, sign_in
from reported_figures import report_figure
from starlette.testclient import TestClient

from rollout.data.database.migrations import upgrade
from rollout.data.database.session import Database
from rollout.engine.decide.commands import Actor, OpenIncident
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
from rollout.live.rollout_state import execute_command
from rollout.live.tick_passes import Ticker

START, DAYS = datetime(2025, 1, 6, tzinfo=UTC), 731
END = START + timedelta(days=DAYS)
POLICY = """
rollout: bench
timezone: Europe/London
levers: [{id: parcel, labels: [damaged, sound]}]
sites: [dock]
evidence: {unit: case, grace: 1h, outside: blind}
gates: [{to: supervised, require: [{measure: agreement, at_least: 99%}]}]
guards: [{measure: agreement, at_least: 90%}]
tick: 1h
"""
VERSIONS = ("v1", "v2")
SPAN = f"from={START:%Y-%m-%dT%H:%M:%SZ}"
PATHS = {
    "API": f"/v1/rollouts/bench/cells/dock/always/timeline?{SPAN}",
    "page of the cell": "/console/rollouts/bench/cells/dock/always?span=all",
}
MOST_SECONDS, MOST_KB = 0.3, 150
TIMES = 20


def build_history(per_day: int) -> RecordFrames:
    """Return judged cases at even distances, answered by both versions."""
    number = per_day * DAYS
    random = np.random.default_rng(1)
    frame = pl.DataFrame(
        {
            "case_key": pl.Series(np.arange(number)).cast(pl.String).str.zfill(7),
            "at": pl.Series(np.arange(number) * (86_400_000_000 // per_day)).cast(pl.Duration("us"))
            + START,
            "right": np.where(np.arange(number) % 3 == 0, "damaged", "sound"),
            "wrong": np.where(np.arange(number) % 3 == 0, "sound", "damaged"),
            "reviewer": pl.Series(np.arange(number) % 12).cast(pl.String),
        }
    ).with_columns(site=pl.lit("dock"))
    answers = [
        frame.with_columns(
            version=pl.lit(version),
            **{
                "value:parcel": pl.when(pl.Series(random.random(number) < 0.05))
                .then("wrong")
                .otherwise("right")
            },
        )
        for version in VERSIONS
    ]
    judged = frame.with_columns(
        unsure=pl.lit(value=False), exposure=pl.lit("blind"), **{"value:parcel": pl.col("right")}
    )
    none = pl.DataFrame(schema=REMARK_SCHEMA)
    return RecordFrames(
        cases=fit_schema(frame.with_columns(occurred_at="at"), build_cases_schema()),
        predictions=fit_schema(pl.concat(answers), build_predictions_schema(["parcel"])),
        decisions=fit_schema(judged, build_decisions_schema(["parcel"])),
        outcomes=pl.DataFrame(schema=build_outcomes_schema(["parcel"])),
        rejected=none,
        notes=none,
        row_counts={},
    )


def fill(database: Database, per_day: int) -> None:
    """Store and count two years of the cell, with an incident a week."""
    apply_policy(database, POLICY, Actor("zoe"), START, salt=bytes(32))
    for week in range(DAYS // 7):
        at = START + timedelta(days=7 * week, hours=9)
        incident = OpenIncident(at=at, kind="unauthorized", reason=f"week {week}", about=str(week))
        execute_command(database, "bench", lambda _, command=incident: command)  # type: ignore[misc]
    import_records(database, "bench", build_history(per_day), END - timedelta(hours=2))
    Ticker(database, "bench", "filling").tick(END)


def measure(client: TestClient, name: str, path: str) -> None:
    """Print the seconds and bytes of a request, first and later."""
    wall, cpu, size = [], [], 0
    for _ in range(TIMES + 1):
        started, cpu_started = time.perf_counter(), time.process_time()
        answer = client.get(path)
        wall.append(time.perf_counter() - started)
        cpu.append(time.process_time() - cpu_started)
        answer.raise_for_status()
        if answer.history:
            raise RuntimeError(f"{path} leads to {answer.url}")
        size = len(answer.content)
    most_seconds, most_kb = (MOST_SECONDS, MOST_KB) if name == "API" else (None, None)
    print(report_figure(f"{name}, first of a process", "s", wall[:1]))
    print(report_figure(f"{name}, later", "s", wall[1:], most_seconds))
    print(report_figure(f"{name}, later", "s of CPU", cpu[1:]))
    print(report_figure(f"{name}, unpacked", "kB", [size / 1000]))
    sent = int(answer.headers["content-length"]) / 1000
    print(report_figure(f"{name}, as sent", "kB", [sent], most_kb))


def main() -> None:
    """Read the command line, fill a database, print the figures of each request."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=40, help="judged cases a day")
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder) / 'timeline.db'}"
        upgrade(url)
        database = Database(url)
        fill(database, options.cases)
        with sign_in(database, END + timedelta(hours=1)) as client:
            points = sum(len(v["points"]) for v in client.get(PATHS["API"]).json()["versions"])
            if not points:
                raise RuntimeError("the timeline is empty")
            print(f"{options.cases * DAYS:,} cases, {points} points of {len(VERSIONS)} versions")
            for name, path in PATHS.items():
                measure(client, name, path)


if __name__ == "__main__":
    main()
