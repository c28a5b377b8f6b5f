"""Overviews of rollouts: state and pending work, gauges, review plan, schedule, cells' timelines.

The review plan of a running rollout says where the next reviews help most. Gauges are for
monitoring: open work, queue length, tick age.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from rollout.data.counting.count_queue import CountQueue
from rollout.data.database.rollouts import Rollouts, list_rollout_names
from rollout.data.database.session import Database, Transaction
from rollout.data.ledger.ledger import Ledger
from rollout.data.ledger.scopes import TickSlots
from rollout.data.records.case_pages import (
    MAX_RECENT_CASES,
    RolloutActivity,
    load_rollout_activities,
)
from rollout.data.reports.reports import DeliveryStore
from rollout.engine.decide.permissions import (
    Caller,
    Permission,
    may_be_asked_blind,
    require_permission,
)
from rollout.engine.decide.schedule import ScheduleEntry, limit_to_sites, list_schedule
from rollout.engine.events import LedgerEvent, RecordsPurged, Stopped, select_events
from rollout.engine.words.state_text import describe_entry
from rollout.features.reports.figures.review_plan import ReviewPlan, compute_review_plan
from rollout.features.reports.inputs.cell_facts import (
    CellTimeline,
    TimelineRequest,
    list_cell_marks,
    sort_marks,
)
from rollout.kernel.calendar.instants import Cell, find_slot_before, to_instant
from rollout.kernel.errors import RefusalError, UnknownCellError, UnknownVersionError
from rollout.live.rollout_state import RolloutState, load_rollout_state
from rollout.live.service import Service

if TYPE_CHECKING:
    from rollout.engine.evidence.stored_units import NewCellValue
    from rollout.features.reports.figures.cell_timeline import TimelineSource
    from rollout.live.evidence.evidence_reader import CountedCells


ONE_HOUR = timedelta(hours=1)
NO_PULSE = RolloutActivity(None, None, 0)


@dataclass(frozen=True, slots=True)
class RolloutSummary:
    """Summary of one rollout.

    Attributes:
        ticked_at: newest completed slot; None before the first.
        last_case: receipt time of the newest case; None without cases.
        has_more_cases: whether `cases_in_last_hour` stopped at its maximum.
        is_overdue: whether humans decide since no tick has done what has long been due.
    """

    name: str
    state: RolloutState
    ticked_at: datetime | None
    last_case: datetime | None
    cases_in_last_hour: int
    has_more_cases: bool
    is_overdue: bool


def load_rollout_summaries(
    service: Service, caller: Caller, at: datetime
) -> tuple[RolloutSummary, ...]:
    """Return summaries of the readable rollouts, by name."""
    cached_rollouts = service.state_cache.load_all()
    readable_states = [
        cached_rollout.state
        for cached_rollout in cached_rollouts
        if caller.has_permission_somewhere(Permission.READ, cached_rollout.state.rollout.name)
    ]
    return _build_rollout_summaries(service, readable_states, at)


def load_rollout_summary(
    service: Service, caller: Caller, rollout_name: str, at: datetime
) -> RolloutSummary:
    """Return the summary of one rollout.

    Raises:
        UnknownRolloutError: the caller may not see such a rollout.
        NotAllowedError: the caller may not read it.
    """
    state = service.load_permitted_state(caller, Permission.READ, rollout_name)
    (summary,) = _build_rollout_summaries(service, [state], at)
    return summary


def _build_rollout_summaries(
    service: Service, states: Iterable[RolloutState], at: datetime
) -> tuple[RolloutSummary, ...]:
    with service.database.begin_read() as transaction:
        activities = load_rollout_activities(transaction, at - ONE_HOUR)
    return tuple(
        RolloutSummary(
            name=state.rollout.name,
            state=state,
            ticked_at=None
            if activity.last_slot is None
            else to_instant(activity.last_slot, state.policy.tick),
            last_case=activity.last_case_at,
            cases_in_last_hour=activity.recent_cases,
            has_more_cases=activity.recent_cases == MAX_RECENT_CASES,
            is_overdue=state.rollout.name in service.autonomy.overdue,
        )
        for state in states
        for activity in [activities.get(state.rollout.number, NO_PULSE)]
    )


@dataclass(frozen=True, slots=True)
class RolloutOverview:
    """One rollout in the overview; `ticked_at` is the newest completed slot.

    `undelivered` is the number of reports whose delivery failed at every try.
    """

    name: str
    revision: int
    hash: str
    policy: int
    at: datetime | None
    ticked_at: datetime | None
    pending: int
    open_proposals: int
    stops: int
    undelivered: int


def load_rollouts(database: Database, caller: Caller) -> tuple[RolloutOverview, ...]:
    """Return the overview entries of the readable rollouts, by name."""
    with database.begin_read() as transaction:
        readable_names = [
            rollout_name
            for rollout_name in sorted(rollout.name for rollout in Rollouts(transaction).list_all())
            if caller.has_permission_somewhere(Permission.READ, rollout_name)
        ]
        return tuple(_load_overview(transaction, rollout_name) for rollout_name in readable_names)


def load_rollout_overview(database: Database, caller: Caller, rollout_name: str) -> RolloutOverview:
    """Return the overview entry of one rollout.

    Raises:
        UnknownRolloutError: the caller may not see such a rollout.
        NotAllowedError: the caller may not read it.
    """
    require_permission(caller, Permission.READ, rollout_name)
    with database.begin_read() as transaction:
        return _load_overview(transaction, rollout_name)


def _load_overview(transaction: Transaction, rollout_name: str) -> RolloutOverview:
    state = load_rollout_state(transaction, rollout_name)
    last_slot = TickSlots(transaction, state.rollout).load_last_done()
    return RolloutOverview(
        name=rollout_name,
        revision=state.scope.revision,
        hash=Ledger(transaction, state.rollout).load_head().hash,
        policy=state.scope.policy_number,
        at=state.scope.at,
        ticked_at=None if last_slot is None else to_instant(last_slot, state.policy.tick),
        pending=CountQueue(transaction, state.rollout).count_waiting(),
        open_proposals=len(state.scope.proposals),
        stops=len(state.scope.stops),
        undelivered=DeliveryStore(transaction, state.rollout).count_failed(),
    )


MAX_PLANNED_CELLS: Final = 100
"""Simulating a condition takes 20 to 400 ms, unless its counts are as before."""

MAX_NAMED_SITES: Final = 5


class TooManyCellsError(RefusalError):
    """A plan has more cells than one request may simulate."""


@dataclass(frozen=True, slots=True)
class LiveReviewPlan:
    """A review plan with the ledger's revision that it is of.

    `is_batched` says that evidence of some site moves in batches, since the reader may be asked for
    a blind review there.
    """

    rollout: str
    revision: int
    is_batched: bool
    plan: ReviewPlan


def load_review_plan(
    service: Service,
    caller: Caller,
    rollout_name: str,
    *,
    at: datetime,
    decisions: int,
    site: str | None = None,
) -> LiveReviewPlan:
    """Return where the next decisions help most, of the cells whose sites the caller may read.

    Where the caller may be asked for blind reviews, evidence moves in whole batches. The present
    rate is that of the two weeks before.

    Args:
        site: plan the cells of this site alone.

    Raises:
        NotAllowedError: the caller may not read the site, or any.
        RefusalError: the policy has no such site.
        TooManyCellsError: there are more cells than a request plans.
    """
    from rollout.features.cells.cells import (
        batch_evidence,
        build_current_period,
        build_evidence_inputs,
    )
    from rollout.live.evidence.evidence_reader import load_events, load_evidence_views

    require_permission(caller, Permission.READ, rollout_name, () if site is None else (site,))
    cached_rollout = service.state_cache.reload_rollout(rollout_name)
    state = cached_rollout.state
    if site is not None and site not in state.policy.sites_by_id:
        examples = ", ".join(list(state.policy.sites_by_id)[:MAX_NAMED_SITES])
        raise RefusalError(f"the policy has no site {site}: name one of its sites, as {examples}")
    cells = [
        cell
        for cell in state.policy.cells
        if site in {None, cell.site}
        and caller.has_permission(Permission.READ, rollout_name, cell.site)
    ]
    if len(cells) > MAX_PLANNED_CELLS:
        raise TooManyCellsError(
            f"{len(cells):,} cells, and one plan has at most {MAX_PLANNED_CELLS}: name a `site`"
        )
    views = batch_evidence(
        load_evidence_views(service.database, state, cells), caller, rollout_name
    )
    inputs = build_evidence_inputs(state, load_events(service.database, state), views, at)
    periods = {
        key: (build_current_period(key, state, inputs.last),) for key in inputs.evidence_views
    }
    sites = tuple({cell.site for cell in cells})
    return LiveReviewPlan(
        rollout_name,
        cached_rollout.head.revision,
        bool(sites) and may_be_asked_blind(caller, rollout_name, sites),
        compute_review_plan(inputs, periods, decisions),
    )


def load_last_drills(transaction: Transaction, state: RolloutState) -> dict[str, datetime]:
    """Return the time of the last stop drill by site, also if of one window."""
    last_drills: dict[str, datetime] = {}
    for event in Ledger(transaction, state.rollout).list_of(Stopped, until=state.scope.revision):
        if event.drill:
            last_drills.update(dict.fromkeys((cell.site for cell in event.cells), event.at))
    return last_drills


DEFAULT_DAYS: Final = 31
MAX_DAYS: Final = 92


@dataclass(frozen=True, slots=True)
class ScheduledEntry:
    """Something that will happen in a rollout.

    Attributes:
        kind: wave, freeze, start, end, grant, expiry, effect, report or drill.
        at: when it happens or begins.
        until: end of a freeze, else null.
        sites: where; [] means the whole rollout.
        window: of one cell, else "".
        subject: number of a wave, hours of a freeze, stage of a grant, id of a proposal, name of a
            report, which drill (first, due, overdue); else "".
        text: the entry in words.
    """

    kind: str
    at: datetime
    until: datetime | None
    sites: tuple[str, ...]
    window: str
    subject: str
    text: str


@dataclass(frozen=True, slots=True)
class RolloutSchedule:
    """What will happen up to `until`, by time, if nothing else happens before."""

    items: tuple[ScheduledEntry, ...]
    until: datetime


def load_schedule(
    service: Service,
    caller: Caller,
    rollout_name: str,
    *,
    at: datetime,
    days: int = DEFAULT_DAYS,
) -> RolloutSchedule:
    """Return what will happen in the next days at the sites that the caller may read.

    Raises:
        NotAllowedError: the caller may read no site of the rollout.
        RefusalError: `days` is out of range.
    """
    require_permission(caller, Permission.READ, rollout_name)
    if not 0 < days <= MAX_DAYS:
        raise RefusalError(f"{days} days are out of range; ask for 1 to {MAX_DAYS}")
    state = service.state_cache.reload_rollout(rollout_name).state
    until = at + timedelta(days=days)
    with service.database.begin_read() as transaction:
        last_drills = load_last_drills(transaction, state)
    entries = list_schedule(state.scope, state.policy, at, until, last_drills)
    readable = limit_to_sites(entries, _list_readable_sites(caller, state))
    describe = partial(describe_entry, names_windows=len(state.policy.windows) > 1)
    return RolloutSchedule(tuple(_build_entry(e, describe(e)) for e in readable), until)


def _list_readable_sites(caller: Caller, state: RolloutState) -> frozenset[str]:
    name = state.rollout.name
    sites = {*state.policy.sites_by_id, *(cell.site for cell, _ in state.scope.cells)}
    return frozenset(site for site in sites if caller.has_permission(Permission.READ, name, site))


def _build_entry(entry: ScheduleEntry, text: str) -> ScheduledEntry:
    return ScheduledEntry(
        kind=entry.kind,
        at=entry.at,
        until=entry.until,
        sites=entry.sites,
        window=entry.window,
        subject=entry.subject,
        text=text,
    )


DEFAULT_SPAN: Final = timedelta(days=42)
EMPTY_SPAN: Final = timedelta(hours=1)


def load_cell_timeline(
    service: Service, caller: Caller, rollout_name: str, request: TimelineRequest, *, at: datetime
) -> CellTimeline:
    """Return what is drawn of a cell, by default the last six weeks of all its versions.

    For a caller who may review at the site, agreement moves in batches and has no bounds: a sum
    read before and after an own answer exposes no case.

    Raises:
        NotAllowedError: the caller may not read the site.
        UnknownCellError: the policy has no such cell.
        UnknownVersionError: the rollout has no such version.
        RefusalError: the span ends before it begins.
    """
    cell, version = request.cell, request.version
    require_permission(caller, Permission.READ, rollout_name)
    state = service.load_permitted_state(caller, Permission.READ, rollout_name, (cell.site,))
    if cell not in state.policy.cell_set:
        raise UnknownCellError(f"the policy has no {cell}; list the cells to see their names")
    version = state.scope.get_first_name(version)
    if version and version not in state.scope.versions:
        raise UnknownVersionError(f"no version {version} was seen in {rollout_name}")
    if request.since is not None and request.since >= min(request.until or at, at):
        raise RefusalError("nothing is in this span: `from` has to be before `until` and now")
    request = replace(request, version=version)
    (timeline,) = load_state_timelines(service, caller, state, (request,), at=at)
    return timeline


def load_state_timelines(
    service: Service,
    caller: Caller,
    state: RolloutState,
    requests: Sequence[TimelineRequest],
    *,
    at: datetime,
) -> tuple[CellTimeline, ...]:
    """Return timelines of cells that the caller may read; all cost one read of the evidence."""
    from rollout.live.evidence.evidence_reader import load_counted_cells, load_events

    events = load_events(service.database, state)
    cells = tuple(request.cell for request in requests)
    counted = load_counted_cells(service.database, state, cells)
    timelines = []
    for request in requests:
        source = _build_source(state, events, counted, request, at)
        is_batched = may_be_asked_blind(caller, state.rollout.name, (request.cell.site,))
        timeline = _build_timeline(source, request, events[0].at, at, is_batched=is_batched)
        if not is_batched:  # a reviewer would know a gold case by its value: it has been counted
            new_values = counted.new_values.get(request.cell, ())
            timeline = _add_new_values(service.database, state, timeline, new_values)
        timelines.append(timeline)
    return tuple(timelines)


def _add_new_values(
    database: Database,
    state: RolloutState,
    timeline: CellTimeline,
    new_values: "Sequence[NewCellValue]",
) -> CellTimeline:
    """Return a timeline with a mark for the first counted case with each value."""
    from rollout.data.counting.closed_units import list_units_of_slots
    from rollout.features.reports.figures.funnel import list_value_marks

    tick = state.policy.tick
    first, last = (find_slot_before(at, tick) for at in (timeline.since, timeline.until))
    values = [value for value in new_values if first <= value.slot <= last]
    if not values:
        return timeline
    with database.begin_read() as transaction:
        units = list_units_of_slots(
            transaction, state.rollout, timeline.cell, {value.slot for value in values}
        )
    marks = [
        mark
        for mark in list_value_marks(values, units, tick)
        if timeline.since <= mark.at <= timeline.until
    ]
    return replace(timeline, marks=sort_marks([*timeline.marks, *marks]))


def _build_timeline(
    source: "TimelineSource",
    request: TimelineRequest,
    began_at: datetime,
    at: datetime,
    *,
    is_batched: bool,
) -> CellTimeline:
    from rollout.features.reports.figures.cell_timeline import build_cell_timeline, find_first_unit

    until = min(request.until or at, at)
    since = max(min(find_first_unit(source) or at, began_at), request.since or until - DEFAULT_SPAN)
    since = since if since < until else until - EMPTY_SPAN  # before the first event
    return build_cell_timeline(source, since, until, is_batched=is_batched)


def _build_source(
    state: RolloutState,
    events: tuple[LedgerEvent, ...],
    counted: "CountedCells",
    request: TimelineRequest,
    at: datetime,
) -> "TimelineSource":
    from rollout.features.cells.cells import build_evidence_inputs
    from rollout.features.reports.figures.cell_timeline import TimelineSource
    from rollout.features.reports.inputs.evidence_inputs import build_state_periods

    cell = request.cell
    own_views = {key: view for key, view in counted.views.items() if key[0] == cell}
    inputs = build_evidence_inputs(state, events, own_views, at, has_retired=True)
    return TimelineSource(
        cell=cell,
        policy=state.policy,
        holder=state.scope.get_holder(cell),
        views={name: view for (_, name), view in own_views.items()},
        periods={name: periods for (_, name), periods in build_state_periods(inputs).items()},
        shown=(request.version,) if request.version else tuple(state.scope.versions),
        marks=list_cell_marks(events, cell),
        purged_before=max(
            (event.before for event in select_events(events, RecordsPurged)), default=None
        ),
        last_slot=counted.last_slot,
    )


RECENT_SPAN: Final = timedelta(days=7)
MAX_RECENT_CELLS: Final = 3
"""Cells of all rollouts together; those of one rollout cost one read of its evidence."""


@dataclass(frozen=True, slots=True)
class RecentCell:
    """A cell with an event, and when the newest one was."""

    state: RolloutState
    cell: Cell
    at: datetime

    @property
    def rollout_name(self) -> str:
        """Return the name of the cell's rollout."""
        return self.state.rollout.name


