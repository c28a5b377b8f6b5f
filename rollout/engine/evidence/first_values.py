"""When each attribute value first occurred among a cell's closed units."""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Any, Final, NamedTuple

from rollout.kernel.calendar.sites import Cell
from rollout.kernel.policy.cell_evidence import list_recorded_attributes
from rollout.kernel.policy.policy import Policy

GATE: Final = "gate"
MAX_VALUES: Final = 100
"""Values of an attribute in a cell; one with more is a key of cases, and none of its is new."""
KNOWN_SPAN: Final = timedelta(days=7)
"""Values of an attribute's first days in a cell are not new: most occur then for the first time."""
SeriesName = tuple[str, str, str]  # site, window, attribute
SlicedUnit = tuple[str, str, str, int]
"""A closed unit: its site, window, values of recorded attributes as JSON, and its slot."""


class NewCellValue(NamedTuple):
    """A value that a cell met later than others, and the slot in which it first occurred."""

    attribute: str
    value: str
    slot: int


class FirstValues:
    """The slot of each value's first closed unit, by cell and attribute.

    Units may be added in any order and in parts: the result is the same. Those of erased cases are
    left out by whoever adds them.
    """

    def __init__(self) -> None:
        self._slots: dict[SeriesName, dict[str, int] | None] = {}

    def add(self, units: Iterable[SlicedUnit]) -> None:
        """Add units of evidence."""
        first_slots: dict[tuple[str, str, str], int] = {}
        for site, window, text, slot in units:
            known_slot = first_slots.setdefault((site, window, text), slot)
            if slot < known_slot:
                first_slots[site, window, text] = slot
        for (site, window, text), slot in first_slots.items():
            for attribute, value in json.loads(text).items():
                if value:
                    self._add_value((site, window, attribute), value, slot)

    def _add_value(self, series: SeriesName, value: str, slot: int) -> None:
        slots = self._slots.setdefault(series, {})
        if slots is None:
            return
        slots[value] = min(slot, slots.get(value, slot))
        if len(slots) > MAX_VALUES:
            self._slots[series] = None

    def find_new(
        self, policy: Policy, cells: Collection[Cell]
    ) -> Mapping[Cell, tuple[NewCellValue, ...]]:
        """Return the values that are new to each cell, the oldest first.

        Nothing for a policy with familiar values, whose events name them.
        """
        if policy.evidence.familiar is not None:
            return {}
        known_slots = KNOWN_SPAN // policy.tick
        attributes = list_recorded_attributes(policy)
        new_values = {
            cell: [
                value
                for attribute in attributes
                for value in self._list_new(cell, attribute, known_slots)
            ]
            for cell in (cells if attributes else ())
        }
        return {
            cell: tuple(sorted(values, key=lambda value: value.slot))
            for cell, values in new_values.items()
            if values
        }

    def _list_new(self, cell: Cell, attribute: str, known_slots: int) -> Iterator[NewCellValue]:
        slots = self._slots.get((cell.site, cell.window, attribute))
        if not slots:
            return
        known_until = min(slots.values()) + known_slots
        for value, slot in slots.items():
            if slot >= known_until:
                yield NewCellValue(attribute, value, slot)

    def encode(self) -> list[Any]:
        """Return the contents for JSON, equal ones for the same units."""
        return [
            [*series, None if slots is None else dict(sorted(slots.items()))]
            for series, slots in sorted(self._slots.items())
        ]

    def restore(self, rows: list[Any]) -> None:
        """Replace the contents by what `encode` returned."""
        self._slots = {(site, window, attribute): slots for site, window, attribute, slots in rows}
