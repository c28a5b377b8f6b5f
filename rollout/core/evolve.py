"""The fold of events into a scope. It applies what has happened and never refuses."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from functools import reduce, singledispatch
from types import MappingProxyType
from typing import TypeVar

from rollout.core.events import (
    Approved,
    Cleared,
    Event,
    IncidentOpened,
    Lapsed,
    Narrowed,
    OfCell,
    PolicyApplied,
    ProposalExpired,
    ProposalRaised,
    ProposalRejected,
    ProposalVoided,
    Renewed,
    Resumed,
    Stopped,
    Suspended,
    TakenOver,
    VersionRetired,
    VersionSeen,
    Widened,
)
from rollout.core.places import SHADOW, Cell
from rollout.core.scope import Approval, Grant, Proposal, Scope, Stop, Version

K = TypeVar("K")
V = TypeVar("V")


def evolve(scope: Scope, event: Event) -> Scope:
    """Return the scope after `event`; its revision counts events."""
    at = event.at if scope.at is None else max(scope.at, event.at)
    return replace(_apply(event, scope), at=at, revision=scope.revision + 1)


def fold(events: Iterable[Event], scope: Scope | None = None) -> Scope:
    """Return the scope that `events` make of `scope`, by default of the empty one."""
    return reduce(evolve, events, Scope() if scope is None else scope)


@singledispatch
def _apply(event: Event, scope: Scope) -> Scope:  # noqa: ARG001 - dispatched on the event's kind
    return scope  # created, acknowledged: history, no scope


@_apply.register
def _(event: PolicyApplied, scope: Scope) -> Scope:
    scope = replace(scope, policy_number=event.number, policy_hash=event.policy)
    if event.proposal:
        scope = _closed(scope, event.proposal)
    cleared = set(event.cleared)
    for cell in dict.fromkeys((*event.cleared, *event.restarted)):
        for version in scope.versions:
            scope = _restarted(scope, cell, version, event.at, clear=cell in cleared)
    return scope


def _restarted(scope: Scope, cell: Cell, version: str, at: datetime, *, clear: bool) -> Scope:
    state = scope.state(cell, version)
    state = replace(state, attempt=state.attempt + 1, attempt_since=at)
    if clear:
        state = replace(
            state, grants=(), changed_at=at, suspended_by=frozenset(), reported=frozenset()
        )
    return scope.with_state(cell, version, state)


@_apply.register
def _(event: VersionSeen, scope: Scope) -> Scope:
    if event.version in scope.versions:
        return scope
    seen = Version(id=event.version, first_seen=event.at)
    return replace(scope, versions=_with(scope.versions, event.version, seen))


@_apply.register
def _(event: VersionRetired, scope: Scope) -> Scope:
    retired = replace(scope.versions[event.version], retired=True)
    scope = replace(scope, versions=_with(scope.versions, event.version, retired))
    for cell in [cell for cell, version in scope.cells if version == event.version]:
        scope = _cut(scope, cell, event.version, 0, event.at)
    return scope


@_apply.register
def _(event: ProposalRaised, scope: Scope) -> Scope:
    proposal = Proposal(
        id=event.proposal,
        kind=event.kind,
        raised_at=event.at,
        raised_by=event.by,
        expires_at=event.expires_at,
        evidence=event.evidence,
        needs=event.needs,
        cell=event.cell,
        version=event.version,
        to=event.to,
        gate=event.gate,
        about=event.about,
    )
    proposals = _with(scope.proposals, event.proposal, proposal)
    scope = replace(scope, proposals=proposals, raised=scope.raised + 1)
    if event.cell is None:
        return scope
    state = replace(scope.state(event.cell, event.version), proposal=event.proposal)
    return scope.with_state(event.cell, event.version, state)


@_apply.register
def _(event: Approved, scope: Scope) -> Scope:
    before = scope.proposals[event.proposal]
    approval = Approval(by=event.by, groups=event.groups, at=event.at)
    after = replace(before, approvals=(*before.approvals, approval))
    return replace(scope, proposals=_with(scope.proposals, event.proposal, after))


@_apply.register
def _(event: ProposalRejected, scope: Scope) -> Scope:
    proposal = scope.proposals[event.proposal]
    scope = _closed(scope, event.proposal)
    if proposal.cell is None:
        return scope
    state = replace(scope.state(proposal.cell, proposal.version), quiet_until=event.quiet_until)
    return scope.with_state(proposal.cell, proposal.version, state)


@_apply.register
def _(event: ProposalVoided | ProposalExpired, scope: Scope) -> Scope:
    return _closed(scope, event.proposal)


@_apply.register
def _(event: Widened, scope: Scope) -> Scope:
    scope = _closed(scope, event.proposal)
    state = scope.state(event.cell, event.version)
    grant = Grant(event.to, event.at, event.until, event.proposal, held_since=event.at)
    state = replace(state, grants=(*state.grants, grant), changed_at=event.at)
    return _settled(scope.with_state(event.cell, event.version, state), event)


@_apply.register
def _(event: Renewed, scope: Scope) -> Scope:
    scope = _closed(scope, event.proposal)
    state = scope.state(event.cell, event.version)
    renewed = tuple(
        replace(g, since=event.at, until=event.until, proposal=event.proposal)
        if g.stage == event.stage
        else g
        for g in state.grants
    )
    return scope.with_state(event.cell, event.version, replace(state, grants=renewed))


@_apply.register
def _(event: TakenOver, scope: Scope) -> Scope:
    held = {g.stage: g.held_since for g in scope.state(event.cell, event.replaced).grants}
    scope = _closed(scope, event.proposal)
    scope = _cut(scope, event.cell, event.replaced, 0, event.at)
    grants = tuple(
        Grant(stage, event.at, until, event.proposal, held_since=held.get(stage, event.at))
        for stage, until in zip(event.stages, event.untils, strict=True)
    )
    state = replace(scope.state(event.cell, event.version), grants=grants, changed_at=event.at)
    return _settled(scope.with_state(event.cell, event.version, state), event)


@_apply.register
def _(event: Narrowed, scope: Scope) -> Scope:
    state = scope.state(event.cell, event.version)
    keep = 0 if event.to == SHADOW else 1 + [g.stage for g in state.grants].index(event.to)
    scope = _cut(scope, event.cell, event.version, keep, event.at)
    state = scope.state(event.cell, event.version)
    if event.guard:
        state = replace(state, alarms=_with(state.alarms, event.guard, event.at))
    if event.restart:
        state = replace(state, attempt=state.attempt + 1, attempt_since=event.at)
    return scope.with_state(event.cell, event.version, state)


@_apply.register
def _(event: Suspended, scope: Scope) -> Scope:
    state = scope.state(event.cell, event.version)
    state = replace(
        state,
        suspended_by=state.suspended_by | {event.guard},
        suspensions=(*state.suspensions[-9:], (event.guard, event.at)),
    )
    return scope.with_state(event.cell, event.version, state)


@_apply.register
def _(event: Cleared, scope: Scope) -> Scope:
    state = scope.state(event.cell, event.version)
    state = replace(
        state,
        suspended_by=state.suspended_by - {event.guard},
        reported=state.reported - {event.guard},
    )
    return scope.with_state(event.cell, event.version, state)


@_apply.register
def _(event: Lapsed, scope: Scope) -> Scope:
    stages = [g.stage for g in scope.state(event.cell, event.version).grants]
    if event.stage not in stages:
        return scope
    return _cut(scope, event.cell, event.version, stages.index(event.stage), event.until)


@_apply.register
def _(event: Stopped, scope: Scope) -> Scope:
    stop = Stop(event.stop, frozenset(event.cells), event.by, event.at, drill=event.drill)
    return replace(scope, stops=_with(scope.stops, event.stop, stop))


@_apply.register
def _(event: Resumed, scope: Scope) -> Scope:
    stops = {k: v for k, v in scope.stops.items() if k != event.stop}
    return replace(_closed(scope, event.proposal), stops=MappingProxyType(stops))


@_apply.register
def _(event: IncidentOpened, scope: Scope) -> Scope:
    scope = replace(scope, incidents=scope.incidents + 1)
    if event.did != "reported" or event.cell is None:
        return scope
    state = scope.state(event.cell, event.version)
    state = replace(
        state,
        reported=state.reported | {event.guard},
        alarms=_with(state.alarms, event.guard, event.at),
    )
    return scope.with_state(event.cell, event.version, state)


def _with(mapping: Mapping[K, V], key: K, value: V) -> Mapping[K, V]:
    return MappingProxyType({**mapping, key: value})


def _closed(scope: Scope, proposal: str) -> Scope:
    closed = scope.proposals.get(proposal)
    if closed is None:
        return scope
    rest = {k: v for k, v in scope.proposals.items() if k != proposal}
    scope = replace(scope, proposals=MappingProxyType(rest))
    if closed.cell is None:
        return scope
    state = replace(scope.state(closed.cell, closed.version), proposal=None)
    return scope.with_state(closed.cell, closed.version, state)


def _cut(scope: Scope, cell: Cell, version: str, keep: int, at: datetime) -> Scope:
    """Keep the lowest `keep` grants; a stack that is cut starts its detectors and minimums anew."""
    state = scope.state(cell, version)
    if len(state.grants) <= keep:
        return scope
    state = replace(state, grants=state.grants[:keep], changed_at=at)
    if not keep:
        state = replace(state, suspended_by=frozenset(), reported=frozenset())
    return scope.with_state(cell, version, state)


def _settled(scope: Scope, event: OfCell) -> Scope:
    return replace(scope, widened_at=_with(scope.widened_at, event.cell, event.at))
