"""Where a gate of a cell is met, and has turned, by slot."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from rollout.tally.unit_arrays import BoolArray, IntArray


@dataclass(frozen=True)
class GateSeries:
    """Where a gate is met, and has turned, by slot.

    Each value holds until the next slot. Most gates have no open proposal, so `has_turned` is
    computed on demand.
    """

    slots: IntArray
    is_met: BoolArray
    compute_turned: Callable[[], BoolArray]

    @cached_property
    def has_turned(self) -> BoolArray:
        """Return where the gate has turned."""
        return self.compute_turned()

    def find_next(self, holds: BoolArray, slot: int) -> int | None:
        """Return the first slot from `slot` on at which `holds` is true."""
        position = int(np.searchsorted(self.slots, slot, side="right")) - 1
        if position >= 0 and holds[position]:
            return slot
        later_positions = np.flatnonzero(holds[position + 1 :])
        return int(self.slots[position + 1 + later_positions[0]]) if len(later_positions) else None
