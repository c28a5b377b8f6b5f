"""What late senders look like, from the delays of their records."""

import pytest

from rollout.engine.evidence import late_senders
from rollout.engine.evidence.late_senders import (
    LateCounts,
    build_sent_cases,
    find_costly_spells,
    find_late_senders,
    find_silent_spells,
)
from rollout.engine.words.evidence_text import describe_late_senders
from tests.engine.evidence import histories

DAYS = 60
SECOND = 1 / 3600


def find(delays):
    """Return what predictions look like that come so many hours after a case a day.

    Each case is decided an hour after it occurred.
    """
    cases = [(f"c{day}", 24 * day, {}) for day in range(DAYS)]
    sent = [
        (key, "bear", {"at": at + delay}) for (key, at, _), delay in zip(cases, delays, strict=True)
    ]
    decided = [(key, "bear", {"at": at + 1}) for key, at, _ in cases]
    records = histories.records(
        histories.cases(*cases), histories.predictions(*sent), histories.decisions(*decided)
    )
    return find_late_senders(records)


@pytest.mark.parametrize(
    ("delays", "set_up", "within"),
    [
        ([14] * DAYS, late_senders.NIGHTS, "38h"),
        ([72 if day % 9 == 0 else 0.1 for day in range(DAYS)], late_senders.OFFLINE, "4d"),
        ([1 + (day % 40 - 5) * SECOND for day in range(DAYS)], late_senders.RACES, "2h"),
        ([24 * (DAYS + 5 - day) for day in range(DAYS)], late_senders.BACKTEST, ""),
    ],
    ids=["nights", "offline", "races", "backtest"],
)
def test_the_delays_of_predictions_say_which_set_up_it_looks_like(delays, set_up, within):
    late = find(delays)
    assert late.set_up == set_up
    lines = (f"grace: {within}", f"sources: {{vouched: [{{account: NAME, within: {within}}}]}}")
    assert late.policy_lines == (lines if within else ())


@pytest.mark.parametrize(("late", "sent", "is_negligible"), [(1, 100, True), (2, 199, False)])
def test_up_to_a_hundredth_late_proposes_nothing(late, sent, is_negligible):
    assert LateCounts(sent, late).is_negligible == is_negligible


@pytest.mark.parametrize("delay", [None, 0, 0.1, 30], ids=["untimed", "at once", "soon", "late"])
@pytest.mark.parametrize("early", [2, 24 * 365], ids=["hours", "a year"])
def test_decisions_dated_before_their_cases_look_like_clocks_that_differ(delay, early):
    cases = [(f"c{day}", 24 * day, {}) for day in range(DAYS)]
    sent = [(key, "bear", {} if delay is None else {"at": at + delay}) for key, at, _ in cases]
    decided = [(key, "bear", {"at": at - early}) for key, at, _ in cases]
    records = histories.records(
        histories.cases(*cases), histories.predictions(*sent), histories.decisions(*decided)
    )
    late = find_late_senders(records)
    assert (late.late, late.decided, late.set_up) == (DAYS, DAYS, late_senders.CLOCKS)
    assert late.policy_lines == ()
    assert "with their offsets" in describe_late_senders(late)


def test_predictions_before_their_decisions_look_like_nothing():
    assert find([0.5] * DAYS) is None


def send_with_a_silent_week(*, is_decided):
    """Return a case an hour for 20 days; a box holds those of seven of them until it is back."""
    hours = range(20 * 24)
    back = 24 * 12
    sent = [back if 24 * 5 <= hour < back else hour + 0.1 for hour in hours]
    keyed = [(f"c{hour}", hour, {"received": at}) for hour, at in zip(hours, sent, strict=True)]
    decided = [(f"c{hour}", "bear", {"at": hour + 1}) for hour in hours if is_decided(hour)]
    return histories.records(
        histories.cases(*keyed), histories.predictions(), histories.decisions(*decided)
    )


def test_spell_without_a_case_is_named_with_its_cost_and_the_time_that_would_have_covered_it():
    records = send_with_a_silent_week(is_decided=lambda _: True)
    (spell,) = find_costly_spells(records, None)
    assert (spell.site, spell.missing) == ("creek", 24 * 7 - 1)  # one was decided on the return
    assert spell.until == histories.hour(24 * 12)
    assert spell.since == histories.hour(24 * 5 - 1 + 0.1)
    assert spell.within_seconds == 8 * 24 * 3600


@pytest.mark.parametrize(("late", "spells"), [(50, 1), (51, 0)])
def test_no_spell_is_named_where_most_predictions_come_late_anyway(late, spells):
    records = send_with_a_silent_week(is_decided=lambda _: True)
    senders = late_senders.LateSenders(late, 100, late_senders.NIGHTS, 3600)
    assert len(find_costly_spells(records, senders)) == spells


def test_spell_that_costs_no_unit_is_not_named():
    records = send_with_a_silent_week(is_decided=lambda hour: not 24 * 5 <= hour < 24 * 12)
    assert find_costly_spells(records, None) == ()
    day = 86_400_000_000
    vouched = [(n * day, 5 * day, n * day, n * day + 1) for n in range(5)]
    beside = [(n * day // 24, n * day // 24, n * day // 24, None) for n in range(4)]
    assert find_silent_spells(build_sent_cases("creek", [*beside, *vouched])) == ()


def test_device_that_always_comes_every_third_day_has_no_spell():
    third = 72 * 3_600_000_000
    rows = [(n * third - third // 2, n * third, n * third, n * third - third // 3)
            for n in range(1, 30)]  # fmt: skip
    assert find_silent_spells(build_sent_cases("creek", rows)) == ()
