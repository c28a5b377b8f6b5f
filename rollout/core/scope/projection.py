"""Applies events to a scope; it never refuses an event.

Events change one private copy in place, which is frozen at the end: the cost is linear in the
number of events, however many cells there are.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from functools import singledispatch
from types import MappingProxyType

from rollout.core.calendar.sites import SHADOW, Cell
from rollout.core.scope.effective_time import compute_effective_time
from rollout.core.scope.events import (
    CLOCK_INCIDENT,
    UNFAMILIAR,
    Approved,
    AttemptsBegan,
    CellEvent,
    ClockCorrected,
    EraBegan,
    FactsConfirmed,
    FamiliarityChanged,
    GrantExpired,
    IncidentAcknowledged,
    IncidentOpened,
    LedgerEvent,
    Narrowed,
    PolicyApplied,
    ProposalExpired,
    ProposalHeld,
    ProposalRaised,
    ProposalRejected,
    ProposalVoided,
    Renewed,
    Resumed,
    Stopped,
    Suspended,
    SuspensionCleared,
    TakenOver,
    VersionFirstUsed,
    VersionRenamed,
    VersionRetired,
    Widened,
)
from rollout.core.scope.floor_grants import add_grant, raise_floors
from rollout.core.scope.scope import (
    NO_STARTS,
    NO_VALUES,
    NOTHING_AGAINST,
    SPOKEN_KEPT,
    AttemptYear,
    CellState,
    GivenApproval,
    Grant,
    Incident,
    ProposalState,
    Scope,
    Stop,
    Version,
)
from rollout.core.scope.scope_builder import KeyT, ScopeBuilder, ValueT


def apply_event(scope: Scope, event: LedgerEvent) -> Scope:
    """Return the scope after `event`."""
    return apply_events((event,), scope)


def apply_events(events: Iterable[LedgerEvent], scope: Scope | None = None) -> Scope:
    """Return the scope after `events`, from the empty one by default."""
    start, builder = Scope() if scope is None else scope, None
    for event in events:
        builder = builder or ScopeBuilder(start)
        _apply_to_scope(event, builder)
    return start if builder is None else builder.build()


def _apply_to_scope(event: LedgerEvent, builder: ScopeBuilder) -> None:
    """Apply one event; only a correction sets the scope's time back."""
    previous_at = builder.at
    builder.at = event.at if previous_at is None else max(previous_at, event.at)
    builder.effective_at = compute_effective_time(event, builder.effective_at)
    _apply_to_builder(event, builder)
    builder.revision += 1


@singledispatch
def _apply_to_builder(event: LedgerEvent, builder: ScopeBuilder) -> None:
    """Apply an event; the default is for events that don't change the scope."""


@_apply_to_builder.register
def _(event: AttemptsBegan, builder: ScopeBuilder) -> None:
    for cell, version, year, number, releases, share in zip(
        event.cells,
        event.versions,
        event.years,
        event.numbers,
        event.releases,
        event.shares,
        strict=True,
    ):
        builder.attempt_years[cell] = AttemptYear(year, number, releases)
        builder.begin_attempt(cell, version, number, float(share))


@_apply_to_builder.register
def _(event: FamiliarityChanged, builder: ScopeBuilder) -> None:
    rows = zip(
        event.cells, event.versions, event.attributes, event.values, event.statuses, strict=True
    )
    statuses: dict[tuple[Cell, str], dict[tuple[str, str], str]] = {}
    for cell, version, attribute, value, status in rows:
        key = (cell, version)
        if key not in statuses:
            statuses[key] = dict(builder.cell_values.get(key, NO_VALUES).statuses)
        statuses[key][attribute, value] = status
    for key, key_statuses in statuses.items():
        previous = builder.cell_values.get(key, NO_VALUES)
        builder.cell_values[key] = replace(previous, statuses=MappingProxyType(key_statuses))


@_apply_to_builder.register
def _(event: PolicyApplied, builder: ScopeBuilder) -> None:
    builder.policy_number, builder.policy_hash = event.number, event.policy_hash
    builder.close_proposal(event.proposal)
    for cell, former in zip(event.renamed, event.former, strict=True):
        _rename_cell(builder, cell, former)
    cleared, since = set(event.cleared), builder.get_effective_time()
    for cell in dict.fromkeys((*event.cleared, *event.restarted)):
        for version in builder.versions:
            state = builder.get_cell_state(cell, version)
            if cell not in cleared and not state.has_begun:
                continue
            state = _restart_attempt(state, since)
            if cell in cleared:
                state = _drop_grants(state, since)
            builder.set_cell_state(cell, version, state)


