"""Narrow, stop and resume; a caller with permission for a part does that part."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rollout.core.calendar.sites import Cell
from rollout.core.errors import RefusalError
from rollout.core.scope.commands import BeginNextAttempt, NarrowCells, ProposeResume, StopCells
from rollout.core.scope.events import Stopped
from rollout.core.scope.permissions import Caller, Permission, require_permission
from rollout.core.scope.scope import ProposalState, Stop
from rollout.core.scope.stop_targets import (
    ExcludedTarget,
    StopTarget,
    find_resume_needs,
    resolve_target,
)
from rollout.services.engine.command_handler import CommandBuilder, CommandResult, run_command
from rollout.services.engine.rollout_state import RolloutState, load_rollout_state
from rollout.services.proposals.approval_permissions import describe_remaining_approvers
from rollout.services.proposals.eligible_approvers import format_needs, load_present_approvers
from rollout.services.stops.stop_latency import (
    StopHistory,
    StopLatency,
    compute_stop_latencies,
    describe_stop_latency,
    load_stop_history,
)
from rollout.store.database.append_failures import NARROWING, STOP
from rollout.store.database.session import Database

if TYPE_CHECKING:
    from rollout.services.engine.service import Service


class UnknownStopError(RefusalError):
    """There is no active stop with that id."""

    code = "unknown-stop"


@dataclass(frozen=True, slots=True)
class ActiveStop:
    """An active stop; `resume_proposal` is its open proposal to resume, or ""."""

    id: str
    by: str
    at: datetime
    reason: str
    drill: bool
    cells: tuple[Cell, ...]
    resume_proposal: str
    resume_required_approvals: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StopList:
    """Active stops, the latency of a new one, and the last drill."""

    items: tuple[ActiveStop, ...]
    stop_latency: tuple[StopLatency, ...]
    last_drill: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StopResult(CommandResult):
    """The result of a stop; `active_stops` are all that withhold its cells.

    `stop` is the id of the new one, or if others covered the cells already, of the newest of these;
    empty if those were resumed meanwhile.
    """

    stop: str
    cells: tuple[Cell, ...]
    excluded: tuple[ExcludedTarget, ...]
    active_stops: tuple[ActiveStop, ...]
    stop_latency: tuple[StopLatency, ...]
    last_drill: datetime | None
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NarrowingResult(CommandResult):
    """The result of a narrowing."""

    cells: tuple[Cell, ...]
    excluded: tuple[ExcludedTarget, ...]
    stop_latency: tuple[StopLatency, ...]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeResult(CommandResult):
    """The proposal to resume; `text` names the approvals it needs."""

    stop: str
    proposal: str
    required_approvals: tuple[str, ...]
    evidence_hash: str
    text: str


def stop_cells(
    database: Database,
    caller: Caller,
    rollout_name: str,
    target: StopTarget,
    *,
    at: datetime,
    reason: str = "",
    is_drill: bool = False,
) -> StopResult:
    """Stop the named cells that the caller operates; repeating it is safe.

    Raises:
        UnknownCellError: no named cell exists.
        NotAllowedError: the caller operates none of them.
    """
    require_permission(caller, Permission.OPERATE, rollout_name)

    def build_command(state: RolloutState) -> StopCells:
        resolved_target = resolve_target(target, state.policy, caller)
        by = caller.as_actor(rollout_name, resolved_target.sites)
        return StopCells(at=at, by=by, cells=resolved_target.cells, reason=reason, drill=is_drill)

    changed = _change_target(database, caller, rollout_name, target, at, (build_command, STOP))
    state, stop_history = changed.state, changed.stop_history
    matching_stops = [
        stop
        for stop in state.scope.stops.values()
        if stop.cells.intersection(changed.fields["cells"])
    ]
    stop_ids = [stop.id for stop in matching_stops] + [
        event.body["stop"]
        for event in changed.fields["events"]
        if event.kind == Stopped.__name__  # a stop also voids proposals
    ]
    return StopResult(
        **changed.fields,
        stop=next(reversed(stop_ids), ""),
        active_stops=tuple(
            _build_active_stop(stop, state, stop_history.stop_reasons, at)
            for stop in matching_stops
        ),
        last_drill=stop_history.last_drill,
    )


def narrow_cells(
    database: Database,
    caller: Caller,
    rollout_name: str,
    target: StopTarget,
    to: str,
    *,
    at: datetime,
    reason: str = "",
) -> NarrowingResult:
    """Narrow the named cells that the caller operates to stage `to`.

    Raises:
        UnknownCellError: no named cell exists.
        NotAllowedError: the caller operates none of them.
        NotNarrowerError: `to` is no stage, or is above the stages of all cells.
    """
    require_permission(caller, Permission.OPERATE, rollout_name)

    def build_command(state: RolloutState) -> NarrowCells:
        resolved_target = resolve_target(target, state.policy, caller)
        by = caller.as_actor(rollout_name, resolved_target.sites)
        return NarrowCells(at=at, by=by, cells=resolved_target.cells, to=to, reason=reason)

    command = (build_command, NARROWING)
    changed = _change_target(database, caller, rollout_name, target, at, command)
    return NarrowingResult(**changed.fields)


def begin_next_attempt(
    database: Database,
    caller: Caller,
    rollout_name: str,
    target: StopTarget,
    version: str,
    *,
    at: datetime,
    reason: str,
) -> CommandResult:
    """Begin a version's next attempt in the named cells that the caller operates.

    Raises:
        UnknownCellError: no named cell exists.
        NotAllowedError: the caller operates none of them.
        NotEligibleError: no attempt has begun there, or there is no reason.
    """
    require_permission(caller, Permission.OPERATE, rollout_name)

    def build_command(state: RolloutState) -> BeginNextAttempt:
        resolved_target = resolve_target(target, state.policy, caller)
        by = caller.as_actor(rollout_name, resolved_target.sites)
        cells = resolved_target.cells
        return BeginNextAttempt(at=at, by=by, cells=cells, version=version, reason=reason)

    return run_command(database, caller, rollout_name, build_command)


@dataclass(frozen=True, slots=True)
class _ChangedTarget:
    """The state after a stop or narrowing, and the fields that both results share."""

    state: RolloutState
    stop_history: StopHistory
    fields: Mapping[str, Any]


def _change_target(
    database: Database,
    caller: Caller,
    rollout_name: str,
    target: StopTarget,
    at: datetime,
    command: tuple[CommandBuilder, str],
) -> _ChangedTarget:
    """Run a command of a kind on a target and read what holds afterwards."""
    command_result = run_command(database, caller, rollout_name, *command)
    with database.begin_read() as transaction:
        state = load_rollout_state(transaction, rollout_name)
        stop_history = load_stop_history(transaction, state)
    resolved_target = resolve_target(target, state.policy, caller)
    stop_latencies = compute_stop_latencies(stop_history, state.policy, resolved_target.sites, at)
    fields = _list_fields(command_result) | {
        "cells": resolved_target.cells,
        "excluded": resolved_target.excluded,
        "stop_latency": stop_latencies,
        "text": f"applies from the next assignment on; {describe_stop_latency(stop_latencies)}",
    }
    return _ChangedTarget(state, stop_history, fields)


def propose_resume(
    database: Database, caller: Caller, rollout_name: str, stop_id: str, *, at: datetime
) -> ResumeResult:
    """Propose to resume a stop, or return its open proposal.

    Raises:
        UnknownStopError: there is no such active stop.
        NotAllowedError: the caller does not operate all its sites.
    """
    require_permission(caller, Permission.PROPOSE, rollout_name)

    def build_command(state: RolloutState) -> ProposeResume:
        sites = _list_stop_sites(_find_stop(state, stop_id))
        require_permission(caller, Permission.PROPOSE, rollout_name, sites)
        return ProposeResume(at=at, by=caller.as_actor(rollout_name, sites), stop=stop_id)

    command_result = run_command(database, caller, rollout_name, build_command)
    with database.begin_read() as transaction:
        state = load_rollout_state(transaction, rollout_name)
        resume_proposal = _find_resume_proposal(state, stop_id)
        if resume_proposal is None:
            raise UnknownStopError(
                f"{stop_id} was resumed meanwhile; `rollout status` shows active stops"
            )
        approvers = load_present_approvers(transaction, at=at)
    text = describe_remaining_approvers(approvers, state, resume_proposal) or _describe_resume(
        resume_proposal
    )
    return ResumeResult(
        **_list_fields(command_result),
        stop=stop_id,
        proposal=resume_proposal.id,
        required_approvals=resume_proposal.needs,
        evidence_hash=resume_proposal.evidence_hash,
        text=text,
    )


def _find_resume_proposal(state: RolloutState, stop_id: str) -> ProposalState | None:
    proposals = state.scope.proposals.values()
    return next(
        (
            proposal
            for proposal in proposals
            if proposal.rules.ends_stop and proposal.about == stop_id
        ),
        None,
    )


def _describe_resume(resume_proposal: ProposalState) -> str:
    if resume_proposal.is_approved:
        return f"{resume_proposal.id} is approved: the next tick that may applies it"
    return (
        f"{resume_proposal.id} needs {format_needs(resume_proposal.needs)} other than"
        f" {resume_proposal.raised_by}"
    )


def load_stops(service: "Service", caller: Caller, rollout_name: str, *, at: datetime) -> StopList:
    """Return the active stops at the caller's sites, newest first."""
    require_permission(caller, Permission.READ, rollout_name)
    state = service.state_cache.reload_rollout(rollout_name).state
    sites = tuple(
        site
        for site in state.policy.sites_by_id
        if caller.has_permission(Permission.READ, rollout_name, site)
    )
    readable_stops = [
        stop
        for stop in state.scope.stops.values()
        if set(_list_stop_sites(stop)).intersection(sites)
    ]
    with service.database.begin_read() as transaction:
        stop_history = load_stop_history(transaction, state)
    return StopList(
        items=tuple(
            _build_active_stop(stop, state, stop_history.stop_reasons, at)
            for stop in sorted(readable_stops, key=lambda stop: stop.at, reverse=True)
        ),
        stop_latency=compute_stop_latencies(stop_history, state.policy, sites, at),
        last_drill=stop_history.last_drill,
    )


