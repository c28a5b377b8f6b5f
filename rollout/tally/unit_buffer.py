"""A rollout's units as arrays that grow slot by slot, for the service.

The cost of adding units depends on their number alone. Sampling values are not computed again: a
unit is stored with its bucket under the policy at its time.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, compress, pairwise
from sys import intern
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rollout.core.calendar.sites import Cell
from rollout.core.policy.policy import Policy
from rollout.core.policy.slice_conditions import list_slice_attributes, select_values
from rollout.kernel.units import UnitClass
from rollout.tally.first_values import FirstValues
from rollout.tally.stored_units import StoredUnits
from rollout.tally.unit_arrays import (
    CELL_TRACKS,
    CellUnitArrays,
    IntArray,
    UnitArrays,
    UnitClasses,
    build_empty_arrays,
    find_run_starts,
)

CellVersion = tuple[Cell, str]
SeriesKey = tuple[str, str, str, str]  # site, window, version, track
UnitTable = NDArray[np.int64]  # a row for each field of `UnitArrays`
CostLevels = tuple[float, ...]
DefinitionLevels = Callable[[Cell], Mapping[str, CostLevels]]
UNIT_ORDER = ("site", "window", "version", "track", "slot", "occurred", "unit")
Combination = tuple[tuple[int, ...] | None, tuple[int, ...], str | None, str | None, int | None]
"""What a unit's classes depend on: levels of its series, class numbers, values, slices, band."""


class _ComparableSeries(NamedTuple):
    """A series of stored units, and the policy's cost level of each one of its definition."""

    key: SeriesKey
    levels: tuple[int, ...]


class UnitBuffer:
    """Units by cell and version.

    Args:
        policy: the policy in force.
        definition_levels: returns for a cell the definitions whose units are comparable under the
            policy, each with its cost levels.
    """

    def __init__(self, policy: Policy, definition_levels: DefinitionLevels) -> None:
        self._policy, self._definition_levels = policy, definition_levels
        self._slice_attributes = list_slice_attributes(policy)
        self._levels: dict[CostLevels, tuple[int, ...]] = {}
        self._class_numbers: dict[UnitClass, int] = {}
        self._reviewer_numbers: dict[str, int] = {}
        self._tables: dict[CellVersion, dict[str, UnitTable]] = {}
        self._cells_by_name = {(cell.site, cell.window): cell for cell in policy.cells}
        self.unit_classes = UnitClasses((), policy)
        self.first_values = FirstValues()
        self.row_count = 0

    def add(self, units: StoredUnits) -> set[CellVersion]:
        """Add units of later slots; return the cells and versions that grew.

        In the resulting arrays `unit` is the bucket.
        """
        self.first_values.add(units.list_sliced_units())
        series = self._find_comparable_series(units)
        if not series:
            return set()
        combinations, classes = self._number_classes(units, series)
        reviewers = self._number_reviewers(units, series)
        keys = sorted({s.key for s in series.values()})
        key_places = {key: place for place, key in enumerate(keys)}
        places = {number: key_places[s.key] for number, s in series.items()}
        order, row_places = _sort_rows(units, places)
        rows, row_classes = _repeat_by_class(order, combinations, classes)
        columns = (units.slot, units.occurred, row_classes, reviewers, units.day, units.bucket)
        table = np.array(
            [c if c is row_classes else np.array(c, dtype=np.int64)[rows] for c in columns]
        )
        starts = [*find_run_starts(row_places[rows]).tolist(), len(rows)]
        return {
            self._append(keys[row_places[rows[start]]], table[:, start:end].copy())
            for start, end in pairwise(starts)
        }

    def _append(self, series_key: SeriesKey, rows: UnitTable) -> CellVersion:
        """Append units to a series; return its cell and version."""
        site, window, version, track = series_key
        key = (self._cells_by_name[site, window], intern(version))
        tables = self._tables.setdefault(key, {})
        previous = tables.get(track)
        tables[intern(track)] = rows if previous is None else np.concatenate([previous, rows], 1)
        self.row_count += rows.shape[1]
        return key

    def __iter__(self) -> Iterator[CellVersion]:
        """Iterate over the cells and versions with units."""
        return iter(self._tables)

    def get_rows(self, key: CellVersion) -> CellUnitArrays:
        """Return the units of a cell and version, which may be empty."""
        tables = self._tables.get(key, {})
        rows = {track: UnitArrays(*table) for track, table in tables.items()}
        empty = build_empty_arrays()
        gate, guard, assisted, planted = (rows.get(track, empty) for track in CELL_TRACKS)
        return CellUnitArrays(gate, guard, assisted, planted)

    @property
    def reviewers(self) -> Sequence[str]:
        """Return the reviewers' names by number."""
        return list(self._reviewer_numbers)

    def list_series(self) -> Iterator[tuple[SeriesKey, UnitTable]]:
        """Yield the table of each series."""
        for (cell, version), tables in self._tables.items():
            for track, table in tables.items():
                yield (cell.site, cell.window, version, track), table

    def restore(
        self,
        classes: Sequence[UnitClass],
        reviewers: Sequence[str],
        tables: Mapping[SeriesKey, UnitTable],
    ) -> None:
        """Fill this empty buffer with what another one of the same policy held.

        Raises:
            ValueError: a series is of a cell that the policy lacks.
        """
        if unknown := {key[:2] for key in tables} - self._cells_by_name.keys():
            raise ValueError(f"the policy has no cells {sorted(unknown)}")
        self._class_numbers = {unit_class: n for n, unit_class in enumerate(classes)}
        self._reviewer_numbers = {name: n for n, name in enumerate(reviewers)}
        self.unit_classes = UnitClasses(tuple(classes), self._policy)
        for (site, window, version, track), table in tables.items():
            key = (self._cells_by_name[site, window], intern(version))
            self._tables.setdefault(key, {})[intern(track)] = table
            self.row_count += table.shape[1]

    def _find_comparable_series(self, units: StoredUnits) -> dict[int, _ComparableSeries]:
        """Return the series of the units that are comparable under the policy, by number."""
        comparable = {}
        for number in set(units.series_id):
            series = units.series[number]
            cell = self._cells_by_name.get((series.site, series.window))
            levels = None if cell is None else self._definition_levels(cell).get(series.definition)
            if levels is not None:
                key = (series.site, series.window, series.version, series.track)
                comparable[number] = _ComparableSeries(key, self._convert_levels(levels))
        return comparable

    def _convert_levels(self, levels: CostLevels) -> tuple[int, ...]:
        """Return the policy's cost level of each level of a definition."""
        if levels not in self._levels:
            own_levels = self._policy.cost_levels
            self._levels[levels] = tuple(find_cost_level(cost, own_levels) for cost in levels)
        return self._levels[levels]

    def _number_classes(
        self, units: StoredUnits, series: Mapping[int, _ComparableSeries]
    ) -> tuple[IntArray, list[list[int]]]:
        """Return the number of each unit's combination, and the classes of each combination.

        Classes have lasting numbers in the order of first use; a unit of a series that is not
        comparable has none.
        """
        levels = {number: s.levels for number, s in series.items()}
        rows = zip(
            map(levels.get, units.series_id),
            *(units.class_ids, units.attribute_values, units.slices, units.band),
            strict=True,
        )
        numbers: dict[Combination, int] = {}
        combinations = np.array([numbers.setdefault(row, len(numbers)) for row in rows])
        classes = [
            [
                self._class_numbers.setdefault(unit_class, len(self._class_numbers))
                for unit_class in self._list_classes(units, combination)
            ]
            for combination in numbers
        ]
        if len(self._class_numbers) > len(self.unit_classes.classes):
            self.unit_classes = UnitClasses(tuple(self._class_numbers), self._policy)
        return combinations, classes

    def _list_classes(self, units: StoredUnits, combination: Combination) -> Iterator[UnitClass]:
        levels, class_ids, attribute_values, slices, band = combination
        if levels is None:
            return
        values = select_values(slices or "", self._slice_attributes)
        for class_id in class_ids:
            lever_class = units.classes[class_id]
            answers = (*lever_class[:-1], levels[lever_class.level])
            yield UnitClass(*answers, attribute_values or "", values, band or 0)

    def _number_reviewers(
        self, units: StoredUnits, series: Mapping[int, _ComparableSeries]
    ) -> list[int]:
        """Return the lasting number of each unit's reviewer; -1 without one, or one so far."""
        is_comparable = map(series.__contains__, units.series_id)
        names = {name for name in compress(units.reviewer, is_comparable) if name is not None}
        for name in sorted(names):
            self._reviewer_numbers.setdefault(name, len(self._reviewer_numbers))
        numbers = self._reviewer_numbers
        return [-1 if name is None else numbers.get(name, -1) for name in units.reviewer]


