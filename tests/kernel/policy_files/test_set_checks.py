"""Levers whose answers are sets of labels in a policy file."""

import pytest

from rollout.features.policies.planning import build_policy_plan, format_plan
from rollout.kernel.policy.record_definition import is_redefined
from rollout.kernel.policy_files.reader import InvalidPolicyError, parse_policy
from tests.looser import say_looser_rules

POLICY = """
rollout: ads
timezone: UTC
levers: [{id: logos, labels: [nike, puma, ikea], many: true, overlap: 80%}]
sites: [stadium]
evidence: {unit: case, second_verdict: 20%}
gates: [{to: supervised, require: [{measure: agreement, at_least: 90%}]}]
"""
GATE = "{measure: agreement, at_least: 90%}"


def edit(edits):
    text = POLICY
    for old, new in edits.items():
        assert old in text, old
        text = text.replace(old, new, 1)
    return text


def test_a_lever_has_sets_that_agree_by_their_overlap():
    (lever,) = parse_policy(POLICY).levers
    assert (lever.many, lever.overlap, lever.has_single_labels) == (True, 0.8, False)
    assert lever.find_action("ikea;nike") == "ikea;nike"
    assert lever.find_action("nike;ikea") is None
    assert lever.compute_cost("nike", "nike;puma") == 1
    (strict,) = parse_policy(edit({", overlap: 80%": ""})).levers
    assert strict.overlap == 1


@pytest.mark.parametrize(
    ("edits", "fault"),
    [
        ({"many: true": "many: false"}, "levers[0].overlap: is of sets of labels; write many"),
        ({"many: true, overlap: 80%": "overlap: 100%"}, "levers[0].overlap: is of sets of labels"),
        ({"80%": "0%"}, "levers[0].overlap: 0% would let any two sets agree"),
        ({"80%": "80%, actions: {nike: alarm}"}, "levers[0].actions: a set is its own action"),
        ({"80%": "80%, costs: [{did: nike, cost: 2}, {cost: 1}]"}, "levers[0].costs: sets that"),
        ({"puma": "'a;b'"}, "levers[0].labels[1]: has ';', which the text of a set needs"),
        ({"puma": "'a ≈ b'"}, "levers[0].labels[1]: has '≈'"),
        ({"puma": "(none of them)"}, "levers[0].labels[1]: is '(none of them)'"),
        ({"puma": "p" * 500}, "levers[0].labels: take 510 bytes together, and a set has at most"),
        (
            {"labels: [nike, puma, ikea]": "number: {in: m, from: 0, to: 1, tolerance: 0.1}"},
            "levers[0].many: is for labels",
        ),
    ],
)
def test_what_does_not_fit_sets_is_refused_with_what_to_write(edits, fault):
    with pytest.raises(InvalidPolicyError) as refusal:
        parse_policy(edit(edits), name="p.yaml")
    assert fault in " ".join(str(found) for found in refusal.value.faults)


@pytest.mark.parametrize("guard", ["{measure: drift, at_most: 10%}"])
def test_a_guard_on_single_answers_is_refused(guard):
    with pytest.raises(InvalidPolicyError, match="lever logos has sets of labels, and drift"):
        parse_policy(POLICY + f"guards: [{guard}]")


def test_the_plan_says_when_sets_agree():
    lines = format_plan(build_policy_plan(parse_policy(POLICY))).splitlines()
    text = "Answers: logos is a set of 3 labels; sets agree"
    assert f"{text} with at least 80 % of their labels in common." in lines
    strict = parse_policy(edit({", overlap: 80%": ""}))
    assert f"{text} if they are equal." in format_plan(build_policy_plan(strict)).splitlines()


@pytest.mark.parametrize("measure", ["recall", "precision"])
def test_a_gate_asks_for_a_label_of_sets(measure):
    text = edit({GATE: f"{{measure: {measure}, label: puma, at_least: 90%}}"})
    assert parse_policy(text).gates[0].require[0].label == "puma"


@pytest.mark.parametrize(
    ("edits", "sentence"),
    [
        ({"80%": "60%"}, "lever logos: sets agree from an overlap of 60 % on, where it was 80 %"),
        ({", many: true, overlap: 80%": ""}, "an answer is one label, where it was a set"),
    ],
)
def test_a_looser_set_is_named_and_restarts_the_evidence(edits, sentence):
    old, new = parse_policy(POLICY), parse_policy(edit(edits))
    assert sentence in " ".join(say_looser_rules(old, new))
    assert is_redefined(old, new, old.cells[0])
    if new.levers[0].many:
        assert not say_looser_rules(new, old)
