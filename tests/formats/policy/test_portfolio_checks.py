"""Portfolios in a policy file: what a list is, where they are refused, what an edit means."""

import pytest

from rollout.core.calendar.sites import Cell
from rollout.core.scope.policy_diff import list_looser_rules
from rollout.formats.policy.reader import InvalidPolicyError, parse_policy

POLICY = """
rollout: bears
timezone: UTC
levers: [{id: alarm, labels: [bear, none]}]
sites: [creek, lodge, ridge, {id: far, wave: 2}]
windows: [{id: day, hours: "06:00-18:00"}, {id: night}]
stages: [{id: supervised, blind: 20%}, {id: autonomous, audit: 10%}]
outcomes: [{id: profit, from: -20, to: 60, in: EUR, better: more, closes: 14d}]
evidence: {unit: case}
waves: {stage: supervised}
gates:
  - {to: supervised, require: [{measure: agreement, at_least: 95%}], portfolio: {false_share: 5%}}
"""
LISTED = "portfolio: {false_share: 5%}"


def read(old="", new=""):
    assert old in POLICY
    return parse_policy(POLICY.replace(old, new, 1))


def find_faults(old, new):
    with pytest.raises(InvalidPolicyError) as refusal:
        read(old, new)
    return str(refusal.value)


def test_the_list_is_every_cell_that_the_gate_fits():
    policy = read()
    portfolio = policy.find_portfolio(1, Cell("far", "night"))
    assert portfolio.size == len(policy.cells) == 8
    assert portfolio.false_share == policy.gates[0].risk == 0.05
    assert policy.find_portfolio(2, Cell("far", "night")) is None
    assert read(LISTED, "risk: 5%").find_portfolio(1, Cell("far", "night")) is None


def test_two_gates_to_a_stage_are_two_lists():
    row = POLICY.splitlines()[-1]
    policy = read(row, f"{row.replace('{to', '{sites: [creek, lodge], to')}\n{row}")
    lists = {policy.find_portfolio(1, cell) for cell in policy.cells}
    assert sorted(portfolio.size for portfolio in lists) == [4, 4]
    assert len({portfolio.digest for portfolio in lists}) == 2


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (LISTED, f"{LISTED}, risk: 5%", "portfolio: and risk are both written; write one of them"),
        (LISTED, "portfolio: {}", "false_share"),
        (LISTED, "portfolio: 5%", "has the wrong form; write portfolio: {false_share: 5%}"),
        (LISTED, "portfolio: [5%]", "has the wrong form; write portfolio: {false_share: 5%}"),
        (LISTED, "portfolio: {false_share: 30%}", "false_share"),
        (
            "waves: {stage: supervised}",
            "waves: {stage: supervised, at_once: 2}",
            "widens cells together that need each other, and waves.at_once lets few of them",
        ),
        (
            "at_least: 95%",
            "at_least: 95%, pool: wave, each_at_least: 85%",
            "asks a question of each cell, and pool: wave one of a whole wave",
        ),
        (
            "{measure: agreement, at_least: 95%}",
            "{measure: agreement, at_least: 95%}, {measure: gain, of: profit, at_least: 0}",
            "can't count outcomes yet; remove the condition on gain",
        ),
    ],
)
def test_what_a_list_cannot_be_combined_with_is_refused_with_what_to_do(old, new, fault):
    assert fault in find_faults(old, new)


WAVES = "{unit: case}\nwaves: {stage: supervised}"


def with_floors(floors):
    return read(WAVES, f"{{unit: case, confidence_floors: {floors}}}")


def test_each_cell_is_in_the_list_at_each_confidence_floor():
    policy = with_floors("[0%, 60%, 80%]")
    (portfolio,) = policy.portfolios
    assert (len(portfolio.cells), portfolio.floors, portfolio.size) == (8, 3, 24)
    one = read(WAVES, "{unit: case, confidence_floors: [0%]}").portfolios[0]
    assert (one.floors, one.size) == (0, 8)
    assert one.digest == read(WAVES, "{unit: case}").portfolios[0].digest


@pytest.mark.parametrize("floors", ["[0%, 60%]", "[0%, 60%, 90%]", "[0%, 60%, 80%, 90%]", "[60%]"])
def test_other_floors_are_another_list_and_fewer_are_looser(floors):
    before, after = with_floors("[0%, 60%, 80%]"), with_floors(floors)
    cell = Cell("creek", "day")
    assert before.find_portfolio(1, cell).digest != after.find_portfolio(1, cell).digest
    rules = " ".join(list_looser_rules(before, after))
    count = after.portfolios[0].floors
    sentence = f"asks at {max(1, count)} confidence floors instead of 3, so each needs less"
    assert (sentence in rules) == (count < 3)
    assert "share the risk" not in rules  # no gate has a risk


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (LISTED, f"{LISTED}, risk: 5%", "and risk are both written"),
        (
            "at_least: 95%}",
            "at_least: 95%}, {measure: gain, of: profit, at_least: 0}",
            "can't count outcomes yet",
        ),
    ],
)
def test_with_floors_the_same_is_refused(old, new, fault):
    text = POLICY.replace(WAVES, "{unit: case, confidence_floors: [0%, 80%]}")
    assert old in text
    with pytest.raises(InvalidPolicyError) as refusal:
        parse_policy(text.replace(old, new, 1))
    assert fault in str(refusal.value)


def test_a_condition_of_a_gate_below_counts_too():
    row = POLICY.splitlines()[-1]
    pooled = row.replace("95%", "95%, pool: wave, each_at_least: 85%")
    above = row.replace("supervised", "autonomous")
    text = f"{pooled.replace(LISTED, 'risk: 5%')}\n{above}"
    assert "remove pool: wave here and in the gates below" in find_faults(row, text)


@pytest.mark.parametrize(
    ("old", "new", "is_other", "sentence"),
    [
        (LISTED, "portfolio: {false_share: 5.0%}", False, ""),
        (LISTED, f"{LISTED}, minimum: {{units: 200}}", False, ""),
        ("ridge, ", "", True, "2 cells left the portfolio of supervised"),
        ("ridge, ", "ridge, brook, ", True, ""),
        ("at_least: 95%", "at_least: 96%", True, ""),
        (LISTED, "portfolio: {false_share: 4%}", True, ""),
        (LISTED, "portfolio: {false_share: 6%}", True, "at a risk of 6 % instead of 5 %"),
    ],
)
def test_cells_conditions_and_share_make_the_list(old, new, is_other, sentence):
    before, after = read(), read(old, new)
    cell = Cell("creek", "day")
    digests = {policy.find_portfolio(1, cell).digest for policy in (before, after)}
    assert (len(digests) == 2) == is_other
    rules = " ".join(list_looser_rules(before, after))
    assert sentence in rules
    if not sentence:
        assert "portfolio" not in rules


def test_a_risk_of_its_own_is_looser_and_a_list_is_not():
    listed, alone = read(), read(LISTED, "risk: 5%")
    looser = "opens in each cell by itself, and no longer by the list"
    assert any(looser in rule for rule in list_looser_rules(listed, alone))
    assert not list_looser_rules(alone, listed)
