"""Clocks of cells, compared with the window of each minute."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from rollout.kernel.calendar.instants import MINUTE, Site, Window, to_micros
from rollout.kernel.calendar.opening_hours import is_open
from rollout.kernel.calendar.windows import build_cell_clock, find_window

DOOR = (Window("day", "Mo-Fr 08:00-16:00; PH off"), Window("evening", "Mo-Fr 15:00-20:00; PH off"))
ALL_DAY = (Window("lunch", "12:00-13:00"), Window("rest"))
PARIS = Site("door", "Europe/Paris", country="FR")
NEW_YEAR = datetime(2026, 12, 31, 21, 30, tzinfo=UTC)
CLOCK_CHANGE = datetime(2027, 3, 26, 5, 0, tzinfo=UTC)


def minutes_of(start, hours):
    return [start + n * timedelta(minutes=1) for n in range(60 * hours)]


def micros_of(instants):
    return np.array([to_micros(at) for at in instants])


@pytest.mark.parametrize(
    ("site", "windows", "window", "start"),
    [
        (PARIS, DOOR, "day", CLOCK_CHANGE),
        (PARIS, DOOR, "evening", CLOCK_CHANGE),
        (PARIS, ALL_DAY, "rest", NEW_YEAR),
        (Site("camp", "America/Denver", open="07:00-21:00"), ALL_DAY, "rest", CLOCK_CHANGE),
        (Site("camp", "UTC"), (Window("always"),), "always", NEW_YEAR),
    ],
)
def test_a_clock_runs_in_the_minutes_of_its_cell(site, windows, window, start):
    instants = minutes_of(start, 80)
    clock = build_cell_clock(site, windows, window, to_micros(start), to_micros(instants[-1]))
    expected = [
        find_window(site, windows, at) == window and is_open(site.open, site, at) for at in instants
    ]
    micros = micros_of(instants)
    assert clock.are_running(micros).tolist() == expected
    steps = np.diff(clock.read_at(micros)) // MINUTE
    assert steps.tolist() == [int(is_running) for is_running in expected[:-1]]


def test_a_window_of_some_cases_takes_no_minutes_from_the_next():
    windows = (Window("dry", "08:00-12:00", {"weather": ("dry",)}), Window("rest"))
    noon = to_micros(datetime(2027, 6, 1, 9, tzinfo=UTC))
    clocks = [
        build_cell_clock(Site("a", "UTC"), windows, name, noon, noon) for name in ("dry", "rest")
    ]
    assert [clock.are_running(np.array([noon])).tolist() for clock in clocks] == [[True], [True]]


def test_a_clock_finds_the_instant_of_a_reading():
    start = to_micros(CLOCK_CHANGE)
    clock = build_cell_clock(PARIS, DOOR, "day", start, start)
    first = int(clock.read_at(np.array([start]))[0])
    for minutes in (0, 1, 400, 500, 1400):
        at = clock.find_instant(first + minutes * MINUTE)
        assert clock.read_at(np.array([at])).tolist() == [first + minutes * MINUTE]
        assert clock.read_at(np.array([at - 1]))[0] < first + minutes * MINUTE or minutes == 0
    assert clock.find_instant(2**62) is None


def test_a_clock_that_never_runs_reads_nothing():
    never = Site("a", "UTC", open="2030 Jan 1")
    at = to_micros(CLOCK_CHANGE)
    clock = build_cell_clock(never, (Window("always"),), "always", at, at)
    assert clock.read_at(np.array([at])).tolist() == [0]
    assert clock.find_instant(1) is None
