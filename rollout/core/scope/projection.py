"""Applies events to a scope; it never refuses an event.

Events change one private copy in place, which is frozen at the end: the cost is linear in the
number of events, however many cells there are.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from functools import singledispatch
from types import MappingProxyType
from typing import TypeVar

from rollout.core.calendar.sites import SHADOW, Cell
from rollout.core.policy.counting_rules import FIRST_RULES
from rollout.core.scope.events import (
    Approved,
    CellEvent,
    ClockCorrected,
    EraBegan,
    GrantExpired,
    IncidentAcknowledged,
    IncidentOpened,
    LedgerEvent,
    Narrowed,
    PolicyApplied,
    ProposalExpired,
    ProposalRaised,
    ProposalRejected,
    ProposalVoided,
    Renewed,
    Resumed,
    RolloutCreated,
    RulesApplied,
    Stopped,
    Suspended,
    SuspensionCleared,
    TakenOver,
    VersionFirstUsed,
    VersionRetired,
    Widened,
)
from rollout.core.scope.scope import (
    CellState,
    GivenApproval,
    Grant,
    Incident,
    ProposalState,
    Scope,
    Stop,
    Version,
    set_cell_state,
)

KeyT = TypeVar("KeyT")
ValueT = TypeVar("ValueT")


def apply_event(scope: Scope, event: LedgerEvent) -> Scope:
    """Return the scope after `event`."""
    return apply_events((event,), scope)


def apply_events(events: Iterable[LedgerEvent], scope: Scope | None = None) -> Scope:
    """Return the scope after `events`, from the empty one by default."""
    start, builder = Scope() if scope is None else scope, None
    for event in events:
        builder = builder or _ScopeBuilder(start)
        builder.apply(event)
    return start if builder is None else builder.build()


class _ScopeBuilder:
    """A mutable copy of a scope's parts."""

    def __init__(self, scope: Scope) -> None:
        self.policy_number, self.policy_hash = scope.policy_number, scope.policy_hash
        self.proposal_count, self.incident_count = scope.proposal_count, scope.incident_count
        self.rules, self.at, self.revision = scope.rules, scope.at, scope.revision
        self.era = scope.era
        self.versions = _copy_mapping(scope.versions)
        self.cells = _copy_mapping(scope.cells)
        self.proposals = _copy_mapping(scope.proposals)
        self.stops = _copy_mapping(scope.stops)
        self.widened_at = _copy_mapping(scope.widened_at)
        self.open_incidents = _copy_mapping(scope.open_incidents)
        self.withdrawn_gate_risks = _copy_mapping(scope.withdrawn_gate_risks)
        self.holders = _copy_mapping(scope._holders)  # noqa: SLF001 - kept for `Scope.holder` alone

    def apply(self, event: LedgerEvent) -> None:
        """Apply one event; only a correction sets the scope's time back."""
        previous_at = self.at
        self.at = event.at if previous_at is None else max(previous_at, event.at)
        _apply_to_builder(event, self)
        self.revision += 1

    def build(self) -> Scope:
        """Return the frozen scope; the builder must not be used after it."""
        return Scope(
            policy_number=self.policy_number,
            policy_hash=self.policy_hash,
            versions=MappingProxyType(self.versions),
            cells=MappingProxyType(self.cells),
            proposals=MappingProxyType(self.proposals),
            stops=MappingProxyType(self.stops),
            widened_at=MappingProxyType(self.widened_at),
            proposal_count=self.proposal_count,
            incident_count=self.incident_count,
            open_incidents=MappingProxyType(self.open_incidents),
            withdrawn_gate_risks=MappingProxyType(self.withdrawn_gate_risks),
            rules=self.rules,
            at=self.at,
            revision=self.revision,
            era=self.era,
            _holders=self.holders,
        )

    def get_cell_state(self, cell: Cell, version: str) -> CellState:
        """Return the state of `version` in `cell`."""
        state = self.cells.get((cell, version))
        return self.versions[version].initial_state if state is None else state

    def set_cell_state(self, cell: Cell, version: str, state: CellState) -> None:
        """Replace one cell's state."""
        set_cell_state(self.cells, self.holders, cell, version, state)

    def close_proposal(self, proposal_id: str) -> None:
        """Remove a proposal, also from its cell; ignore a closed one."""
        proposal = self.proposals.pop(proposal_id, None)
        if proposal is not None and proposal.cell is not None:
            state = self.get_cell_state(proposal.cell, proposal.version)
            self.set_cell_state(proposal.cell, proposal.version, replace(state, proposal=None))

    def cut_grants(self, cell: Cell, version: str, kept_count: int, at: datetime) -> None:
        """Keep the lowest `kept_count` grants.

        If any is removed, detectors and minimums restart.
        """
        state = self.get_cell_state(cell, version)
        if len(state.grants) <= kept_count:
            return
        state = replace(state, grants=state.grants[:kept_count], changed_at=at)
        if not kept_count:
            state = replace(state, suspended_by=frozenset(), reported_guards=frozenset())
        self.set_cell_state(cell, version, state)


