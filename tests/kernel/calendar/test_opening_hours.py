"""Hours at a site against a brute force that knows nothing of opening_hours."""

from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.kernel.calendar.instants import Site, Window
from rollout.kernel.calendar.opening_hours import find_next_change, is_open, list_open_spans
from rollout.kernel.calendar.windows import find_open_windows, find_windows

DAYS = ("Mo", "Tu", "We", "Th", "Fr", "Sa", "Su")
ZONES = (
    "Europe/Lisbon",
    "America/Halifax",
    "Australia/Hobart",
    "Asia/Tokyo",
    "Europe/Paris",
    "America/Denver",
)
# Friday to Tuesday around every change of 2025 in these zones.
WEEKENDS = ("2025-03-07", "2025-03-28", "2025-04-04", "2025-10-03", "2025-10-24", "2025-10-31")
LENGTH = 4 * 1440

zones = st.sampled_from(ZONES)
weekends = st.sampled_from(WEEKENDS)
minutes = st.integers(0, 1439)


@st.composite
def patterns(draw):
    """Days of the week and minutes of the day; an end at or before the start is the next day's."""
    first, last = draw(st.integers(0, 6)), draw(st.integers(0, 6))
    count = (last - first) % 7 + 1
    return (
        frozenset((first + i) % 7 for i in range(count)),
        (first, last),
        draw(minutes),
        draw(minutes),
    )


def spelled(pattern) -> str:
    _, (first, last), start, end = pattern
    clock = "{:02d}:{:02d}-{:02d}:{:02d}".format(*divmod(start, 60), *divmod(end, 60))
    return f"{DAYS[first]}-{DAYS[last]} {clock}" if first != last else f"{DAYS[first]} {clock}"


def fits(pattern, weekday: int, minute: int) -> bool:
    days, _, start, end = pattern
    length = (end - start - 1) % 1440 + 1
    today = weekday in days and 0 <= minute - start < length
    return today or ((weekday - 1) % 7 in days and 0 <= minute + 1440 - start < length)


