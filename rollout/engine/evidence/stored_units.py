"""Counted units as they are stored, and when each attribute value first occurred in a cell.

A unit is a row, with its series and classes by number. The store returns the units in columns of
plain values, which are fewer and sooner read than a frame with a row for each lever and texts in
all columns.

A value's first occurrence is among the cell's closed units.
"""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import compress
from typing import Any, Final, NamedTuple

from rollout.kernel.calendar.instants import Cell
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


class UnitSeries(NamedTuple):
    """What units of a series of counts have in common."""

    track: str
    version: str
    site: str
    window: str
    definition: str


class LeverClass(NamedTuple):
    """The answers of a unit on a lever; `level` is that of the costs under its definition."""

    lever: str
    predicted: str
    decided: str
    second: str
    level: int


@dataclass(frozen=True, slots=True)
class StoredUnits:
    """Counted units ordered by slot; all columns have a value for each.

    Attributes:
        series, classes: those that the numbers of the units stand for, and perhaps others.
        unit: its key; a hash after a purge.
        series_id: number of its series.
        class_ids: numbers of its classes, one a lever, and one for several levers together.
        slot, occurred, day, bucket: as in `rollout.engine.evidence.unit_arrays.UnitArrays`.
        reviewer: whose decision counts; None without one.
        attribute_values, slices, band: as stored; None where the policy asked for none.
        is_erased: whether an erasure took the values of its case.
    """

    series: Mapping[int, UnitSeries]
    classes: Mapping[int, LeverClass]
    unit: Sequence[str]
    series_id: Sequence[int]
    class_ids: Sequence[tuple[int, ...]]
    slot: Sequence[int]
    occurred: Sequence[int]
    day: Sequence[int]
    bucket: Sequence[int]
    reviewer: Sequence[str | None]
    attribute_values: Sequence[str | None]
    slices: Sequence[str | None]
    band: Sequence[int | None]
    is_erased: Sequence[bool]

    def __len__(self) -> int:
        """Return the number of units."""
        return len(self.unit)

    def select(self, is_selected: Callable[[UnitSeries, str, int], bool]) -> "StoredUnits":
        """Return the units of which something holds by series, key and slot of occurrence."""
        series = map(self.series.__getitem__, self.series_id)
        mask = list(map(is_selected, series, self.unit, self.occurred))
        columns = (getattr(self, name) for name in COLUMNS)
        return StoredUnits(
            self.series, self.classes, *(tuple(compress(column, mask)) for column in columns)
        )

    def list_sliced_units(self) -> Iterator[SlicedUnit]:
        """Yield the closed units that hold values of attributes, without erased ones."""
        if not any(self.slices):
            return
        rows = zip(self.series_id, self.slices, self.occurred, self.is_erased, strict=True)
        for series_id, slices, occurred, is_erased in rows:
            series = self.series[series_id]
            if slices and not is_erased and series.track == GATE:
                yield series.site, series.window, slices, occurred

    def list_lever_rows(self) -> Iterator[tuple[UnitSeries, str, LeverClass]]:
        """Yield the series and key of each unit with each of its classes."""
        for series_id, unit, class_ids in zip(
            self.series_id, self.unit, self.class_ids, strict=True
        ):
            for class_id in class_ids:
                yield self.series[series_id], unit, self.classes[class_id]


COLUMNS: Final = tuple(
    name for name in StoredUnits.__dataclass_fields__ if name not in {"series", "classes"}
)
"""The fields that have a value for each unit."""
