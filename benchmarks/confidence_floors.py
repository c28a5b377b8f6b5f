"""How much a model decides with a gate for each confidence floor, by replays of real pictures.

    PYTHONPATH=. python benchmarks/confidence_floors.py --seeds 100

The records are 2,000 CIFAR-10 test pictures with the human choices of Peterson et al. 2019
(../shared/data/cifar10-humans) and three networks. Each seed puts the pictures in another order, 25
a slot, and picks one human choice for each. Times are given here, and approvals come at once. It is
what `rollout replay` does, compared with one gate for the whole cell and with plain thresholds.
"""

import argparse
import csv
import gzip
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import sha256
from itertools import repeat
from pathlib import Path
from random import Random

import numpy as np
import polars as pl

from rollout.engine.files.files import RecordPaths
from rollout.engine.slots.options import ReplayOptions
from rollout.features.replay.replay import (
    ReplayedFiles,
    add_whole_cell_replay,
    build_replay_inputs,
    replay_files,
)
from rollout.features.replay.requests import ReplayRequest
from rollout.features.reports.figures.methods import (
    MethodOutcome,
    build_model_cases,
    compare_methods,
)
from rollout.features.reports.inputs.inputs import assign_deciders

DATA = Path(__file__).parents[2] / "shared/data/cifar10-humans"
MODELS = ("cleanlab-cv", "resnet-110", "densenet-bc-L190-k40")
CASES_PER_SLOT, SLOT = 25, timedelta(minutes=15)
START, DELAY = datetime(2027, 1, 4, tzinfo=UTC), timedelta(seconds=5)
LADDER = "[0%, 60%, 80%, 90%, 97%]"
POLICY = """
rollout: pictures
timezone: UTC
levers:
  - id: thing
    labels: [airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck]
sites: [lab]
stages: [{{id: autonomous, audit: {audit}, lasts: 3650d}}]
evidence: {{unit: case, grace: 1m, outside: blind, confidence_floors: {floors}}}
gates:
  - to: autonomous
    require: [{{measure: agreement, at_least: 90%}}]
    minimum: {{units: 100, days: 0}}
    approvals: [operator]
{risk}tick: 15m
"""
FIRST_ATTEMPT_5 = "    risk: 13.0619%  # of which the year's first attempt has .05\n"


@dataclass(frozen=True)
class PictureSetting:
    """A policy of the pictures: risk of the gate, share audited, floors."""

    name: str
    risk: str = FIRST_ATTEMPT_5
    audit: str = "100%"
    floors: str = LADDER

    @property
    def policy(self) -> str:
        """Return the policy file."""
        return POLICY.format(audit=self.audit, risk=self.risk, floors=self.floors)


SETTINGS = (
    PictureSetting("first attempt .05, all audited"),
    PictureSetting("first attempt .05, 30 % audited", audit="30%"),
    PictureSetting("default risk, all audited", risk=""),
    PictureSetting("default risk, 30 % audited", risk="", audit="30%"),
)

PictureRow = tuple[str, str, str, float, str]  # key, label, human choice, confidence, truth


@cache
def read_pictures() -> tuple[
    dict[str, list[str]], dict[str, dict[str, tuple[str, float]]], dict[str, str]
]:
    """Return the human choices, each model's label and confidence, and the true labels."""
    choices: dict[str, list[str]] = defaultdict(list)
    predictions: dict[str, dict[str, tuple[str, float]]] = defaultdict(dict)
    for row in _read_rows("decisions-first-2000.csv.gz"):
        choices[row["case_key"]].append(row["label"])
    for row in _read_rows("predictions.csv.gz"):
        predictions[row["model"]][row["case_key"]] = (row["label"], float(row["confidence"]))
    truth = {row["case_key"]: row["label"] for row in _read_rows("outcomes.csv.gz")}
    return choices, predictions, truth


def _read_rows(name: str) -> Iterable[dict[str, str]]:
    with gzip.open(DATA / name, "rt", encoding="utf-8") as file:
        yield from csv.DictReader(file)