def load_recent_timelines(
    service: Service, caller: Caller, states: Iterable[RolloutState], at: datetime
) -> tuple[tuple[str, CellTimeline], ...]:
    """Return rollout and timeline of the cells with the newest events that a caller may read.

    Which cells they are follows from the states alone. As on a cell's page, agreement moves in
    batches for a caller who may review at the site.
    """
    cells = [
        recent
        for state in states
        for recent in _find_recent_cells(state, at)
        if caller.has_permission(Permission.READ, state.rollout.name, recent.cell.site)
    ]
    newest = sorted(cells, key=attrgetter("at"), reverse=True)[:MAX_RECENT_CELLS]
    timelines: list[tuple[str, CellTimeline]] = []
    for name, rows in groupby(
        sorted(newest, key=attrgetter("rollout_name")), key=attrgetter("rollout_name")
    ):
        group = list(rows)
        requests = [TimelineRequest(row.cell, since=at - RECENT_SPAN) for row in group]
        loaded = load_state_timelines(service, caller, group[0].state, requests, at=at)
        timelines += [(name, timeline) for timeline in loaded]
    return tuple(timelines)


def _find_recent_cells(state: RolloutState, at: datetime) -> Iterator[RecentCell]:
    """Yield the cells whose stage, proposals, incidents or stops are not older than seven days."""
    times: dict[Cell, datetime] = {}
    for cell, instant in _list_changes(state):
        if at - RECENT_SPAN < instant <= at and cell in state.policy.cell_set:
            times[cell] = max(instant, times.get(cell, instant))
    for cell, newest in times.items():
        yield RecentCell(state, cell, newest)


