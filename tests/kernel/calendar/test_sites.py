"""Sites, windows and cells: which window an instant and a case's attributes lie in."""

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.kernel.calendar.instants import OTHER_WINDOW, Cell, Site, Window
from rollout.kernel.calendar.windows import find_open_windows, find_window, find_windows

LOOP = Site("lake-loop", "Europe/Zurich")
DRY = {"weather": ("dry", "damp")}
SHUTTLE = [
    Window("quiet-dry", "Mo-Fr 09:30-11:30,13:30-16:00", DRY),
    Window("busy-dry", "Mo-Fr 07:00-19:00", DRY),
]
MONDAY = datetime(2026, 3, 2, 9, tzinfo=UTC)  # 10:00 in Zurich


def test_the_first_window_that_fits_counts():
    assert find_window(LOOP, SHUTTLE, MONDAY, {"weather": "damp"}) == "quiet-dry"
    assert find_window(LOOP, SHUTTLE[::-1], MONDAY, {"weather": "damp"}) == "busy-dry"
    assert find_window(LOOP, SHUTTLE, MONDAY.replace(hour=11), {"weather": "dry"}) == "busy-dry"


def test_what_fits_no_window_is_other():
    assert find_window(LOOP, SHUTTLE, MONDAY, {"weather": "snow"}) == OTHER_WINDOW
    assert find_window(LOOP, SHUTTLE, MONDAY.replace(hour=20), {"weather": "dry"}) == OTHER_WINDOW
    assert find_window(LOOP, [], MONDAY) == OTHER_WINDOW


def test_an_attribute_missing_on_the_way_is_other_even_if_a_later_window_would_fit():
    windows = [*SHUTTLE, Window("rest")]
    assert find_window(LOOP, windows, MONDAY, {}) == OTHER_WINDOW
    assert find_window(LOOP, windows, MONDAY) == OTHER_WINDOW
    assert find_window(LOOP, windows, MONDAY, {"weather": "wet"}) == "rest"
    assert find_window(LOOP, windows, MONDAY.replace(hour=20)) == "rest"  # never asked


def test_all_attributes_must_fit():
    both = [Window("a", when={"weather": ("dry",), "light": ("day",)}), Window("rest")]
    assert find_window(LOOP, both, MONDAY, {"weather": "dry", "light": "day"}) == "a"
    assert find_window(LOOP, both, MONDAY, {"weather": "dry", "light": "dusk"}) == "rest"
    assert find_window(LOOP, both, MONDAY, {"weather": "wet"}) == OTHER_WINDOW


def test_a_time_without_zone_is_refused():
    with pytest.raises(ValueError, match="no time zone"):
        find_window(LOOP, [], datetime.fromisoformat("2026-03-02T09:00"))


def test_each_site_reads_its_own_clock():
    day = [Window("day", "06:00-18:00"), Window("night", "18:00-06:00")]
    sites = [Site(z, z) for z in ("Europe/Lisbon", "America/Halifax", "Asia/Tokyo")]
    assert [find_window(site, day, MONDAY) for site in sites] == ["day", "night", "night"]


attributes = st.dictionaries(
    st.sampled_from(["weather", "light"]), st.sampled_from(["dry", "wet", "day"]), max_size=2
)
whens = st.dictionaries(
    st.sampled_from(["weather", "light"]),
    st.lists(st.sampled_from(["dry", "day"]), max_size=2).map(tuple),
    max_size=2,
)
hours = st.sampled_from([None, "24/7", "Mo-Fr 07:00-19:00", "Sa 10:00-12:00", "22:00-06:00"])


@pytest.mark.slow
@given(
    st.lists(st.tuples(hours, whens), max_size=4),
    st.lists(st.tuples(st.integers(0, 400 * 1440), attributes), min_size=1, max_size=12),
)
def test_many_at_once_are_what_each_alone_is(patterns, cases):
    windows = [Window(f"w{i}", *pattern) for i, pattern in enumerate(patterns)]
    starts = np.datetime64("2025-01-01T00:00", "us") + np.array([m for m, _ in cases]).astype(
        "timedelta64[m]"
    )
    columns = {
        name: np.array([known.get(name) for _, known in cases], dtype=object)
        for name in ("weather", "light")
    }
    alone = [
        find_window(LOOP, windows, at.item().replace(tzinfo=UTC), known)
        for at, (_, known) in zip(starts, cases, strict=True)
    ]
    assert find_windows(LOOP, windows, starts, columns).tolist() == alone


def test_an_attribute_that_no_record_has_is_missing_for_all():
    starts = np.array(["2026-03-02T09:00"] * 2, dtype="datetime64[s]")
    assert find_windows(LOOP, SHUTTLE, starts).tolist() == [OTHER_WINDOW, OTHER_WINDOW]
    assert find_windows(LOOP, SHUTTLE, starts[:0]).tolist() == []


def test_hours_alone_leave_attributes_to_the_caller():
    starts = np.array(["2026-03-02T09:00", "2026-03-01T09:00"], dtype="datetime64[ns]")
    held = find_open_windows(LOOP, SHUTTLE, starts)
    assert {name: mask.tolist() for name, mask in held.items()} == {
        "quiet-dry": [True, False],
        "busy-dry": [True, False],
    }


def test_a_cell_reads_as_site_and_window_and_sorts_by_them():
    cells = [Cell("b", "day"), Cell("a", "night"), Cell("a", "day")]
    assert [str(cell) for cell in sorted(cells)] == ["a · day", "a · night", "b · day"]


def test_a_window_is_a_value_that_its_maker_cannot_change():
    when = {"weather": ["dry"]}
    window = Window("dry", when=when)
    when["weather"].append("wet")
    assert window == Window("dry", when={"weather": ("dry",)})
    assert len({window, Window("dry", when={"weather": ("dry",)}), Window("dry")}) == 2
