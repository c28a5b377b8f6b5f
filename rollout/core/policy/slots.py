"""When a report is due: a time of day by the rollout's clock, each day, Monday or first of a month.

A time that the clock jumps over is due at the jump; one that it shows twice, the first time.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import islice

from rollout.core.calendar.timezones import DAY, EPOCH_DAY, MINUTE, moment, stretches, wall
from rollout.core.policy.policy import ReportPlan

_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Due:
    """A report that is due at `until`, about the time since the one before it was due."""

    plan: ReportPlan
    since: datetime
    until: datetime


def due(plan: ReportPlan, timezone: str, *, after: datetime, at: datetime) -> Due | None:
    """Return the newest report that became due in (after, at]; None where none did.

    Those missed before it are folded into it: its span is that of the newest alone.

    Args:
        plan: the report, as the policy says it.
        timezone: of the rollout, an IANA name.
        after: up to when everything due was made.
        at: now.

    >>> from datetime import UTC
    >>> plan = ReportPlan("morning", "day", "07:00", "operator")
    >>> now = datetime(2027, 6, 3, 12, tzinfo=UTC)
    >>> found = due(plan, "Europe/Vienna", after=now - 9 * _DAY, at=now)
    >>> f"{found.since:%d. %H:%M} to {found.until:%d. %H:%M}"
    '02. 05:00 to 03. 05:00'
    >>> due(plan, "Europe/Vienna", after=now - _DAY / 24, at=now) is None
    True
    """
    due_times = _instants(plan, timezone, at)
    until = next(due_time for due_time in due_times if due_time <= at)
    return None if until <= after else Due(plan, next(due_times), until)


def _instants(plan: ReportPlan, timezone: str, at: datetime) -> Iterator[datetime]:
    """Yield when it is due, the newest first, from the period that `at` lies in backwards."""
    hours, minutes = plan.at.split(":")
    time_of_day = (int(hours) * 60 + int(minutes)) * MINUTE
    today = date.fromordinal(wall(timezone, at) // DAY + EPOCH_DAY)
    for day in _periods(plan.every, today):
        yield first_shown(timezone, (day.toordinal() - EPOCH_DAY) * DAY + time_of_day)


def _periods(every: str, today: date) -> Iterator[date]:
    """Yield the first day of the period that `today` lies in, then of those before it."""
    start = today
    while True:
        if every == "week":
            start -= start.weekday() * _DAY
        elif every == "month":
            start = start.replace(day=1)
        yield start
        start -= _DAY


def first_shown(timezone: str, wall_time: int) -> datetime:
    """Return the first instant, UTC, at which the zone's clock shows a wall time or a later one.

    Args:
        timezone: an IANA name.
        wall_time: microseconds since 1970, as if the clock on the wall were UTC.
    """
    stretches_around = stretches(timezone, wall_time - 2 * DAY, wall_time + 2 * DAY)
    later_stretches = (
        stretch for stretch in stretches_around if stretch.until + stretch.offset > wall_time
    )
    (first_stretch,) = islice(later_stretches, 1)
    return moment(max(first_stretch.since, wall_time - first_stretch.offset))
