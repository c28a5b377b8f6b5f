"""The window that is looked up once an hour is the one that `find_window` gives."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.kernel.calendar.instants import Site, Window
from rollout.kernel.calendar.windows import find_window
from rollout.live.evidence.unit_counting import WindowLookup
from tests.factories import policy

SITES = (
    Site("creek", "America/Denver", coordinates=(40.34, -105.57)),
    Site("lisbon", "Europe/Lisbon", coordinates=(38.7, -9.1)),
    Site("howe", "Australia/Lord_Howe", coordinates=(-31.5, 159.1)),
)
WINDOWS = (
    Window("wet", "10:00-16:30", {"weather": ("wet", "snow")}),
    Window("day", "sunrise-sunset"),
    Window("odd", "01:10-01:50,23:45-24:00"),
    Window("night", "24/7", {"moon": ("full",)}),
)
POLICY = policy(sites=SITES, windows=WINDOWS, waves=None)
START = datetime(2025, 1, 1, tzinfo=UTC)
ATTRIBUTES = st.dictionaries(
    st.sampled_from(["weather", "moon"]), st.sampled_from(["wet", "dry", "full"])
)


@pytest.mark.slow
@given(
    st.sampled_from(SITES),
    st.integers(0, 2 * 366 * 86_400 - 1),
    st.integers(0, 999_999),
    ATTRIBUTES,
)
def test_it_is_the_window_of_every_instant(site, second, micro, attributes):
    at = START + timedelta(seconds=second, microseconds=micro)
    expected = find_window(site, WINDOWS, at, attributes)
    live = WindowLookup(POLICY)
    assert live.find_window(site.id, at, attributes) == expected
    assert live.find_window(site.id, at, attributes) == expected  # now from what is known


@given(st.sampled_from([datetime(2025, 10, 26, tzinfo=UTC), datetime(2025, 3, 30, tzinfo=UTC)]))
def test_it_is_the_window_of_each_minute_in_which_the_clock_changes(day):
    live = WindowLookup(POLICY)
    for minute in range(0, 1_440, 5):
        at = day + timedelta(minutes=minute)
        assert live.find_window("lisbon", at, {}) == find_window(SITES[1], WINDOWS, at, {})


def test_an_unknown_site_is_in_no_window():
    assert WindowLookup(POLICY).find_window("moon", START, {}) == "other"
