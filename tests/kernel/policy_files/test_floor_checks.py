"""Confidence floors in a policy file: what they are, and where several are refused."""

import pytest

from rollout.features.policies.planning import build_policy_plan, format_plan
from rollout.kernel.policy.cell_evidence import compute_gate_risk, list_floors
from rollout.kernel.policy.record_definition import is_redefined
from rollout.kernel.policy_files.reader import InvalidPolicyError, parse_policy
from tests.looser import say_looser_rules

POLICY = """
rollout: mail
timezone: UTC
levers: [{id: desk, labels: [claims, sales]}]
sites: [lisbon]
stages: [{id: supervised, blind: 20%}]
evidence: {unit: case, confidence_floors: [0%, 60%, 97%]}
gates: [{to: supervised, require: [{measure: agreement, at_least: 90%}]}]
"""
FLOORS = "confidence_floors: [0%, 60%, 97%]"


def with_floors(text, base=POLICY):
    assert FLOORS in base
    return base.replace(FLOORS, text, 1)


def test_floors_are_a_rising_list_of_shares():
    assert list_floors(parse_policy(POLICY).evidence) == (0.0, 0.6, 0.97)


def test_one_floor_is_the_single_key():
    listed, single = (
        parse_policy(with_floors(text))
        for text in ("confidence_floors: [60%]", "confidence_floor: 60%")
    )
    assert listed.evidence.lowest_floor == single.evidence.lowest_floor == 0.6
    assert listed.evidence.higher_floors == ()
    assert not any(is_redefined(listed, single, cell) for cell in listed.cells)


@pytest.mark.parametrize(
    ("floors", "fault"),
    [
        ("confidence_floors: []", "names no floor; write a list such as"),
        ("confidence_floors: 60%", "names no floor; write a list such as"),
        ("confidence_floors: [60%, 0%]", "write each floor once, in ascending order"),
        ("confidence_floors: [60%, 60%]", "write each floor once, in ascending order"),
        ("confidence_floors: [0, .1, .2, .3, .4, .5, .6, .7, .8]", "has 9 floors; write at most 8"),
        ("confidence_floors: [0%, 120%]", "at most 100%"),
        ("confidence_floors: [0%, 80%], confidence_floor: 60%", "are both written; write one"),
        (FLOORS + ", familiar: {attributes: [form]}", "remove familiar"),
    ],
)
def test_a_list_that_makes_no_sense_is_refused_with_what_to_do(floors, fault):
    with pytest.raises(InvalidPolicyError, match=fault):
        parse_policy(with_floors(floors))


