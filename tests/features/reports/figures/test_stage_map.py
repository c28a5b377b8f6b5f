from datetime import date, datetime

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rollout.features.reports.figures.cell_timeline import (
    _build_hour_grid,
    build_calendars,
    find_rectangles,
)
from rollout.kernel.policy_files.reader import parse_policy

GRIDS = arrays(np.int64, st.tuples(st.integers(1, 12), st.just(24)), elements=st.integers(-2, 1))


@given(GRIDS)
def test_rectangles_cover_every_hour_once(grid):
    painted = np.full(grid.shape, -9)
    for first, last, start, end, code in find_rectangles(grid):
        assert (painted[first : last + 1, start:end] == -9).all()
        painted[first : last + 1, start:end] = code
    assert (painted == grid).all()


def test_a_year_without_change_is_one_rectangle():
    assert len(list(find_rectangles(np.zeros((365, 24), dtype=np.int64)))) == 1


def test_the_map_shows_when_the_creek_was_allowed_what(told):
    _, facts = told
    creek = next(panel for panel in facts.calendar if panel.site == "creek")
    autonomous = [s for s in creek.stretches if s.stage == "autonomous"]
    assert min(s.first for s in autonomous) == date(2026, 3, 4)
    assert max(s.last for s in autonomous) == date(2026, 3, 6)
    assert {(s.start, s.end) for s in autonomous} == {(6, 18), (6, 12)}


def test_an_hour_that_spring_leaves_out_looks_like_its_neighbour(replay_of, case):
    night = datetime.fromisoformat("2026-03-29T01:30+01:00")
    inputs = replay_of([case("a", night, human="bear", model={"v1": "bear"})])
    (creek, _) = build_calendars(inputs)
    assert {(s.start, s.end, s.stage) for s in creek.stretches} == {(0, 24, "shadow")}


def test_of_two_equal_hours_in_autumn_the_first_counts():
    grid, first = _build_hour_grid(np.array([5, 6, 7]), np.array([10, 10, 10]), np.array([1, 2, 2]))
    assert (first, grid[0, 1], grid[0, 2]) == (10, 5, 6)


def test_windows_that_attributes_choose_have_a_panel_each(replay_of, case):
    policy = parse_policy(
        """
rollout: w
timezone: Europe/Vienna
levers: [{id: alarm, labels: [bear, no-bear]}]
sites: [creek]
windows: [{id: dry, hours: "06:00-18:00", when: {weather: [dry]}}, {id: rest, hours: 24/7}]
evidence: {unit: case, outside: blind}
gates: [{to: supervised, require: [{measure: agreement, at_least: 90%}]}]
"""
    )
    inputs = replay_of([case("a", human="bear", model={"v1": "bear"})], policy)
    assert [(p.site, p.window) for p in build_calendars(inputs)] == [
        ("creek", "dry"),
        ("creek", "rest"),
    ]
    dry = build_calendars(inputs)[0]
    assert [(s.start, s.end) for s in dry.stretches] == [(6, 18)]