def _copy_mapping(mapping: Mapping[KeyT, ValueT]) -> dict[KeyT, ValueT]:
    """Return a copy; a dict's or proxy's own copy is 100 times faster."""
    if isinstance(mapping, dict | MappingProxyType):
        return mapping.copy()
    return dict(mapping)


@singledispatch
def _apply_to_builder(event: LedgerEvent, builder: _ScopeBuilder) -> None:
    """Apply an event; the default is for events that don't change the scope."""


@_apply_to_builder.register
def _(event: RolloutCreated, builder: _ScopeBuilder) -> None:
    builder.rules = event.rules or FIRST_RULES


@_apply_to_builder.register
def _(event: RulesApplied, builder: _ScopeBuilder) -> None:
    builder.close_proposal(event.proposal)
    builder.rules = event.number


@_apply_to_builder.register
def _(event: PolicyApplied, builder: _ScopeBuilder) -> None:
    builder.policy_number, builder.policy_hash = event.number, event.policy_hash
    builder.withdrawn_gate_risks = dict(zip(event.withdrawn, event.risks, strict=True))
    builder.close_proposal(event.proposal)
    cleared = set(event.cleared)
    for cell in dict.fromkeys((*event.cleared, *event.restarted)):
        for version in builder.versions:
            state = _restart_attempt(
                builder.get_cell_state(cell, version), event.at, drops_grants=cell in cleared
            )
            builder.set_cell_state(cell, version, state)


def _restart_attempt(state: CellState, at: datetime, *, drops_grants: bool) -> CellState:
    state = replace(state, attempt=state.attempt + 1, attempt_since=at)
    if not drops_grants:
        return state
    no_guards: frozenset[str] = frozenset()
    return replace(
        state, grants=(), changed_at=at, suspended_by=no_guards, reported_guards=no_guards
    )


@_apply_to_builder.register
def _(event: VersionFirstUsed, builder: _ScopeBuilder) -> None:
    if event.version not in builder.versions:
        builder.versions[event.version] = Version(id=event.version, first_seen=event.at)


@_apply_to_builder.register
def _(event: VersionRetired, builder: _ScopeBuilder) -> None:
    builder.versions[event.version] = replace(builder.versions[event.version], retired=True)
    for cell in [cell for cell, version in builder.cells if version == event.version]:
        builder.cut_grants(cell, event.version, 0, event.at)


@_apply_to_builder.register
def _(event: ProposalRaised, builder: _ScopeBuilder) -> None:
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
    )
    builder.proposal_count += 1
    if event.cell is not None:
        state = replace(builder.get_cell_state(event.cell, event.version), proposal=event.proposal)
        builder.set_cell_state(event.cell, event.version, state)


@_apply_to_builder.register
def _(event: Approved, builder: _ScopeBuilder) -> None:
    previous = builder.proposals[event.proposal]
    approval = GivenApproval(by=event.by, groups=event.groups, at=event.at)
    builder.proposals[event.proposal] = replace(previous, approvals=(*previous.approvals, approval))


@_apply_to_builder.register
def _(event: ProposalRejected, builder: _ScopeBuilder) -> None:
    proposal = builder.proposals[event.proposal]
    builder.close_proposal(event.proposal)
    if proposal.cell is not None:
        state = builder.get_cell_state(proposal.cell, proposal.version)
        quiet_state = replace(state, quiet_until=event.quiet_until)
        builder.set_cell_state(proposal.cell, proposal.version, quiet_state)


@_apply_to_builder.register
def _(event: ProposalVoided | ProposalExpired, builder: _ScopeBuilder) -> None:
    builder.close_proposal(event.proposal)


@_apply_to_builder.register
def _(event: Widened, builder: _ScopeBuilder) -> None:
    builder.close_proposal(event.proposal)
    state = builder.get_cell_state(event.cell, event.version)
    grant = Grant(event.to_stage, event.at, event.until, event.proposal, held_since=event.at)
    _set_grants(builder, event, (*state.grants, grant))


@_apply_to_builder.register
def _(event: Renewed, builder: _ScopeBuilder) -> None:
    builder.close_proposal(event.proposal)
    state = builder.get_cell_state(event.cell, event.version)
    renewed = tuple(
        replace(g, since=event.at, until=event.until, proposal=event.proposal)
        if g.stage == event.stage
        else g
        for g in state.grants
    )
    builder.set_cell_state(event.cell, event.version, replace(state, grants=renewed))


