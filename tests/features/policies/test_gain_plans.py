"""What `plan` tells about gates on gain."""

import pytest

from rollout.features.policies.gate_forecast import count_needed_units, list_gain_warnings
from rollout.features.policies.planning import build_policy_plan, format_plan
from rollout.kernel.policy_files.reader import parse_policy
from tests.engine.slots.pricing import POLICY


@pytest.mark.parametrize(
    ("gain", "share", "spread", "once"),
    [(0.05, 0.5, 0.5, 2_473), (0.1, 0.1, 0.2, 275), (0.2, 0.3, 0.5, 184), (0.1, 0.3, 0.2, 118)],
)
def test_a_gate_needs_two_fifths_more_than_twice_a_t_test(gain, share, spread, once):
    """`once` are published sizes of a t-test with power .8, looked at once."""
    assert count_needed_units(gain, share, 0.05, spread) == pytest.approx(2.2 * once, rel=0.01)


def test_the_plan_names_units_amounts_and_the_stage_that_measures():
    text = format_plan(build_policy_plan(parse_policy(POLICY)))
    assert "\nObjective: more profit per sale; measured by profit (EUR, more is better).\n" in text
    assert "no date, because what the model brings is unknown" in text
    assert "gain of profit at least 0 EUR: units at trial, 10 % of them by the model: about" in text
    assert "for +8 EUR" in text
    assert "a unit counts 2d after its case" in text


def test_the_plan_says_how_seldom_guards_on_units_are_wrong():
    text = format_plan(build_policy_plan(parse_policy(f"{POLICY}expect: {{units_per_day: 40}}\n")))
    promise = "\n    expected to trip at a cell exactly at this limit less than once in {} units"
    effect = "narrows by one stage"
    assert f"gain of profit at least -1 EUR: {effect}{promise.format('2,000')}" in text
    assert f"{effect} (added automatically for a gate){promise.format('10,000')}" in text
    assert "false_alarm_every has no effect" not in text
    # 40 units a day for the guard on gain, at most the half of them with a decision for the other
    assert "false alarms: at most about one in 6 weeks" in text


def test_the_plan_says_that_yes_or_no_values_need_more_units():
    more = "(standard deviation), up to 6 times as many if each is 0 or 1; a unit counts"
    assert more not in format_plan(build_policy_plan(parse_policy(POLICY)))
    policy = POLICY.replace("from: -20, to: 60, in: EUR", "from: 0, to: 1").replace("-1,", "-0.1,")
    assert more in format_plan(build_policy_plan(parse_policy(policy)))


def test_a_small_arm_and_a_missing_objective_are_warned_of():
    policy = f"{POLICY}takeover: trial\n"
    assert not list(list_gain_warnings(parse_policy(policy)))
    small = policy.replace("share: 10%", "share: 5%").replace(
        "objective: more profit per sale, ", ""
    )
    warnings = [str(warning) for warning in list_gain_warnings(parse_policy(small))]
    assert warnings == [
        (
            "stages[0]: the model's arm has 5 % of units, so a gain or loss is found slowly; write"
            " 10% or more of each"
        ),
        "charter: lacks the objective that the outcomes measure",
    ]


@pytest.mark.parametrize(
    ("takeover", "warning"),
    [
        ("same-stage", "in the model's arm: it never meets the gate to half"),
        ("half", "with takeover: trial operators may propose it there"),
        ("trial", ""),
        ("shadow", ""),
    ],
)
def test_a_gain_that_no_challenger_can_show_is_warned_of(takeover, warning):
    policy = parse_policy(f"{POLICY}takeover: {takeover}\n")
    warnings = [str(item) for item in list_gain_warnings(policy)]
    assert [warning in item for item in warnings] == [True] * bool(warning), warnings
