"""First cases with a value that a cell had not met in shadow."""

from dataclasses import replace

import polars as pl

from rollout.core.scope.events import Widened
from rollout.reports.figures.cell_timeline import compute_cell_timelines
from rollout.reports.figures.first_values import list_first_values
from tests.factories import HOUR


def with_lenses(inputs, new_from):
    """Return the inputs with the lens of each case: another one from a time on."""
    lens = pl.when(pl.col("occurred_at") >= new_from).then(pl.lit("new")).otherwise(pl.lit("old"))
    cases = inputs.cases.with_columns(lens.alias("attribute:lens"))
    return replace(inputs, cases=cases, policy=replace(inputs.policy, slices=("lens",)))


def find_widening(inputs):
    return next(event for event in inputs.events if isinstance(event, Widened))


def test_the_first_case_with_a_value_that_is_new_since_shadow_is_a_mark(told):
    inputs, _ = told
    widened = find_widening(inputs)
    found = with_lenses(inputs, widened.at + HOUR)
    occurred = found.cases.filter(
        pl.col("attribute:lens") == "new", pl.col("window") == widened.cell.window
    )["occurred_at"]
    (mark,) = list_first_values(found)[widened.cell]
    assert (mark.at, mark.text) == (occurred.min(), "first case with lens = new")
    timeline = next(
        timeline
        for timeline in compute_cell_timelines(found, {})
        if (timeline.site, timeline.window) == (widened.cell.site, widened.cell.window)
    )
    assert mark in timeline.marks
    assert [m.at for m in timeline.marks] == sorted(m.at for m in timeline.marks)


def test_a_value_from_shadow_or_of_a_report_without_shadow_is_none(told):
    inputs, _ = told
    widened = find_widening(inputs)
    assert list_first_values(with_lenses(inputs, widened.at - 12 * HOUR))[widened.cell] == ()
    later = with_lenses(inputs, widened.at + HOUR)
    cases = later.cases.filter(pl.col("occurred_at") >= widened.at)
    assert list_first_values(replace(later, cases=cases))[widened.cell] == ()


def test_events_name_the_new_values_of_a_policy_with_familiar_ones(told):
    inputs, _ = told
    found = with_lenses(inputs, find_widening(inputs).at + HOUR)
    evidence = replace(found.policy.evidence, familiar=object())
    assert list_first_values(replace(found, policy=replace(found.policy, evidence=evidence))) == {}