def list_picture_rows(model: str, seed: int) -> list[PictureRow]:
    """Return the pictures in a seed's order, with one human choice each."""
    choices, predictions, truth = read_pictures()
    pick = Random(seed)  # noqa: S311 - an order, no secret
    keys = sorted(choices)
    pick.shuffle(keys)
    return [
        (key, label, pick.choice(choices[key]), confidence, truth[key])
        for key in keys
        for label, confidence in [predictions[model][key]]
    ]


def replay_pictures(folder: Path, model: str, seed: int, setting: PictureSetting) -> ReplayedFiles:
    """Replay the pictures in a seed's order under a policy."""
    paths = RecordPaths(
        folder / "predictions.csv", folder / "decisions.csv", outcomes=folder / "outcomes.csv"
    )
    rows = list_picture_rows(model, seed)
    times = [START + SLOT * (i // CASES_PER_SLOT) for i in range(len(rows))]
    times = [at + timedelta(seconds=20 * (i % CASES_PER_SLOT)) for i, at in enumerate(times)]
    keys, labels, choices, confidences, truth = zip(*rows, strict=True)
    pl.DataFrame(
        {
            "case_key": keys,
            "site": "lab",
            "occurred_at": [at.isoformat() for at in times],
            "model_version": model,
            "label": labels,
            "confidence": confidences,
        }
    ).write_csv(paths.predictions)
    decided_at = [(at + DELAY).isoformat() for at in times]
    pl.DataFrame(
        {
            "case_key": keys,
            "reviewer": "ann",
            "label": choices,
            "decided_at": decided_at,
        }
    ).write_csv(paths.decisions)
    pl.DataFrame({"case_key": keys, "label": truth}).write_csv(folder / "outcomes.csv")
    (folder / "policy.yaml").write_text(setting.policy, encoding="utf-8")
    salt = sha256(str(seed).encode()).digest()
    options = ReplayOptions(salt=salt, approval_delay=timedelta(0))
    return replay_files(ReplayRequest(folder / "policy.yaml", paths, options=options))


def compare_picture_methods(
    model: str, seed: int, setting: PictureSetting
) -> tuple[MethodOutcome, ...]:
    """Return what the ladder, the whole cell's gate and plain thresholds give in one run."""
    with tempfile.TemporaryDirectory() as folder:
        replayed = replay_pictures(Path(folder), model, seed, setting)
        inputs = add_whole_cell_replay(build_replay_inputs(replayed), replayed)
    decided_cases = assign_deciders(inputs)
    return compare_methods(inputs, decided_cases, build_model_cases(inputs, decided_cases))


def print_table(
    setting: PictureSetting, rows: Sequence[Sequence[MethodOutcome]], model: str
) -> None:
    """Print the mean of each way over the runs."""
    for outcomes in zip(*rows, strict=True):
        prices = [outcome.model_cost for outcome in outcomes]
        total = outcomes[0].human_decisions + prices[0].cases - prices[0].audited
        shares = np.array([price.cases for price in prices]) / total
        error = shares.std(ddof=1) / np.sqrt(len(shares)) if len(shares) > 1 else 0.0
        human = np.mean([outcome.human_decisions for outcome in outcomes])
        wrong = np.mean([price.wrong_action.count for price in prices])
        differ = np.mean([price.human_wrong_action or 0 for price in prices])
        name = f"{outcomes[0].kind} {outcomes[0].floor}".strip()
        print(
            f"| {setting.name} | {model} | {name} | {shares.mean():.3f} (± {error:.3f}) |"
            f" {human:,.0f} | {wrong:.1f} | {differ:.1f} |",
            flush=True,
        )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="confidence floors on real pictures")
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    if not DATA.exists():
        print(f"0 runs: the records are not on this machine: {DATA}")
        return
    print("| setting | model | way | decided by the model | human decisions | wrong | of humans |")
    print("|---|---|---|---|---|---|---|")
    with ProcessPoolExecutor(options.processes) as pool:
        for setting in SETTINGS:
            for model in MODELS:
                seeds = range(options.seeds)
                rows = list(
                    pool.map(compare_picture_methods, repeat(model), seeds, repeat(setting))
                )
                print_table(setting, rows, model)


if __name__ == "__main__":
    main()
