"""The clock of a zone against zoneinfo itself, minute by minute over its changes."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo, available_timezones

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.kernel.calendar.instants import (
    Site,
    compute_end_of_local_day,
    compute_local_days,
    compute_local_hours,
    compute_year_start,
    list_stretches,
    list_timezones,
    to_wall_time,
)

# Both daylight-saving changes, a change of half an hour, changes at midnight and over it, a day
# that never was, Ramadan, and none.
CHANGES = [
    ("Europe/Lisbon", "2025-03-30"),
    ("Europe/Lisbon", "2025-10-26"),
    ("America/Halifax", "2025-03-09"),
    ("America/Halifax", "2025-11-02"),
    ("Australia/Hobart", "2025-04-06"),
    ("Australia/Hobart", "2025-10-05"),
    ("Asia/Tokyo", "2025-03-30"),
    ("Australia/Lord_Howe", "2025-04-06"),
    ("America/Havana", "2025-11-02"),
    ("America/Havana", "2025-03-09"),
    ("America/St_Johns", "2010-11-07"),
    ("Africa/Cairo", "2025-04-25"),
    ("Africa/Casablanca", "2025-04-06"),
    ("Pacific/Apia", "2011-12-30"),
    ("Europe/Lisbon", "2025-12-31"),
]


def minutes_around(day: str) -> list[datetime]:
    noon = datetime.fromisoformat(f"{day}T12:00:00+00:00")
    return [noon + timedelta(minutes=minute) for minute in range(-2160, 2160)]


def as_array(instants: list[datetime]) -> np.ndarray:
    return np.array([at.replace(tzinfo=None) for at in instants], dtype="datetime64[us]")


@pytest.mark.parametrize(("zone", "day"), CHANGES)
def test_local_days_and_hours_are_those_of_zoneinfo(zone, day):
    instants, site = minutes_around(day), Site("s", zone)
    shown = [at.astimezone(ZoneInfo(zone)) for at in instants]
    assert compute_local_days(site, as_array(instants)).tolist() == [at.toordinal() for at in shown]
    assert compute_local_hours(site, as_array(instants)).tolist() == [at.hour for at in shown]


@pytest.mark.parametrize(("zone", "day"), CHANGES)
def test_a_local_day_ends_after_the_last_minute_that_shows_it(zone, day):
    instants, last = minutes_around(day), date.fromisoformat(day)
    shown = [at.astimezone(ZoneInfo(zone)).date() for at in instants]
    until = max(at for at, day_shown in zip(instants, shown, strict=True) if day_shown <= last)
    assert compute_end_of_local_day(Site("s", zone), last) == until + timedelta(minutes=1)


def test_a_day_ends_the_second_time_that_midnight_comes():
    havana = Site("havana", "America/Havana")
    half_past_four = as_array([datetime(2025, 11, 2, 4, 30, tzinfo=UTC)])
    assert compute_local_days(havana, half_past_four).tolist() == [date(2025, 11, 2).toordinal()]
    assert compute_end_of_local_day(havana, date(2025, 11, 1)) == datetime(
        2025, 11, 2, 4, tzinfo=UTC
    )


@given(
    zone=st.sampled_from(sorted({zone for zone, _ in CHANGES})),
    second=st.integers(631_152_000, 3_471_292_800),  # 1990 to 2080
)
def test_any_instant_has_the_local_day_that_zoneinfo_says(zone, second):
    at = datetime.fromtimestamp(second, UTC)
    shown = at.astimezone(ZoneInfo(zone))
    assert compute_local_days(Site("s", zone), as_array([at])).tolist() == [shown.toordinal()]


def test_stretches_lie_end_to_end_and_change_twice_a_year():
    found = list_stretches("Europe/Paris", compute_year_start(2024), compute_year_start(2026))
    assert [s.offset // 3_600_000_000 for s in found] == [1, 2, 1, 2, 1]
    assert all(one.until == other.since for one, other in pairwise(found))
    assert (found[0].since, found[-1].until) == (compute_year_start(2024), compute_year_start(2026))
    assert list_stretches("Europe/Paris", compute_year_start(2026), compute_year_start(2024)) == []


def test_instants_far_outside_the_known_years_have_a_local_day_too():
    far = np.array(["0001-01-01", "9999-12-31T23:59"], dtype="datetime64[us]")
    assert compute_local_days(Site("s", "Asia/Tokyo"), far).tolist() == [1, 3652060]
    assert compute_local_days(Site("s", "Asia/Tokyo"), far[:0]).tolist() == []


def test_a_time_without_zone_or_without_value_is_refused():
    with pytest.raises(ValueError, match="no time zone"):
        to_wall_time("Asia/Tokyo", datetime.fromisoformat("2025-01-01"))
    with pytest.raises(ValueError, match="NaT"):
        compute_local_days(Site("s", "Asia/Tokyo"), np.array(["NaT"], dtype="datetime64[us]"))


def test_names_are_those_of_the_disk_and_are_read_once():
    """Each page of the console asks whether its zone is one."""
    assert list_timezones() == available_timezones()
    assert list_timezones() is list_timezones()
