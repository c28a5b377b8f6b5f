"""How often the guards of a policy suspend or narrow over whole replays of streams without a fault.

    python -m benchmarks.replayed_guards examples/bears/policy.yaml --seeds 5

120 days of seeded records: the policy's sites with the traffic, labels and agreement of its
`expect`, and simulated approvals. Unlike `benchmarks.operational_guards` everything is in it:
files, counting, gates, grants and all guards of the policy, also those that are added.
"""

import argparse
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl

from rollout.engine.events import Narrowed, Suspended, Widened
from rollout.engine.files.files import RecordPaths
from rollout.features.replay.replay import replay_files
from rollout.features.replay.requests import ReplayRequest
from rollout.kernel.calendar.instants import Site
from rollout.kernel.calendar.opening_hours import is_always_open, is_open
from rollout.kernel.policy.policy import Policy
from rollout.kernel.policy_files.reader import load_policy

START = datetime(2026, 6, 1, tzinfo=UTC)
DAYS = 120
NIGHT_SHARE = 8 / 60
MISSING, FAILED = 0.001, 0.002
SLOW = {"healthy": 0.01, "half the line": 0.025, "at the line": 0.05}


def draw_times(policy: Policy, site: Site, generator: np.random.Generator) -> list[datetime]:
    """Return the times of a site's cases: Poisson traffic with a gamma factor for each day."""
    per_day = policy.expect.units_per_day or 100.0
    hours = [window.hours for window in policy.windows]
    has_nights = any(map(is_always_open, hours))
    first, last = (6, 20) if has_nights else (8, 20)
    times = []
    for day in range(DAYS):
        count = generator.poisson(per_day * generator.gamma(6, 1 / 6))
        by_day = generator.uniform(first, last, count)
        at_night = generator.random(count) < (NIGHT_SHARE if has_nights else 0.0)
        local_hours = np.where(at_night, generator.uniform(last, 24 + first, count) % 24, by_day)
        midnight = START + timedelta(days=day) - _find_offset(site)
        times += [midnight + timedelta(hours=float(hour)) for hour in local_hours]
    return sorted(at for at in times if any(is_open(hour, site, at) for hour in hours))


def _find_offset(site: Site) -> timedelta:
    return START.astimezone(ZoneInfo(site.timezone)).utcoffset() or timedelta()


def draw_cases(policy: Policy, kind: str, seed: int) -> pl.DataFrame:
    """Return the cases of all sites with model, human and latency."""
    generator, lever = np.random.default_rng(seed), policy.levers[0]
    rows = [(site.id, at) for site in policy.sites for at in draw_times(policy, site, generator)]
    count, labels = len(rows), np.array(lever.labels)
    rare = policy.expect.labels
    rest = (1 - sum(rare.values())) / (len(labels) - len(rare))
    truth = generator.choice(
        len(labels), count, p=[rare.get(label, rest) for label in lever.labels]
    )
    is_wrong = generator.random(count) >= (policy.expect.agreement or 1.0)
    limit = next(g.condition.threshold for g in policy.guards if g.condition.measure.reads_latency)
    is_slow = generator.random(count) < SLOW[kind]
    return pl.DataFrame(
        {
            "case_key": np.arange(count),
            "site": [site for site, _ in rows],
            "at": [at for _, at in rows],
            "model": labels[(truth + is_wrong) % len(labels)],
            "human": labels[truth],
            "is_failed": generator.random(count) < FAILED,
            "is_missing": generator.random(count) < MISSING,
            "latency_ms": np.where(is_slow, 2000.0, 100.0) * limit,
            "wait": generator.integers(300, 7200, count),
            "reviewer": generator.integers(0, 4, count),
        }
    ).with_columns(case_key=pl.format("c-{}", "case_key"), reviewer=pl.format("r-{}", "reviewer"))


def write_records(cases: pl.DataFrame, folder: Path) -> RecordPaths:
    """Write predictions.csv and decisions.csv; return their paths."""
    predictions, decisions = folder / "predictions.csv", folder / "decisions.csv"
    label = pl.when("is_failed").then(None).otherwise("model")
    cases.select(
        "case_key",
        "site",
        occurred_at=_format(pl.col("at")),
        model_version=pl.lit("v1"),
        label=label,
        episode="case_key",
        confidence=pl.lit(0.95),
        latency_ms="latency_ms",
    ).write_csv(predictions)
    cases.filter(~pl.col("is_missing")).select(
        "case_key",
        "reviewer",
        label="human",
        decided_at=_format(pl.col("at") + pl.duration(seconds="wait")),
        exposure=pl.lit("blind"),
    ).write_csv(decisions)
    return RecordPaths(predictions, decisions)


def _format(column: pl.Expr) -> pl.Expr:
    return column.dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ")


def count_effects(path: Path, kind: str, seed: int) -> Counter[str]:
    """Return how often each guard suspended or narrowed a cell, and the number of widenings."""
    cases = draw_cases(load_policy(path), kind, seed)
    with TemporaryDirectory() as folder:
        request = ReplayRequest(path, write_records(cases, Path(folder)))
        events = replay_files(request).result.events
    effects: Counter[str] = Counter()
    for event in events:
        match event:
            case Suspended(guard=guard):
                effects[f"suspended: {guard}"] += 1
            case Narrowed(guard=guard):
                effects[f"narrowed: {guard}"] += 1
            case Widened():
                effects["widened"] += 1
    return effects


def list_rows(path: Path, kind: str, seeds: int) -> Iterator[str]:
    """Yield a row for each seed."""
    for seed in range(1, seeds + 1):
        started = process_time()
        effects = count_effects(path, kind, seed)
        text = ", ".join(f"{name} {count}" for name, count in sorted(effects.items()))
        yield f"{path.stem} {kind}, seed {seed}: {text} ({process_time() - started:.0f} s of CPU)"


def main() -> None:
    """Print the effects of each seed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("policy", type=Path)
    parser.add_argument("--kind", choices=SLOW, default="healthy")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    for row in list_rows(options.policy, options.kind, options.seeds):
        print(row, flush=True)


if __name__ == "__main__":
    main()
