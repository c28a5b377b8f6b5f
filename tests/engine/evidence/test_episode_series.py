"""Readings of operational guards that test shares: votes, intervals, episodes, restarts."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np

from rollout.engine.evidence import site_series
from rollout.engine.evidence.site_series import (
    EMPTY_VOTES,
    LONGEST_READ_BACK,
    AnswerRecords,
    SiteVotes,
    compute_episode_series,
)
from rollout.kernel.calendar.instants import find_slot_after, to_instant
from rollout.kernel.policy.policy import TrafficExpectation
from tests.engine.evidence.histories import a_guard, a_policy

TICK = timedelta(minutes=15)
POLICY = replace(a_policy(), tick=TICK)
YEAR = timedelta(days=365)
FAILURES = replace(
    a_guard("failures", 0.02, "suspend", over=timedelta(minutes=30)), false_alarm_span=YEAR
)
START = find_slot_after(datetime(2027, 6, 1, tzinfo=UTC), TICK)
DAY_SLOTS = 96


def read(series, slot):
    return series.read_at(slot, TICK)


def stream(days, *, per_day=48, failed=(), seed=None):
    """Return slots and badness of evenly spaced answers; `failed` are spans of slots."""
    slots = START + np.arange(days * per_day) * (DAY_SLOTS // per_day)
    is_bad = np.zeros(len(slots), dtype=bool)
    for since, until in failed:
        is_bad |= (slots >= START + since) & (slots < START + until)
    if seed is not None:
        is_bad |= np.random.default_rng(seed).random(len(slots)) < 0.01
    return slots, is_bad


def answers(rows):
    """Return answers of (slot, minute, unit, draw, bad)."""
    slots, minutes, units, draws, is_bad = zip(*rows, strict=True)
    return AnswerRecords(
        np.array(slots),
        np.array(minutes),
        np.array(units, dtype=np.uint64),
        np.array(draws),
        np.array(is_bad, dtype=bool),
    )


def test_a_unit_and_a_minute_have_one_vote_each():
    rows = [
        (2, 20, 1, 0.9, True),
        (2, 21, 1, 0.1, False),  # the lower draw of unit 1
        (2, 30, 2, 0.5, True),
        (2, 30, 3, 0.4, False),  # the lower draw of minute 30
        (3, 30, 4, 0.0, True),  # known later: minute 30 has voted
    ]
    slots, is_bad = answers(rows).select_votes()
    assert slots.tolist() == [2, 2]
    assert is_bad.tolist() == [False, False]
    assert len(EMPTY_VOTES.slots) == len(EMPTY_VOTES.is_bad) == 0


def test_later_answers_change_no_earlier_vote():
    generator = np.random.default_rng(3)
    rows = [
        (int(slot), int(slot) * 15 - 9 + int(m), int(unit), float(draw), bool(bad))
        for slot, m, unit, draw, bad in zip(
            np.sort(generator.integers(0, 30, 200)),
            generator.integers(0, 15, 200),
            generator.integers(0, 60, 200),
            generator.random(200),
            generator.random(200) < 0.3,
            strict=True,
        )
    ]
    whole_slots, whole_bad = answers(rows).select_votes()
    for until in (10, 20):
        slots, is_bad = answers([row for row in rows if row[0] <= until]).select_votes()
        assert slots.tolist() == whole_slots[whole_slots <= until].tolist()
        assert is_bad.tolist() == whole_bad[whole_slots <= until].tolist()


def test_two_bad_answers_raise_no_alarm_and_a_dead_model_does():
    slots, is_bad = stream(40, failed=[(500, 504)])  # two answers
    assert not compute_episode_series(FAILURES, slots, is_bad, POLICY).is_alarm.any()
    slots, is_bad = stream(40, failed=[(500, 520)])
    series = compute_episode_series(FAILURES, slots, is_bad, POLICY)
    alarm = series.find_next_alarm(START)
    assert alarm is not None
    assert START + 500 < alarm <= START + 506
    reading = read(series, alarm)
    assert reading.is_alarm
    assert reading.value == reading.records  # the stretch that raised it


def test_good_records_after_the_alarm_clear_it_once():
    slots, is_bad = stream(40, failed=[(500, 520)])
    series = compute_episode_series(FAILURES, slots, is_bad, POLICY)
    changes = [(a, b) for a, b in pairwise(series.is_alarm.tolist()) if a != b]
    assert changes == [(False, True), (True, False)]
    cleared = int(series.slots[np.flatnonzero(series.is_alarm)[-1] + 1])
    assert START + 528 <= cleared <= START + 532  # five good answers, one in two slots
    assert read(series, cleared).has_recovered
    assert not read(series, cleared - 1).has_recovered


def test_silence_after_an_alarm_proves_no_recovery():
    slots, is_bad = stream(40, failed=[(500, 520)])
    until = START + 520
    series = compute_episode_series(FAILURES, slots[slots < until], is_bad[slots < until], POLICY)
    for later in (until, until + 40 * DAY_SLOTS, until + 100 * DAY_SLOTS):
        assert read(series, later).has_recovered is False


def test_a_reading_needs_no_records_older_than_the_read_back():
    """A slow fault, whose alarm comes after weeks of records."""
    slots, is_bad = stream(150, seed=1)
    late = slots >= START + 80 * DAY_SLOTS
    is_bad |= late & (np.random.default_rng(5).random(len(slots)) < 0.03)
    whole = compute_episode_series(FAILURES, slots, is_bad, POLICY)
    alarms = np.flatnonzero(np.diff(whole.is_alarm.astype(int)) == 1)
    assert len(alarms)
    for position in [*alarms[:3], *(alarms[:3] + 1), *range(0, len(whole.slots), 600)]:
        slot = int(whole.slots[position])
        oldest = find_slot_after(to_instant(slot, TICK) - LONGEST_READ_BACK, TICK)
        recent = slots >= oldest
        part = read(compute_episode_series(FAILURES, slots[recent], is_bad[recent], POLICY), slot)
        assert part == replace(read(whole, slot), good_since=part.good_since)


def test_a_reading_uses_no_later_record():
    slots, is_bad = stream(90, failed=[(4000, 4100), (6000, 6050)], seed=4)
    whole = compute_episode_series(FAILURES, slots, is_bad, POLICY)
    for slot in range(START + 10, int(slots[-1]), 307):
        known = slots <= slot
        part = compute_episode_series(FAILURES, slots[known], is_bad[known], POLICY)
        assert read(part, slot).is_alarm == read(whole, slot).is_alarm
        assert read(part, slot).has_recovered == read(whole, slot).has_recovered


def test_a_guard_that_narrowed_starts_anew():
    slots, is_bad = stream(40, failed=[(500, 520)])
    series = compute_episode_series(FAILURES, slots, is_bad, POLICY, restarted=START + 520)
    assert not series.is_alarm.any()


def test_a_longer_interval_needs_more_bad_records():
    slots, is_bad = stream(20, failed=[(500, 560)])
    alarms = [
        compute_episode_series(guard, slots, is_bad, POLICY).find_next_alarm(START)
        for guard in (
            replace(FAILURES, false_alarm_span=None, false_alarm_every=1000.0),
            replace(FAILURES, false_alarm_span=None, false_alarm_every=1e12),
        )
    ]
    assert alarms[0] < alarms[1]


def test_expected_traffic_stands_for_the_first_days():
    slots, is_bad = stream(3, failed=[(100, 110)])
    policy = replace(POLICY, expect=TrafficExpectation(units_per_day=1e9))
    alone = compute_episode_series(FAILURES, slots, is_bad, policy)
    expected = compute_episode_series(FAILURES, slots, is_bad, policy, expected_per_day=1e9)
    assert alone.is_alarm.any()
    assert not expected.is_alarm.any()


def test_unaudited_waits_for_twenty_audits():
    guard = replace(a_guard("unaudited", 0.1, "report"), false_alarm_span=YEAR)
    slots, is_bad = stream(1, failed=[(0, 96)])
    first = compute_episode_series(guard, slots, is_bad, POLICY).find_next_alarm(START)
    assert first == START + 38  # the twentieth


def test_the_cells_of_a_site_share_one_series(monkeypatch):
    votes, computed = SiteVotes(*stream(10)), []
    compute = site_series.compute_episode_series

    def note(*args, **more):
        computed.append(more)
        return compute(*args, **more)

    monkeypatch.setattr(site_series, "compute_episode_series", note)
    series = [
        votes.compute_series(FAILURES, POLICY, None, restarted) for restarted in (None, None, 9)
    ]
    assert series[0] is series[1]
    assert len(computed) == 2
