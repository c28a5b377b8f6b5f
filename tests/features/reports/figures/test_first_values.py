"""First counted cases with a value that a cell had not met in its first days."""

from dataclasses import replace

import polars as pl
import pytest

from rollout.engine.evidence import stored_units
from rollout.engine.evidence.stored_units import NewCellValue
from rollout.features.reports.figures.cell_timeline import compute_cell_timelines
from rollout.features.reports.figures.funnel import (
    build_value_mark,
    join_value_marks,
    list_first_values,
    list_value_marks,
)
from rollout.kernel.calendar.instants import Cell, to_instant
from tests.factories import DAY, HOUR, NOON, TICK

CELL = Cell("creek", "day")


@pytest.fixture(autouse=True)
def _a_story_shorter_than_a_week(monkeypatch):
    monkeypatch.setattr(stored_units, "KNOWN_SPAN", DAY)


def with_lenses(inputs, new_from):
    """Return the inputs with the lens of each case: another one from a time on."""
    is_new = pl.col("case_key").is_in(
        inputs.cases.filter(pl.col("occurred_at") >= new_from)["case_key"].implode()
    )
    text = pl.when(is_new).then(pl.lit('{"lens":"new"}')).otherwise(pl.lit('{"lens":"old"}'))
    units = inputs.units.with_columns(slices=text)
    return replace(inputs, units=units, policy=replace(inputs.policy, slices=("lens",)))


def list_times(inputs):
    """Return when the counted cases of the cell occurred, in order."""
    units = inputs.units.filter(
        (pl.col("track") == "gate")
        & pl.col("excluded").is_null()
        & (pl.col("site") == CELL.site)
        & (pl.col("window") == CELL.window)
    )
    return units.join(inputs.cases, on="case_key")["occurred_at"].unique().sort().to_list()


def test_the_first_counted_case_with_a_new_value_is_a_mark(told):
    inputs, _ = told
    times = list_times(inputs)
    new_from = next(at for at in times if at > times[0] + DAY + HOUR)
    found = with_lenses(inputs, new_from)
    (mark,) = list_first_values(found)[CELL]
    assert (mark.at, mark.text) == (new_from, "first counted case with lens = new")
    timelines = {(t.site, t.window): t for t in compute_cell_timelines(found, {})}
    marks = timelines[CELL.site, CELL.window].marks
    assert mark in marks
    assert [m.at for m in marks] == sorted(m.at for m in marks)


def test_a_value_of_the_first_days_is_none(told):
    inputs, _ = told
    first = list_times(inputs)[0]
    assert CELL not in list_first_values(with_lenses(inputs, first + 5 * HOUR))
    assert CELL not in list_first_values(with_lenses(inputs, first - DAY))


def test_a_value_whose_cases_are_gone_stands_at_the_begin_of_its_slot():
    value, other = NewCellValue("lens", "new", 5), NewCellValue("x", "y", 7)
    late, early = NOON + 9 * HOUR, NOON + HOUR
    units = [(5, '{"lens":"new"}', late), (5, '{"lens":"new"}', early), (5, '{"x":"y"}', NOON)]
    marks = list(list_value_marks([value, other], units, TICK))
    assert [mark.at for mark in marks] == [early, to_instant(7, TICK)]


def test_the_first_case_replaces_the_first_counted_one_with_its_value():
    values = [NewCellValue("lens", "new", 5), NewCellValue("lens", "newer", 6)]
    counted = list(list_value_marks(values, (), TICK))
    first = build_value_mark("lens", "new", to_instant(4, TICK))
    assert join_value_marks(counted, [first]) == (first, counted[1])
    assert join_value_marks(counted, []) == tuple(counted)
