"""Runs of one answer: how long somebody said the same, and how unlikely that is.

A hundred times "nothing" is no sign where nothing is what there mostly is. So a run is held against
what everybody else answers in the same cells: the chance is that of cases drawn independently from
their answers.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rollout.core.policy.levers import Lever
from rollout.core.policy.policy import Policy
from rollout.reports.inputs.pairs import UNSEEN, case_facts
from rollout.tally.frames import VALUE, Records

BY_OTHERS = (
    "at most the expected number of such runs (Markov), answers drawn as others give them in the "
    "same cells, times the number of labels"
)
NOBODY_ELSE = "nobody else to compare with"


@dataclass(frozen=True, slots=True)
class Run:
    """The run that is least likely by chance: so many times `label` in a row, of `answers`.

    `chance` is an upper bound on the chance that anybody who answers as the others do has a run as
    unlikely, None where there is nobody to compare with. Units that are bursts count once.
    """

    answers: int
    longest: int
    label: str
    chance: float | None
    method: str


NO_RUN = Run(0, 0, "", None, "no data")


def longest_runs(records: Records, cases: pl.DataFrame, policy: Policy) -> dict[str, Run]:
    """Return each person's run, on the policy's first lever that has labels; none without one."""
    lever = next((lever for lever in policy.levers if lever.number is None), None)
    if lever is None:
        return {}
    answers = _answers(records, cases, lever)
    labels = tuple(sorted(answers["label"].unique()))
    return {
        str(name): _run(own_answers, _chances(own_answers, answers, labels), labels)
        for (name,), own_answers in answers.partition_by(
            "reviewer", as_dict=True, maintain_order=True
        ).items()
    }


def _answers(records: Records, cases: pl.DataFrame, lever: Lever) -> pl.DataFrame:
    """Return unseen answers in the order in which they were given, the first of each unit."""
    facts = case_facts(records, cases).select("case_key", "unit", "site", "window", "t")
    unassisted = records.decisions.filter(pl.col("exposure").is_in(UNSEEN))
    answers = unassisted.select("case_key", "reviewer", "at", label=VALUE + lever.id).drop_nulls(
        "label"
    )
    located = answers.join(facts, on="case_key").with_columns(
        at=pl.coalesce(pl.col("at").dt.epoch("us"), "t")
    )
    ordered = located.drop_nulls("at").sort("reviewer", "at", "case_key")
    return ordered.unique(["reviewer", "unit"], keep="first", maintain_order=True)


def _chances(
    own: pl.DataFrame, said: pl.DataFrame, labels: tuple[str, ...]
) -> NDArray[np.float64] | None:
    """Return how likely each label was in each answer's cell, by what others say there.

    Shape (answers, labels). Half an answer of each label is added, so that nothing is impossible.
    None where nobody else judged in any of the cells.
    """
    cell = ["site", "window"]
    others = said.filter(pl.col("reviewer") != own["reviewer"][0])
    counts = others.group_by(*cell, "label").len()
    wide = own.select(*cell).unique(maintain_order=True)
    for label in labels:
        label_counts = counts.filter(pl.col("label") == label).select(
            *cell, pl.col("len").alias(label)
        )
        wide = wide.join(label_counts, on=cell, how="left", nulls_equal=True, maintain_order="left")
    table = wide.select(labels).fill_null(0).to_numpy().astype(float)
    table += np.where(table.sum(axis=1, keepdims=True) > 0, 0.0, table.sum(axis=0))
    if not table.sum():
        return None
    rows = own.select(*cell).join(
        wide.select(cell).with_row_index("row"), on=cell, nulls_equal=True, maintain_order="left"
    )
    table += 0.5
    return np.asarray((table / table.sum(axis=1, keepdims=True))[rows["row"].to_numpy()])


def _run(own: pl.DataFrame, chances: NDArray[np.float64] | None, labels: tuple[str, ...]) -> Run:
    longest = dict(_longest(own["label"]))
    if chances is None:
        label = max(longest, key=lambda name: (longest[name], name))
        return Run(own.height, longest[label], label, None, NOBODY_ELSE)
    bounds = {
        label: expected_runs(chances[:, labels.index(label)], length)
        for label, length in longest.items()
    }
    label = min(bounds, key=lambda name: (bounds[name], name))
    chance = min(1.0, bounds[label] * len(labels))
    return Run(own.height, longest[label], label, chance, BY_OTHERS)


def _longest(answers: pl.Series) -> Iterator[tuple[str, int]]:
    """Yield each answer that was given with the length of its longest run."""
    runs = answers.rle().struct.unnest()
    yield from runs.group_by("value").agg(pl.col("len").max()).iter_rows()


def expected_runs(chances: NDArray[np.float64], length: int) -> float:
    """Return how many runs of at least `length` are to be expected among independent trials.

    It bounds the chance of any from above, and is close to it where that is small.

    Args:
        chances: of each trial to succeed, in (0, 1), shape (trials,).
        length: at least 1 and at most the number of trials.

    Five heads in a row among ten coins, where the chance is 0.109:

    >>> round(expected_runs(np.full(10, 0.5), 5), 3)
    0.109
    """
    sums = np.concatenate([[0.0], np.cumsum(np.log(chances))])
    run_chances = np.exp(sums[length:] - sums[:-length])
    start_chances = np.concatenate([[1.0], 1 - chances[: len(run_chances) - 1]])
    return float(np.sum(start_chances * run_chances))
