"""Quiet hours end at the local time that the user chose, also when clocks change."""

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.kernel.calendar.instants import QuietHours, find_digest_time

VIENNA = "Europe/Vienna"
ZONES = st.sampled_from([VIENNA, "UTC", "America/St_Johns", "Pacific/Apia"])
TIMES = st.times().map(lambda at: at.replace(second=0, microsecond=0))
FIRST_INSTANT = datetime(2024, 1, 1, tzinfo=UTC)
INSTANTS = st.integers(0, 5 * 365 * 24 * 60).map(
    lambda minutes: FIRST_INSTANT + timedelta(minutes=minutes)
)


@pytest.mark.parametrize(
    ("at", "sent_at"),
    [
        ("2027-06-01T21:59+02:00", "2027-06-01T21:59+02:00"),
        ("2027-06-01T22:00+02:00", "2027-06-02T07:00+02:00"),
        ("2027-06-02T06:59+02:00", "2027-06-02T07:00+02:00"),
        ("2027-06-02T07:00+02:00", "2027-06-02T07:00+02:00"),
        ("2027-10-30T23:00+02:00", "2027-10-31T07:00+01:00"),  # the clock goes back that night
        ("2027-03-27T23:00+01:00", "2027-03-28T07:00+02:00"),  # forward
    ],
)
def test_quiet_hours_over_midnight(at, sent_at):
    quiet_hours = QuietHours(VIENNA, time(22), time(7))
    assert quiet_hours.find_send_time(datetime.fromisoformat(at)) == datetime.fromisoformat(sent_at)


def test_an_end_that_comes_twice_is_the_next_one():
    quiet_hours = QuietHours(VIENNA, time(1), time(2, 30))
    at = datetime(2027, 10, 31, 2, 15, tzinfo=ZoneInfo(VIENNA), fold=1)
    assert quiet_hours.find_send_time(at) == datetime(2027, 10, 31, 1, 30, tzinfo=UTC)


@given(ZONES, TIMES, TIMES, INSTANTS)
def test_what_is_sent_is_not_sent_in_quiet_hours_and_within_two_days(zone, start, end, at):
    quiet_hours = QuietHours(zone, start, end)
    sent_at = quiet_hours.find_send_time(at)
    assert at <= sent_at <= at + timedelta(days=2)
    assert not quiet_hours.contains(sent_at) or start == end
    assert sent_at == at or quiet_hours.contains(at)


@given(ZONES, INSTANTS, st.booleans())
def test_a_digest_is_at_eight_and_the_newest(zone, at, weekly):
    digest_at = find_digest_time(zone, at, weekly=weekly)
    assert digest_at <= at < digest_at + timedelta(days=8 if weekly else 2)
    assert digest_at.time() == time(8)
    assert not weekly or digest_at.weekday() == 0