@_apply_to_builder.register
def _(event: TakenOver, builder: _ScopeBuilder) -> None:
    held_since = {
        g.stage: g.held_since
        for g in builder.get_cell_state(event.cell, event.replaced_version).grants
    }
    builder.close_proposal(event.proposal)
    builder.cut_grants(event.cell, event.replaced_version, 0, event.at)
    grants = tuple(
        Grant(stage, event.at, until, event.proposal, held_since=held_since.get(stage, event.at))
        for stage, until in zip(event.stages, event.grant_ends, strict=True)
    )
    _set_grants(builder, event, grants)


def _set_grants(builder: _ScopeBuilder, event: CellEvent, grants: tuple[Grant, ...]) -> None:
    state = replace(
        builder.get_cell_state(event.cell, event.version), grants=grants, changed_at=event.at
    )
    builder.set_cell_state(event.cell, event.version, state)
    builder.widened_at[event.cell] = event.at


@_apply_to_builder.register
def _(event: Narrowed, builder: _ScopeBuilder) -> None:
    state = builder.get_cell_state(event.cell, event.version)
    kept_count = (
        0 if event.to_stage == SHADOW else 1 + [g.stage for g in state.grants].index(event.to_stage)
    )
    builder.cut_grants(event.cell, event.version, kept_count, event.at)
    state = builder.get_cell_state(event.cell, event.version)
    if event.guard:
        state = replace(state, last_alarms=_with_entry(state.last_alarms, event.guard, event.at))
    if event.restart:
        state = replace(state, attempt=state.attempt + 1, attempt_since=event.at)
    builder.set_cell_state(event.cell, event.version, state)


@_apply_to_builder.register
def _(event: Suspended, builder: _ScopeBuilder) -> None:
    state = builder.get_cell_state(event.cell, event.version)
    state = replace(
        state,
        suspended_by=state.suspended_by | {event.guard},
        suspensions=(*state.suspensions[-9:], (event.guard, event.at)),
    )
    builder.set_cell_state(event.cell, event.version, state)


@_apply_to_builder.register
def _(event: SuspensionCleared, builder: _ScopeBuilder) -> None:
    state = builder.get_cell_state(event.cell, event.version)
    state = replace(
        state,
        suspended_by=state.suspended_by - {event.guard},
        cleared_at=_with_entry(state.cleared_at, event.guard, event.at),
        reported_guards=state.reported_guards - {event.guard},
    )
    builder.set_cell_state(event.cell, event.version, state)


@_apply_to_builder.register
def _(event: GrantExpired, builder: _ScopeBuilder) -> None:
    stages = [g.stage for g in builder.get_cell_state(event.cell, event.version).grants]
    if event.stage in stages:
        builder.cut_grants(event.cell, event.version, stages.index(event.stage), event.until)


@_apply_to_builder.register
def _(event: Stopped, builder: _ScopeBuilder) -> None:
    cells = frozenset(event.cells)
    builder.stops[event.stop] = Stop(event.stop, cells, event.by, event.at, drill=event.drill)


@_apply_to_builder.register
def _(event: EraBegan, builder: _ScopeBuilder) -> None:
    builder.era = max(builder.era, event.era)


@_apply_to_builder.register
def _(event: Resumed, builder: _ScopeBuilder) -> None:
    builder.close_proposal(event.proposal)
    builder.stops.pop(event.stop, None)


@_apply_to_builder.register
def _(event: IncidentOpened, builder: _ScopeBuilder) -> None:
    builder.incident_count += 1
    builder.open_incidents[event.incident] = Incident(
        id=event.incident,
        kind=event.kind,
        reason=event.reason,
        at=event.at,
        cell=event.cell,
        version=event.version,
        about=event.about,
    )
    if event.effect == "reported" and event.cell is not None:
        state = builder.get_cell_state(event.cell, event.version)
        state = replace(
            state,
            reported_guards=state.reported_guards | {event.guard},
            last_alarms=_with_entry(state.last_alarms, event.guard, event.at),
        )
        builder.set_cell_state(event.cell, event.version, state)


@_apply_to_builder.register
def _(event: IncidentAcknowledged, builder: _ScopeBuilder) -> None:
    builder.open_incidents.pop(event.incident, None)


@_apply_to_builder.register
def _(event: ClockCorrected, builder: _ScopeBuilder) -> None:
    """Move all times back; grants that ended stay ended."""
    to, previous_at = event.at, event.previous_time
    builder.close_proposal(event.proposal)
    for (cell, version), state in list(builder.cells.items()):
        builder.cut_grants(
            cell, version, _count_surviving_grants(state.grants, to, previous_at), to
        )
        builder.set_cell_state(
            cell,
            version,
            _move_back_in_time(builder.get_cell_state(cell, version), to, previous_at),
        )
    for name, version_state in builder.versions.items():
        builder.versions[name] = replace(
            version_state, first_seen=min(version_state.first_seen, to)
        )
    builder.widened_at = {cell: min(at, to) for cell, at in builder.widened_at.items()}
    builder.at = to


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
