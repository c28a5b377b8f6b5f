"""Silence of a site in a cell's own minutes: by signs of life, by traffic, or not noticed."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from rollout.engine.decide.guards import store_alarm
from rollout.engine.evidence import site_series
from rollout.engine.evidence.site_series import NO_SIGNS, build_case_signs, compute_cell_silences
from rollout.kernel.calendar.instants import Site, Window, find_slot_after, to_instant, to_micros
from rollout.kernel.words import say_alarm
from tests.engine.evidence.histories import a_guard, a_policy

TICK, MINUTE, HOUR, DAY = (timedelta(minutes=n) for n in (15, 1, 60, 1440))
DOOR = a_policy(
    tick=TICK, sites=(Site("creek", "UTC"),), windows=(Window("day", "Mo-Fr 08:00-20:00"),)
)
ALWAYS = a_policy(tick=TICK)
MONDAY = datetime(2027, 6, 7, tzinfo=UTC)
HALF_HOUR = a_guard("heartbeat", 1800, "suspend")


def signs_of(cases=(), pings=(), known_since=None):
    instants = np.array([to_micros(at) for at in cases], dtype=np.int64)
    units = np.arange(len(instants), dtype=np.uint64)
    first = None if known_since is None else to_micros(known_since)
    signs = build_case_signs(instants, units, first) if cases else NO_SIGNS
    return replace(signs, pings=np.array([to_micros(at) for at in pings], dtype=np.int64))


def every(minutes, start, end, hours=(0, 24)):
    span = minutes * MINUTE
    instants = [start + n * span for n in range((end - start) // span)]
    return [at for at in instants if hours[0] <= at.hour < hours[1]]


def alarms_of(signs, policy=DOOR, guard=HALF_HOUR, until=MONDAY + 30 * DAY, site=None):
    """Return when alarms begin and end, and the minutes of silence."""
    site = site or policy.sites[0]
    last_slot = find_slot_after(until, TICK)
    window = policy.windows[0].id
    series = compute_cell_silences(guard, signs, site, policy, window, last_slot)
    changes = np.flatnonzero(np.diff(series.is_alarm, prepend=False))
    times = [to_instant(int(series.slots[i]), TICK) for i in changes]
    silences = [series.read_at(int(series.slots[i]), TICK).value for i in changes[::2]]
    return times, silences


def at(days, hours, minutes=0):
    return MONDAY + days * DAY + hours * HOUR + minutes * MINUTE


def test_signs_of_life_are_missed_after_the_limit_and_the_clock_pauses_while_closed():
    pings = every(5, at(0, 8), at(0, 19, 45)) + every(5, at(2, 9), at(2, 10))
    times, silences = alarms_of(signs_of(pings=pings), until=at(2, 9, 50))
    # the last ping came at 19:40: 20 open minutes on Monday, 10 on Tuesday
    assert times == [at(1, 8, 15), at(2, 9)]
    assert silences == [35]


def test_three_intervals_between_signs_of_life_may_pass():
    pings = every(20, at(0, 8), at(0, 12))  # the last at 11:40: an hour, not half of one
    assert alarms_of(signs_of(pings=pings), until=at(0, 15))[0] == [at(0, 12, 45)]


def test_a_closed_site_is_not_silent():
    pings = every(5, at(0, 8), at(0, 12))
    site = replace(DOOR.sites[0], open="08:00-12:00")
    assert alarms_of(signs_of(pings=pings), site=site, until=at(0, 23))[0] == []
    assert alarms_of(signs_of(pings=pings), until=at(0, 23))[0] != []


def test_a_site_that_still_sends_cases_may_stop_its_signs_of_life():
    pings = every(5, at(0, 8), at(0, 9))
    cases = every(20, at(0, 9), at(0, 14))
    assert alarms_of(signs_of(cases, pings), until=at(0, 18))[0] == []
    assert alarms_of(signs_of(cases[:1], pings), until=at(0, 18))[0] == [at(0, 9, 30)]


def traffic(per_hour, days, then=()):
    start = MONDAY - days * DAY
    return [*every(60 // per_hour, start, MONDAY, hours=(8, 20)), *then]


def test_missing_traffic_is_an_alarm_once_chance_hardly_explains_it():
    cases = traffic(30, 28, then=[*every(2, at(0, 8), at(0, 10, 50)), at(0, 15)])
    times, silences = alarms_of(signs_of(cases), until=at(0, 15, 15))
    # 360 units on an open day: ln(360 * 365) / (30 an hour / 2) = 47.1 minutes after 10:48
    assert times == [at(0, 11, 45), at(0, 15)]
    assert silences == [57]


def test_a_sign_that_goes_on_hides_that_cases_are_missing():
    """So a fetched lease is none: docs/decisions/0050."""
    cases = traffic(30, 28, then=every(2, at(0, 8), at(0, 10, 50)))
    assert alarms_of(signs_of(cases), until=at(0, 19))[0] == [at(0, 11, 45)]
    fetches = every(1, at(0, 8), at(0, 20))
    assert alarms_of(signs_of(cases, fetches), until=at(0, 19))[0] == []


def test_a_shorter_promise_takes_less():
    cases = signs_of(traffic(30, 28, then=every(2, at(0, 8), at(0, 10, 50))))
    sooner = replace(HALF_HOUR, false_alarm_span=DAY)
    assert alarms_of(cases, guard=sooner, until=at(0, 13))[0] == [at(0, 11, 30)]  # the limit


def test_the_night_and_the_weekend_of_a_site_are_usual():
    weekdays = [case for case in traffic(30, 32) if case.weekday() < 5]
    assert alarms_of(signs_of(weekdays), ALWAYS, until=at(0, 8))[0] == []
    assert alarms_of(signs_of(weekdays), ALWAYS, until=at(0, 10))[0] == [at(0, 8, 45)]


def test_unknown_traffic_raises_no_alarm_until_28_days_are_known():
    cases = [case for case in traffic(30, 28) if case >= MONDAY - 20 * DAY]
    assert alarms_of(signs_of(cases), until=at(1, 0))[0] == []
    assert alarms_of(signs_of(cases, known_since=MONDAY - 50 * DAY), until=at(1, 0))[0] != []


def test_bursts_of_a_unit_are_one():
    cases = [case + n * MINUTE for case in traffic(2, 32) for n in range(10)]
    instants = np.array([to_micros(case) for case in cases], dtype=np.int64)
    by_case = build_case_signs(instants, np.arange(len(cases), dtype=np.uint64))
    by_unit = build_case_signs(instants, np.arange(len(cases), dtype=np.uint64) // 10)
    assert alarms_of(by_case, until=at(0, 14))[0] == [at(0, 9, 15)]
    assert alarms_of(by_unit, until=at(0, 14))[0] == []


def test_an_alarm_ends_with_the_first_sign_and_clears_after_a_whole_tick():
    pings = [*every(5, at(0, 8), at(0, 12)), at(0, 14, 2), at(0, 14, 7)]
    signs = signs_of(pings=pings)
    last_slot = find_slot_after(at(0, 14, 30), TICK)
    series = compute_cell_silences(HALF_HOUR, signs, DOOR.sites[0], DOOR, "day", last_slot)
    silent = series.read_at(find_slot_after(at(0, 14), TICK), TICK)
    assert (silent.is_alarm, silent.good_since) == (True, None)
    for minutes in (15, 30):
        reading = series.read_at(find_slot_after(at(0, 14, minutes), TICK), TICK)
        assert (reading.is_alarm, reading.good_since) == (False, at(0, 14, 15))


@pytest.mark.parametrize("signs", [NO_SIGNS, signs_of([at(0, 9)]), signs_of(pings=[at(0, 9)])])
def test_no_history_is_no_silence(signs):
    assert alarms_of(signs)[0] == []


def test_later_records_change_no_earlier_alarm():
    generator = np.random.default_rng(5)
    gaps = generator.exponential(6, 10000)
    cases = [MONDAY - 40 * DAY + float(m) * MINUTE for m in np.cumsum(gaps)]
    cases = [case for case in cases if 8 <= case.hour < 20 and case.day % 5 != 2]
    for days in (-5, -2):
        until = MONDAY + days * DAY
        known = [case for case in cases if case <= until]
        times = alarms_of(signs_of(known), until=until)[0]
        assert times == [t for t in alarms_of(signs_of(cases))[0] if t <= until]
        assert times


def test_an_incident_names_the_open_time_without_a_sign():
    signs = signs_of(pings=every(5, at(0, 8), at(0, 12)))
    last_slot = find_slot_after(at(1, 0), TICK)
    series = compute_cell_silences(HALF_HOUR, signs, DOOR.sites[0], DOOR, "day", last_slot)
    reading = series.read_at(find_slot_after(at(0, 12, 30), TICK), TICK)
    text = say_alarm(store_alarm(HALF_HOUR, reading))
    assert text == "heartbeat at most 1800 s: no heartbeat for 35 min in opening hours"


def test_sites_with_one_calendar_share_a_clock_and_its_quarters(monkeypatch):
    signs = signs_of(cases=every(120, at(-60, 0), at(0, 12)))
    assert alarms_of(signs, ALWAYS, site=Site("creek", "UTC"))[0]
    placed, to_wall_times = [], site_series.to_wall_times

    def note(timezone, instants):
        placed.append(len(instants))
        return to_wall_times(timezone, instants)

    monkeypatch.setattr(site_series, "to_wall_times", note)
    signs = signs_of(cases=every(120, at(-60, 0), at(0, 12)))
    assert alarms_of(signs, ALWAYS, site=Site("lake", "UTC"))[0]
    assert [n for n in placed if n > 1] == [len(signs.units)]  # no quarters anew
