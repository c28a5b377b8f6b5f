"""Forgetting in a policy file: what it is, where it is refused, and what changing it means."""

import pytest

from rollout.core.policy.evidence_blocks import BlockRule
from rollout.core.policy.record_definition import compute_definition, is_redefined
from rollout.core.policy.risk_shares import compute_yearly_share
from rollout.core.scope.policy_diff import list_looser_rules
from rollout.core.statistics.evidence import count_further_agreements
from rollout.formats.policy.reader import InvalidPolicyError, parse_policy
from rollout.services.policies.planning import build_policy_plan, format_plan

POLICY = """
rollout: mail
timezone: UTC
levers: [{id: desk, labels: [claims, sales]}]
sites: [lisbon]
stages: [{id: supervised, blind: 20%}]
outcomes: [{id: profit, from: -20, to: 60, in: EUR, better: more, closes: 14d}]
evidence: {unit: case, forget: weekly}
gates: [{to: supervised, require: [{measure: agreement, at_least: 90%}]}]
"""
FORGET = "forget: weekly"
AGREEMENT = "{measure: agreement, at_least: 90%}"


def with_forget(text):
    return parse_policy(POLICY.replace(FORGET, text, 1))


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("forget: weekly", BlockRule()),
        ("forget: 100 units", BlockRule(100)),
        ("forget: never", None),
        ("outside: blind", None),
    ],
)
def test_a_policy_says_how_evidence_is_forgotten(text, rule):
    assert with_forget(text).evidence.forget == rule


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("forget: daily", "'daily' is not offered; write never, weekly, or a number: 200 units"),
        ("forget: 100", "'100' is not offered; write never, weekly, or a number: 200 units"),
        ("forget: 49 units", "'49 units' is outside what is offered; write 50 to 1,000,000 units"),
        ("forget: 1000001 units", "is outside what is offered; write 50 to 1,000,000 units"),
        (
            "forget: weekly, confidence_floors: [0%, 80%]",
            "can't forget at several confidence floors yet; write one floor, or write forget: nev",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_to_do(text, fault):
    with pytest.raises(InvalidPolicyError) as refusal:
        with_forget(text)
    assert fault in str(refusal.value)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("{measure: agreement, slice: form, at_least: 80%}", "each form keeps all its units"),
        ("{measure: gain, of: profit, at_least: 0}", "a gain keeps all its outcomes"),
        (
            "{measure: recall, label: claims, of: planted, at_least: 80%}",
            "planted cases are kept whole",
        ),
    ],
)
def test_conditions_that_keep_everything_are_refused(row, problem):
    text = POLICY.replace(AGREEMENT, f"{AGREEMENT}, {row}", 1)
    with pytest.raises(InvalidPolicyError) as refusal:
        parse_policy(text)
    fault = f"can't forget yet: {problem}; remove it, or write forget: never"
    assert fault in str(refusal.value)
    assert "can't forget" not in find_faults(text.replace(FORGET, "forget: never", 1))


def find_faults(text):
    try:
        parse_policy(text)
    except InvalidPolicyError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("row", ["recall, label: claims", "precision, label: sales", "parity"])
def test_other_measures_are_forgotten(row):
    text = POLICY.replace("measure: agreement, at_least: 90%", f"measure: {row}, at_least: 50%", 1)
    assert "forget" not in find_faults(text)


def test_another_rule_is_a_new_definition_and_none_is_the_old_one():
    weekly, by_units, never, unwritten = map(
        with_forget, (FORGET, "forget: 100 units", "forget: never", "grace: 24h")
    )
    cell = weekly.cells[0]
    assert is_redefined(never, weekly, cell)
    assert is_redefined(weekly, by_units, cell)
    assert compute_definition(never, cell) == compute_definition(unwritten, cell)


def test_forgetting_is_looser_and_keeping_everything_is_not():
    weekly, by_units, never = map(with_forget, (FORGET, "forget: 100 units", "forget: never"))
    [sentence] = list_looser_rules(never, weekly)
    assert sentence.startswith(
        "gates forget a bad past, weekly, where gates forgot nothing: a good"
    )
    assert "100 units instead of weekly" in list_looser_rules(weekly, by_units)[0]
    assert list_looser_rules(weekly, weekly) == ()
    assert list_looser_rules(weekly, never) == ()


def test_plan_says_what_forgetting_promises_and_counts_at_its_part_of_the_risk():
    weekly, never = (
        " ".join(format_plan(build_policy_plan(with_forget(text))).split())
        for text in (FORGET, "forget: never")
    )
    assert (
        "gates forget a bad past (weekly): a cell that turned good opens on what it did" in weekly
    )
    assert "as long as no stretch from a block's start to now has an average above" in weekly
    assert "has 80 % of the risk, as counted above" in weekly
    assert "forget" not in never
    for text, part in ((weekly, 0.8), (never, 1.0)):
        risk = 0.05 * compute_yearly_share(1) * part
        records = count_further_agreements(0, 0, at_least=0.9, alpha=risk)
        assert f"at least 90 %: {records} decisions if all agree" in text
