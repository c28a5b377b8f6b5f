"""First counted cases with a value that a cell had not met in its first days."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Final

import polars as pl

from rollout.core.calendar.sites import Cell
from rollout.core.policy.slice_conditions import read_slice_value
from rollout.reports.figures.timeline_parts import TimelineMark, sort_marks
from rollout.reports.inputs.inputs import ReportInputs
from rollout.tally.first_values import GATE, FirstValues, NewCellValue, SlicedUnit
from rollout.tally.slice_values import SLICES
from rollout.tally.slots import find_slot_before, to_instant

NEW_VALUE: Final = "NewValue"
FIRST, FIRST_COUNTED = "first case with ", "first counted case with "
SlotUnit = tuple[int, str, datetime]
"""A counted unit: its slot, its case's values as stored JSON, and when the case occurred."""


def list_first_values(inputs: ReportInputs) -> Mapping[Cell, tuple[TimelineMark, ...]]:
    """Return the first counted case with each new value, by cell."""
    units = _select_counted(inputs)
    first_values = inputs.first_values
    if first_values is None:
        first_values = FirstValues()
        first_values.add(_list_sliced_units(units))
    new_values = first_values.find_new(inputs.policy, inputs.policy.cells)
    return {
        cell: tuple(
            list_value_marks(values, _list_units(units, inputs, cell, values), inputs.policy.tick)
        )
        for cell, values in new_values.items()
    }


def _list_sliced_units(units: pl.DataFrame) -> Iterator[SlicedUnit]:
    if SLICES in units.columns:
        has_values = pl.col(SLICES) != ""
        groups = units.filter(has_values).group_by("site", "window", SLICES)
        yield from groups.agg(pl.col("occurred").min()).iter_rows()


def _select_counted(inputs: ReportInputs) -> pl.DataFrame:
    last_slot = find_slot_before(inputs.counted_until or inputs.last, inputs.policy.tick)
    is_evidence = (pl.col("track") == GATE) & pl.col("excluded").is_null()
    return inputs.units.filter(is_evidence & (pl.col("slot") <= last_slot))


def _list_units(
    units: pl.DataFrame, inputs: ReportInputs, cell: Cell, values: Iterable[NewCellValue]
) -> Iterator[SlotUnit]:
    slots = [value.slot for value in values]
    is_theirs = (
        (pl.col("site") == cell.site)
        & (pl.col("window") == cell.window)
        & pl.col("occurred").is_in(slots)
    )
    times = inputs.cases.select("case_key", "occurred_at")
    rows = units.filter(is_theirs).join(times, on="case_key")
    yield from rows.select("occurred", "slices", "occurred_at").iter_rows()


def list_value_marks(
    values: Iterable[NewCellValue], units: Iterable[SlotUnit], tick: timedelta
) -> Iterator[TimelineMark]:
    """Yield the mark of the first counted case with each value.

    Args:
        values: the values.
        units: those that occurred in the values' slots; a value whose cases are gone gets the begin
            of its slot.
        tick: length of a slot.
    """
    values = tuple(values)
    attributes = {value.attribute for value in values}
    times: dict[NewCellValue, datetime] = {}
    for slot, text, at in units:
        for attribute in attributes:
            key = NewCellValue(attribute, read_slice_value(text, attribute), slot)
            times[key] = min(at, times.get(key, at))
    for new_value in values:
        attribute, value, slot = new_value
        at = times.get(new_value, to_instant(slot, tick))
        yield TimelineMark(at, 0, NEW_VALUE, f"{FIRST_COUNTED}{attribute} = {value}", "")


def build_value_mark(attribute: str, value: str, at: datetime) -> TimelineMark:
    """Return the mark of the first case with a value, which need not be counted yet."""
    return TimelineMark(at, 0, NEW_VALUE, f"{FIRST}{attribute} = {value}", "")


def join_value_marks(
    marks: Iterable[TimelineMark], first_marks: Iterable[TimelineMark]
) -> tuple[TimelineMark, ...]:
    """Return marks with those of first cases, which replace first counted ones."""
    first_marks = tuple(first_marks)
    replaced = {FIRST_COUNTED + mark.text.removeprefix(FIRST) for mark in first_marks}
    return sort_marks([*(mark for mark in marks if mark.text not in replaced), *first_marks])
