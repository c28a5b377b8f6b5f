"""What a map of the week shows, as values: how each cell is drawn, row by row, and in words."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Final

from api.console.page.stages import Mark, marks_of, withheld_as
from api.console.rollouts.window_bands import (
    DAY_MINUTES,
    Span,
    bands_of,
    minute_of,
    monday_of,
    spans_of,
)
from rollout.core.calendar.sites import SHADOW, Cell, Site, Window
from rollout.core.policy.policy import Policy
from rollout.core.scope.scope import Scope, held_rung
from rollout.reports.text.formatting import listed

MOST_ROWS: Final = 12
"""More rows than that are grouped by equal ones."""
STOPPED: Final = "stopped"
SUSPENDED: Final = "suspended"
AHEAD: Final = timedelta(days=7)  # a map shows no more of what is to come


@dataclass(frozen=True, slots=True)
class Course:
    """How a cell is drawn: as it stands, and otherwise from the instants at which grants end."""

    mark: Mark
    later: tuple[tuple[datetime, Mark], ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the map: one site or several equal ones, one window of it where cases choose.

    Attributes:
        label: the site's name, `14 sites` for equal ones.
        says: what is allowed there, in words.
        bands: from minute to minute of the week (outside) what is allowed; nothing where no
            window holds, which is shadow too.
        frozen: when nothing widens.
        now: the minute that the site's clock shows.
    """

    label: str
    says: str
    bands: tuple[tuple[int, int, Mark], ...]
    frozen: tuple[Span, ...]
    now: int


def courses_of(scope: Scope, policy: Policy, at: datetime) -> dict[Cell, Course]:
    """Return how each cell of a policy is drawn, from what holds at an instant.

    A grant that nobody has renewed yet is drawn until it ends.
    """
    markers = marks_of(policy)
    at = at if scope.at is None else max(at, scope.at)
    stopped = {cell for stop in scope.stops.values() for cell in stop.cells}
    fixed_schedules = {
        STOPPED: Course(withheld_as(markers, STOPPED)),
        SHADOW: Course(markers[SHADOW]),
    }
    return {
        cell: fixed_schedules[STOPPED if cell in stopped else SHADOW]
        if cell in stopped or scope.holder(cell) is None
        else _course(scope, policy, cell, at, markers)
        for cell in policy.cells
    }


def _course(
    scope: Scope, policy: Policy, cell: Cell, at: datetime, marks: Mapping[str, Mark]
) -> Course:
    acting_version = scope.holder(cell)
    if acting_version is None or scope.versions[acting_version].retired:
        return Course(marks[SHADOW])
    cell_state = scope.state(cell, acting_version)
    if cell_state.suspended_by:
        return Course(withheld_as(marks, SUSPENDED))

    def mark(then: datetime) -> Mark:
        return marks[
            policy.rungs[min(held_rung(policy, cell_state, then), policy.ceiling(cell, then))]
        ]

    end_times = sorted({*(grant.until for grant in cell_state.grants), policy.ends(cell)})
    return Course(mark(at), tuple((end, mark(end)) for end in end_times if at < end < at + AHEAD))


def sites_of(policy: Policy, sites: Collection[str] | None) -> list[Site]:
    """Return the sites that are drawn, in the policy's order; None stands for all."""
    return [site for site in policy.sites if sites is None or site.id in sites]


def described(
    policy: Policy, courses: Mapping[Cell, Course], sites: Collection[str] | None = None
) -> str:
    """Say what is allowed where: the map in words. Of many sites equal ones are told together."""
    sites_shown = sites_of(policy, sites)
    sites_by_text: dict[str, list[str]] = {}
    for site in sites_shown:
        sites_by_text.setdefault(at_site(policy, courses, site.id), []).append(site.id)
    if len(sites_shown) <= MOST_ROWS:
        text_by_site = {name: text for text, names in sites_by_text.items() for name in names}
        return " ".join(f"{site.id}: {text_by_site[site.id]}." for site in sites_shown)
    return " ".join(f"{_together(names)}: {text}." for text, names in sites_by_text.items())


def _together(names: list[str]) -> str:
    return listed(names) if len(names) < 4 else f"{len(names)} sites"


def at_site(policy: Policy, courses: Mapping[Cell, Course], site: str) -> str:
    """Say what is allowed at one site: `autonomous by day, supervised by night`."""
    stage_names = {window.id: courses[Cell(site, window.id)].mark.name for window in policy.windows}
    if len(set(stage_names.values())) == 1:
        return next(iter(stage_names.values())) + (" everywhere" if len(stage_names) > 1 else "")
    return ", ".join(f"{stage_name} by {window}" for window, stage_name in stage_names.items())


