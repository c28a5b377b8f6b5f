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
    marks = marks_of(policy)
    at = at if scope.at is None else max(at, scope.at)
    stopped = {cell for stop in scope.stops.values() for cell in stop.cells}
    drawn = {STOPPED: Course(withheld_as(marks, STOPPED)), SHADOW: Course(marks[SHADOW])}
    return {
        cell: drawn[STOPPED if cell in stopped else SHADOW]
        if cell in stopped or scope.holder(cell) is None
        else _course(scope, policy, cell, at, marks)
        for cell in policy.cells
    }


def _course(
    scope: Scope, policy: Policy, cell: Cell, at: datetime, marks: Mapping[str, Mark]
) -> Course:
    holder = scope.holder(cell)
    if holder is None or scope.versions[holder].retired:
        return Course(marks[SHADOW])
    state = scope.state(cell, holder)
    if state.suspended_by:
        return Course(withheld_as(marks, SUSPENDED))

    def mark(then: datetime) -> Mark:
        return marks[policy.rungs[min(held_rung(policy, state, then), policy.ceiling(cell, then))]]

    ends = sorted({*(grant.until for grant in state.grants), policy.ends(cell)})
    return Course(mark(at), tuple((end, mark(end)) for end in ends if at < end < at + AHEAD))


def sites_of(policy: Policy, sites: Collection[str] | None) -> list[Site]:
    """Return the sites that are drawn, in the policy's order; None stands for all."""
    return [site for site in policy.sites if sites is None or site.id in sites]


def described(
    policy: Policy, courses: Mapping[Cell, Course], sites: Collection[str] | None = None
) -> str:
    """Say what is allowed where: the map in words. Of many sites equal ones are told together."""
    drawn = sites_of(policy, sites)
    said: dict[str, list[str]] = {}
    for site in drawn:
        said.setdefault(at_site(policy, courses, site.id), []).append(site.id)
    if len(drawn) <= MOST_ROWS:
        of = {name: says for says, names in said.items() for name in names}
        return " ".join(f"{site.id}: {of[site.id]}." for site in drawn)
    return " ".join(f"{_together(names)}: {says}." for says, names in said.items())


def _together(names: list[str]) -> str:
    return listed(names) if len(names) < 4 else f"{len(names)} sites"


def at_site(policy: Policy, courses: Mapping[Cell, Course], site: str) -> str:
    """Say what is allowed at one site: `autonomous by day, supervised by night`."""
    words = {window.id: courses[Cell(site, window.id)].mark.name for window in policy.windows}
    if len(set(words.values())) == 1:
        return next(iter(words.values())) + (" everywhere" if len(words) > 1 else "")
    return ", ".join(f"{word} by {window}" for window, word in words.items())


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
    own = {w.id: courses[Cell(site.id, w.id)] for w in windows}
    return Row(
        label=site.id if window is None else f"{site.id} · {window.id}",
        says=at_site(policy, courses, site.id) if window is None else own[window.id].mark.name,
        bands=tuple(_joined(_bands(own, site, windows, monday))),
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
    mark = course.mark
    for at, then in course.later:
        turn = minute_of(at, site.timezone, monday)
        if start < turn < end:
            yield start, turn, mark
            start = turn
        if turn <= start:
            mark = then
    yield start, end, mark


def _joined(bands: Iterator[tuple[int, int, Mark]]) -> Iterator[tuple[int, int, Mark]]:
    """Yield what stays the same over a change of windows as one."""
    last: tuple[int, int, Mark] | None = None
    for start, end, mark in bands:
        if last is not None and (last[1], last[2]) == (start, mark):
            last = (last[0], end, mark)
            continue
        if last is not None:
            yield last
        last = (start, end, mark)
    if last is not None:
        yield last


def _frozen(
    policy: Policy, site: Site, windows: tuple[Window, ...], monday: date
) -> Iterator[Span]:
    for freeze in policy.freezes:
        if any(freeze.where.fits(Cell(site.id, window.id)) for window in windows):
            yield from spans_of(freeze.hours, site, monday)


def grouped(rows: Collection[Row]) -> tuple[Row, ...]:
    """Return equal rows as one, where the first of them stood."""
    alike: dict[Row, list[str]] = {}
    for row in rows:
        alike.setdefault(replace(row, label=""), []).append(row.label)
    return tuple(
        replace(row, label=names[0] if len(names) == 1 else f"{len(names)} sites")
        for row, names in alike.items()
    )


def turns_of(policy: Policy, at: datetime, sites: Collection[str] | None = None) -> str:
    """Say when the windows turn at the first site today, "" where one holds all day.

    `at creek today 05:36 and 20:22`
    """
    for site in sites_of(policy, sites)[:1]:
        monday = monday_of(at, site.timezone)
        midnight = minute_of(at, site.timezone, monday) // DAY_MINUTES * DAY_MINUTES
        starts = [start - midnight for start, _, _ in bands_of(site, policy.windows, monday)]
        turns = [f"{m // 60:02}:{m % 60:02}" for m in starts if 0 < m < DAY_MINUTES]
        return f"at {site.id} today {listed(turns)}" if turns else ""
    return ""
