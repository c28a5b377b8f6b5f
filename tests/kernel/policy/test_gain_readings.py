"""Readings of a condition on gain: both arms, missing outcomes, and every slot alike."""

import re
from datetime import timedelta
from math import log

import numpy as np
import pytest

from rollout.kernel.measures import MEASURES, Condition
from rollout.kernel.policy.gates import GainReading, is_gain_met, read_gain
from rollout.kernel.populations import BothArms
from rollout.kernel.statistics.gain import ArmUnits, build_empty_arms
from rollout.kernel.units import DECIDES, OutcomeRule
from rollout.kernel.words import say_figures, say_reading

PROFIT = OutcomeRule("profit", -20, 60, timedelta(days=2), "EUR", missing_at_most=0.05)
CONDITION = Condition(MEASURES["gain"], 0.0, population=BothArms(PROFIT, DECIDES))
PAIRS = 60


def build_units(missing=0):
    """Return pairs of a good unit of the model and one of people, the last ones missing."""
    known = np.ones(2 * PAIRS)
    known[2 * PAIRS - missing :] = 0
    return ArmUnits(
        slots=np.arange(2 * PAIRS) // 3,
        scores=np.tile([0.9, 0.5], PAIRS),
        is_model=np.tile([True, False], PAIRS),
        shares=np.full(2 * PAIRS, 0.5),
        known_shares=known,
    )


@pytest.mark.parametrize(("missing", "is_met"), [(0, True), (6, True), (7, False)])
def test_too_many_missing_outcomes_hold_a_gate_and_void_its_proposal(missing, is_met):
    reading = GainReading(CONDITION, build_units(missing), 0.05)
    assert reading.log_e > 3
    assert (reading.is_met, reading.has_turned) == (is_met, not is_met)


@pytest.mark.parametrize("risk", [0.05, 1.0])
@pytest.mark.parametrize("missing", [0, 7])
def test_each_slot_is_met_as_its_reading(missing, risk):
    units = build_units(missing)
    slots = np.arange(-1, 45)
    expected = [
        GainReading(CONDITION, units.select(units.slots <= slot), risk).is_met for slot in slots
    ]
    assert is_gain_met(CONDITION, units, slots, risk).tolist() == expected
    assert any(expected)


def test_one_arm_alone_never_passes_and_nothing_renews_on_nothing():
    units = build_units()
    assert not GainReading(CONDITION, units.select(units.is_model), 1.0).is_met
    nothing = GainReading(CONDITION, build_empty_arms(), 1.0)
    assert (nothing.is_met, nothing.log_e, nothing.estimate, nothing.bound) == (
        False,
        0.0,
        None,
        None,
    )


def test_an_arm_that_lost_its_units_opens_nothing():
    units = build_units()
    is_left = units.is_model | (np.arange(len(units)) < 4)
    few = units.select(is_left)
    below = Condition(MEASURES["gain"], -4.0, population=BothArms(PROFIT, DECIDES))
    reading = GainReading(below, few, 0.05)
    assert reading.log_e > 3, "the model's units alone would do"
    assert (reading.is_met, reading.has_turned) == (False, True)
    assert re.search(
        r"without outcome, not the arms that were sampled \(E [\d.e+]+\), log E",
        say_reading(read_gain(below, few, 0.05).store(None)),
    )
    assert reading.arm_log_e > log(1000)
    slots = np.arange(45)
    expected = [
        GainReading(below, few.select(few.slots <= slot), 0.05).is_met for slot in slots.tolist()
    ]
    assert is_gain_met(below, few, slots, 0.05).tolist() == expected
    assert not expected[-1]


@pytest.mark.parametrize("unit", ["EUR", "", "kg of CO2"])
@pytest.mark.parametrize("low", [-20, -20_000])
@pytest.mark.parametrize(("count", "risk"), [(0, 0.05), (1, 0.05), (120, 0.05), (120, 1.0)])
def test_a_stored_reading_gives_its_figures_back(count, risk, low, unit):
    outcome = OutcomeRule("profit", low, -2 * low, timedelta(days=2), unit, missing_at_most=0.05)
    condition = Condition(MEASURES["gain"], 0.0, population=BothArms(outcome, DECIDES))
    units = build_units(missing=3)
    gain = GainReading(condition, units.select(np.arange(len(units)) < count), risk)
    stored = read_gain(condition, gain.units, risk).store(None)
    assert stored.parse_condition() == condition
    assert (stored.counts, stored.is_enough) == (gain.counts, gain.is_met)
    if gain.estimate is None:
        assert stored.estimate == ""
    else:
        assert float(stored.estimate) == pytest.approx(gain.estimate, rel=1e-5)
    has_bound = gain.estimate is not None and gain.bound is not None
    assert bool(stored.bound) == has_bound
    if has_bound:
        assert float(stored.bound) == pytest.approx(gain.bound, rel=0.01)


def test_a_stored_reading_of_lost_arms_is_not_met():
    units = build_units()
    few = units.select(units.is_model | (np.arange(len(units)) < 4))
    below = Condition(MEASURES["gain"], -4.0, population=BothArms(PROFIT, DECIDES))
    assert not read_gain(below, few, 0.05).store(None).is_enough


def say(units, risk):
    """Return the figures of a reading in words."""
    return say_figures(read_gain(CONDITION, units, risk).store(None), CONDITION)


def test_amounts_are_in_the_unit_of_the_outcome():
    reading = GainReading(CONDITION, build_units(), 0.05)
    assert reading.estimate == pytest.approx(0.4 * 80)
    assert 0 < reading.bound < reading.estimate
    text = say(build_units(), 0.05)
    assert text.endswith("; 60 by the model, 60 by people, 0 without outcome")
    assert text.startswith("+32 EUR a unit so far, at least +")
    bound = float(text.split("at least +")[1].split(" EUR")[0])
    assert 0 <= reading.bound - bound < 0.1, "rounded down"
    assert say(build_empty_arms(), 0.05) == "0 by the model, 0 by people, 0 without outcome"
    renewal = say(build_units(), 1.0)
    assert renewal.startswith("+32 EUR a unit so far; 60 by"), "no risk, so no bound"
    assert str(CONDITION) == "gain of profit at least 0 EUR"
    assert PROFIT.format_amount(1234.5) == "+1,234 EUR"