def _list_changes(state: RolloutState) -> Iterator[tuple[Cell, datetime]]:
    scope = state.scope
    for (cell, version), cell_state in scope.cells.items():
        if cell_state.changed_at != scope.versions[version].first_seen:
            yield cell, cell_state.changed_at
        for grant in cell_state.grants:
            yield cell, grant.since
    for proposal in scope.proposals.values():
        if proposal.cell is not None:
            yield proposal.cell, proposal.raised_at
    for incident in scope.open_incidents.values():
        if incident.cell is not None:
            yield incident.cell, incident.at
    for stop in scope.stops.values():
        for cell in stop.cells:
            yield cell, stop.at


@dataclass(frozen=True, slots=True)
class RolloutMetrics:
    """The gauges of one rollout.

    Attributes:
        pending_entries: queue entries that are not counted yet.
        failed_deliveries: deliveries of reports that failed finally.
        slot_age_seconds: seconds since the start of the newest slot with a finished tick; None
            before the first.
        ticks_overdue: 1 if humans decide since no tick has done what has long been due, else 0.
    """

    name: str
    ledger_revision: int
    open_proposals: int
    open_incidents: int
    active_stops: int
    pending_entries: int
    failed_deliveries: int
    slot_age_seconds: float | None
    ticks_overdue: int


