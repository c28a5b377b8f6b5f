"""The fold of events into a scope. It applies what has happened and never refuses.

Events change one private copy of the scope in place, and the copy is frozen once, at the end: a
long history costs as much as it has events, however many cells there are.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from functools import singledispatch
from types import MappingProxyType
from typing import TypeVar

from rollout.core.calendar.sites import SHADOW, Cell
from rollout.core.scope.events import (
    Approved,
    CellEvent,
    ClockCorrected,
    Event,
    GrantExpired,
    IncidentAcknowledged,
    IncidentOpened,
    Narrowed,
    PolicyApplied,
    ProposalExpired,
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
    VersionRetired,
    Widened,
)
from rollout.core.scope.scope import (
    Approval,
    CellState,
    Grant,
    Incident,
    Proposal,
    Scope,
    Stop,
    Version,
    place,
)

K = TypeVar("K")
V = TypeVar("V")


def evolve(scope: Scope, event: Event) -> Scope:
    """Return the scope after `event`; its revision counts events."""
    return fold((event,), scope)


def fold(events: Iterable[Event], scope: Scope | None = None) -> Scope:
    """Return the scope that `events` make of `scope`, by default of the empty one."""
    start, builder = Scope() if scope is None else scope, None
    for event in events:
        builder = builder or _Folding(start)
        builder.take(event)
    return start if builder is None else builder.frozen()  # of no events: the same, not a copy


class _Folding:
    """A scope in the making. It owns copies of every part, so no scope handed out ever changes."""

    def __init__(self, scope: Scope) -> None:
        self.policy_number, self.policy_hash = scope.policy_number, scope.policy_hash
        self.raised, self.incidents = scope.raised, scope.incidents
        self.at, self.revision = scope.at, scope.revision
        self.versions = _copy(scope.versions)
        self.cells = _copy(scope.cells)
        self.proposals = _copy(scope.proposals)
        self.stops = _copy(scope.stops)
        self.widened_at = _copy(scope.widened_at)
        self.open_incidents = _copy(scope.open_incidents)
        self.withdrawn = _copy(scope.withdrawn)
        self.holders = _copy(scope._holders)  # noqa: SLF001 - kept for `Scope.holder` alone

    def take(self, event: Event) -> None:
        """Apply one event; the scope's time never goes back but by a correction."""
        previous_at = self.at
        self.at = event.at if previous_at is None else max(previous_at, event.at)
        _apply(event, self)
        self.revision += 1

    def frozen(self) -> Scope:
        """Return what was made, for readers; nothing may be taken after it."""
        return Scope(
            policy_number=self.policy_number,
            policy_hash=self.policy_hash,
            versions=MappingProxyType(self.versions),
            cells=MappingProxyType(self.cells),
            proposals=MappingProxyType(self.proposals),
            stops=MappingProxyType(self.stops),
            widened_at=MappingProxyType(self.widened_at),
            raised=self.raised,
            incidents=self.incidents,
            open_incidents=MappingProxyType(self.open_incidents),
            withdrawn=MappingProxyType(self.withdrawn),
            at=self.at,
            revision=self.revision,
            _holders=self.holders,
        )

    def state(self, cell: Cell, version: str) -> CellState:
        """Return what `version` holds in `cell`; nothing where it was never widened."""
        state = self.cells.get((cell, version))
        return self.versions[version].begun if state is None else state

    def place(self, cell: Cell, version: str, state: CellState) -> None:
        """Put one cell's state in place of the one before."""
        place(self.cells, self.holders, cell, version, state)

    def close(self, proposal: str) -> None:
        """Take a proposal away, from its cell too; one that is not open changes nothing."""
        closed = self.proposals.pop(proposal, None)
        if closed is not None and closed.cell is not None:
            state = self.state(closed.cell, closed.version)
            self.place(closed.cell, closed.version, replace(state, proposal=None))

    def cut(self, cell: Cell, version: str, keep: int, at: datetime) -> None:
        """Keep the lowest `keep` grants; a cut stack starts detectors and minimums anew."""
        state = self.state(cell, version)
        if len(state.grants) <= keep:
            return
        state = replace(state, grants=state.grants[:keep], changed_at=at)
        if not keep:
            state = replace(state, suspended_by=frozenset(), reported=frozenset())
        self.place(cell, version, state)


def _copy(mapping: Mapping[K, V]) -> dict[K, V]:
    """Copy a mapping; that of a dict or its proxy hashes no key again, a hundred times faster."""
    if isinstance(mapping, dict | MappingProxyType):
        return mapping.copy()
    return dict(mapping)


