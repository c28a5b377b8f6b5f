"""What a gate reads: conditions against their lines, minimums, the missing rule, attempts."""

from dataclasses import replace
from math import log

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.core.policy.cell_evidence import Counted
from rollout.core.policy.gates import (
    bound,
    counts_of,
    counts_text,
    gate_opens,
    lacking,
    log_e,
    read_condition,
    read_gate,
    read_renewal,
    risk_of,
    scaled_levels,
    scaled_line,
)
from rollout.core.policy.levers import Cost, Lever
from rollout.core.policy.measures import Condition
from rollout.core.policy.policy import Gate, Minimum
from rollout.core.statistics.evidence import log_e_value
from tests.factories import (
    AGREEMENT,
    CREEK,
    TO_SUPERVISED,
    counted,
    gates,
    policy,
)

POLICY = policy()
COSTLY = policy(
    levers=(
        Lever(
            "alarm",
            labels=("bear", "none"),
            actions=("siren", "nothing"),
            costs=(Cost(20.0, did="nothing", right="siren"), Cost(1.0)),
        ),
    )
)
COST = Condition("cost", 0.3, at_least=False)
PARITY = Condition("parity", -0.03, at_least=True)
RECALL = Condition("recall", 0.8, at_least=True, label="bear")


def read(seen: Counted, since: Counted | None = None, *, rung: int = 1, attempt: int = 1):
    return read_gate(POLICY, CREEK, rung, attempt, seen, seen if since is None else since)


# Risk


def test_the_first_attempt_has_the_whole_risk_and_all_later_ones_half_of_it():
    assert risk_of(TO_SUPERVISED, 1) == 0.05
    assert risk_of(TO_SUPERVISED, 2) == pytest.approx(0.05 / 6)
    later = sum(risk_of(TO_SUPERVISED, attempt) for attempt in range(2, 20_000))
    assert later < 0.025
    assert later == pytest.approx(0.025, rel=1e-3)


@given(st.integers(1, 500))
def test_the_risk_only_falls(attempt):
    assert risk_of(TO_SUPERVISED, attempt + 1) < risk_of(TO_SUPERVISED, attempt)


def test_a_later_attempt_asks_for_more():
    seen = counted(74)  # the least without a failure at 95 % and risk 5 %
    minimum = gates(supervised={"minimum": Minimum(units=1)})
    opens = [
        read_gate(policy(gates=minimum), CREEK, 1, attempt, seen, seen).met for attempt in (1, 2)
    ]
    assert opens == [True, False]


# Met and turned


@given(st.integers(0, 3000), st.integers(0, 60), st.integers(1, 4), st.sampled_from([1, 2]))
@settings(deadline=None)
def test_met_and_turned_say_what_the_e_values_say(agreed, disagreed, attempt, rung):
    seen = counted(agreed, disagreed)
    gate = POLICY.gate(rung, CREEK)
    values = [log_e_value(agreed, disagreed, at_least=c.line) for c in POLICY.required(rung, CREEK)]
    reading = read(seen, counted(100), rung=rung, attempt=attempt)
    risk = risk_of(gate, attempt)
    assert reading.met == all(value >= log(1 / risk) for value in values)
    assert reading.turned == any(value < 0 for value in values)
    assert not (reading.met and reading.turned)


@given(
    st.integers(0, 3000),
    st.integers(0, 60),
    st.integers(0, 200),
    st.integers(0, 10),
    st.sampled_from([1, 2]),
)
@settings(deadline=None)
def test_the_quick_answer_is_the_whole_readings(agreed, disagreed, missing, days, rung):
    seen, since = counted(agreed, disagreed, missing=missing), counted(agreed, days=days)
    whole = read_gate(POLICY, CREEK, rung, 1, seen, since).met
    assert gate_opens(POLICY, CREEK, rung, 1, seen, since) == whole


def test_no_gate_opens_nothing():
    without = policy(gates=gates()[:1])
    assert not gate_opens(without, CREEK, 2, 1, counted(9000), counted(9000))


@pytest.mark.parametrize(
    ("since", "lack"),
    [
        (counted(99), "99 of 100 judged units"),
        (counted(100, days=6), "6 of 7 days"),
        (replace(counted(100), reviewers=0), "0 of 1 reviewers"),
        (counted(50, missing=60), "50 of 100 judged units"),
    ],
)
def test_a_gate_says_in_words_what_it_lacks(since, lack):
    reading = read(counted(2000), since)
    assert reading.lacks == (lack,)
    assert (reading.met, reading.turned) == (False, True)


