"""When reports are due: by the clock on the wall, whatever that clock does."""

from datetime import UTC, date, datetime
from functools import cache
from itertools import product
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.engine.decide.schedule import find_due_report
from rollout.kernel.policy.policy import ReportPlan
from tests.factories import DAY, HOUR, MINUTE

VIENNA = "Europe/Vienna"
LONG_AGO = datetime(1980, 1, 1, tzinfo=UTC)
ZONES = [
    VIENNA,
    "UTC",
    "America/Sao_Paulo",  # changed at midnight
    "Australia/Lord_Howe",  # by half an hour
    "Pacific/Apia",  # left out a day
    "America/Havana",
    "Asia/Kathmandu",
    "Africa/Casablanca",
    "Antarctica/Troll",  # by two hours
]


def plan(at, every="day"):
    return ReportPlan("r", every, at, "operator")


def newest(at, now, every="day", timezone=VIENNA):
    return find_due_report(plan(at, every), timezone, after=LONG_AGO, at=now)


def utc(*parts):
    return datetime(*parts, tzinfo=UTC)


def wall_clock(timezone, since, until):
    """Return each minute, with the day, its eve and the time that the wall clock shows."""
    zone, clock = ZoneInfo(timezone), []
    for minute in range((until - since) // MINUTE + 1):
        moment = since + minute * MINUTE
        local = moment.astimezone(zone)
        day = local.date()
        clock.append((moment, day, day - DAY, (local.hour, local.minute)))
    return clock


def slowly(at, every, now, clock):
    """Return the newest instant by looking at the wall clock minute by minute."""
    hour, minute = map(int, at.split(":"))
    first = {}
    begin, end = ((moment - clock[0][0]) // MINUTE for moment in (now - 3 * DAY, now))
    for moment, day, eve, shown in clock[begin : end + 1]:
        if shown >= (hour, minute):
            first.setdefault(day, moment)
        first.setdefault(eve, moment)
    begins = {
        "day": lambda _: True,
        "week": lambda d: d.weekday() == 0,
        "month": lambda d: d.day == 1,
    }
    seen = {day: at for day, at in first.items() if begins[every](day) and at > now - 2 * DAY}
    return max(seen.values(), default=None)


@pytest.mark.slow
@settings(max_examples=40)
@given(
    st.sampled_from(ZONES),
    st.sampled_from(["day", "week", "month"]),
    st.tuples(st.integers(0, 23), st.sampled_from([0, 1, 30, 59])),
    st.datetimes(datetime(1990, 1, 1), datetime(2037, 1, 1)),  # noqa: DTZ001 - of any zone
)
def test_the_newest_is_what_the_wall_clock_first_shows(timezone, every, clock, moment):
    now = moment.replace(second=0, microsecond=0, tzinfo=UTC)
    at = f"{clock[0]:02}:{clock[1]:02}"
    expected = slowly(at, every, now, wall_clock(timezone, now - 3 * DAY, now))
    found = newest(at, now, every, timezone)
    assert found.until <= now
    assert found.since < found.until
    if expected is not None:
        assert found.until == expected
    else:
        assert found.until <= now - 2 * DAY


@cache
def changes(timezone):
    """Return instants around which a zone's clock was moved."""
    zone, day, found = ZoneInfo(timezone), utc(2008, 1, 1), []
    while day < utc(2013, 1, 1):
        if moves(zone, day, DAY):
            found += [at for at in (day + n * HOUR for n in range(24)) if moves(zone, at, HOUR)]
        day += DAY
    return found


def moves(zone, at, span):
    return at.astimezone(zone).utcoffset() != (at + span).astimezone(zone).utcoffset()


@pytest.mark.parametrize("timezone", ZONES)
def test_it_is_right_around_every_change_of_the_clock(timezone):
    for change in changes(timezone)[:4]:
        clock = wall_clock(timezone, change - 3 * DAY, change + 30 * HOUR)
        for at, hours in product(("00:00", "00:30", "02:30", "03:00"), (0, 1, 30)):
            now = change + hours * HOUR
            found = newest(at, now, timezone=timezone).until
            assert found == slowly(at, "day", now, clock), (at, now)


def test_a_time_that_the_clock_jumps_over_is_due_at_the_jump():
    assert newest("02:30", utc(2027, 3, 28, 12)).until == utc(2027, 3, 28, 1)


def test_a_time_that_is_shown_twice_is_due_the_first_time_and_once():
    found = newest("02:30", utc(2027, 10, 31, 12))
    assert found.until == utc(2027, 10, 31, 0, 30)
    second = utc(2027, 10, 31, 1, 30)
    assert find_due_report(plan("02:30"), VIENNA, after=found.until, at=second) is None


def test_an_hour_to_seven_stays_seven_all_year():
    instants = [newest("07:00", utc(2027, month, 15, 12)).until for month in range(1, 13)]
    assert {at.astimezone(ZoneInfo(VIENNA)).hour for at in instants} == {7}
    assert len({at.hour for at in instants}) == 2


@pytest.mark.parametrize(
    ("every", "since", "until"),
    [
        ("day", date(2027, 3, 2), date(2027, 3, 3)),
        ("week", date(2027, 2, 22), date(2027, 3, 1)),
        ("month", date(2027, 2, 1), date(2027, 3, 1)),
    ],
)
def test_a_report_is_of_the_day_week_or_month_before_it(every, since, until):
    found = newest("07:00", utc(2027, 3, 3, 12), every)
    assert (found.since.date(), found.until.date()) == (since, until)


def test_what_was_missed_is_folded_into_the_newest():
    now = utc(2027, 6, 20, 12)
    found = find_due_report(plan("07:00"), VIENNA, after=now - 9 * DAY, at=now)
    assert (found.since, found.until) == (utc(2027, 6, 19, 5), utc(2027, 6, 20, 5))


def test_what_was_made_is_not_due_again_and_the_next_one_is_to_the_minute():
    made = utc(2027, 6, 20, 5)
    assert find_due_report(plan("07:00"), VIENNA, after=made, at=made + DAY - MINUTE) is None
    assert find_due_report(plan("07:00"), VIENNA, after=made, at=made + DAY).until == made + DAY
