"""Counting live: a tick that counts cases with two versions, beside one group-by of their pairs.

Cases of 200 cells arrive after a quiet tick and are due at the next, on SQLite, an hour later; one
in twelve differs. As in a service, what was imported is not scanned for garbage, and guards read
what arrived. The limit is Polars' group-by of the same rows by slot, cell, version and both
answers. At each size of the history, other processes make their first tick, for which nothing is
new.

Example:
    PYTHONPATH=. python benchmarks/counting.py --sizes 100000 1000000
"""

import argparse
import gc
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from time import process_time
from typing import Any

import polars as pl
from live_tick import DAY, HOUR, START, history, policy_text
from reported_figures import report_figure
from sqlalchemy import text

CELLS, BATCH = 200, 5_000  # cases that are imported and counted at once
DIFFERS = 12  # one case in so many
VERSIONS = ("v1", "v2")
SIZES = (100_000, 1_000_000)
TURNS = 3


def build_history(cases: int, day: int) -> Any:
    """Return a day's cases, with predictions of both versions."""
    from dataclasses import replace

    frames = history(CELLS, cases // CELLS, START + timedelta(days=day))
    number = pl.int_range(pl.len())
    differs = number % DIFFERS == 0
    label = pl.when(differs).then(pl.lit("damaged")).otherwise(pl.col("value:parcel"))
    predictions = [
        frames.predictions.with_columns(version=pl.lit(version), **{"value:parcel": label})
        for version in VERSIONS
    ]
    return replace(frames, predictions=pl.concat(predictions))


def group_pairs(frames: Any) -> pl.DataFrame:
    """Return the counts by slot, cell, version and both answers: the least there is to do."""
    pairs = frames.predictions.join(frames.decisions, on="case_key", suffix="_human")
    pairs = pairs.join(frames.cases, on="case_key", suffix="_case")
    occurred = pl.col("occurred_at").dt
    return pairs.group_by(
        occurred.truncate("1h").alias("slot"),
        occurred.hour() // 6,
        "site",
        "version",
        "value:parcel",
        "value:parcel_human",
    ).agg(pl.len())


def measure(folder: Path, sizes: Sequence[int]) -> Iterator[str]:
    """Yield the figures; the history grows from size to size."""
    from rollout.data.database.migrations import upgrade
    from rollout.data.database.session import Database
    from rollout.engine.decide.commands import Actor
    from rollout.features.records.record_import import import_records
    from rollout.live.policy_application import apply_policy
    from rollout.live.tick_passes import Ticker

    url = f"sqlite:///{folder / 'counting.db'}"
    upgrade(url)
    database = Database(url)
    apply_policy(database, policy_text(CELLS), Actor("bench"), START, salt=bytes(32))
    ticker, day = Ticker(database, "bench", "counting"), 0
    gc.freeze()
    stored = 0
    for size in sizes:
        spent, limits, ratios = [], [], []
        while stored < size:
            # a service ticks each hour; after 12 hours without one the guards read everything anew
            at = DAY + timedelta(days=day)
            ticker.tick(at - HOUR)
            frames = build_history(min(BATCH, size - stored), day)
            import_records(database, "bench", frames, at - HOUR)
            count = frames.cases.height
            spent.append(_measure_cpu(lambda: ticker.tick(at)) / count * 1e6)  # noqa: B023
            group_pairs(frames)
            limits.append(_measure_cpu(lambda: group_pairs(frames)) / count * 1e6)  # noqa: B023
            ratios.append(spent[-1] / limits[-1])
            stored, day = stored + count, day + 1
            if count_units(database) != 2 * len(VERSIONS) * stored:  # by gates and by guards
                raise RuntimeError(f"after {stored:,} cases not all are counted")
        what = f"{stored:,} cases"
        yield str(report_figure(f"{what}: counted, a case", "µs of CPU", spent, 60))
        yield str(report_figure(f"{what}: grouped, a case", "µs of CPU", limits))
        yield str(report_figure(f"{what}: counted / grouped", "ratio", ratios))
        first = [_measure_first_tick(url, day, turn) for turn in range(TURNS)]
        day += 1  # those ticks were of this day
        yield str(report_figure(f"{what}: first tick of a process", "s of CPU", first, 1))
    database.close()


def count_units(database: Any) -> int:
    """Return how many units are counted, by gates and by guards."""
    with database.begin_read() as transaction:
        count: int = transaction.execute(text("SELECT count(*) FROM counted_units")).scalar()
    return count


def _measure_cpu(work: Any) -> float:
    started = process_time()
    work()
    return process_time() - started


def _measure_first_tick(url: str, day: int, turn: int) -> float:
    command = [sys.executable, __file__, "--first-tick", url, "--day", str(day)]
    done = subprocess.run(  # noqa: S603 - our own file
        [*command, "--turn", str(turn)], check=True, capture_output=True, text=True
    )
    return float(json.loads(done.stdout))


def tick_once(url: str, day: int, turn: int) -> float:
    """Return the CPU seconds of the first tick of this process."""
    from rollout.data.database.session import Database
    from rollout.live.tick_passes import Ticker

    ticker = Ticker(Database(url), "bench", "first")
    return _measure_cpu(lambda: ticker.tick(DAY + timedelta(days=day) + (turn + 1) * HOUR))


def main() -> None:
    """Read the command line, print a line for each figure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="counted cases")
    parser.add_argument("--first-tick", metavar="URL", help="tick once and print the CPU seconds")
    parser.add_argument("--day", type=int, default=0, help="of the first tick")
    parser.add_argument("--turn", type=int, default=0, help="of the first tick")
    arguments = parser.parse_args()
    if arguments.first_tick:
        print(json.dumps(tick_once(arguments.first_tick, arguments.day, arguments.turn)))
        return
    with tempfile.TemporaryDirectory() as folder:
        for line in measure(Path(folder), arguments.sizes):
            print(line, flush=True)


if __name__ == "__main__":
    main()