@singledispatch
def _apply(event: Event, scope: _Folding) -> None:
    """Apply an event; what is history alone (created, purged, report sealed) changes no scope."""


@_apply.register
def _(event: PolicyApplied, scope: _Folding) -> None:
    scope.policy_number, scope.policy_hash = event.number, event.policy_hash
    scope.withdrawn = dict(zip(event.withdrawn, event.risks, strict=True))
    scope.close(event.proposal)
    cleared = set(event.cleared)
    for cell in dict.fromkeys((*event.cleared, *event.restarted)):
        for version in scope.versions:
            state = _restarted(scope.state(cell, version), event.at, clear=cell in cleared)
            scope.place(cell, version, state)


def _restarted(state: CellState, at: datetime, *, clear: bool) -> CellState:
    state = replace(state, attempt=state.attempt + 1, attempt_since=at)
    if not clear:
        return state
    no_guards: frozenset[str] = frozenset()
    return replace(state, grants=(), changed_at=at, suspended_by=no_guards, reported=no_guards)


@_apply.register
def _(event: VersionFirstUsed, scope: _Folding) -> None:
    if event.version not in scope.versions:
        scope.versions[event.version] = Version(id=event.version, first_seen=event.at)


@_apply.register
def _(event: VersionRetired, scope: _Folding) -> None:
    scope.versions[event.version] = replace(scope.versions[event.version], retired=True)
    for cell in [cell for cell, version in scope.cells if version == event.version]:
        scope.cut(cell, event.version, 0, event.at)


@_apply.register
def _(event: ProposalRaised, scope: _Folding) -> None:
    scope.proposals[event.proposal] = Proposal(
        id=event.proposal,
        kind=event.kind,
        raised_at=event.at,
        raised_by=event.by,
        expires_at=event.expires_at,
        evidence=event.evidence_hash,
        needs=event.needs,
        cell=event.cell,
        version=event.version,
        to=event.to_stage,
        gate=event.gate_hash,
        about=event.about,
    )
    scope.raised += 1
    if event.cell is not None:
        state = replace(scope.state(event.cell, event.version), proposal=event.proposal)
        scope.place(event.cell, event.version, state)


@_apply.register
def _(event: Approved, scope: _Folding) -> None:
    previous = scope.proposals[event.proposal]
    approval = Approval(by=event.by, groups=event.groups, at=event.at)
    scope.proposals[event.proposal] = replace(previous, approvals=(*previous.approvals, approval))


@_apply.register
def _(event: ProposalRejected, scope: _Folding) -> None:
    proposal = scope.proposals[event.proposal]
    scope.close(event.proposal)
    if proposal.cell is not None:
        state = scope.state(proposal.cell, proposal.version)
        quiet_state = replace(state, quiet_until=event.quiet_until)
        scope.place(proposal.cell, proposal.version, quiet_state)


@_apply.register
def _(event: ProposalVoided | ProposalExpired, scope: _Folding) -> None:
    scope.close(event.proposal)


@_apply.register
def _(event: Widened, scope: _Folding) -> None:
    scope.close(event.proposal)
    state = scope.state(event.cell, event.version)
    grant = Grant(event.to_stage, event.at, event.until, event.proposal, held_since=event.at)
    _given(scope, event, (*state.grants, grant))


@_apply.register
def _(event: Renewed, scope: _Folding) -> None:
    scope.close(event.proposal)
    state = scope.state(event.cell, event.version)
    renewed = tuple(
        replace(g, since=event.at, until=event.until, proposal=event.proposal)
        if g.stage == event.stage
        else g
        for g in state.grants
    )
    scope.place(event.cell, event.version, replace(state, grants=renewed))


@_apply.register
def _(event: TakenOver, scope: _Folding) -> None:
    held_since = {
        g.stage: g.held_since for g in scope.state(event.cell, event.replaced_version).grants
    }
    scope.close(event.proposal)
    scope.cut(event.cell, event.replaced_version, 0, event.at)
    grants = tuple(
        Grant(stage, event.at, until, event.proposal, held_since=held_since.get(stage, event.at))
        for stage, until in zip(event.stages, event.grant_ends, strict=True)
    )
    _given(scope, event, grants)


def _given(scope: _Folding, event: CellEvent, grants: tuple[Grant, ...]) -> None:
    state = replace(scope.state(event.cell, event.version), grants=grants, changed_at=event.at)
    scope.place(event.cell, event.version, state)
    scope.widened_at[event.cell] = event.at


