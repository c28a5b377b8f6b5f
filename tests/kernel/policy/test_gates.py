"""What a gate reads: conditions against their lines, minimums, the missing rule, attempts."""

from dataclasses import replace
from math import log

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.kernel.measures import MEASURES, Condition
from rollout.kernel.policy.cell_evidence import EvidenceCounts
from rollout.kernel.policy.gates import (
    compute_condition_log_e,
    get_condition_counts,
    is_gate_open,
    list_unmet_requirements,
    read_condition,
    read_gate,
    read_renewal,
)
from rollout.kernel.policy.policy import Gate, Minimum
from rollout.kernel.statistics.evidence import compute_log_e
from rollout.kernel.units import CostRule, Lever
from rollout.kernel.words import say_reading, say_requirement
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
            costs=(CostRule(20.0, did="nothing", right="siren"), CostRule(1.0)),
        ),
    )
)
COST = Condition(MEASURES["cost"], 0.3)
RECALL = Condition(MEASURES["recall"], 0.8, label="bear")


def read(
    seen: EvidenceCounts, since: EvidenceCounts | None = None, *, rung: int = 1, share: float = 1.0
):
    return read_gate(POLICY, CREEK, rung, share, seen, seen if since is None else since)


# Risk


def test_an_attempt_with_a_smaller_share_asks_for_more():
    seen = counted(74)  # the least without a failure at 95 % and risk 5 %
    minimum = gates(supervised={"minimum": Minimum(units=1)})
    opens = [
        read_gate(policy(gates=minimum), CREEK, 1, share, seen, seen).is_met for share in (1, 0.9)
    ]
    assert opens == [True, False]


# Met and turned


@given(st.integers(0, 3000), st.integers(0, 60), st.floats(0.001, 1), st.sampled_from([1, 2]))
@settings(deadline=None)
def test_met_and_turned_say_what_the_e_values_say(agreed, disagreed, share, rung):
    seen = counted(agreed, disagreed)
    gate = POLICY.find_gate(rung, CREEK)
    values = [
        compute_log_e(agreed, disagreed, at_least=c.threshold)
        for c in POLICY.list_conditions(rung, CREEK)
    ]
    reading = read(seen, counted(100), rung=rung, share=share)
    risk = gate.risk * share
    assert reading.is_met == all(value >= log(1 / risk) for value in values)
    assert reading.has_turned == any(value < 0 for value in values)
    assert not (reading.is_met and reading.has_turned)


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
    whole = read_gate(POLICY, CREEK, rung, 1, seen, since).is_met
    assert is_gate_open(POLICY, CREEK, rung, 1, seen, since) == whole


def test_no_gate_opens_nothing():
    without = policy(gates=gates()[:1])
    assert not is_gate_open(without, CREEK, 2, 1, counted(9000), counted(9000))


@pytest.mark.parametrize(
    ("since", "lack"),
    [
        (counted(99), "99 of 100 decided units"),
        (counted(100, days=6), "6 of 7 days"),
        (replace(counted(100), reviewers=0), "0 of 1 reviewer"),
        (counted(50, missing=60), "50 of 100 decided units"),
    ],
)
def test_a_gate_says_in_words_what_it_lacks(since, lack):
    reading = read(counted(2000), since)
    assert [say_requirement(unmet) for unmet in reading.unmet_requirements] == [lack]
    assert (reading.is_met, reading.has_turned) == (False, True)


@pytest.mark.parametrize(("missing", "lacks"), [(0, 0), (5, 0), (6, 1)])
def test_more_than_the_permitted_share_of_missing_verdicts_holds_the_gate(missing, lacks):
    seen = EvidenceCounts(closed=100, missing=missing, days=9, reviewers=1)
    least = replace(TO_SUPERVISED, minimum=Minimum(units=1))
    found = list_unmet_requirements(least, seen, seen, 0.05)
    assert len(found) == lacks
    assert all((unmet.needed, unmet.share_at_most) == (100, 0.05) for unmet in found)


def test_without_any_unit_nothing_is_missing_and_nothing_is_met():
    reading = read(EvidenceCounts())
    assert [unmet.actual for unmet in reading.unmet_requirements] == [0, 0, 0]
    assert not reading.is_met