def _rename_cell(builder: ScopeBuilder, cell: Cell, former: Cell) -> None:
    """Continue a cell's year and stops; of two years in one, the one with less risk left."""
    years = [builder.attempt_years[c] for c in (former, cell) if c in builder.attempt_years]
    if years:
        builder.attempt_years[cell] = max(years, key=lambda year: (year.year, -year.unspent_share))
    for name, stop in builder.stops.items():
        if former in stop.cells:
            builder.stops[name] = replace(stop, cells=stop.cells | {cell})


def _restart_attempt(state: CellState, at: datetime) -> CellState:
    """Return a state whose next attempt gets its number and share when it begins."""
    return replace(state, attempt=state.attempt + 1, attempt_since=at, number=0)


def _drop_grants(state: CellState, at: datetime) -> CellState:
    no_guards: frozenset[str] = frozenset()
    return replace(
        state, grants=(), changed_at=at, suspended_by=no_guards, reported_guards=no_guards
    )


@_apply_to_builder.register
def _(event: VersionFirstUsed, builder: ScopeBuilder) -> None:
    if event.version not in builder.versions:
        version = Version(id=event.version, first_seen=event.at, content=event.content)
        builder.versions[event.version] = version


@_apply_to_builder.register
def _(event: VersionRenamed, builder: ScopeBuilder) -> None:
    builder.aliases[event.version] = event.continues


@_apply_to_builder.register
def _(event: VersionRetired, builder: ScopeBuilder) -> None:
    version = builder.versions[event.version]
    builder.versions[event.version] = replace(version, retired_at=builder.get_effective_time())
    for cell in [cell for cell, version in builder.cells if version == event.version]:
        builder.cut_grants(cell, event.version, 0, builder.get_effective_time())


@_apply_to_builder.register
def _(event: ProposalRaised, builder: ScopeBuilder) -> None:
    builder.proposals[event.proposal] = ProposalState(
        id=event.proposal,
        kind=event.kind,
        raised_at=event.at,
        raised_by=event.by,
        expires_at=event.expires_at,
        evidence_hash=event.evidence_hash,
        needs=event.needs,
        cell=event.cell,
        version=event.version,
        to=event.to_stage,
        gate=event.gate_hash,
        about=event.about,
        floors=event.floors,
    )
    builder.proposal_count += 1
    if event.cell is not None:
        state = replace(builder.get_cell_state(event.cell, event.version), proposal=event.proposal)
        builder.set_cell_state(event.cell, event.version, state)


@_apply_to_builder.register
def _(event: Approved, builder: ScopeBuilder) -> None:
    previous = builder.proposals[event.proposal]
    approval = GivenApproval(by=event.by, groups=event.groups, at=event.at)
    builder.proposals[event.proposal] = replace(previous, approvals=(*previous.approvals, approval))


@_apply_to_builder.register
def _(event: FactsConfirmed, builder: ScopeBuilder) -> None:
    previous = builder.proposals[event.proposal]
    builder.proposals[event.proposal] = replace(
        previous, unconfirmed=(), confirmed_by=(*previous.confirmed_by, event.by)
    )


@_apply_to_builder.register
def _(event: ProposalHeld, builder: ScopeBuilder) -> None:
    previous = builder.proposals[event.proposal]
    builder.proposals[event.proposal] = replace(previous, is_held=True)


@_apply_to_builder.register
def _(event: ProposalRejected, builder: ScopeBuilder) -> None:
    proposal = builder.proposals[event.proposal]
    builder.close_proposal(event.proposal)
    if proposal.cell is not None:
        state = builder.get_cell_state(proposal.cell, proposal.version)
        quiet_state = replace(state, quiet_until=event.quiet_until)
        builder.set_cell_state(proposal.cell, proposal.version, quiet_state)


@_apply_to_builder.register
def _(event: ProposalExpired, builder: ScopeBuilder) -> None:
    builder.close_proposal(event.proposal)


@_apply_to_builder.register
def _(event: ProposalVoided, builder: ScopeBuilder) -> None:
    proposal = builder.proposals.get(event.proposal)
    builder.close_proposal(event.proposal)
    if event.incidents and proposal is not None and proposal.cell is not None:
        state = builder.get_cell_state(proposal.cell, proposal.version)
        state = replace(state, awaits=event.incidents)
        builder.set_cell_state(proposal.cell, proposal.version, state)
        spoken = builder.spoken_against.get(proposal.version, NOTHING_AGAINST)
        builder.spoken_against[proposal.version] = replace(spoken, voided_at=event.at)


