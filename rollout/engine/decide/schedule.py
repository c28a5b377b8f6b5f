"""What will happen in a rollout, and when: by its policy and ledger; reports when they are due.

It names no person. It assumes that nothing else happens: a widening moves the opening of a wave.

Reports are due at a local time each day, Monday or first of a month. A time that the clock skips
is due at the change; one that it shows twice, the first time.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import islice

from rollout.engine.decide.proposals import list_proposal_holds
from rollout.engine.decide.scope import ProposalState, Scope
from rollout.engine.decide.widening_steps import find_wave_hold, find_wave_opening
from rollout.kernel.calendar.instants import (
    DAY,
    EPOCH,
    EPOCH_DAY,
    MICROSECOND,
    MINUTE,
    Cell,
    compute_end_of_local_day,
    from_micros,
    list_stretches,
    to_wall_time,
)
from rollout.kernel.calendar.opening_hours import list_open_spans
from rollout.kernel.policy.policy import Policy, ReportPlan
from rollout.kernel.units import group_pairs

LONGEST_FREEZE = timedelta(days=60)  # of a longer one the entry begins so long before the schedule
DRILL_INTERVAL = timedelta(days=30)
MAX_HOLDS_IN_TURN = 50  # of a longer chain of freezes the end is called unknown
FIRST_DRILL, DUE_DRILL, OVERDUE_DRILL = "first", "due", "overdue"


@dataclass(frozen=True, slots=True)
class ScheduleEntry:
    """Something that will happen at `at`, or lasts until `until`.

    Attributes:
        kind: wave, freeze, start, end, grant, expiry, effect, report or drill.
        subject: number of a wave, hours of a freeze, stage of a grant, id of a proposal, name of a
            report, which drill; "" for ends.
        sites: where; () means the whole rollout.
        window: of one cell's entry, else "".
        detail: reason of a freeze, version of a grant, kind of a proposal, view of a report.
    """

    kind: str
    at: datetime
    subject: str = ""
    sites: tuple[str, ...] = ()
    window: str = ""
    detail: str = ""
    until: datetime | None = None


def list_schedule(
    scope: Scope,
    policy: Policy,
    since: datetime,
    until: datetime,
    last_drills: Mapping[str, datetime],
) -> tuple[ScheduleEntry, ...]:
    """Return the entries of [since, until), by time; `since` is the present.

    Args:
        last_drills: time of the last stop drill by site; no entry for sites without one.
    """
    entries = [
        *_list_waves(scope, policy, since),
        *_list_freezes(policy, since, until),
        *_list_limits(policy),
        *_list_grant_ends(scope, policy),
        *_list_proposals(scope, policy, since),
        *_list_reports(policy, since, until),
        *_list_drills(scope, policy, since, last_drills),
    ]
    coming = (e for e in entries if e.at < until and since < (e.until or e.at))
    return tuple(sorted(coming, key=lambda e: (e.at, e.kind, e.subject, e.sites, e.window)))


def limit_to_sites(
    entries: Iterable[ScheduleEntry], readable_sites: frozenset[str]
) -> Iterator[ScheduleEntry]:
    """Yield the entries without sites that may not be read."""
    for entry in entries:
        sites = tuple(site for site in entry.sites if site in readable_sites)
        if sites or not entry.sites:
            yield ScheduleEntry(
                entry.kind, entry.at, entry.subject, sites, entry.window, entry.detail, entry.until
            )


def _list_waves(scope: Scope, policy: Policy, at: datetime) -> Iterator[ScheduleEntry]:
    """Yield when each closed wave opens, by window, where that is known."""
    if policy.waves is None:
        return
    stage_level = policy.stage_ids.index(policy.waves.stage)
    sites_by_group = group_pairs(((site.wave, site.timezone), site) for site in policy.sites)
    for (wave, _), sites in sites_by_group.items():  # all cells of a group wait for the same
        for window in policy.windows:
            cell = Cell(sites[0].id, window.id)
            if find_wave_hold(scope, policy, cell, stage_level, at) is None:
                continue
            opens_at = find_wave_opening(scope, policy, cell, at)[1]
            if opens_at is not None:
                site_ids = tuple(site.id for site in sites)
                yield ScheduleEntry("wave", opens_at, str(wave), site_ids, window.id)


def _list_freezes(policy: Policy, since: datetime, until: datetime) -> Iterator[ScheduleEntry]:
    """Yield the spans of freezes, sites with the same span together."""
    for freeze in policy.freezes:
        sites_by_span = group_pairs(
            (span, site.id)
            for site in policy.sites
            if any(freeze.where.fits(Cell(site.id, window.id)) for window in policy.windows)
            for span in list_open_spans(
                freeze.hours, site, since - LONGEST_FREEZE, until + LONGEST_FREEZE
            )
        )
        for (start, end), sites in sites_by_span.items():
            yield ScheduleEntry(
                "freeze", start, freeze.hours, tuple(sites), detail=freeze.reason, until=end
            )


def _list_limits(policy: Policy) -> Iterator[ScheduleEntry]:
    """Yield the ends of limits, sites with the same instant together."""
    sites_by_end = group_pairs(
        (compute_end_of_local_day(site, limit.ends), site.id)
        for limit in policy.limits
        if limit.ends is not None
        for site in policy.sites
        if any(limit.where.fits(Cell(site.id, window.id)) for window in policy.windows)
    )
    for at, sites in sites_by_end.items():
        yield ScheduleEntry("end", at, sites=tuple(dict.fromkeys(sites)))


def _list_grant_ends(scope: Scope, policy: Policy) -> Iterator[ScheduleEntry]:
    for (cell, version), state in scope.cells.items():
        if cell in policy.cell_set:
            for grant in state.grants:
                yield ScheduleEntry(
                    "grant", grant.until, grant.stage, (cell.site,), cell.window, version
                )


def _list_proposals(scope: Scope, policy: Policy, at: datetime) -> Iterator[ScheduleEntry]:
    """Yield when open proposals expire, and when approved ones take effect if that is known."""
    for proposal in scope.proposals.values():
        effect_at = _find_effect(scope, policy, proposal, at)
        kind = "expiry" if effect_at is None else "effect"
        sites, window = _find_place(scope, proposal)
        yield ScheduleEntry(
            kind, effect_at or proposal.expires_at, proposal.id, sites, window, proposal.kind
        )


def _find_effect(
    scope: Scope, policy: Policy, proposal: ProposalState, at: datetime
) -> datetime | None:
    """Return the first tick without a hold, or None if an end is not known or too late.

    Another hold may have begun when one ends: a freeze on the first day that limits allow.
    """
    tick_at = at
    for _ in range(MAX_HOLDS_IN_TURN):
        holds = list_proposal_holds(scope, policy, proposal, tick_at)
        ends = [hold.until for hold in holds if hold.until is not None]
        if not proposal.is_approved or len(ends) < len(holds) or tick_at >= proposal.expires_at:
            return None
        if not holds and tick_at > at:
            return tick_at
        tick_at = _find_tick(policy, max(ends, default=at + MICROSECOND))
    return None


def _find_tick(policy: Policy, at: datetime) -> datetime:
    """Return the first tick at or after `at`."""
    return EPOCH - ((EPOCH - at) // policy.tick) * policy.tick


def _find_place(scope: Scope, proposal: ProposalState) -> tuple[tuple[str, ...], str]:
    if proposal.cell is not None:
        return (proposal.cell.site,), proposal.cell.window
    stop = scope.stops.get(proposal.about) if proposal.rules.ends_stop else None
    return (() if stop is None else tuple(sorted({cell.site for cell in stop.cells}))), ""


def _list_reports(policy: Policy, since: datetime, until: datetime) -> Iterator[ScheduleEntry]:
    for plan in policy.reports:
        for due_time in list_due_times(plan, policy.timezone, since, until):
            yield ScheduleEntry("report", due_time, plan.name, detail=plan.view)


def _list_drills(
    scope: Scope, policy: Policy, at: datetime, last_drills: Mapping[str, datetime]
) -> Iterator[ScheduleEntry]:
    """Yield the next stop drill of sites with a grant, sites with the same instant together.

    One that is late stands at the next tick, where a calendar still shows it.
    """
    granted_sites = {
        cell.site
        for (cell, _), state in scope.cells.items()
        if cell in policy.cell_set and any(at < grant.until for grant in state.grants)
    }
    sites_by_drill = group_pairs(
        (_find_drill(policy, last_drills.get(site.id), at), site.id)
        for site in policy.sites
        if site.id in granted_sites
    )
    for (subject, due_at), sites in sites_by_drill.items():
        yield ScheduleEntry("drill", due_at, subject, tuple(sites))


def _find_drill(policy: Policy, last_drill: datetime | None, at: datetime) -> tuple[str, datetime]:
    """Return which drill of a site is next, and when."""
    next_tick = _find_tick(policy, at + MICROSECOND)
    if last_drill is None:
        return FIRST_DRILL, next_tick
    due_at = last_drill + DRILL_INTERVAL
    return (DUE_DRILL, due_at) if at < due_at else (OVERDUE_DRILL, next_tick)


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
