"""Which cases and values a unit with an outcome has when its deadline passes, to the instant."""

from dataclasses import replace

import polars as pl
import pytest

from rollout.engine.decide.assignment import MAX_CLOCK_SKEW
from rollout.engine.evidence.case_placement import place_cases
from rollout.engine.evidence.frames import build_outcomes_schema
from rollout.engine.evidence.outcome_resolution import resolve_outcome_units
from rollout.engine.evidence.version_uses import Use, VersionUses
from rollout.kernel.calendar.instants import find_slot_after
from rollout.kernel.policy_files.reader import parse_policy
from tests.engine.evidence.histories import (
    HOUR,
    SALT,
    cases,
    evidence,
    hour,
    predictions,
    records,
)

POLICY = parse_policy("""
rollout: shop
timezone: UTC
levers: [{id: alarm, labels: [bear, fox]}]
sites: [creek]
stages: [{id: trial, share: 30%}]
outcomes: [{id: profit, from: 0, to: 10, in: EUR, better: more, closes: 2h}]
evidence: {unit: episode}
gates: [{to: trial, require: [{measure: agreement, at_least: 80%}]}]
tick: 1h
""")
(PROFIT,) = POLICY.outcomes
INSTANT = 1e-3 / 3600  # a millisecond in hours


def slot(number):
    return find_slot_after(hour(number), POLICY.tick)


def profits(*rows):
    """Return outcomes of (key, profit, hour)."""
    return pl.DataFrame(
        [{"case_key": key, "outcome:profit": value, "at": hour(at)} for key, value, at in rows],
        schema=build_outcomes_schema(["alarm"], ["profit"]),
    )


def resolve(history, policy=POLICY, uses=None, trained_until=None):
    placement = place_cases(history, policy, SALT, trained_until)
    if uses is not None:
        placement = replace(placement, uses=VersionUses(uses))
    return resolve_outcome_units(history, placement, policy, PROFIT).to_dicts()


def episode(key, at, **more):
    return (key, at, {"episode": "e", **more})


@pytest.mark.parametrize(
    ("received", "belongs"),
    [(11.5, ("b", slot(11), slot(14))), (11.1, ("a", slot(10), slot(13)))],  # of two at once a
)
def test_a_unit_belongs_where_the_case_that_came_first_occurred(received, belongs):
    rows = cases(episode("a", 10.2, received=received), episode("b", 11.1))
    (unit,) = resolve(records(rows, predictions(("a", "bear"), ("b", "bear"))))
    assert (unit["case_key"], unit["occurred"], unit["slot"]) == belongs


@pytest.mark.parametrize(("late", "count"), [(0, 1), (INSTANT, 0)])
def test_a_prediction_is_in_time_to_act_on_up_to_the_skew_of_clocks(late, count):
    said = predictions(("a", "bear", {"at": 10 + MAX_CLOCK_SKEW / HOUR + late}))
    assert len(resolve(records(cases(episode("a", 10)), said))) == count


@pytest.mark.parametrize(("late", "share"), [(0, 1), (INSTANT, 0)])
def test_a_value_counts_up_to_the_deadline(late, share):
    history = records(cases(episode("a", 10)), predictions(("a", "bear")))
    (unit,) = resolve(replace(history, outcomes=profits(("a", 10, 12 + late))))
    assert (unit["known_share"], unit["score"]) == (share, share)


@pytest.mark.parametrize(
    ("second", "share"),
    [
        (episode("b", 12, received=14), 1 / 2),  # a case of the unit, whose value nobody knows
        (episode("b", 12, received=14 + INSTANT), 1),
        (episode("b", 12 + INSTANT, received=14), 1),
    ],
)
def test_a_unit_has_the_cases_by_its_deadline_that_came_before_it_counted(second, share):
    rows = cases(episode("a", 10, received=14), second)
    history = records(rows, predictions(("a", "bear")))
    (unit,) = resolve(replace(history, outcomes=profits(("a", 10, 11))))
    assert (unit["slot"], unit["known_share"]) == (slot(14), share)


@pytest.mark.parametrize(("used", "count"), [(11, 1), (12, 0)])
def test_a_silent_unit_counts_after_the_slot_that_brought_its_version_into_use(used, count):
    uses = {("creek", "always", "v1"): Use(slot(1), slot(used))}
    units = resolve(records(cases(episode("a", 10))), uses=uses)
    assert [unit["slot"] for unit in units] == [slot(12)] * count


@pytest.mark.parametrize(("sure", "count"), [(0.8, 1), (0.79, 0), (None, 0)])
def test_chance_draws_the_cases_at_the_floor_and_above(sure, count):
    history = records(cases(episode("a", 10)), predictions(("a", "bear", {"confidence": sure})))
    assert len(resolve(history, evidence(POLICY, confidence_floor=0.8))) == count


@pytest.mark.parametrize(("until", "count"), [(10, 0), (10 - INSTANT, 1)])
def test_a_case_up_to_the_last_of_training_is_no_unit(until, count):
    history = records(cases(episode("a", 10)), predictions(("a", "bear")))
    assert len(resolve(history, trained_until={"v1": hour(until)})) == count


def test_a_case_that_its_sender_may_not_register_is_no_unit():
    history = records(cases(), predictions(("a", "bear")))
    assert resolve(replace(history, guard_cases=cases(episode("a", 10)))) == []
