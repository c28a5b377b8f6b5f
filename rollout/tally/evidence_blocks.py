"""Where the blocks of a policy that forgets begin, in a cell's rows."""

from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np

from rollout.core.policy.evidence_blocks import BlockRule
from rollout.tally.slots import find_slot_after
from rollout.tally.unit_arrays import IntArray

WEEK: Final = timedelta(days=7)
_A_MONDAY: Final = datetime(1970, 1, 5, tzinfo=UTC)


def find_block_starts(
    rule: BlockRule, slots: IntArray, closed_counts: IntArray, tick: timedelta
) -> IntArray:
    """Return the row at which each block begins, ascending; a row begins several if some are empty.

    No block splits a slot: units that are counted together have no order. Nothing after a row moves
    the starts up to it, so a count at a slot does not depend on when it is read.

    Args:
        rule: weeks, or a number of units.
        slots: the slot of each row, ascending.
        closed_counts: closed units after each number of rows, shape (rows + 1,).
        tick: length of a slot, which divides a day.
    """
    if not len(slots):
        return np.zeros(0, dtype=np.int64)
    if rule.units:
        # number k begins after k times so many units, at the next slot
        targets = np.arange(0, closed_counts[-1] + 1, rule.units)
        reached = np.searchsorted(closed_counts, targets, side="left")
        last_slots = slots[np.maximum(reached, 1) - 1]
        starts = np.where(reached > 0, np.searchsorted(slots, last_slots, side="right"), 0)
        return starts[starts < len(slots)]
    weeks = (slots - find_slot_after(_A_MONDAY, tick)) // (WEEK // tick)
    return np.searchsorted(weeks, np.arange(weeks[0], weeks[-1] + 1), side="left")
