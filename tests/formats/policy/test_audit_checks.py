"""Audits by confidence in a policy file: what is read, and what they can't have beside them."""

from dataclasses import replace

import pytest

from rollout.core.policy.record_definition import is_redefined
from rollout.core.policy.stages import UnsureShare
from rollout.core.scope.policy_diff import list_looser_rules
from rollout.formats.policy.reader import InvalidPolicyError, parse_policy
from tests.formats.policy.test_floor_checks import GAIN, GATE, LEVER

AUDIT = "audit: {least: 5%, below: {90%: 20%, 0.6: 50%}}"
POLICY = f"""
rollout: mail
timezone: UTC
levers: [{LEVER}]
outcomes: [{{id: profit, from: -20, to: 60, in: EUR, closes: 14d}}]
sites: [lisbon]
stages: [{{id: trial, share: 20%}}, {{id: alone, {AUDIT}}}]
evidence: {{unit: case}}
gates:
  - {{to: trial, require: [{GATE}]}}
  - {{to: alone, require: [{GATE}]}}
"""
REFUSED = {
    "episodes": ("unit: case", "unit: episode", "the cases of an episode have one each"),
    "several floors": (
        "unit: case",
        "unit: case, confidence_floors: [0%, 60%]",
        "each of several floors has guards of its own, without weights",
    ),
    "gains of a guard": (
        "gates:",
        f"guards: [{GAIN}]\ngates:",
        "a gain knows one share for each arm",
    ),
}
ALLOWED = {
    "sets": (LEVER, "{id: desk, labels: [a, b], many: true}"),
    "numbers": (LEVER, "{id: desk, number: {from: 0, to: 9, in: EUR, tolerance: 1}}"),
    "several levers": (LEVER, f"{LEVER}, {{id: ring, labels: [a, b]}}"),
    "one floor": ("unit: case", "unit: case, confidence_floor: 30%"),
    "a share of cases": ("{id: alone, ", "{id: alone, share: 70%, "),
    "a blind share": ("{id: alone, ", "{id: alone, blind: 20%, "),
    "a majority": ("unit: case", "unit: case, verdicts: 3"),
    "familiar values": ("unit: case", "unit: case, familiar: {attributes: [form]}"),
    "slices": (GATE, f"{GATE}, {{measure: agreement, slice: form, at_least: 80%}}"),
}


def test_shares_are_read_from_the_least_sure_on():
    stage = parse_policy(POLICY).stages[1]
    assert (stage.audit, stage.unsure) == (0.05, (UnsureShare(0.6, 0.5), UnsureShare(0.9, 0.2)))
    assert stage.model_decides
    assert parse_policy(POLICY.replace(AUDIT, "audit: 5%")).stages[1].unsure == ()


@pytest.mark.parametrize("name", REFUSED)
def test_what_audits_by_confidence_cannot_have_is_refused_with_what_to_do(name):
    old, new, fault = REFUSED[name]
    assert old in POLICY
    with pytest.raises(InvalidPolicyError, match=fault) as refusal:
        parse_policy(POLICY.replace(old, new, 1))
    assert "write one share, such as audit: 10%" in str(refusal.value)


@pytest.mark.parametrize("name", ALLOWED)
def test_what_audits_by_confidence_may_have(name):
    old, new = ALLOWED[name]
    assert old in POLICY
    assert parse_policy(POLICY.replace(old, new, 1)).stages[-1].unsure


def test_turning_them_on_restarts_nothing():
    uniform, unsure = parse_policy(POLICY.replace(AUDIT, "audit: 5%")), parse_policy(POLICY)
    assert not any(is_redefined(uniform, unsure, cell) for cell in unsure.cells)
    assert list_looser_rules(uniform, unsure) == ()
    (looser,) = list_looser_rules(unsure, uniform)
    assert looser == "alone: fewer audits of cases of confidence below 0.9, 5 %"
    more = replace(unsure, stages=(unsure.stages[0], replace(unsure.stages[1], audit=0.06)))
    assert list_looser_rules(unsure, more) == ()
