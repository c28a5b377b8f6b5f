"""What was allowed at each hour of each day: stretches of a site's calendar on one stage.

The calendar has local days across and the hours of the local clock down. Equal hours that touch
are one rectangle, so that a year needs no more of them than a week in which nothing changes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from rollout.core.calendar.sites import OTHER, Cell, Site, Window, hours_hold, windows_at
from rollout.core.calendar.timezones import local_days, local_hours
from rollout.core.policy.policy import Policy
from rollout.reports.inputs.inputs import Inputs
from rollout.tally.slots import instant, micros
from rollout.tally.stage_history import Timeline

Ints = NDArray[np.int64]

OUTSIDE = -1  # no window of the policy: always shadow
BLANK = -2  # not of the panel's window
NEVER = -3  # no such hour on that day
HOUR, HOUR_STEP = timedelta(hours=1), np.timedelta64(1, "h")


@dataclass(frozen=True, slots=True)
class Stretch:
    """Local days `first` to `last` and hours `start` to `end` (outside), all on one stage.

    `stage` is None where no window of the policy holds: always shadow there.
    """

    first: date
    last: date
    start: int
    end: int
    stage: str | None


@dataclass(frozen=True, slots=True)
class Panel:
    """One site's calendar; of one window alone where cases' attributes choose the window."""

    site: str
    window: str | None
    zone: str
    stretches: tuple[Stretch, ...]


def panels_of(inputs: Inputs) -> tuple[Panel, ...]:
    """Return a calendar for every site, over the local days that the history spans.

    A stage is read off at the start of each hour; windows that follow the sun are drawn to the
    hour. In autumn the first of two equal hours counts. Hours before the first case are shadow.
    """
    first, last = _span(inputs)
    return tuple(
        _panel(site, window, inputs, first, last)
        for site in inputs.policy.sites
        for window in _rows(inputs.policy)
    )


def _rows(policy: Policy) -> tuple[Window | None, ...]:
    """Return one row for the whole site, or one for each window where attributes choose."""
    return policy.windows if any(window.when for window in policy.windows) else (None,)


def _span(inputs: Inputs) -> tuple[datetime, datetime]:
    """Return the first and last instant to draw: cases, and changes of stage after them."""
    tick = inputs.policy.tick
    changes = [
        instant(slot, tick) for timeline in inputs.timelines.values() for slot in timeline.slots
    ]
    occurred = inputs.cases["occurred_at"].drop_nulls()
    if occurred.is_empty():
        return inputs.first, inputs.last
    lowest, highest = occurred.min(), occurred.max()
    assert isinstance(lowest, datetime) and isinstance(highest, datetime)  # noqa: S101, PT018 - the column holds instants
    return lowest, max([highest, *changes])


def _panel(
    site: Site, window: Window | None, inputs: Inputs, first: datetime, last: datetime
) -> Panel:
    starts = _hours(site, first, last)
    codes = _codes(site, window, inputs, starts)
    grid, first_day = _grid(codes, local_days(site, starts), local_hours(site, starts))
    stages = (*inputs.policy.rungs, None)
    blocks = tuple(
        Stretch(
            date.fromordinal(first_day + left),
            date.fromordinal(first_day + right),
            top,
            bottom,
            stages[code],
        )
        for left, right, top, bottom, code in rectangles(grid)
        if code != BLANK
    )
    return Panel(site.id, window.id if window else None, site.timezone, blocks)


def _hours(site: Site, first: datetime, last: datetime) -> NDArray[np.datetime64]:
    """Return every full hour, UTC, of the local days from `first` to `last`."""
    start = (first - 26 * HOUR).astimezone(UTC).replace(tzinfo=None, minute=0, second=0)
    count = int((last - first) / HOUR) + 54
    starts = np.datetime64(start.replace(microsecond=0), "us") + np.arange(count) * HOUR_STEP
    days = local_days(site, starts)
    ends = local_days(site, np.array([_plain(first), _plain(last)], dtype="datetime64[us]"))
    return np.asarray(starts[(days >= ends[0]) & (days <= ends[1])])


def _plain(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(tzinfo=None)


def _codes(
    site: Site, window: Window | None, inputs: Inputs, starts: NDArray[np.datetime64]
) -> Ints:
    """Return the rung at each instant, OUTSIDE where no window holds, BLANK where not this one."""
    policy = inputs.policy
    slots = starts.astype("datetime64[us]").astype(np.int64) // micros(policy.tick)
    if window is not None:
        in_window = hours_hold(site, (window,), starts)[window.id]
        stage_levels = _rungs(Cell(site.id, window.id), inputs, slots)
        return np.where(in_window, stage_levels, BLANK)
    names = windows_at(site, policy.windows, starts)
    codes = np.full(len(starts), OUTSIDE, dtype=np.int64)
    for name in set(names.tolist()) - {OTHER}:
        is_window = names == name
        codes[is_window] = _rungs(Cell(site.id, str(name)), inputs, slots[is_window])
    return codes


def _rungs(cell: Cell, inputs: Inputs, slots: Ints) -> Ints:
    return inputs.timelines.get(cell, Timeline()).at(slots)


def _grid(codes: Ints, days: Ints, hours: Ints) -> tuple[Ints, int]:
    """Return the codes by day and hour, with the ordinal of the first day.

    The hour that spring leaves out looks like the one before it.
    """
    first, last = int(days.min()), int(days.max())
    grid = np.full((last - first + 1, 24), NEVER, dtype=np.int64)
    _, earliest = np.unique(days * 24 + hours, return_index=True)
    grid[days[earliest] - first, hours[earliest]] = codes[earliest]
    for day, hour in np.argwhere(grid == NEVER):
        grid[day, hour] = grid[day, hour - 1] if hour else BLANK
    return grid, first


def rectangles(grid: Ints) -> Iterator[tuple[int, int, int, int, int]]:
    """Yield (first day, last day, first hour, end hour, code): equal neighbours as one.

    >>> list(rectangles(np.array([[0, 0, 1], [0, 0, 1], [0, 1, 1]])))
    [(0, 1, 0, 2, 0), (0, 1, 2, 3, 1), (2, 2, 0, 1, 0), (2, 2, 1, 3, 1)]
    """
    open_runs: dict[tuple[int, int, int], int] = {}
    for day, row in enumerate(grid):
        runs = set(_runs(row))
        for run in sorted(set(open_runs) - runs):
            yield open_runs.pop(run), day - 1, *run
        for run in runs - set(open_runs):
            open_runs[run] = day
    for run, since in sorted(open_runs.items()):
        yield since, len(grid) - 1, *run


def _runs(row: Ints) -> list[tuple[int, int, int]]:
    """Return the (start, end, code) of equal neighbours in one day."""
    edges = [0, *(np.flatnonzero(np.diff(row)) + 1).tolist(), len(row)]
    return [(a, b, int(row[a])) for a, b in pairwise(edges)]
