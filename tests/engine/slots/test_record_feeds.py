"""What guards observe in records of a history besides decisions, and from which slot on."""

import pytest

from rollout.engine.evidence.case_placement import place_cases
from rollout.engine.slots.record_feed import HistoryFeeds
from rollout.kernel.calendar.instants import find_slot_before
from rollout.kernel.units import Lever
from tests.engine.evidence.histories import (
    HOUR,
    SALT,
    START,
    a_guard,
    a_policy,
    cases,
    outcomes,
    predictions,
    records,
)

SPEED = Lever("speed", ("slow", "fast"), ("slow", "fast"))
POLICY = a_policy(levers=(*a_policy().levers, SPEED))
LATENCY, FAILURES = a_guard("latency_p95", 2, over=HOUR), a_guard("failures", 0.1, over=HOUR)
HARM, BITE = a_guard("harm", 0, over=HOUR), a_guard("harm", 0, over=HOUR, label="bite")


def observe(guard, answers=(), harms=()):
    """Return key, hour from which it is known and badness of what a guard observes."""
    history = records(
        cases(("a", 9), ("b", 9.5)),
        predictions(*answers, levers=("alarm", "speed")),
        outcome_rows=outcomes(*harms, levers=("alarm", "speed")),
    )
    rows = HistoryFeeds(history, place_cases(history, POLICY, SALT), POLICY).list_answers(guard)
    first = find_slot_before(START, POLICY.tick)
    return [(row["case_key"], row["slot"] - first, row["bad"]) for row in rows.to_dicts()]


def test_an_answer_is_slow_above_the_limit_and_one_without_a_time_is_none():
    answers = [("a", "bear", {"latency": 2000}), ("b", "bear", {"latency": 2000.001})]
    assert observe(LATENCY, answers) == [("a", 10, False), ("b", 10, True)]
    assert observe(LATENCY, [("a", "bear", {})]) == []


def test_an_answer_that_lacks_one_lever_has_failed():
    answers = [("a", ("bear", None), {}), ("b", ("bear", "slow"), {})]
    assert observe(FAILURES, answers) == [("a", 10, True), ("b", 10, False)]


@pytest.mark.parametrize(
    ("stated", "known", "slot"), [(8, None, 10), (9.5, 9.5, 10), (10, 10, 10), (9.5, 11.2, 12)]
)
def test_an_answer_counts_once_it_was_known_and_its_case_had_occurred(stated, known, slot):
    answers = [("a", ("bear", "slow"), {"at": stated, "known": known})]
    assert observe(FAILURES, answers) == [("a", slot, False)]


def test_a_harm_counts_from_its_report_on_for_guards_of_any_and_of_its_own_name():
    harms = [("a", "bite", 9.2), ("b", "fall", 10.5)]
    assert observe(HARM, harms=harms) == [("a", 10, True), ("b", 11, True)]
    assert observe(BITE, harms=harms) == [("a", 10, True)]