@cache
def clock(zone: str, weekend: str) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Every minute of a weekend in UTC, and the weekday and minute that the clock shows then."""
    start = datetime.fromisoformat(f"{weekend}T00:00:00+00:00")
    shown = [(start + timedelta(minutes=i)).astimezone(ZoneInfo(zone)) for i in range(LENGTH)]
    instants = np.datetime64(weekend, "us") + np.arange(LENGTH).astype("timedelta64[m]")
    return instants, [(at.weekday(), at.hour * 60 + at.minute) for at in shown]


def by_hand(pattern, zone: str, weekend: str) -> np.ndarray:
    return np.array([fits(pattern, *shown) for shown in clock(zone, weekend)[1]])


def aware(instant: np.datetime64) -> datetime:
    return instant.astype("datetime64[us]").item().replace(tzinfo=UTC)


@pytest.mark.slow
@settings(max_examples=60)
@given(patterns(), zones, weekends)
def test_hours_hold_in_every_minute_that_the_clock_says(pattern, zone, weekend):
    instants, expected = clock(zone, weekend)[0], by_hand(pattern, zone, weekend)
    site, hours = Site("s", zone), spelled(pattern)
    assert (find_open_windows(site, [Window("w", hours)], instants)["w"] == expected).all()
    for i in range(0, LENGTH, 487):
        assert is_open(hours, site, aware(instants[i])) == expected[i]


@pytest.mark.slow
@settings(max_examples=60)
@given(patterns(), zones, weekends)
def test_spans_are_the_runs_of_open_minutes(pattern, zone, weekend):
    instants, expected = clock(zone, weekend)[0], by_hand(pattern, zone, weekend)
    edges = np.flatnonzero(np.diff(expected.astype(int), prepend=0, append=0))
    times = [aware(instants[0]) + timedelta(minutes=int(edge)) for edge in edges]
    end = aware(instants[0]) + timedelta(minutes=LENGTH)
    spans = list_open_spans(spelled(pattern), Site("s", zone), aware(instants[0]), end)
    assert [at for span in spans for at in span] == times


@pytest.mark.slow
@settings(max_examples=60)
@given(patterns(), zones, weekends, st.integers(0, LENGTH - 1), st.integers(0, 59))
def test_the_next_change_is_the_first_minute_that_differs(pattern, zone, weekend, minute, second):
    instants, expected = clock(zone, weekend)[0], by_hand(pattern, zone, weekend)
    later = np.flatnonzero(expected[minute:] != expected[minute])
    change = find_next_change(
        spelled(pattern), Site("s", zone), aware(instants[minute]) + timedelta(seconds=second)
    )
    if later.size:
        assert change == aware(instants[minute + later[0]])
    else:
        assert change is None or change >= aware(instants[0]) + timedelta(minutes=LENGTH)


@pytest.mark.slow
@settings(max_examples=60)
@given(st.lists(patterns(), max_size=4), zones, weekends, st.booleans())
def test_every_minute_belongs_to_the_first_window_that_holds(chosen, zone, weekend, rest):
    windows = [Window(f"w{i}", spelled(pattern)) for i, pattern in enumerate(chosen)]
    windows += [Window("rest", "24/7")] * rest
    masks = [by_hand(pattern, zone, weekend) for pattern in chosen] + [np.ones(LENGTH, bool)]
    first = np.argmax(masks, axis=0)
    names = np.array([f"w{i}" for i in range(len(chosen))] + ["rest" if rest else "other"])
    found = find_windows(Site("s", zone), windows, clock(zone, weekend)[0])
    assert (found == names[first]).all()


@pytest.mark.parametrize("zone", ZONES)
def test_always_is_open_in_the_last_minute_before_the_clock_goes_back(zone):
    site = Site("s", zone)
    for weekend in WEEKENDS:
        instants = clock(zone, weekend)[0]
        assert all(is_open("24/7", site, aware(at)) for at in instants[::13])
        for hours in ("24/7", " 24/7 ", "Mo-Su", "00:00-24:00", None):
            assert find_open_windows(site, [Window("w", hours)], instants)["w"].all()
            assert len(list_open_spans(hours, site, aware(instants[0]), aware(instants[-1]))) == 1


def test_the_hour_that_comes_twice_is_open_twice():
    paris, day = Site("paris", "Europe/Paris"), datetime(2025, 10, 26, tzinfo=UTC)
    spans = list_open_spans("02:30-03:00", paris, day, day + timedelta(hours=12))
    assert [(a.hour, a.minute, b.hour, b.minute) for a, b in spans] == [
        (0, 30, 1, 0),
        (1, 30, 2, 0),
    ]


def test_the_hour_that_never_comes_is_in_nothing():
    paris, day = Site("paris", "Europe/Paris"), datetime(2025, 3, 30, tzinfo=UTC)
    assert list_open_spans("02:30-02:45", paris, day, day + timedelta(hours=12)) == []
    assert find_next_change("02:30-02:45", paris, day) == datetime(2025, 3, 31, 0, 30, tzinfo=UTC)


def test_public_holidays_are_those_of_the_sites_country():
    bastille, independence = (datetime(2025, 7, day, 15, tzinfo=UTC) for day in (14, 4))
    hours = "Mo-Fr 08:00-20:00; PH off"
    paris, denver = Site("p", "Europe/Paris", "FR"), Site("d", "America/Denver", "US")
    assert [is_open(hours, paris, at) for at in (bastille, independence)] == [False, True]
    assert [is_open(hours, denver, at) for at in (bastille, independence)] == [True, False]
    assert is_open("Dec 24-26; PH", denver, independence)
    assert not is_open("Dec 24-26; PH", denver, bastille)


def test_a_country_without_known_holidays_does_no_harm_to_hours_without_them():
    site = Site("halley", "Antarctica/Palmer", "AQ")
    assert is_open("08:00-20:00", site, datetime(2025, 7, 4, 15, tzinfo=UTC))


def test_spans_go_on_over_the_end_of_a_year():
    site, start = Site("s", "Asia/Tokyo"), datetime(2024, 12, 31, tzinfo=UTC)
    spans = list_open_spans("22:00-06:00", site, start, start + timedelta(days=1))
    assert spans == [(start + timedelta(hours=13), start + timedelta(hours=21))]
    assert list_open_spans("Mo-Su", site, start, start + timedelta(days=900)) == [
        (start, start + timedelta(days=900))
    ]


@pytest.mark.parametrize(
    ("hours", "change"),
    [
        ("Feb 29", datetime(2028, 2, 29, tzinfo=UTC)),
        ("2032 Jan 1", datetime(2032, 1, 1, tzinfo=UTC)),
        ("2040 Jan 1", None),
        ("24/7", None),
        ("Mo-Su", None),
        ("off", None),
        ("2024-2029", datetime(2030, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_change_is_looked_for_ten_years_ahead(hours, change):
    assert find_next_change(hours, Site("s", "UTC"), datetime(2024, 7, 1, tzinfo=UTC)) == change


@pytest.mark.slow
def test_years_that_are_no_records_time_are_closed():
    tokyo = Site("s", "Asia/Tokyo")
    far = np.array(["0001-01-01", "1850-06-01", "9999-12-31T23:59"], dtype="datetime64[us]")
    windows = [Window("w", "00:00-24:00"), Window("all", "24/7")]
    assert find_windows(tokyo, windows, far).tolist() == ["all"] * 3
    assert [is_open("Mo-Su", tokyo, aware(at)) for at in far] == [False] * 3
    assert find_next_change("10:00-12:00", tokyo, aware(far[2])) is None


def test_hours_that_follow_the_sun_need_a_place():
    with pytest.raises(ValueError, match="give site ramp its `place"):
        is_open("sunrise-sunset", Site("ramp", "UTC"), datetime(2025, 1, 1, tzinfo=UTC))


def test_unknown_is_not_open():
    assert not is_open("Mo-Su unknown", Site("s", "UTC"), datetime(2025, 1, 1, tzinfo=UTC))
