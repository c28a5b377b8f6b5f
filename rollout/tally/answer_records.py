"""Answers of a version at a site, of which guards count one per unit and one per minute."""

from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from numpy.typing import NDArray

from rollout.tally.unit_arrays import BoolArray, IntArray


@dataclass(frozen=True)
class AnswerRecords:
    """Answers in any order.

    Attributes:
        slots: slot in which each became known.
        minutes: minute of its case.
        units: hash of its unit.
        draws: sampling value of its case.
        is_bad: whether it is outside the guard's limit.
    """

    slots: IntArray
    minutes: IntArray
    units: NDArray[np.uint64]
    draws: NDArray[np.float64]
    is_bad: BoolArray

    @classmethod
    def join(cls, parts: "list[Self]") -> Self:
        """Return all answers of some parts."""
        return cls(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)))

    def take(self, positions: IntArray) -> Self:
        """Return the answers at some positions."""
        return type(self)(*(getattr(self, f.name)[positions] for f in fields(self)))

    def select_votes(self) -> tuple[IntArray, BoolArray]:
        """Return slot and badness of the answers that count, ascending by slot and minute.

        Of a unit, and then of a minute, the answer that became known first counts, and of several
        in one slot the one with the lowest draw. So a burst is one vote, and no later answer
        changes what was counted.
        """
        order = np.lexsort((self.draws, self.slots))
        order = order[_find_first(self.units[order])]
        order = order[_find_first(self.minutes[order])]
        order = order[np.lexsort((self.minutes[order], self.slots[order]))]
        return self.slots[order], self.is_bad[order]


def _find_first(values: NDArray[np.generic]) -> IntArray:
    """Return the first position of each value, ascending."""
    return np.sort(np.unique(values, return_index=True)[1])


def build_empty_answers() -> AnswerRecords:
    """Return no answers."""
    whole = np.empty(0, dtype=np.int64)
    units, draws = np.empty(0, dtype=np.uint64), np.empty(0)
    return AnswerRecords(whole, whole, units, draws, np.empty(0, dtype=bool))