def load_all_metrics(
    service: Service, caller: Caller, *, at: datetime
) -> tuple[RolloutMetrics, ...]:
    """Return the gauges of every rollout, by name; three short queries each.

    Raises:
        NotAllowedError: the caller may not read all rollouts.
    """
    require_permission(caller, Permission.READ, "")
    rollout_names = sorted(list_rollout_names(service.database))
    return tuple(_load_metrics(service, rollout_name, at) for rollout_name in rollout_names)


def _load_metrics(service: Service, rollout_name: str, at: datetime) -> RolloutMetrics:
    state = service.state_cache.load_rollout(rollout_name).state
    with service.database.begin_read() as transaction:
        last_slot = TickSlots(transaction, state.rollout).load_last_done()
        pending = CountQueue(transaction, state.rollout).count_waiting()
        failed = DeliveryStore(transaction, state.rollout).count_failed()
    age = (
        None
        if last_slot is None
        else (at - to_instant(last_slot, state.policy.tick)).total_seconds()
    )
    return RolloutMetrics(
        name=rollout_name,
        ledger_revision=state.scope.revision,
        open_proposals=len(state.scope.proposals),
        open_incidents=len(state.scope.open_incidents),
        active_stops=len(state.scope.stops),
        pending_entries=pending,
        failed_deliveries=failed,
        slot_age_seconds=age,
        ticks_overdue=int(rollout_name in service.autonomy.overdue),
    )
