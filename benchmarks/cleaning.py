"""How many wrong labels the cleaning list finds, beside cleanlab's.

`PYTHONPATH=. python benchmarks/cleaning.py` prints precision and recall with as many cases listed
as `confident_learning` of cleanlab lists, and the curve of precision over the length of the list.
The data are people's labels of CIFAR-10 (../shared/data/cifar10-humans), with planted errors, and
with the label of one person each. `--cleanlab PYTHON` names the interpreter of an environment in
which cleanlab is installed; without it only the computation below stands in for it.
"""

import argparse
import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rollout.engine.evidence.frames import (
    PROBABILITY_SCHEMA,
    REMARK_SCHEMA,
    RecordFrames,
    build_cases_schema,
    build_decisions_schema,
    build_outcomes_schema,
    build_predictions_schema,
)
from rollout.features.reports.figures.label_issues import build_work_list
from rollout.kernel.policy.policy import Policy
from rollout.kernel.policy_files.reader import parse_policy

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

DATA = Path(__file__).parents[2] / "shared/data/cifar10-humans"
PLANTED_SHARE = 0.05
SEEDS = range(10)
CURVE = (50, 100, 200, 400, 600, 800, 1000)  # lengths of the list
CLEANLAB = """
import json, sys
import numpy as np
from cleanlab.filter import find_label_issues
runs = np.load(sys.argv[1])
found = [
    find_label_issues(
        labels, runs["probabilities"], filter_by="confident_learning",
        return_indices_ranked_by="self_confidence", n_jobs=1,
    ).tolist()
    for labels in runs["labels"]
]
print(json.dumps(found))
"""


@dataclass(frozen=True)
class LabelData:
    """One model's probabilities, people's counts and the true labels, shape (cases, labels)."""

    labels: tuple[str, ...]
    keys: tuple[str, ...]
    probabilities: Floats
    counts: Ints
    truth: Ints


def load_label_data(
    model: str = "cleanlab-cv", folder: Path = DATA, cases: int | None = None
) -> LabelData:
    """Return the records of one model on the first cases, by default on all."""
    predictions = pl.read_csv(folder / "predictions.csv.gz").filter(pl.col("model") == model)
    columns = [name for name in predictions.columns if name.startswith("p_")]
    labels = tuple(name.removeprefix("p_") for name in columns)
    joined = predictions.join(pl.read_csv(folder / "human_counts.csv.gz"), on="case_key")
    joined = joined.join(
        pl.read_csv(folder / "outcomes.csv.gz").rename({"label": "truth"}), on="case_key"
    ).sort("case_key")
    places = {label: place for place, label in enumerate(labels)}
    truth = joined["truth"].replace_strict(places, return_dtype=pl.Int64)
    return LabelData(
        labels,
        tuple(joined["case_key"])[:cases],
        joined.select(columns).to_numpy()[:cases],
        joined.select(labels).to_numpy().astype(np.int64)[:cases],
        truth.to_numpy()[:cases],
    )


def plant_errors(data: LabelData, seed: int) -> Ints:
    """Return true labels of which 5 % are replaced by another at random."""
    draws = np.random.default_rng(seed)
    is_wrong = draws.random(len(data.truth)) < PLANTED_SHARE
    shift = draws.integers(1, len(data.labels), len(data.truth))
    return np.where(is_wrong, (data.truth + shift) % len(data.labels), data.truth)


def draw_person(data: LabelData, seed: int) -> Ints:
    """Return the label of one person for each case, picked at random."""
    draws = np.random.default_rng(seed)
    ends = np.cumsum(data.counts, axis=1)
    picked = draws.random(len(ends)) * ends[:, -1]
    return np.asarray((picked[:, None] >= ends).sum(axis=1), np.int64)


def list_label_errors(data: LabelData, labels: Ints) -> Ints:
    """Return the cases of the cleaning list, first to last."""
    policy = build_policy(data.labels)
    issues = build_work_list(build_records(data, labels), build_placement(), policy, {})
    places = {key: place for place, key in enumerate(data.keys)}
    return np.array([places[key] for key in issues.case_keys], np.int64)


def find_confident_issues(probabilities: Floats, labels: Ints) -> Ints:
    """Return what confident learning lists, ranked by the probability of the given label.

    A case is listed if the most probable of the labels whose probability reaches the mean
    probability over the cases with that label is another than its own, unless its own is the most
    probable of all.

    Source: Northcutt, Jiang and Chuang, Journal of Artificial Intelligence Research 70 (2021) 1373.
    """
    own = probabilities[np.arange(len(labels)), labels]
    means = np.array([own[labels == label].mean() for label in range(probabilities.shape[1])])
    reaching = np.where(probabilities >= means - 1e-6, probabilities, -1.0)
    is_confident = reaching.max(axis=1) > 0
    is_issue = is_confident & (reaching.argmax(axis=1) != labels)
    is_issue &= probabilities.argmax(axis=1) != labels
    listed = np.flatnonzero(is_issue)
    return listed[np.argsort(own[listed], kind="stable")]


def compute_precision_recall(listed: Ints, is_wrong: NDArray[np.bool_]) -> tuple[float, float]:
    """Return the share of wrong labels among the listed, and of the listed among the wrong."""
    hits = int(is_wrong[listed].sum())
    return hits / max(len(listed), 1), hits / max(int(is_wrong.sum()), 1)