def test_a_measure_without_records_is_neither_met_nor_turned():
    reading = read_condition(RECALL, (0, 0), 0.05, POLICY)
    assert (reading.is_met, reading.has_turned, reading.compute_log_e(POLICY)) == (
        False,
        False,
        0.0,
    )


def test_a_missing_verdict_counts_against_agreement():
    assert get_condition_counts(AGREEMENT, counted(10, 1, missing=2), POLICY) == (10, 3)


# Renewal


def test_a_renewal_asks_for_no_days_and_for_e_of_one():
    seen = counted(100, 2, days=1)
    reading = read_renewal(POLICY, CREEK, 1, seen)
    assert (reading.is_met, reading.has_turned) == (True, False)
    assert not read(seen).is_met


def test_a_renewal_weighs_every_condition_of_the_gate():
    strict = policy(gates=gates(supervised={"require": (AGREEMENT, RECALL)}))
    seen = counted(200)
    assert read_renewal(strict, CREEK, 1, seen).is_met  # no bear came: E of recall is 1
    bad = replace(seen, counts={**seen.counts, RECALL.key: (5, 5)})
    assert not read_renewal(strict, CREEK, 1, bad).is_met


# Costs


def test_costs_are_weighed_as_shares_of_the_largest():
    assert COSTLY.cost_shares == (0.0, 0.05, 1.0)
    assert COSTLY.scale_cost(COST.threshold) == pytest.approx(0.015)
    assert get_condition_counts(COST, EvidenceCounts(), COSTLY) == (0, 0, 0)


@pytest.mark.parametrize(
    ("condition", "counts", "met", "turned"),
    [
        (COST, (1000, 0, 0), True, False),
        (COST, (10, 0, 0), False, False),
        (COST, (100, 0, 10), False, True),
    ],
)
def test_costs_are_met_and_turn_by_their_e_values(condition, counts, met, turned):
    reading = read_condition(condition, counts, 0.05, COSTLY)
    assert (reading.is_met, reading.has_turned) == (met, turned)
    assert reading.compute_log_e(COSTLY) == compute_condition_log_e(condition, counts, COSTLY)


def test_a_quick_answer_weighs_costs_too():
    dear = replace(COSTLY, gates=(Gate("supervised", (AGREEMENT, COST), 0.05),))
    seen = counted(2000)
    cheap = replace(seen, counts={**seen.counts, COST.key: (2000, 0, 0)})
    assert is_gate_open(dear, CREEK, 1, 1, cheap, cheap)
    assert not is_gate_open(dear, CREEK, 1, 1, seen, seen)


# In words


def test_a_reading_says_itself_in_one_line():
    reading = read_condition(AGREEMENT, (245, 3), 0.05, POLICY)
    assert (
        say_reading(reading.store(POLICY))
        == f"agreement at least 95 %: 245 of 248, log E {reading.compute_log_e(POLICY):.6f} of"
        " 2.995732 (risk 0.05)"
    )


def test_nothing_is_renewed_on_no_data_even_where_no_minimum_is_asked_for():
    lenient = policy(gates=(replace(TO_SUPERVISED, minimum=Minimum(units=0, reviewers=0)),))
    reading = read_renewal(lenient, CREEK, 1, EvidenceCounts())
    assert not reading.is_met
    assert [say_requirement(lack) for lack in reading.unmet_requirements] == ["0 of 1 decided unit"]


def test_the_largest_cost_is_the_highest_level_though_sums_are_not_exact():
    third = policy(levers=(_costing("a", 0.1), _costing("b", 0.7)))
    assert third.largest_cost == third.cost_levels[-1]
    assert third.cost_shares[-1] == 1.0


def _costing(name: str, cost: float) -> Lever:
    return Lever(name, labels=("x", "y"), actions=("x", "y"), costs=(CostRule(cost),))


def test_version_silent_in_its_last_days_holds_the_gate_though_few_are_missing_in_all():
    least = replace(TO_SUPERVISED, minimum=Minimum(units=1))
    seen = EvidenceCounts(
        closed=1000, missing=20, days=9, reviewers=1, recent_closed=140, recent_missing=20
    )
    assert [say_requirement(u) for u in list_unmet_requirements(least, seen, seen, 0.05)] == [
        "20 of 140 units of the last 7 days are missing (at most 5 % allowed)"
    ]
