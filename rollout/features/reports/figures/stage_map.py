"""The stage at each hour of each day: rectangles of equal stage in a site's calendar.

Columns are local days, rows the hours of the local clock. Neighbouring hours of equal stage form
one rectangle.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from rollout.engine.evidence.slots import to_instant
from rollout.engine.evidence.stage_history import StageHistory
from rollout.features.reports.inputs.inputs import ReportInputs
from rollout.kernel.calendar.instants import compute_local_days, compute_local_hours, count_micros
from rollout.kernel.calendar.sites import OTHER_WINDOW, Cell, Site, Window
from rollout.kernel.calendar.windows import find_open_windows, find_windows
from rollout.kernel.policy.policy import Policy

Ints = NDArray[np.int64]

OUTSIDE_WINDOWS = -1  # no window of the policy: always shadow
NOT_IN_PANEL = -2  # not of the panel's window
NO_SUCH_HOUR = -3  # no such hour on that day
HOUR, HOUR_STEP = timedelta(hours=1), np.timedelta64(1, "h")


@dataclass(frozen=True, slots=True)
class CalendarBlock:
    """Local days `first` to `last` and hours from `start` to before `end`, on one stage.

    `stage` is None outside every window of the policy, where shadow is permanent.
    """

    first: date
    last: date
    start: int
    end: int
    stage: str | None


@dataclass(frozen=True, slots=True)
class SiteCalendar:
    """One site's calendar; of one window if attributes of cases choose the window."""

    site: str
    window: str | None
    zone: str
    stretches: tuple[CalendarBlock, ...]


def build_calendars(inputs: ReportInputs) -> tuple[SiteCalendar, ...]:
    """Return a calendar for every site, over the local days of the history.

    The stage of an hour is that at its start, also in windows that follow the sun. In autumn the
    first of two equal hours counts. Hours before the first case are shadow.
    """
    first, last = _find_span(inputs)
    return tuple(
        _build_calendar(site, window, inputs, first, last)
        for site in inputs.policy.sites
        for window in _list_calendar_windows(inputs.policy)
    )


def _list_calendar_windows(policy: Policy) -> tuple[Window | None, ...]:
    """Return (None,) for the whole site, or the windows if attributes choose them."""
    return policy.windows if any(window.when for window in policy.windows) else (None,)


def _find_span(inputs: ReportInputs) -> tuple[datetime, datetime]:
    """Return the first and last instant of cases and later stage changes."""
    tick = inputs.policy.tick
    changes = [
        to_instant(slot, tick) for timeline in inputs.timelines.values() for slot in timeline.slots
    ]
    occurred = inputs.cases["occurred_at"].drop_nulls()
    if occurred.is_empty():
        return inputs.first, inputs.last
    lowest, highest = occurred.min(), occurred.max()
    assert isinstance(lowest, datetime) and isinstance(highest, datetime)  # noqa: S101, PT018 - the column holds instants
    return lowest, max([highest, *changes])


def _build_calendar(
    site: Site, window: Window | None, inputs: ReportInputs, first: datetime, last: datetime
) -> SiteCalendar:
    starts = _list_hours(site, first, last)
    codes = _compute_codes(site, window, inputs, starts)
    grid, first_day = _build_grid(
        codes, compute_local_days(site, starts), compute_local_hours(site, starts)
    )
    stages = (*inputs.policy.stage_ids, None)
    blocks = tuple(
        CalendarBlock(
            date.fromordinal(first_day + left),
            date.fromordinal(first_day + right),
            top,
            bottom,
            stages[code],
        )
        for left, right, top, bottom, code in find_rectangles(grid)
        if code != NOT_IN_PANEL
    )
    return SiteCalendar(site.id, window.id if window else None, site.timezone, blocks)


def _list_hours(site: Site, first: datetime, last: datetime) -> NDArray[np.datetime64]:
    """Return every full hour, UTC, of the local days from `first` to `last`."""
    start = (first - 26 * HOUR).astimezone(UTC).replace(tzinfo=None, minute=0, second=0)
    count = int((last - first) / HOUR) + 54
    starts = np.datetime64(start.replace(microsecond=0), "us") + np.arange(count) * HOUR_STEP
    days = compute_local_days(site, starts)
    ends = compute_local_days(
        site, np.array([_to_naive_utc(first), _to_naive_utc(last)], dtype="datetime64[us]")
    )
    return np.asarray(starts[(days >= ends[0]) & (days <= ends[1])])


def _to_naive_utc(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(tzinfo=None)


def _compute_codes(
    site: Site, window: Window | None, inputs: ReportInputs, starts: NDArray[np.datetime64]
) -> Ints:
    """Return the stage level at each instant, OUTSIDE_WINDOWS or NOT_IN_PANEL."""
    policy = inputs.policy
    slots = starts.astype("datetime64[us]").astype(np.int64) // count_micros(policy.tick)
    if window is not None:
        in_window = find_open_windows(site, (window,), starts)[window.id]
        stage_levels = _find_stage_levels(Cell(site.id, window.id), inputs, slots)
        return np.where(in_window, stage_levels, NOT_IN_PANEL)
    names = find_windows(site, policy.windows, starts)
    codes = np.full(len(starts), OUTSIDE_WINDOWS, dtype=np.int64)
    for name in set(names.tolist()) - {OTHER_WINDOW}:
        is_window = names == name
        codes[is_window] = _find_stage_levels(Cell(site.id, str(name)), inputs, slots[is_window])
    return codes


def _find_stage_levels(cell: Cell, inputs: ReportInputs, slots: Ints) -> Ints:
    return inputs.timelines.get(cell, StageHistory()).find_levels(slots)


def _build_grid(codes: Ints, days: Ints, hours: Ints) -> tuple[Ints, int]:
    """Return the codes by day and hour, with the ordinal of the first day.

    The hour that is skipped in spring copies the one before it.
    """
    first, last = int(days.min()), int(days.max())
    grid = np.full((last - first + 1, 24), NO_SUCH_HOUR, dtype=np.int64)
    _, earliest = np.unique(days * 24 + hours, return_index=True)
    grid[days[earliest] - first, hours[earliest]] = codes[earliest]
    for day, hour in np.argwhere(grid == NO_SUCH_HOUR):
        grid[day, hour] = grid[day, hour - 1] if hour else NOT_IN_PANEL
    return grid, first


def find_rectangles(grid: Ints) -> Iterator[tuple[int, int, int, int, int]]:
    """Yield (first day, last day, first hour, end hour, code): equal neighbours as one.

    >>> list(find_rectangles(np.array([[0, 0, 1], [0, 0, 1], [0, 1, 1]])))
    [(0, 1, 0, 2, 0), (0, 1, 2, 3, 1), (2, 2, 0, 1, 0), (2, 2, 1, 3, 1)]
    """
    open_runs: dict[tuple[int, int, int], int] = {}
    for day, row in enumerate(grid):
        runs = set(_find_runs(row))
        for run in sorted(set(open_runs) - runs):
            yield open_runs.pop(run), day - 1, *run
        for run in runs - set(open_runs):
            open_runs[run] = day
    for run, since in sorted(open_runs.items()):
        yield since, len(grid) - 1, *run


def _find_runs(row: Ints) -> list[tuple[int, int, int]]:
    """Return the (start, end, code) of equal neighbours in one day."""
    edges = [0, *(np.flatnonzero(np.diff(row)) + 1).tolist(), len(row)]
    return [(a, b, int(row[a])) for a, b in pairwise(edges)]
