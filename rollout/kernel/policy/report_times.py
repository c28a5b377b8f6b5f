"""Due times of scheduled reports.

Reports are due at a local time each day, Monday or first of a month. A time that the clock skips
is due at the change; one that it shows twice, the first time.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import islice

from rollout.kernel.calendar.instants import (
    DAY,
    EPOCH_DAY,
    MINUTE,
    from_micros,
    list_stretches,
    to_wall_time,
)
from rollout.kernel.policy.policy import ReportPlan

_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class DueReport:
    """A report due at `until`, on the time since the previous due time."""

    plan: ReportPlan
    since: datetime
    until: datetime


def find_due_report(
    plan: ReportPlan, timezone: str, *, after: datetime, at: datetime
) -> DueReport | None:
    """Return the newest report due in (after, at], or None.

    Earlier missed reports are dropped: the span is that of the newest alone.

    >>> from datetime import UTC
    >>> plan = ReportPlan("morning", "day", "07:00", "operator")
    >>> now = datetime(2027, 6, 3, 12, tzinfo=UTC)
    >>> report = find_due_report(plan, "Europe/Vienna", after=now - 9 * _DAY, at=now)
    >>> f"{report.since:%d. %H:%M} to {report.until:%d. %H:%M}"
    '02. 05:00 to 03. 05:00'
    >>> find_due_report(plan, "Europe/Vienna", after=now - _DAY / 24, at=now) is None
    True
    """
    due_times = _list_past_due_times(plan, timezone, at)
    until = next(due_time for due_time in due_times if due_time <= at)
    return None if until <= after else DueReport(plan, next(due_times), until)


def list_due_times(
    plan: ReportPlan, timezone: str, since: datetime, until: datetime
) -> Iterator[datetime]:
    """Yield the due times in [since, until), oldest first.

    >>> from datetime import UTC
    >>> plan, day = ReportPlan("weekly", "week", "07:00", "operator"), _DAY
    >>> now = datetime(2027, 6, 3, 12, tzinfo=UTC)
    >>> [f"{at:%d. %H:%M}" for at in list_due_times(plan, "Europe/Vienna", now, now + 14 * day)]
    ['07. 05:00', '14. 05:00']
    """
    first_day = to_wall_time(timezone, since) // DAY - 1
    last_day = to_wall_time(timezone, until) // DAY + 1
    time_of_day = _parse_time_of_day(plan)
    for day_number in range(first_day, last_day + 1):
        day = date.fromordinal(day_number + EPOCH_DAY)
        if day == next(_list_period_starts(plan.every, day)):
            due_time = find_first_instant(timezone, day_number * DAY + time_of_day)
            if since <= due_time < until:
                yield due_time


def _parse_time_of_day(plan: ReportPlan) -> int:
    """Return a plan's local time in microseconds since midnight."""
    hours, minutes = plan.at.split(":")
    return (int(hours) * 60 + int(minutes)) * MINUTE


def _list_past_due_times(plan: ReportPlan, timezone: str, at: datetime) -> Iterator[datetime]:
    """Yield the due times, newest first, from the period of `at` backwards."""
    time_of_day = _parse_time_of_day(plan)
    today = date.fromordinal(to_wall_time(timezone, at) // DAY + EPOCH_DAY)
    for day in _list_period_starts(plan.every, today):
        yield find_first_instant(timezone, (day.toordinal() - EPOCH_DAY) * DAY + time_of_day)


def _list_period_starts(every: str, today: date) -> Iterator[date]:
    """Yield the first days of the period of `today` and those before."""
    start = today
    while True:
        if every == "week":
            start -= start.weekday() * _DAY
        elif every == "month":
            start = start.replace(day=1)
        yield start
        start -= _DAY


def find_first_instant(timezone: str, wall_time: int) -> datetime:
    """Return the first UTC instant whose local time is `wall_time` or later.

    `wall_time` counts microseconds since 1970, as if the local clock were UTC.
    """
    stretches_around = list_stretches(timezone, wall_time - 2 * DAY, wall_time + 2 * DAY)
    later_stretches = (
        stretch for stretch in stretches_around if stretch.until + stretch.offset > wall_time
    )
    (first_stretch,) = islice(later_stretches, 1)
    return from_micros(max(first_stretch.since, wall_time - first_stretch.offset))