GATE = "{measure: agreement, at_least: 90%}"
LEVER = "{id: desk, labels: [claims, sales]}"
GAIN = "{measure: gain, of: profit, at_least: 0}"
REFUSED = {
    "several levers": (LEVER, f"{LEVER}, {{id: ring, labels: [a, b]}}", "one confidence for 2"),
    "sets": (LEVER, "{id: desk, labels: [a, b], many: true}", "desk has sets of labels"),
    "numbers": (
        LEVER,
        "{id: desk, number: {from: 0, to: 9, in: EUR, tolerance: 1}}",
        "desk has a number, and confidence is of one label",
    ),
    "episodes": ("unit: case", "unit: episode", "write unit: case"),
    "slices": (GATE, f"{GATE}, {{measure: agreement, slice: form, at_least: 80%}}", "several conf"),
    "planted": (
        GATE,
        f"{GATE}, {{measure: recall, label: claims, of: planted, at_least: 80%}}",
        "can't be read at several confidence floors yet",
    ),
    "drift": (
        "gates:",
        "guards: [{measure: drift, at_most: 0.2, then: report}]\ngates:",
        "can't be read at several confidence floors yet",
    ),
    "gains at a gate": (
        f"{{to: supervised, require: [{GATE}]}}",
        f"{{to: supervised, require: [{GATE}, {GAIN}]}}",
        "can't be read at several confidence floors yet",
    ),
    "gains of a guard": (
        "gates:",
        f"guards: [{GAIN}]\ngates:",
        "can't be read at several confidence floors yet",
    ),
    "a familiar rule": (
        "unit: case",
        "unit: case, familiar: {attributes: [form]}",
        "familiar cases have no floors of their own yet",
    ),
    "waves": ("gates:", "waves: {stage: supervised}\ngates:", "or remove waves"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_several_floors_cannot_have_is_refused_with_what_to_do(name):
    old, new, fault = REFUSED[name]
    assert old in POLICY
    with pytest.raises(InvalidPolicyError, match=fault) as refusal:
        parse_policy(POLICY.replace(old, new, 1))
    assert "write one floor" in str(refusal.value)


@pytest.mark.parametrize("measure", ["recall, label: claims", "precision, label: sales"])
def test_other_measures_have_floors(measure):
    parse_policy(POLICY.replace(GATE, f"{{measure: {measure}, at_least: 90%}}", 1))


ALLOWED = {
    "a lever that is named": (GATE, "{measure: agreement, lever: desk, at_least: 90%}"),
    "cost": (GATE, "{measure: cost, at_most: 0.1}"),
    "two conditions": (GATE, f"{GATE}, {{measure: cost, at_most: 0.1}}"),
    "a majority of three": ("unit: case", "unit: case, verdicts: 3"),
    "releases": ("unit: case", "unit: case, releases: 12"),
    "a share of cases": ("blind: 20%", "share: 20%"),
    "a stage in which the model decides": ("blind: 20%", "audit: 20%"),
    "limits": ("gates:", "limits: [{sites: [lisbon], never_above: supervised}]\ngates:"),
    "takeovers at the same stage": ("gates:", "takeover: same-stage\ngates:"),
    "freezes": (
        "gates:",
        "freezes: [{hours: Dec 24-26, reason: holiday}]\ngates:",
    ),
    "slices that reports show": ("gates:", "slices: [form]\ngates:"),
    **{
        f"the guard {guard.partition(',')[0]}": (
            "gates:",
            f"guards: [{{measure: {guard}}}]\ngates:",
        )
        for guard in (
            "agreement, at_least: 80%",
            "recall, label: claims, at_least: 80%",
            "precision, label: claims, at_least: 80%",
            "cost, at_most: 0.3",
            "override, at_most: 20%",
            "action_change, action: sales, at_most: 5",
            "missing, at_most: 5%",
            "latency_p95, at_most: 2s",
            "failures, at_most: 2%",
            "heartbeat, at_most: 2h",
            "harm, at_most: 1",
        )
    },
}


@pytest.mark.parametrize("name", ALLOWED)
def test_what_several_floors_may_have_leaves_them_as_they_are(name):
    old, new = ALLOWED[name]
    assert old in POLICY
    policy = parse_policy(POLICY.replace(old, new, 1))
    assert list_floors(policy.evidence) == (0.0, 0.6, 0.97)
    share = compute_gate_risk(policy, policy.gates[0], 0.5)
    assert share == pytest.approx(policy.gates[0].risk / 6)


def test_another_list_is_a_new_definition():
    old = parse_policy(POLICY)
    for floors in ("[0%, 60%, 98%]", "[0%, 60%]", "[0%]"):
        new = parse_policy(with_floors(f"confidence_floors: {floors}"))
        assert all(is_redefined(old, new, cell) for cell in old.cells)


def test_a_looser_list_is_called_looser():
    old = parse_policy(POLICY)
    fewer, other = (
        parse_policy(with_floors(f"confidence_floors: {floors}"))
        for floors in ("[0%, 60%]", "[0%, 60%, 98%]")
    )
    assert say_looser_rules(old, fewer) == (
        "fewer confidence floors share the risk, so each has more: 1/2 instead of 1/3",
    )
    assert "floors 0.98" in say_looser_rules(old, other)[0]
    assert say_looser_rules(old, old) == ()


def test_plan_counts_the_records_of_a_floor_at_its_share_of_the_risk():
    one, three = (
        " ".join(format_plan(build_policy_plan(parse_policy(text))).split())
        for text in (with_floors("confidence_floors: [0%]"), POLICY)
    )
    assert "3 confidence floors, 0 %, 60 % and 97 %, have a gate each" in three
    assert "confidence floors" not in one
    assert "each has 1/3 of the risk" in three
    assert "at least 90 %: 58 decisions if all agree" in three
    assert "at least 90 %: 47 decisions if all agree" in one


def test_plan_says_what_an_alarm_does_to_the_floor():
    guard = "guards: [{measure: agreement, at_least: 80%}]\ngates:"
    text = format_plan(build_policy_plan(parse_policy(POLICY.replace("gates:", guard, 1))))
    words = " ".join(text.split())
    assert "raises the confidence floor; if no stricter one is calm, narrows by one stage" in words