def rows_of(
    policy: Policy,
    courses: Mapping[Cell, Course],
    at: datetime,
    sites: Collection[str] | None = None,
) -> tuple[Row, ...]:
    """Return the map's rows in the policy's order; more than twelve are grouped by equal ones."""
    monday = monday_of(at, policy.timezone)
    rows = [
        _row(policy, courses, site, window, monday, at)
        for site in sites_of(policy, sites)
        for window in _windows(policy)
    ]
    return grouped(rows) if len(rows) > MOST_ROWS else tuple(rows)


def _windows(policy: Policy) -> tuple[Window | None, ...]:
    """Return one row for a whole site, or one for each window where cases choose."""
    return policy.windows if any(window.when for window in policy.windows) else (None,)


def _row(
    policy: Policy,
    courses: Mapping[Cell, Course],
    site: Site,
    window: Window | None,
    monday: date,
    at: datetime,
) -> Row:
    windows = policy.windows if window is None else (window,)
    window_schedules = {
        window_item.id: courses[Cell(site.id, window_item.id)] for window_item in windows
    }
    return Row(
        label=site.id if window is None else f"{site.id} · {window.id}",
        says=at_site(policy, courses, site.id)
        if window is None
        else window_schedules[window.id].mark.name,
        bands=tuple(_joined(_bands(window_schedules, site, windows, monday))),
        frozen=tuple(_frozen(policy, site, windows, monday)),
        now=minute_of(at, site.timezone, monday),
    )


def _bands(
    own: Mapping[str, Course], site: Site, windows: tuple[Window, ...], monday: date
) -> Iterator[tuple[int, int, Mark]]:
    for start, end, window in bands_of(site, windows, monday):
        if window:
            yield from _steps(own[window], site, monday, start, end)


def _steps(
    course: Course, site: Site, monday: date, start: int, end: int
) -> Iterator[tuple[int, int, Mark]]:
    """Yield one band, or several where a grant ends within it."""
    marker = course.mark
    for at, next_marker in course.later:
        change_minute = minute_of(at, site.timezone, monday)
        if start < change_minute < end:
            yield start, change_minute, marker
            start = change_minute
        if change_minute <= start:
            marker = next_marker
    yield start, end, marker


def _joined(bands: Iterator[tuple[int, int, Mark]]) -> Iterator[tuple[int, int, Mark]]:
    """Yield what stays the same over a change of windows as one."""
    previous: tuple[int, int, Mark] | None = None
    for start, end, marker in bands:
        if previous is not None and (previous[1], previous[2]) == (start, marker):
            previous = (previous[0], end, marker)
            continue
        if previous is not None:
            yield previous
        previous = (start, end, marker)
    if previous is not None:
        yield previous


def _frozen(
    policy: Policy, site: Site, windows: tuple[Window, ...], monday: date
) -> Iterator[Span]:
    for freeze in policy.freezes:
        if any(freeze.where.fits(Cell(site.id, window.id)) for window in windows):
            yield from spans_of(freeze.hours, site, monday)


def grouped(rows: Collection[Row]) -> tuple[Row, ...]:
    """Return equal rows as one, where the first of them stood."""
    labels_by_row: dict[Row, list[str]] = {}
    for row in rows:
        labels_by_row.setdefault(replace(row, label=""), []).append(row.label)
    return tuple(
        replace(row, label=labels[0] if len(labels) == 1 else f"{len(labels)} sites")
        for row, labels in labels_by_row.items()
    )


def turns_of(policy: Policy, at: datetime, sites: Collection[str] | None = None) -> str:
    """Say when the windows turn at the first site today, "" where one holds all day.

    `at creek today 05:36 and 20:22`
    """
    for site in sites_of(policy, sites)[:1]:
        monday = monday_of(at, site.timezone)
        midnight = minute_of(at, site.timezone, monday) // DAY_MINUTES * DAY_MINUTES
        starts = [start - midnight for start, _, _ in bands_of(site, policy.windows, monday)]
        change_times = [
            f"{minute // 60:02}:{minute % 60:02}" for minute in starts if 0 < minute < DAY_MINUTES
        ]
        return f"at {site.id} today {listed(change_times)}" if change_times else ""
    return ""