@_apply_to_builder.register
def _(event: Widened, builder: ScopeBuilder) -> None:
    builder.close_proposal(event.proposal)
    state = builder.get_cell_state(event.cell, event.version)
    at, since = event.at, builder.get_effective_time()
    floors = event.confidence_floors
    grant = Grant(event.to_stage, at, event.until, event.proposal, at, since, since, floors)
    _set_grants(builder, event, add_grant(state.grants, grant))


@_apply_to_builder.register
def _(event: Renewed, builder: ScopeBuilder) -> None:
    builder.close_proposal(event.proposal)
    state = builder.get_cell_state(event.cell, event.version)
    at, until, since = event.at, event.until, builder.get_effective_time()
    grants = tuple(
        replace(g, since=at, until=until, proposal=event.proposal, counts_since=since)
        if g.stage == event.stage
        else g
        for g in state.grants
    )
    builder.set_cell_state(event.cell, event.version, replace(state, grants=grants))


@_apply_to_builder.register
def _(event: TakenOver, builder: ScopeBuilder) -> None:
    replaced = builder.get_cell_state(event.cell, event.replaced_version).grants
    held_times = {grant.stage: (grant.held_since, grant.held_evidence_start) for grant in replaced}
    at, since = event.at, builder.get_effective_time()
    builder.close_proposal(event.proposal)
    builder.cut_grants(event.cell, event.replaced_version, 0, since)
    grants = []
    for stage, until in zip(event.stages, event.grant_ends, strict=True):
        held_at, counts_held = held_times.get(stage, (at, since))
        parts = (stage, at, until, event.proposal, held_at, since, counts_held)
        grants.append(Grant(*parts, event.confidence_floors))
    _set_grants(builder, event, tuple(grants))


def _set_grants(builder: ScopeBuilder, event: CellEvent, grants: tuple[Grant, ...]) -> None:
    state = builder.get_cell_state(event.cell, event.version)
    since = builder.get_effective_time()
    state = replace(state, grants=grants, changed_at=since, detectors=NO_STARTS)
    builder.set_cell_state(event.cell, event.version, state)
    builder.widened_at[event.cell] = event.at


@_apply_to_builder.register
def _(event: Narrowed, builder: ScopeBuilder) -> None:
    state = builder.get_cell_state(event.cell, event.version)
    kept_count = (
        0 if event.to_stage == SHADOW else 1 + [g.stage for g in state.grants].index(event.to_stage)
    )
    since = builder.get_effective_time()
    builder.cut_grants(event.cell, event.version, kept_count, since)
    state = builder.get_cell_state(event.cell, event.version)
    if event.confidence_floor:
        state = replace(state, grants=raise_floors(state.grants, event.confidence_floor))
    if event.guard:
        state = replace(state, last_alarms=_with_entry(state.last_alarms, event.guard, since))
    if event.restart:
        state = _restart_attempt(state, since)
    builder.set_cell_state(event.cell, event.version, state)


@_apply_to_builder.register
def _(event: Suspended, builder: ScopeBuilder) -> None:
    state, since = builder.get_cell_state(event.cell, event.version), builder.get_effective_time()
    state = replace(
        state,
        suspended_by=state.suspended_by | {event.guard},
        suspensions=(*state.suspensions[-9:], (event.guard, event.at)),
        detectors=state.detectors.add_alarm(event.guard, state.changed_at, since),
    )
    builder.set_cell_state(event.cell, event.version, state)


@_apply_to_builder.register
def _(event: SuspensionCleared, builder: ScopeBuilder) -> None:
    state = builder.get_cell_state(event.cell, event.version)
    if event.guard in state.suspended_by:
        builder.record_returns((event.cell,), event.at)
    state = replace(
        state,
        suspended_by=state.suspended_by - {event.guard},
        cleared_at=_with_entry(state.cleared_at, event.guard, event.at),
        reported_guards=state.reported_guards - {event.guard},
    )
    builder.set_cell_state(event.cell, event.version, state)


@_apply_to_builder.register
def _(event: GrantExpired, builder: ScopeBuilder) -> None:
    stages = [g.stage for g in builder.get_cell_state(event.cell, event.version).grants]
    if event.stage in stages:
        builder.cut_grants(event.cell, event.version, stages.index(event.stage), event.until)


@_apply_to_builder.register
def _(event: Stopped, builder: ScopeBuilder) -> None:
    cells = frozenset(event.cells)
    builder.stops[event.stop] = Stop(event.stop, cells, event.by, event.at, drill=event.drill)