def _build_active_stop(
    stop: Stop, state: RolloutState, reasons: Mapping[str, str], at: datetime
) -> ActiveStop:
    resume_proposal = _find_resume_proposal(state, stop.id)
    resume_groups = (
        find_resume_needs(state.scope, state.policy, stop, at)
        if resume_proposal is None
        else resume_proposal.needs
    )
    return ActiveStop(
        id=stop.id,
        by=stop.by,
        at=stop.at,
        reason=reasons.get(stop.id, ""),
        drill=stop.drill,
        cells=tuple(sorted(stop.cells)),
        resume_proposal="" if resume_proposal is None else resume_proposal.id,
        resume_required_approvals=resume_groups,
    )


def _find_stop(state: RolloutState, stop_id: str) -> Stop:
    stop = state.scope.stops.get(stop_id)
    if stop is None:
        stop_ids = ", ".join(state.scope.stops) or "none"
        raise UnknownStopError(f"no stop {stop_id} holds; active stops: {stop_ids}")
    return stop


def _list_stop_sites(stop: Stop) -> tuple[str, ...]:
    return tuple(sorted({cell.site for cell in stop.cells}))


def _list_fields(command_result: CommandResult) -> dict[str, Any]:
    return {
        result_field.name: getattr(command_result, result_field.name)
        for result_field in fields(command_result)
    }
