"""Gates that ask for planted cases beside the cases that occur."""
# ruff: noqa: E501 - a table of cases reads best with one line for each

import pytest

from rollout.features.policies.planning import build_policy_plan, format_plan
from rollout.kernel.measures import MEASURES, Condition
from rollout.kernel.policy_files.reader import InvalidPolicyError, parse_policy
from rollout.kernel.populations import PlantedUnits
from tests.looser import say_looser_rules

NATURAL = "{measure: agreement, at_least: 90%}"
PLANTED = "{measure: recall, label: bear, of: planted, at_least: 95%}"
POLICY = f"""
rollout: bears
timezone: UTC
levers: [{{id: alarm, labels: [bear, none]}}]
sites: [creek]
evidence: {{unit: case}}
gates: [{{to: supervised, require: [{NATURAL}, {PLANTED}]}}]
expect: {{units_per_day: 60, labels: {{bear: 2%}}, agreement: 98%}}
"""


def find_faults(old, new):
    assert old in POLICY
    try:
        parse_policy(POLICY.replace(old, new), name="p.yaml")
    except InvalidPolicyError as refusal:
        return [str(fault) for fault in refusal.faults]
    return []


def test_a_gate_may_ask_for_planted_cases_and_no_guard_follows():
    policy = parse_policy(POLICY)
    condition = Condition(MEASURES["recall"], 0.95, label="bear", population=PlantedUnits())
    assert policy.gates[0].require[1] == condition
    assert str(condition) == "recall of bear of planted cases at least 95 %"
    assert [guard.condition.measure.name for guard in policy.guards if guard.added][:-1] == [
        "agreement"
    ]


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (f"[{NATURAL}, {PLANTED}]", f"[{PLANTED}]", "requires planted cases alone"),
        ("of: planted", "of: seeded", "can only be planted for recall"),
        (
            PLANTED,
            "{measure: precision, label: bear, of: planted, at_least: 95%}",
            "does not apply to precision",
        ),
        (
            PLANTED,
            "{measure: agreement, of: planted, slice: group, at_least: 95%}",
            "planted cases have no slices",
        ),
        ("expect:", f"guards: [{PLANTED}]\nexpect:", "guards watch the cases that occur"),
    ],
)
def test_what_planted_cases_cannot_prove_is_refused(old, new, fault):
    assert any(fault in text for text in find_faults(old, new)), find_faults(old, new)


@pytest.mark.parametrize(
    ("new", "looser"),
    [
        (
            "",
            ["supervised no longer requires recall of bear of planted cases at least 95 %"],
        ),
        (
            f", {PLANTED.replace('95', '90')}",
            ["supervised requires recall of bear of planted cases at least 90 % instead of 95 %"],
        ),
        (
            f", {PLANTED.replace('of: planted, ', '')}",
            ["supervised no longer requires recall of bear of planted cases at least 95 %"],
        ),
        (f", {PLANTED.replace('95', '97')}", []),
    ],
)
def test_to_ask_for_less_of_planted_cases_is_looser(new, looser):
    old = parse_policy(POLICY)
    found = say_looser_rules(old, parse_policy(POLICY.replace(f", {PLANTED}", new)))
    assert [text for text in found if "planted" in text] == looser


def test_a_plan_says_how_many_to_plant_and_dates_the_rest():
    with_planted, without = (
        format_plan(build_policy_plan(parse_policy(text)))
        for text in (POLICY, POLICY.replace(f", {PLANTED}", ""))
    )
    need = "planted cases that reviewers call bear with a blind decision, if all agree; users declare them"
    (line,) = (row for row in with_planted.splitlines() if "planted" in row)
    assert need in line
    assert [row for row in without.splitlines() if "shadow → supervised" in row] == [
        row for row in with_planted.splitlines() if "shadow → supervised" in row
    ]