@_apply_to_builder.register
def _(event: EraBegan, builder: ScopeBuilder) -> None:
    builder.era = max(builder.era, event.era)


@_apply_to_builder.register
def _(event: Resumed, builder: ScopeBuilder) -> None:
    builder.close_proposal(event.proposal)
    if stop := builder.stops.pop(event.stop, None):
        builder.record_returns(stop.cells, event.at)


@_apply_to_builder.register
def _(event: IncidentOpened, builder: ScopeBuilder) -> None:
    builder.incident_count += 1
    builder.open_incidents[event.incident] = Incident(
        id=event.incident,
        kind=event.kind,
        reason=event.reason,
        at=event.at,
        cell=event.cell,
        version=event.version,
        about=event.about,
        fact=event.fact,
        holds=event.holds,
    )
    if event.fact:
        _speak_against(builder, event)
    if event.kind == UNFAMILIAR and event.cell is not None:
        key = (event.cell, event.version)
        previous = builder.cell_values.get(key, NO_VALUES)
        builder.cell_values[key] = replace(previous, reported=previous.reported | {event.about})
    if event.effect == "reported" and event.cell is not None:
        state = builder.get_cell_state(event.cell, event.version)
        since = builder.get_effective_time()
        state = replace(
            state,
            reported_guards=state.reported_guards | {event.guard},
            detectors=state.detectors.add_alarm(event.guard, state.changed_at, since),
            last_alarms=_with_entry(state.last_alarms, event.guard, since),
        )
        builder.set_cell_state(event.cell, event.version, state)


def _speak_against(builder: ScopeBuilder, event: IncidentOpened) -> None:
    """Note an incident against its version, and with each of its open proposals."""
    spoken = builder.spoken_against.get(event.version, NOTHING_AGAINST)
    recent = [item for item in spoken.incidents if event.at - item[1] <= SPOKEN_KEPT]
    incidents = (*recent, (event.incident, event.at))
    builder.spoken_against[event.version] = replace(spoken, incidents=incidents)
    for proposal in list(builder.proposals.values()):
        if proposal.cell is not None and proposal.version == event.version:
            builder.proposals[proposal.id] = proposal.add_incident(event.incident)


@_apply_to_builder.register
def _(event: IncidentAcknowledged, builder: ScopeBuilder) -> None:
    incident = builder.open_incidents.pop(event.incident, None)
    if incident is not None and incident.kind == CLOCK_INCIDENT and incident.about:
        builder.confirmed_ahead = datetime.fromisoformat(incident.about)


@_apply_to_builder.register
def _(event: ClockCorrected, builder: ScopeBuilder) -> None:
    """Move all times back; grants that ended stay ended."""
    to, previous_at = event.at, event.previous_time
    builder.confirmed_ahead = None
    for (cell, version), state in list(builder.cells.items()):
        builder.cut_grants(
            cell, version, _count_surviving_grants(state.grants, to, previous_at), to
        )
        builder.set_cell_state(
            cell,
            version,
            _move_back_in_time(builder.get_cell_state(cell, version), to, previous_at),
        )
    builder.move_back_in_time(to)


def _count_surviving_grants(
    grants: tuple[Grant, ...], corrected_at: datetime, previous_at: datetime
) -> int:
    """Return how many grants, lowest first, span the clock correction.

    A grant from the skipped time would otherwise begin once that time comes.
    """
    survives = [grant.since <= corrected_at and previous_at < grant.until for grant in grants]
    return survives.index(False) if False in survives else len(survives)


def _move_back_in_time(
    state: CellState, corrected_at: datetime, previous_at: datetime
) -> CellState:
    """Move a state's times back; the rest of a quiet time remains."""
    quiet_until = state.quiet_until
    return replace(
        state,
        attempt_since=min(state.attempt_since, corrected_at),
        changed_at=min(state.changed_at, corrected_at),
        detectors=state.detectors.move_back(corrected_at),
        last_alarms=MappingProxyType(
            {guard: min(at, corrected_at) for guard, at in state.last_alarms.items()}
        ),
        suspensions=tuple((guard, min(at, corrected_at)) for guard, at in state.suspensions),
        cleared_at=MappingProxyType(
            {guard: min(at, corrected_at) for guard, at in state.cleared_at.items()}
        ),
        quiet_until=corrected_at + (quiet_until - previous_at)
        if quiet_until is not None and quiet_until > previous_at
        else quiet_until,
    )


def _with_entry(mapping: Mapping[KeyT, ValueT], key: KeyT, value: ValueT) -> Mapping[KeyT, ValueT]:
    return MappingProxyType({**mapping, key: value})