@_apply.register
def _(event: Narrowed, scope: _Folding) -> None:
    state = scope.state(event.cell, event.version)
    kept_count = (
        0 if event.to_stage == SHADOW else 1 + [g.stage for g in state.grants].index(event.to_stage)
    )
    scope.cut(event.cell, event.version, kept_count, event.at)
    state = scope.state(event.cell, event.version)
    if event.guard:
        state = replace(state, alarms=_with(state.alarms, event.guard, event.at))
    if event.restart:
        state = replace(state, attempt=state.attempt + 1, attempt_since=event.at)
    scope.place(event.cell, event.version, state)


@_apply.register
def _(event: Suspended, scope: _Folding) -> None:
    state = scope.state(event.cell, event.version)
    state = replace(
        state,
        suspended_by=state.suspended_by | {event.guard},
        suspensions=(*state.suspensions[-9:], (event.guard, event.at)),
    )
    scope.place(event.cell, event.version, state)


@_apply.register
def _(event: SuspensionCleared, scope: _Folding) -> None:
    state = scope.state(event.cell, event.version)
    state = replace(
        state,
        suspended_by=state.suspended_by - {event.guard},
        reported=state.reported - {event.guard},
    )
    scope.place(event.cell, event.version, state)


@_apply.register
def _(event: GrantExpired, scope: _Folding) -> None:
    stages = [g.stage for g in scope.state(event.cell, event.version).grants]
    if event.stage in stages:
        scope.cut(event.cell, event.version, stages.index(event.stage), event.until)


@_apply.register
def _(event: Stopped, scope: _Folding) -> None:
    cells = frozenset(event.cells)
    scope.stops[event.stop] = Stop(event.stop, cells, event.by, event.at, drill=event.drill)


@_apply.register
def _(event: Resumed, scope: _Folding) -> None:
    scope.close(event.proposal)
    scope.stops.pop(event.stop, None)


@_apply.register
def _(event: IncidentOpened, scope: _Folding) -> None:
    scope.incidents += 1
    scope.open_incidents[event.incident] = Incident(
        id=event.incident,
        kind=event.kind,
        reason=event.reason,
        at=event.at,
        cell=event.cell,
        version=event.version,
        about=event.about,
    )
    if event.effect == "reported" and event.cell is not None:
        state = scope.state(event.cell, event.version)
        state = replace(
            state,
            reported=state.reported | {event.guard},
            alarms=_with(state.alarms, event.guard, event.at),
        )
        scope.place(event.cell, event.version, state)


@_apply.register
def _(event: IncidentAcknowledged, scope: _Folding) -> None:
    scope.open_incidents.pop(event.incident, None)


@_apply.register
def _(event: ClockCorrected, scope: _Folding) -> None:
    """Take back the time that never was, and nothing that was lost in it."""
    to, previous_at = event.at, event.previous_time
    scope.close(event.proposal)
    for (cell, version), state in list(scope.cells.items()):
        scope.cut(cell, version, _outlasting(state.grants, to, previous_at), to)
        scope.place(cell, version, _redated(scope.state(cell, version), to, previous_at))
    for name, version_state in scope.versions.items():
        scope.versions[name] = replace(version_state, first_seen=min(version_state.first_seen, to))
    scope.widened_at = {cell: min(at, to) for cell, at in scope.widened_at.items()}
    scope.at = to


def _outlasting(grants: tuple[Grant, ...], to: datetime, was: datetime) -> int:
    """Return how many grants, lowest first, began before `to` and had not ended by `was`.

    One that was given in the time that never was would begin by itself, once that time comes.
    """
    survives = [grant.since <= to and was < grant.until for grant in grants]
    return survives.index(False) if False in survives else len(survives)


def _redated(state: CellState, to: datetime, was: datetime) -> CellState:
    """Date what had happened back to `to`; of a quiet time, what was left of it stays."""
    quiet_until = state.quiet_until
    return replace(
        state,
        attempt_since=min(state.attempt_since, to),
        changed_at=min(state.changed_at, to),
        alarms=MappingProxyType({guard: min(at, to) for guard, at in state.alarms.items()}),
        suspensions=tuple((guard, min(at, to)) for guard, at in state.suspensions),
        quiet_until=to + (quiet_until - was)
        if quiet_until is not None and quiet_until > was
        else quiet_until,
    )


def _with(mapping: Mapping[K, V], key: K, value: V) -> Mapping[K, V]:
    return MappingProxyType({**mapping, key: value})
