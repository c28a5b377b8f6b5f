"""Which attribute values were familiar to a version in a cell, slot by slot."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from rollout.core.calendar.sites import Cell
from rollout.core.policy.familiarity import FAMILIAR, AttributeValue
from rollout.core.scope.events import LedgerEvent
from rollout.tally.unit_arrays import BoolArray, IntArray, UnitArrays, UnitClasses

CellVersion = tuple[Cell, str]


@dataclass(frozen=True, slots=True)
class FamiliarHistory:
    """The statuses of a version's values in a cell, as recorded.

    `slots[value]` are those in which the value turned: familiar from the first on, not from the
    second, and so on.

    Attributes:
        slots: by value, ascending.
        statuses: the last recorded status of each value.
    """

    slots: Mapping[AttributeValue, tuple[int, ...]] = field(default_factory=dict)
    statuses: Mapping[AttributeValue, str] = field(default_factory=dict)

    def extend(self, slot: int, statuses: Mapping[AttributeValue, str]) -> "FamiliarHistory":
        """Return the history with statuses that hold from `slot` on."""
        slots = dict(self.slots)
        for value, status in statuses.items():
            turns = slots.get(value, ())
            if (len(turns) % 2 == 1) != (status == FAMILIAR):
                slots[value] = (*turns, max((slot, *turns[-1:])))
        return FamiliarHistory(slots, {**self.statuses, **statuses})

    def find_familiar(self, value: AttributeValue, occurred: IntArray) -> BoolArray:
        """Return in which slots a value was familiar."""
        turns = np.array(self.slots.get(value, ()), dtype=np.int64)
        is_odd: BoolArray = np.searchsorted(turns, occurred, side="right") % 2 == 1
        return is_odd


NO_HISTORY = FamiliarHistory()


class FamiliarHistories(dict[CellVersion, FamiliarHistory]):
    """The histories of all cells and versions; empty for others."""

    def __missing__(self, key: CellVersion) -> FamiliarHistory:
        """Return the empty history."""
        return NO_HISTORY

    def add_event(self, event: LedgerEvent, slot: int) -> None:
        """Add the next event of the ledger, which holds from a slot on."""
        statuses: dict[CellVersion, dict[AttributeValue, str]] = {}
        for key, value, status, _ in event.list_statuses():
            statuses.setdefault(key, {})[value] = status
        for key, cell_statuses in statuses.items():
            self[key] = self[key].extend(slot, cell_statuses)


def find_familiar_units(
    rows: UnitArrays, unit_classes: UnitClasses, history: FamiliarHistory
) -> BoolArray:
    """Return which units were familiar when they occurred: all values of all their cases.

    Units that were counted without attribute values, under a policy that did not ask for them, are.
    """
    is_familiar = np.ones(len(rows), dtype=bool)
    if not unit_classes.has_values:
        return is_familiar
    for unit_class in np.unique(rows.unit_class).tolist():
        values = frozenset().union(*unit_classes.values_by_class[unit_class])
        if values:
            places = np.flatnonzero(rows.unit_class == unit_class)
            for value in values:
                is_familiar[places] &= history.find_familiar(value, rows.occurred[places])
    return is_familiar