def build_policy(labels: Sequence[str]) -> Policy:
    """Return a policy of one lever with these labels."""
    names = ", ".join(labels)
    actions = ", ".join(f"{label}: {label}" for label in labels)
    lever = f"id: label, labels: [{names}], actions: {{{actions}}}, costs: [{{cost: 1}}]"
    return parse_policy(
        "rollout: pictures\ntimezone: UTC\nsites: [lab]\nevidence: {unit: case}\n"
        f"levers: [{{{lever}}}]\n"
        "gates: [{to: supervised, require: [{measure: agreement, at_least: 90%}]}]\n"
    )


def build_records(data: LabelData, labels: Ints) -> RecordFrames:
    """Return the records of the model and of one reviewer, who gave the labels."""
    keys, names = list(data.keys), np.array(data.labels)
    cases, remarks = len(keys), pl.DataFrame(schema=REMARK_SCHEMA)
    answers = {"value:label": names[data.probabilities.argmax(axis=1)]}
    return RecordFrames(
        cases=_fill_frame(build_cases_schema(), case_key=keys, site=["lab"] * cases),
        predictions=_fill_frame(
            build_predictions_schema(["label"]), case_key=keys, version=["v1"] * cases,
            confidence=data.probabilities.max(axis=1), **answers,
        ),
        decisions=_fill_frame(
            build_decisions_schema(["label"]), case_key=keys, reviewer=["ana"] * cases,
            exposure=["blind"] * cases, **{"value:label": names[labels]},
        ),
        outcomes=pl.DataFrame(schema=build_outcomes_schema(["label"])),
        rejected=remarks, notes=remarks, row_counts={},
        probabilities=_fill_frame(
            PROBABILITY_SCHEMA, case_key=np.repeat(keys, len(names)),
            version=["v1"] * cases * len(names), label=np.tile(names, cases),
            probability=data.probabilities.ravel(),
        ),
    )  # fmt: skip


def _fill_frame(schema: Mapping[str, pl.DataType], **columns: Any) -> pl.DataFrame:
    frame = pl.DataFrame(columns)
    missing = [
        pl.lit(None, kind).alias(name) for name, kind in schema.items() if name not in columns
    ]
    casts = (pl.col(name).cast(kind) for name, kind in schema.items())
    return frame.with_columns(missing).select(casts)


def build_placement() -> pl.DataFrame:
    """Return cases in cells: none."""
    columns = {"case_key": pl.String, "window": pl.String, "unit": pl.String}
    return pl.DataFrame(schema={**columns, "occurred_us": pl.Int64})


def run_cleanlab(python: str, data: LabelData, runs: Sequence[Ints], folder: Path) -> list[Ints]:
    """Return what cleanlab lists for each run, ranked."""
    file = folder / "runs.npz"
    np.savez(file, probabilities=data.probabilities, labels=np.stack(runs))
    done = subprocess.run(  # noqa: S603 - the interpreter is named by who runs this
        [python, "-c", CLEANLAB, str(file)], capture_output=True, text=True, check=True
    )
    return [np.array(indexes, np.int64) for indexes in json.loads(done.stdout)]


def main() -> None:
    """Print the table and the curves."""
    parser = argparse.ArgumentParser(description="wrong labels found, beside cleanlab")
    parser.add_argument("--cleanlab", help="interpreter of an environment with cleanlab")
    parser.add_argument("--model", default="cleanlab-cv")
    options = parser.parse_args()
    data = load_label_data(options.model)
    if not options.cleanlab:
        print("cleanlab itself is left out: --cleanlab names no interpreter that has it")
    for name, draw_labels in (("planted", plant_errors), ("one person", draw_person)):
        runs = [draw_labels(data, seed) for seed in SEEDS]
        ranked = {"here": [list_label_errors(data, labels) for labels in runs]}
        ranked["confident learning"] = [
            find_confident_issues(data.probabilities, labels) for labels in runs
        ]
        if options.cleanlab:
            with tempfile.TemporaryDirectory() as folder:
                ranked["cleanlab"] = run_cleanlab(options.cleanlab, data, runs, Path(folder))
        length_by_run = [len(listed) for listed in ranked["confident learning"]]
        print(f"{name}: {np.mean(length_by_run):.0f} cases listed of {len(data.keys):,}")
        for source, lists in ranked.items():
            _print_source(source, data, runs, lists, length_by_run)


def _print_source(
    source: str, data: LabelData, runs: Sequence[Ints], lists: Sequence[Ints], lengths: list[int]
) -> None:
    """Print precision and recall at equal length, and precision along the list."""
    pairs = list(zip(runs, lists, strict=True))
    scores = [
        compute_precision_recall(listed[:length], labels != data.truth)
        for (labels, listed), length in zip(pairs, lengths, strict=True)
    ]
    precision, recall = np.mean(scores, axis=0)
    curve = ", ".join(
        f"{size}: {_compute_mean_precision(data, pairs, size):.3f}"
        for size in CURVE
        if all(len(listed) >= size for listed in lists)
    )
    print(f"  {source:20} precision {precision:.4f}, recall {recall:.4f}; first {curve}")


def _compute_mean_precision(
    data: LabelData, pairs: Sequence[tuple[Ints, Ints]], size: int
) -> float:
    return float(
        np.mean([np.mean((labels != data.truth)[listed[:size]]) for labels, listed in pairs])
    )


if __name__ == "__main__":
    main()
