"""Answers of a version at a site, of which guards count one per unit and one per minute."""

from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rollout.engine.evidence.unit_arrays import BoolArray, IntArray


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

    def is_same_but_badness(self, other: Self) -> bool:
        """Return whether others are the same answers, as of two guards on one prediction each."""
        names = ("slots", "minutes", "units", "draws")
        return all(np.array_equal(getattr(self, name), getattr(other, name)) for name in names)

    def select_votes(self) -> tuple[IntArray, BoolArray]:
        """Return slot and badness of the answers of `find_votes`."""
        votes = self.find_votes()
        return self.slots[votes], self.is_bad[votes]

    def find_votes(self) -> IntArray:
        """Return the positions of the answers that count, ascending by slot and minute.

        Of a unit, and then of a minute, the answer that became known first counts, and of several
        in one slot the one with the lowest draw. So a burst is one vote, and no later answer
        changes what was counted.
        """
        firsts = self._find_first(self.units, np.arange(len(self.units)))
        votes = self._find_first(self.minutes, firsts)
        return votes[np.argsort(self.slots[votes], kind="stable")]

    def _find_first(self, keys: NDArray[Any], positions: IntArray) -> IntArray:
        """Return of each key the answer that was known first, ascending by key.

        Answers nearly ascend already, and few share a key: both save most of a sort.
        """
        order = positions[np.argsort(keys[positions], kind="stable")]
        ordered_keys = keys[order]
        is_start = np.ones(len(order), dtype=bool)
        is_start[1:] = ordered_keys[1:] != ordered_keys[:-1]
        if is_start.all():
            return order
        is_shared = ~is_start
        is_shared[:-1] |= is_shared[1:]
        shared = order[is_shared]
        order[is_shared] = shared[
            np.lexsort((self.draws[shared], self.slots[shared], keys[shared]))
        ]
        return order[is_start]
