"""When each attribute value first occurred among a cell's closed units."""

import json
from collections.abc import Collection, Iterator, Mapping
from datetime import timedelta
from typing import Any, Final, NamedTuple

import polars as pl

from rollout.core.calendar.sites import Cell
from rollout.core.policy.policy import Policy
from rollout.core.policy.slice_conditions import list_recorded_attributes
from rollout.tally.slice_values import SLICES

GATE: Final = "gate"
MAX_VALUES: Final = 100
"""Values of an attribute in a cell; one with more is a key of cases, and none of its is new."""
KNOWN_SPAN: Final = timedelta(days=7)
"""Values of an attribute's first days in a cell are not new: most occur then for the first time."""
SeriesName = tuple[str, str, str]  # site, window, attribute


class NewCellValue(NamedTuple):
    """A value that a cell met later than others, and the slot in which it first occurred."""

    attribute: str
    value: str
    slot: int


class FirstValues:
    """The slot of each value's first closed unit, by cell and attribute.

    Units may be added in any order and in parts: the result is the same. Those of erased cases,
    marked by a column `is_erased`, are left out.
    """

    def __init__(self) -> None:
        self._slots: dict[SeriesName, dict[str, int] | None] = {}

    def add(self, units: pl.DataFrame) -> None:
        """Add the evidence of a frame as `resolve_units` or the store return it."""
        if SLICES not in units.columns or units[SLICES].null_count() == units.height:
            return
        condition = (pl.col("track") == GATE) & (pl.col(SLICES) != "")
        if "is_erased" in units.columns:
            condition &= ~pl.col("is_erased")
        firsts = units.filter(condition).group_by("site", "window", SLICES)
        for site, window, text, slot in firsts.agg(pl.col("occurred").min()).iter_rows():
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
