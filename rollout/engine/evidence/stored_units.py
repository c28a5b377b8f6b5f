"""Counted units as they are stored: a row a unit, its series and classes by number.

The store returns them in columns of plain values, which are fewer and sooner read than a frame
with a row for each lever and texts in all columns.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Final, NamedTuple

from rollout.engine.evidence.first_values import GATE, SlicedUnit


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
