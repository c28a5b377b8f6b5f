"""Answers that no lever knows: a label that the policy does not list, a number out of its range.

They are never acted on and count as disagreements, so a single misspelt label can look like a
model that is wrong half of the time. A report says so.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from rollout.core.policy.levers import Lever
from rollout.core.policy.policy import Policy
from rollout.tally.frames import VALUE, Records

MOST = 5  # different answers that are named


@dataclass(frozen=True, slots=True)
class Unlisted:
    """What one side answered beside what a lever offers.

    Attributes:
        lever: its id.
        by: `model` or `people`.
        count: how many such answers there are.
        answers: the most frequent ones with their counts, at most five.
    """

    lever: str
    by: str
    count: int
    answers: tuple[tuple[str, int], ...]


def unlisted_answers(records: Records, policy: Policy) -> tuple[Unlisted, ...]:
    """Return every side and lever with such answers; empty where all answers are known ones."""
    sides = {"model": records.predictions, "people": records.decisions}
    return tuple(
        item
        for lever in policy.levers
        for side, frame in sides.items()
        for item in _of_side(lever, side, frame[VALUE + lever.id].drop_nulls())
    )


def _of_side(lever: Lever, by: str, said: pl.Series) -> Iterator[Unlisted]:
    unknown = said.filter(~_offered(lever, said))
    if unknown.len():
        counts = unknown.rename("answer").value_counts(name="n")
        top = counts.sort("n", "answer", descending=[True, False]).head(MOST)
        yield Unlisted(lever.id, by, unknown.len(), tuple(top.iter_rows()))


def _offered(lever: Lever, said: pl.Series) -> pl.Series:
    if lever.number is None:
        return said.is_in(list(lever.labels))
    return said.cast(pl.Float64).is_between(lever.number.low, lever.number.high)
