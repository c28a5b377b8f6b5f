"""Outcomes with a value, shared stages and gates on gain in a policy file."""
# ruff: noqa: E501 - a table of cases reads best with one line for each

from datetime import timedelta

import pytest

from rollout.kernel.measures import MEASURES, Condition
from rollout.kernel.policy.stages import Stage
from rollout.kernel.policy_files.reader import InvalidPolicyError, parse_policy
from rollout.kernel.populations import BothArms
from rollout.kernel.units import DECIDES
from tests.engine.slots.pricing import POLICY
from tests.looser import say_looser_rules

PROFIT = "{id: profit, from: -20, to: 60, in: EUR, better: more, closes: 2d, missing_at_most: 5%}"
TRIAL, HALF = "{id: trial, share: 10%, audit: 20%}", "{id: half, share: 50%}"
GATE = "{measure: gain, of: profit, at_least: 0}"
START = "{measure: agreement, at_least: 40%}"


def edit(edits):
    text = POLICY
    for old, new in edits.items():
        assert old in text, old
        text = text.replace(old, new, 1)
    return text


def find_faults(edits):
    try:
        parse_policy(edit(edits), name="p.yaml")
    except InvalidPolicyError as refusal:
        return tuple(map(str, refusal.faults))
    return ()


@pytest.mark.parametrize(
    ("blind", "share"), [(0.98, 0.02), (0.985, None), (0.02, 0.98), (0.015, None), (0, None)]
)
def test_a_stage_has_two_arms_from_2_to_98_percent(blind, share):
    assert Stage("trial", blind=blind).model_share == share


def test_a_shared_stage_gives_the_rest_to_people_unseen():
    policy = parse_policy(POLICY)
    trial, half = policy.stages
    assert (trial.blind, trial.audit, trial.model_share) == (0.9, 0.2, 0.1)
    assert (half.blind, half.audit, half.model_share) == (0.5, 0.0, 0.5)
    assert trial.model_decides
    assert half.arm == DECIDES


def test_a_gate_on_gain_has_its_outcome_and_a_guard_watches_it():
    policy = parse_policy(
        edit({"guards: [{measure: gain, of: profit, at_least: -1, false_alarm_every: 2000}]": ""})
    )
    (profit,) = policy.outcomes
    assert (profit.span, profit.closes, profit.unit) == (80, timedelta(days=2), "EUR")
    assert policy.gates[1].require == (
        Condition(MEASURES["gain"], 0.0, population=BothArms(profit, DECIDES)),
    )
    added = [guard.condition for guard in policy.guards if guard.added]
    assert Condition(MEASURES["gain"], 0.0, population=BothArms(profit)) in added


@pytest.mark.parametrize(
    ("edits", "fault"),
    [
        ({"from: -20, to: 60": "from: 60, to: -20"}, "outcomes[0].from: 60 is not below to: -20; swap them"),
        ({"id: profit": "id: price", "of: profit, at_least: 0": "of: price, at_least: 0", "of: profit, at_least: -1": "of: price, at_least: -1"}, "'price' is a lever, too, and files have one column for each; rename one"),
        ({"of: profit, at_least: 0": "of: proft, at_least: 0"}, "'proft' fits no outcome; did you mean profit?"),
        ({"of: profit, at_least: 0": "at_least: 0"}, "gain is of one outcome; name it, such as of: profit"),
        ({"at_least: 40%": "of: profit, at_least: 40%"}, "can only be planted for agreement; leave it out for the cases that occur"),
        ({"of: profit, at_least: 0": "of: profit, at_least: 80"}, "80 can never be decided: between the ends of profit lie 80; write less than that"),
        ({"of: profit, at_least: 0": "of: profit, at_most: 0"}, "does not apply to gain, where higher is better; write at_least: 0"),
        ({"share: 10%, audit": "share: 10%, blind: 20%, audit"}, "stages[0].blind: share and blind exclude each other: humans decide the rest blind"),
        ({"share: 10%, audit": "share: 10%, blind: 90%, audit"}, "stages[0].blind: share and blind exclude each other: humans decide the rest blind"),
        ({"share: 50%": "share: 99%"}, "leaves one arm without units to compare; write from 2% to 98%"),
        ({START: GATE}, "trial needs a gate of its own on agreement or cost"),
        ({f"[{TRIAL}, {HALF}]": "[{id: trial, blind: 50%}, {id: half, share: 50%}]", GATE: f"{GATE}, {START}"}, "no stage below half has two arms to compare; add one before it, such as {id: trial, share: 10%}"),
        ({"grace: 2h": "grace: 2h, familiar: {attributes: [form]}"}, "units sent to humans as unfamiliar are in no arm"),
        ({HALF: "{id: half, audit: 50%}"}, "half has no second arm, so its grant could never be renewed on gain; write share: 90%, or blind: 10%, at half"),
    ],
)  # fmt: skip
def test_a_fault_says_what_to_write(edits, fault):
    faults = find_faults(edits)
    assert any(fault in line for line in faults), faults


@pytest.mark.parametrize(
    "edits",
    [
        {"from: -20, to: 60": "from: 60, to: -20"},
        {"of: profit, at_least: 0": "of: proft, at_least: 0"},
        {"of: profit, at_least: 0": "of: profit, at_least: 5%"},
        {"closes: 2d, ": ""},
        {"grace: 2h": "grace: 2h, familiar: {attributes: [form], line: 80%}"},
    ],
)
def test_one_fault_is_told_once(edits):
    assert len(find_faults(edits)) == 1, find_faults(edits)


def test_a_gate_to_a_share_needs_cases_that_occur():
    planted = START.replace("agreement", "agreement, of: planted")
    faults = find_faults({START: f"{planted}, {{measure: precision, label: sale, at_least: 50%}}"})
    assert any("trial needs a gate of its own on agreement or cost" in line for line in faults)


def test_the_base_has_no_fault():
    assert find_faults({}) == ()


@pytest.mark.parametrize(
    ("edits", "sentence"),
    [
        ({"share: 50%": "share: 60%"}, "half: the model decides a larger share of units, 60 %"),
        ({"missing_at_most: 5%": "missing_at_most: 9%"}, "more outcomes of profit may be missing: 9 %"),
        ({"to: 60": "to: 80"}, "outcome profit is measured otherwise: -20 to 80 EUR, more is better, closed after 2d, instead of -20 to 60 EUR, more is better, closed after 2d"),
        ({"of: profit, at_least: 0": "of: profit, at_least: -1"}, "half requires gain of profit at least -1 EUR instead of 0 EUR"),
    ],
)  # fmt: skip
def test_a_looser_rule_is_named(edits, sentence):
    old, new = parse_policy(POLICY), parse_policy(edit(edits))
    assert sentence in say_looser_rules(old, new)
    assert not any(s == sentence for s in say_looser_rules(new, old))
