"""First cases with a value that a cell had not met while it was in shadow."""

from collections.abc import Iterator, Mapping
from datetime import datetime

import polars as pl

from rollout.core.calendar.instants import from_micros, to_micros
from rollout.core.calendar.sites import Cell
from rollout.core.scope.events import TakenOver, Widened
from rollout.reports.figures.timeline_parts import TimelineMark
from rollout.reports.inputs.inputs import ReportInputs
from rollout.tally.frames import ATTRIBUTE_PREFIX


def list_first_values(inputs: ReportInputs) -> Mapping[Cell, tuple[TimelineMark, ...]]:
    """Return the first case with each new value of the policy's slices, by cell.

    Nothing for a policy with familiar values, whose events name them, nor for a cell without a case
    from shadow: every value would be new there.
    """
    if inputs.policy.evidence.familiar is not None:
        return {}
    return {
        cell: tuple(_list_marks(inputs, cell, since))
        for cell, since in _find_shadow_ends(inputs).items()
    }


def build_value_mark(attribute: str, value: str, at: datetime) -> TimelineMark:
    """Return the mark of the first case with a value."""
    return TimelineMark(at, 0, "NewValue", f"first case with {attribute} = {value}", "")


def _find_shadow_ends(inputs: ReportInputs) -> dict[Cell, datetime]:
    ends: dict[Cell, datetime] = {}
    for event in inputs.events:
        if isinstance(event, Widened | TakenOver):
            ends.setdefault(event.cell, event.at)
    return ends


def _list_marks(inputs: ReportInputs, cell: Cell, since: datetime) -> Iterator[TimelineMark]:
    cases = inputs.cases.filter(pl.col("site") == cell.site, pl.col("window") == cell.window)
    is_before = pl.col("occurred_us") < to_micros(since)
    for attribute in inputs.policy.slices:
        name = ATTRIBUTE_PREFIX + attribute
        if name not in cases.columns or cases.filter(is_before).is_empty():
            continue
        rows = cases.filter(pl.col(name).is_not_null())
        earlier_values = rows.filter(is_before)[name].unique()
        firsts = rows.filter(~pl.col(name).is_in(earlier_values.implode()))
        for value, first in firsts.group_by(name).agg(pl.col("occurred_us").min()).iter_rows():
            yield build_value_mark(attribute, value, from_micros(first))
