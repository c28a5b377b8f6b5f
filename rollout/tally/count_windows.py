"""Counts of one span of a cell's evidence at any slot, without counting again."""

from functools import cached_property

import numpy as np

from rollout.core.policy.cell_evidence import Counted
from rollout.core.policy.measures import Condition
from rollout.tally.unit_arrays import Bools, Ints, Kinds, Rows


class Span:
    """Gate rows that a span holds, cumulated; `at` reads them off at a slot.

    Args:
        rows: the rows of the span, sorted by slot.
        kinds: the history's classes.
        conditions: the measures whose counts are wanted.
    """

    def __init__(self, rows: Rows, kinds: Kinds, conditions: tuple[Condition, ...]) -> None:
        self._rows = rows
        self._kinds = kinds
        self._conditions = {condition.key: condition for condition in conditions}

    @cached_property
    def slots(self) -> Ints:
        """Return the slots in which something is counted, ascending."""
        return np.unique(self._rows.slot)

    def places(self, slots: Ints) -> Ints:
        """Return how many rows are counted by each slot."""
        return np.searchsorted(self._rows.slot, slots, side="right")

    def counts(self, condition: Condition) -> Ints:
        """Return the condition's counts after each number of rows, shape (rows + 1, width)."""
        counts = self._counts.get(condition.key)
        if counts is None:
            counts = self._counts[condition.key] = _cumulated(
                self._kinds.takes(condition)[self._rows.kind]
            )
        return counts

    @cached_property
    def _counts(self) -> dict[tuple[str, str | None, str | None], Ints]:
        return {}

    @cached_property
    def closed(self) -> Ints:
        """Return units closed after each number of rows."""
        return _cumulated(self._whole.astype(np.int64))

    @cached_property
    def missing(self) -> Ints:
        """Return units without a verdict after each number of rows."""
        return _cumulated((self._whole & self._kinds.missing[self._rows.kind]).astype(np.int64))

    @cached_property
    def days(self) -> Ints:
        """Return local days with a judged unit after each number of rows."""
        return _distinct(self._rows.day, self._judged)

    @cached_property
    def reviewers(self) -> Ints:
        """Return different people with a judged unit after each number of rows."""
        return _distinct(self._rows.reviewer, self._judged)

    @cached_property
    def _whole(self) -> Bools:
        return self._kinds.whole[self._rows.kind]

    @cached_property
    def _judged(self) -> Bools:
        return self._whole & ~self._kinds.missing[self._rows.kind]

    def at(self, slot: int) -> Counted:
        """Return what is counted by `slot`, that slot included."""
        position = int(self.places(np.array([slot]))[0])
        return Counted(
            closed=int(self.closed[position]),
            missing=int(self.missing[position]),
            days=int(self.days[position]),
            reviewers=int(self.reviewers[position]),
            counts={
                key: tuple(self.counts(condition)[position].tolist())
                for key, condition in self._conditions.items()
            },
        )


def _cumulated(gains: Ints) -> Ints:
    start = np.zeros((1, *gains.shape[1:]), dtype=np.int64)
    return np.concatenate([start, np.cumsum(gains, axis=0)])


def _distinct(values: Ints, mask: Bools) -> Ints:
    """Return how many different values stand among the masked rows after each number of rows."""
    is_first = np.zeros(len(values), dtype=np.int64)
    positions = np.flatnonzero(mask)
    _, first_positions = np.unique(values[positions], return_index=True)
    is_first[positions[first_positions]] = 1
    return _cumulated(is_first)
