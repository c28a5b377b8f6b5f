"""A rollout's units as arrays that grow slot by slot, for the service.

The cost of adding units depends on their number alone. Sampling values are not computed again: a
unit is stored with its bucket under the policy at its time.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from sys import intern

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rollout.core.calendar.sites import Cell
from rollout.core.policy.measures import UnitClass
from rollout.core.policy.policy import Policy
from rollout.tally.first_values import FirstValues
from rollout.tally.slice_values import select_slices
from rollout.tally.unit_arrays import (
    CLASS_COLUMNS,
    CellUnitArrays,
    UnitArrays,
    UnitClasses,
    fill_attribute_values,
)

CellVersion = tuple[Cell, str]
SeriesKey = tuple[str, str, str, str]  # site, window, version, track
UnitTable = NDArray[np.int64]  # a row for each field of `UnitArrays`
CostLevels = tuple[float, ...]
DefinitionLevels = Callable[[Cell], Mapping[str, CostLevels]]
UNIT_ORDER = ("site", "window", "version", "track", "slot", "occurred", "unit")
UNIT_SERIES = ("site", "window", "version", "track")


class UnitBuffer:
    """Units by cell and version.

    Args:
        policy: the policy in force.
        definition_levels: returns for a cell the definitions whose units are comparable under the
            policy, each with its cost levels.
    """

    def __init__(self, policy: Policy, definition_levels: DefinitionLevels) -> None:
        self._policy, self._definition_levels = policy, definition_levels
        self._class_numbers: dict[UnitClass, int] = {}
        self._reviewer_numbers: dict[str, int] = {}
        self._tables: dict[CellVersion, dict[str, UnitTable]] = {}
        self._cells_by_name = {(cell.site, cell.window): cell for cell in policy.cells}
        self.unit_classes = UnitClasses((), policy)
        self.first_values = FirstValues()
        self.row_count = 0

    def add(self, frame: pl.DataFrame) -> set[CellVersion]:
        """Add units of later slots; return the cells and versions that grew.

        `frame` is the result of `CountedUnits.load_frame` in the store. In the resulting arrays
        `unit` is the bucket.
        """
        if frame.is_empty():  # avoids loading Polars' join code (10 MiB)
            return set()
        self.first_values.add(frame)
        comparable_units = select_slices(self._select_comparable(frame), self._policy)
        if comparable_units.is_empty():
            return set()
        grown_keys = set()
        for (site, window, version, track), rows in _split_series(
            self._encode_rows(comparable_units).sort(UNIT_ORDER)
        ):
            key = (self._cells_by_name[site, window], intern(version))
            tables = self._tables.setdefault(key, {})
            previous = tables.get(intern(track))
            tables[intern(track)] = (
                rows if previous is None else np.concatenate([previous, rows], 1)
            )
            self.row_count += rows.shape[1]
            grown_keys.add(key)
        return grown_keys

    def __iter__(self) -> Iterator[CellVersion]:
        """Iterate over the cells and versions with units."""
        return iter(self._tables)

    def get_rows(self, key: CellVersion) -> CellUnitArrays:
        """Return the units of a cell and version, which may be empty."""
        return CellUnitArrays(
            **{track: UnitArrays(*table) for track, table in self._tables.get(key, {}).items()}
        )

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

    def _select_comparable(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Return the units comparable under the policy, with its cost levels."""
        columns = (*UNIT_SERIES[:2], "definition", "level")
        frame = fill_attribute_values(frame)
        combinations = frame.select(columns).unique()
        new_levels = [self._convert_level(*row) for row in combinations.iter_rows()]
        convertible = combinations.with_columns(
            new_level=pl.Series(new_levels, dtype=pl.Int64)
        ).drop_nulls("new_level")
        return frame.join(convertible, on=columns, maintain_order="left").with_columns(
            level="new_level"
        )

    def _convert_level(self, site: str, window: str, definition: str, level: int) -> int | None:
        cell = Cell(site, window)
        if cell not in self._policy.cell_set:
            return None
        source_levels = self._definition_levels(cell).get(definition)
        if source_levels is None:
            return None
        return find_cost_level(source_levels[level], self._policy.cost_levels)

    def _encode_rows(self, units: pl.DataFrame) -> pl.DataFrame:
        """Add the lasting numbers of classes and reviewers."""
        classes = units.select(CLASS_COLUMNS).unique(maintain_order=True)
        class_numbers = [
            self._class_numbers.setdefault(UnitClass(*row), len(self._class_numbers))
            for row in classes.rows()
        ]
        if len(self._class_numbers) > len(self.unit_classes.classes):
            self.unit_classes = UnitClasses(tuple(self._class_numbers), self._policy)
        reviewers = units.select("reviewer").drop_nulls().unique().sort("reviewer")
        reviewer_numbers = [
            self._reviewer_numbers.setdefault(name, len(self._reviewer_numbers))
            for (name,) in reviewers.rows()
        ]
        return units.join(
            classes.with_columns(kind=pl.Series(class_numbers, dtype=pl.Int64)),
            on=CLASS_COLUMNS,
            nulls_equal=True,
        ).join(
            reviewers.with_columns(reviewer_number=pl.Series(reviewer_numbers, dtype=pl.Int64)),
            on="reviewer",
            how="left",
        )


def find_cost_level(cost: float, levels: CostLevels) -> int:
    """Return the index of the level at or above a cost.

    >>> find_cost_level(5.0, (0.0, 1.0, 3.0, 5.0))
    3
    """
    return min(int(np.searchsorted(levels, cost - 1e-9)), len(levels) - 1)


def _split_series(encoded: pl.DataFrame) -> Iterator[tuple[SeriesKey, UnitTable]]:
    """Yield each series of a sorted frame with its table.

    The table's rows are the fields of `UnitArrays`.
    """
    run_ids = encoded.select(pl.struct(UNIT_SERIES).rle_id().alias("run")).to_series()
    starts = [0, *(np.flatnonzero(np.diff(run_ids.to_numpy())) + 1).tolist(), encoded.height]
    series = encoded.select(UNIT_SERIES)
    columns = ("slot", "occurred", "kind", pl.col("reviewer_number").fill_null(-1), "day", "bucket")
    table = np.array([column.cast(pl.Int64).to_numpy() for column in encoded.select(columns)])
    for start, end in pairwise(starts):
        site, window, version, track = series.row(start)
        yield (site, window, version, track), table[:, start:end].copy()