@pytest.mark.parametrize(("missing", "lacks"), [(0, 0), (5, 0), (6, 1)])
def test_more_than_the_permitted_share_of_missing_verdicts_holds_the_gate(missing, lacks):
    seen = Counted(closed=100, missing=missing, days=9, reviewers=1)
    least = replace(TO_SUPERVISED, minimum=Minimum(units=1))
    found = lacking(least, seen, seen, 0.05)
    assert len(found) == lacks
    assert all("of 100 units have no verdict, at most 5 %" in text for text in found)


def test_without_any_unit_nothing_is_missing_and_nothing_is_met():
    reading = read(Counted())
    assert [text.split(" of ")[0] for text in reading.lacks] == ["0", "0", "0"]
    assert not reading.met


def test_a_measure_without_records_is_neither_met_nor_turned():
    reading = read_condition(RECALL, (0, 0), 0.05, POLICY)
    assert (reading.met, reading.turned, reading.log_e(POLICY)) == (False, False, 0.0)


def test_a_missing_verdict_counts_against_agreement():
    assert counts_of(AGREEMENT, counted(10, 1, missing=2), POLICY) == (10, 3)


# Renewal


def test_a_renewal_asks_for_no_days_and_for_e_of_one():
    seen = counted(100, 2, days=1)
    reading = read_renewal(POLICY, CREEK, 1, seen)
    assert (reading.met, reading.turned) == (True, False)
    assert not read(seen).met


def test_a_renewal_weighs_every_condition_of_the_gate():
    strict = policy(gates=gates(supervised={"require": (AGREEMENT, RECALL)}))
    seen = counted(200)
    assert read_renewal(strict, CREEK, 1, seen).met  # no bear came: E of recall is 1
    bad = replace(seen, counts={**seen.counts, RECALL.key: (5, 5)})
    assert not read_renewal(strict, CREEK, 1, bad).met


# Costs and parity


def test_costs_are_weighed_as_shares_of_the_largest():
    assert scaled_levels(COSTLY) == (0.0, 0.05, 1.0)
    assert scaled_line(COST, COSTLY) == pytest.approx(0.015)
    assert counts_of(COST, Counted(), COSTLY) == (0, 0, 0)
    assert counts_of(PARITY, Counted(), COSTLY) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("condition", "counts", "met", "turned"),
    [
        (COST, (1000, 0, 0), True, False),
        (COST, (10, 0, 0), False, False),
        (COST, (100, 0, 10), False, True),
        (PARITY, (1000, 0, 0, 0), True, False),
        (PARITY, (0, 100, 0, 0), False, True),
    ],
)
def test_costs_and_parity_are_met_and_turn_by_their_e_values(condition, counts, met, turned):
    reading = read_condition(condition, counts, 0.05, COSTLY)
    assert (reading.met, reading.turned) == (met, turned)
    assert reading.log_e(COSTLY) == log_e(condition, counts, COSTLY)


def test_a_quick_answer_weighs_costs_too():
    dear = replace(COSTLY, gates=(Gate("supervised", (AGREEMENT, COST), 0.05),))
    seen = counted(2000)
    cheap = replace(seen, counts={**seen.counts, COST.key: (2000, 0, 0)})
    assert gate_opens(dear, CREEK, 1, 1, cheap, cheap)
    assert not gate_opens(dear, CREEK, 1, 1, seen, seen)


# In words


def test_a_reading_says_itself_in_one_line():
    reading = read_condition(AGREEMENT, (245, 3), 0.05, POLICY)
    assert reading.text(POLICY) == (
        f"agreement at least 95 %: 245 of 248, log E {reading.log_e(POLICY):.6f} of 2.995732"
        " (risk 0.05)"
    )
    assert counts_text((7, 1, 0)) == "7 1 0"


def test_shares_have_a_lower_bound_and_costs_have_none():
    share = read_condition(AGREEMENT, (98, 2), 0.05, POLICY)
    assert bound(share) == pytest.approx(0.914382957)
    assert bound(read_condition(COST, (9, 0, 0), 0.05, COSTLY)) is None


def test_nothing_is_renewed_on_no_data_even_where_no_minimum_is_asked_for():
    lenient = policy(gates=(replace(TO_SUPERVISED, minimum=Minimum(units=0, reviewers=0)),))
    reading = read_renewal(lenient, CREEK, 1, Counted())
    assert not reading.met
    assert reading.lacks == ("0 of 1 judged units",)


def test_the_largest_cost_is_the_highest_level_though_sums_are_not_exact():
    third = policy(levers=(_costing("a", 0.1), _costing("b", 0.7)))
    assert third.largest_cost == third.cost_levels[-1]
    assert scaled_levels(third)[-1] == 1.0


def _costing(name: str, cost: float) -> Lever:
    return Lever(name, labels=("x", "y"), actions=("x", "y"), costs=(Cost(cost),))
