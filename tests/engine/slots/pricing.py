"""A pricing stream with a profit: made from a seed, for a model that earns more or only agrees.

The outcome of a sale depends on who set its price, as in a recorded experiment: the stream takes
the arms from the sampling values of the replay's salt and from the stages given to it.
"""

import csv
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rollout.engine.files.files import RecordPaths
from rollout.engine.slots.options import ReplayOptions
from rollout.features.replay.replay import ReplayedFiles, replay_files
from rollout.features.replay.requests import ReplayRequest
from rollout.kernel.statistics.sampling import compute_sampling_value

START = datetime(2027, 3, 1, tzinfo=UTC)
SALT = bytes(32)
POLICY = """
rollout: pricing
timezone: UTC
charter: {objective: more profit per sale, cost_in: EUR}
levers: [{id: price, number: {in: EUR, from: 1, to: 500, tolerance: 5%}}]
sites: [shop]
stages: [{id: trial, share: 10%, audit: 20%}, {id: half, share: 50%}]
outcomes: [{id: profit, from: -20, to: 60, in: EUR, better: more, closes: 2d, missing_at_most: 5%}]
evidence: {unit: case, grace: 2h}
gates:
  - {to: trial, require: [{measure: agreement, at_least: 40%}]}
  - {to: half, require: [{measure: gain, of: profit, at_least: 0}]}
guards: [{measure: gain, of: profit, at_least: -1, false_alarm_every: 2000}]
tick: 1h
"""


def write_stream(
    folder,
    *,
    gain,
    differs,
    days=45,
    a_day=40,
    shares=(),
    missing=0.01,
    seed=16,
    has_gain=False,
):
    """Write the stream's files and policy; return the paths.

    `gain` is what a price of the model brings in EUR; `differs` the share of prices beyond the
    tolerance. `shares` are pairs of a start and the model's share from then on. With `has_gain`
    predictions have their arm, blank where no share holds.
    """
    rng = random.Random(seed)  # noqa: S311 - a seeded stream, no secret
    predictions, decisions, outcomes = [], [], []
    for number in range(days * a_day):
        at = START + timedelta(days=number / a_day)
        key, price = f"sale-{number}", rng.uniform(20, 80)
        answer = price * (1.2 if rng.random() < differs else 1.01)
        share = max((share for start, share in shares if start <= at), default=0.0)
        is_model = compute_sampling_value(SALT, "stage", key) >= 1 - share
        profit = rng.gauss(18 + price / 20, 4) + (gain if is_model else 0.0)
        arm = ("model" if is_model else "human") if share and has_gain else ""
        predictions.append((key, "shop", at.isoformat(), "v1", f"{answer:.2f}", arm))
        decided_at = (at + timedelta(minutes=5)).isoformat()
        decisions.append((key, "ana", f"{price:.2f}", "blind", decided_at))
        if rng.random() >= missing:
            known_at = at + timedelta(hours=rng.uniform(1, 40))
            outcomes.append((key, f"{profit:.2f}", known_at.isoformat()))
    files = {
        "predictions": (
            ("case_key", "site", "occurred_at", "model_version", "label", "sampled_arm"),
            predictions,
        ),
        "decisions": (("case_key", "reviewer", "label", "exposure", "decided_at"), decisions),
        "outcomes": (("case_key", "profit", "outcome_at"), outcomes),
    }
    for name, (header, rows) in files.items():
        with (folder / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([header, *rows])
    (folder / "policy.yaml").write_text(POLICY)
    return RecordPaths(**{name: folder / f"{name}.csv" for name in files})


def replay_pricing(
    folder: Path, policy: str = POLICY, *, days_only: bool = False, **stream
) -> ReplayedFiles:
    """Write the stream and replay it; `days_only` its first days, until the trial."""
    if days_only:
        stream["days"] = min(stream["days"], 9)
    paths = write_stream(folder, **stream)
    (folder / "policy.yaml").write_text(policy)
    return replay_files(ReplayRequest(folder / "policy.yaml", paths, options=ReplayOptions(SALT)))


def list_widenings(replayed: ReplayedFiles) -> list[tuple[str, datetime]]:
    """Return the stages that were reached, with their times."""
    return [
        (event.to_stage, event.at)
        for event in replayed.result.events
        if type(event).__name__ == "Widened"
    ]
