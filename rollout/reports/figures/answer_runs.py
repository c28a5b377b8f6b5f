"""Runs of equal answers by one reviewer, and how unlikely they are.

A hundred times "nothing" means little where most cases show nothing. A run is therefore compared
with the answers of the other reviewers in the same cells, as if cases were independent.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rollout.core.policy.levers import Lever
from rollout.core.policy.policy import Policy
from rollout.reports.inputs.pairs import UNASSISTED_EXPOSURES
from rollout.tally.frames import VALUE_PREFIX, RecordFrames

MARKOV_METHOD = (
    "at most the expected number of such runs (Markov), answers distributed as in the "
    "others of the same cells, times the number of labels"
)
NO_OTHER_REVIEWERS = "no other reviewer to compare with"


@dataclass(frozen=True, slots=True)
class AnswerRun:
    """The least likely run of one reviewer: `longest` times `label` among `answers`.

    `chance` is an upper bound of the chance that a reviewer who answers like the others has a run
    as unlikely; None without other reviewers. Each unit counts once.
    """

    answers: int
    longest: int
    label: str
    chance: float | None
    method: str


NO_RUN = AnswerRun(0, 0, "", None, "no data")


def find_longest_runs(
    records: RecordFrames, facts: pl.DataFrame, policy: Policy
) -> dict[str, AnswerRun]:
    """Return the run of each reviewer on the policy's first lever with single labels.

    Empty without such a lever or any answer.
    """
    lever = next((lever for lever in policy.levers if lever.has_single_labels), None)
    if lever is None:
        return {}
    answers = _order_answers(records, facts, lever)
    if answers.is_empty():
        return {}
    labels = tuple(sorted(answers["label"].unique()))
    coded = _add_codes(answers, labels)
    counts = _count_labels(coded, (coded["cell"].n_unique(), len(labels)))
    return {
        str(name): _find_unlikeliest_run(own_answers, _compute_chances(own_answers, counts), labels)
        for (name,), own_answers in coded.partition_by(
            "reviewer", as_dict=True, maintain_order=True
        ).items()
    }


def _order_answers(records: RecordFrames, facts: pl.DataFrame, lever: Lever) -> pl.DataFrame:
    """Return the first unassisted answer of each reviewer and unit, sorted by time."""
    places = facts.select("case_key", "unit", "site", "window", "occurred_us")
    unassisted = records.decisions.filter(pl.col("exposure").is_in(UNASSISTED_EXPOSURES))
    answers = unassisted.select(
        "case_key", "reviewer", "at", label=VALUE_PREFIX + lever.id
    ).drop_nulls("label")
    located = answers.join(places, on="case_key").with_columns(
        at=pl.coalesce(pl.col("at").dt.epoch("us"), "occurred_us")
    )
    ordered = located.drop_nulls("at").sort("reviewer", "at", "case_key")
    return ordered.unique(["reviewer", "unit"], keep="first", maintain_order=True)


def _add_codes(answers: pl.DataFrame, labels: tuple[str, ...]) -> pl.DataFrame:
    """Return the answers with numbers of their cell and label: cell, code."""
    cells = answers.select("site", "window").unique().with_row_index("cell")
    codes = {label: code for code, label in enumerate(labels)}
    return answers.join(
        cells, on=["site", "window"], nulls_equal=True, maintain_order="left"
    ).with_columns(code=pl.col("label").replace_strict(codes, return_dtype=pl.Int64))


def _count_labels(answers: pl.DataFrame, shape: tuple[int, int]) -> NDArray[np.int64]:
    """Return how often each label was given in each cell, shape (cells, labels)."""
    places = answers["cell"].to_numpy().astype(np.int64) * shape[1] + answers["code"].to_numpy()
    return np.bincount(places, minlength=shape[0] * shape[1]).reshape(shape)


def _compute_chances(
    own_answers: pl.DataFrame, counts: NDArray[np.int64]
) -> NDArray[np.float64] | None:
    """Return the chance of each label in each answer's cell, from other reviewers.

    Shape (answers, labels). Half an answer is added to each label, so that no chance is zero.
    None if no other reviewer decided in any of the cells.

    Args:
        own_answers: of one reviewer, with their codes.
        counts: of all reviewers, shape (cells, labels).
    """
    others = counts - _count_labels(own_answers, counts.shape)
    own_cells, rows = np.unique(own_answers["cell"].to_numpy(), return_inverse=True)
    table = others[own_cells].astype(float)
    table += np.where(table.sum(axis=1, keepdims=True) > 0, 0.0, table.sum(axis=0))
    if not table.sum():
        return None
    table += 0.5
    return np.asarray((table / table.sum(axis=1, keepdims=True))[rows])


def _find_unlikeliest_run(
    own_answers: pl.DataFrame, chances: NDArray[np.float64] | None, labels: tuple[str, ...]
) -> AnswerRun:
    longest = dict(_find_longest(own_answers["label"]))
    if chances is None:
        label = max(longest, key=lambda name: (longest[name], name))
        return AnswerRun(own_answers.height, longest[label], label, None, NO_OTHER_REVIEWERS)
    bounds = {
        label: compute_expected_runs(chances[:, labels.index(label)], length)
        for label, length in longest.items()
    }
    label = min(bounds, key=lambda name: (bounds[name], name))
    chance = min(1.0, bounds[label] * len(labels))
    return AnswerRun(own_answers.height, longest[label], label, chance, MARKOV_METHOD)


def _find_longest(answers: pl.Series) -> Iterator[tuple[str, int]]:
    """Yield each answer with the length of its longest run."""
    runs = answers.rle().struct.unnest()
    yield from runs.group_by("value").agg(pl.col("len").max()).iter_rows()


def compute_expected_runs(chances: NDArray[np.float64], length: int) -> float:
    """Return the expected number of runs of at least `length` in independent trials.

    It is an upper bound of the chance of such a run, and close to it if that is small.

    Args:
        chances: chance of success of each trial, in (0, 1), shape (trials,).
        length: at least 1 and at most the number of trials.

    Five heads in a row among ten coins, where the chance is 0.109:

    >>> round(compute_expected_runs(np.full(10, 0.5), 5), 3)
    0.109
    """
    sums = np.concatenate([[0.0], np.cumsum(np.log(chances))])
    run_chances = np.exp(sums[length:] - sums[:-length])
    start_chances = np.concatenate([[1.0], 1 - chances[: len(run_chances) - 1]])
    return float(np.sum(start_chances * run_chances))