def find_cost_level(cost: float, levels: CostLevels) -> int:
    """Return the index of the level at or above a cost.

    >>> find_cost_level(5.0, (0.0, 1.0, 3.0, 5.0))
    3
    """
    return min(int(np.searchsorted(levels, cost - 1e-9)), len(levels) - 1)


def _sort_rows(units: StoredUnits, places: Mapping[int, int]) -> tuple[IntArray, IntArray]:
    """Return the rows of the units in `UNIT_ORDER`, and the place of each unit's series.

    `places` has the place of each series by number; the rows of others are left out.
    """
    row_places = np.array([places.get(number, -1) for number in units.series_id])
    by_unit = np.array(sorted(range(len(units)), key=units.unit.__getitem__))
    by_unit = by_unit[row_places[by_unit] >= 0]
    slots, occurred = (np.array(c, dtype=np.int64)[by_unit] for c in (units.slot, units.occurred))
    return by_unit[np.lexsort((occurred, slots, row_places[by_unit]))], row_places


def _repeat_by_class(
    rows: IntArray, combinations: IntArray, classes: Sequence[Sequence[int]]
) -> tuple[IntArray, IntArray]:
    """Return the rows, each as often as it has classes, and these classes.

    Args:
        rows: indices of units.
        combinations: a number for each unit.
        classes: by that number.
    """
    widths = np.array([len(part) for part in classes])
    flat_classes = np.fromiter(chain.from_iterable(classes), dtype=np.int64)
    numbers = combinations[rows]
    row_widths, firsts = widths[numbers], (np.cumsum(widths) - widths)[numbers]
    ends = np.cumsum(row_widths)
    within = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - row_widths, row_widths)
    return np.repeat(rows, row_widths), flat_classes[np.repeat(firsts, row_widths) + within]
