"""Stop, narrow and resume cells, also while the database fails.

A caller with permission for a part of the named cells does that part.

Stops hold in memory first, then stored, then in the ledger. A replica obeys a stop from the moment
it is latched. Every replica obeys it as soon as the small table `pending_stops` has it. It is then
appended to the ledger, and retried until it stands there. A command holds nothing in memory: the
replicas of its machine find its file.

Narrowings hold in memory first, then in the ledger.
"""

import logging
import secrets
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, replace
from datetime import datetime
from functools import partial
from typing import Any, Final

from rollout.data.database.append_failures import (
    NARROWING,
    STOP,
    DatabaseUnavailableError,
    StoreError,
    is_storage_failure,
)
from rollout.data.database.session import Database, Transaction
from rollout.data.ledger.ledger import Ledger
from rollout.data.ledger.scopes import PendingStop, delete_pending_stop, store_pending_stop
from rollout.engine.decide.commands import (
    BeginNextAttempt,
    Command,
    NarrowCells,
    ProposeResume,
    StopCells,
)
from rollout.engine.decide.decider import decide
from rollout.engine.decide.permissions import Caller, Permission, require_permission
from rollout.engine.decide.scope import ProposalState, Stop
from rollout.engine.decide.stops import (
    ExcludedTarget,
    StopOrder,
    StopTarget,
    find_resume_needs,
    resolve_target,
)
from rollout.engine.events import PolicyApplied, Stopped
from rollout.engine.words.approver_warnings import format_needs
from rollout.features.proposals.proposals import (
    describe_remaining_approvers,
    load_present_approvers,
)
from rollout.features.stops.stop_options import (
    WRITE_SECONDS,
    StopHistory,
    StopLatency,
    StopNotStoredError,
    compute_stop_latencies,
    describe_stop_latency,
    keep_order,
    latch_and_write,
    limit_waits,
    load_stop_history,
    name_cells,
)
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.errors import RefusalError
from rollout.live.rollout_state import (
    CommandBuilder,
    CommandResult,
    RolloutState,
    execute_command,
    load_rollout_state,
    read_rollout,
    run_command,
)
from rollout.live.service import Service
from rollout.live.stop_latches import PendingNarrowing


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
    command = partial(StopCells, at=at, reason=reason, drill=is_drill)
    build_command = _give_cells(command, target, caller)
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
        last_drill=stop_history.last_drilled_at,
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
    command = partial(NarrowCells, at=at, to=to, reason=reason)
    build_command = _give_cells(command, target, caller)
    changed = _change_target(database, caller, rollout_name, target, at, (build_command, NARROWING))
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
    command = partial(BeginNextAttempt, at=at, version=version, reason=reason)
    return run_command(database, caller, rollout_name, _give_cells(command, target, caller))


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
    with read_rollout(database, rollout_name) as (transaction, state):
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


def _give_cells(
    command: Callable[..., Command], target: StopTarget, caller: Caller
) -> CommandBuilder:
    """Return what gives a command the named cells that its caller operates."""

    def build_command(state: RolloutState) -> Command:
        resolved_target = resolve_target(target, state.policy, caller)
        by = caller.as_actor(state.rollout.name, resolved_target.sites)
        return command(by=by, cells=resolved_target.cells)

    return build_command


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
    with read_rollout(database, rollout_name) as (transaction, state):
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
    state = service.load_permitted_state(caller, Permission.READ, rollout_name)
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
        last_drill=stop_history.last_drilled_at,
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


NARROWING_NOT_STORED: Final = (
    "this replica hands every case to people and repeats the narrowing until it restarts; other"
    " replicas may not know; send the narrowing again"
)
NARROWING_KEPT: Final = (
    "this replica hands every case to people and repeats the narrowing, also after it restarts;"
    " other replicas may not know; send the narrowing again"
)


def latch_narrowing(
    service: Service,
    caller: Caller,
    rollout_name: str,
    target: StopTarget,
    to: str,
    *,
    at: datetime,
    reason: str = "",
) -> AbstractContextManager[Callable[[], NarrowingResult]]:
    """Let humans decide the cells of a narrowing at once, and return what writes it.

    Raises:
        StopNotStoredError: the ledger lacks the narrowing; it is retried.
    """
    require_permission(caller, Permission.OPERATE, rollout_name)
    narrowing = PendingNarrowing(
        id=secrets.token_hex(8),
        rollout=rollout_name,
        cells=(),
        to=to,
        by=caller.as_actor(rollout_name),
        reason=reason,
        at=at,
        access_head=caller.access_head,
        order=StopOrder(target, caller.role_assignments),
    )
    append = partial(
        narrow_cells, service.database, caller, rollout_name, target, to, at=at, reason=reason
    )
    return latch_and_write(service, narrowing, partial(_write_narrowing, service, append))


def narrow_at_once(
    service: Service,
    caller: Caller,
    rollout_name: str,
    target: StopTarget,
    to: str,
    *,
    at: datetime,
    reason: str = "",
) -> NarrowingResult:
    """Narrow the named cells; if the database fails, humans decide and it is retried.

    Raises as `latch_narrowing` does.
    """
    with latch_narrowing(
        service, caller, rollout_name, target, to, at=at, reason=reason
    ) as write_narrowing:
        return write_narrowing()


def _write_narrowing(
    service: Service, append_narrowing: Callable[[], NarrowingResult], latched: PendingNarrowing
) -> NarrowingResult:
    """Append a latched narrowing and forget the latch; keep both if the database fails."""
    latches, narrowing = service.autonomy.latches, latched
    try:
        narrowing = name_cells(service, latched)
        result = append_narrowing()
    except Exception as error:
        if not is_storage_failure(error):
            latches.remove(narrowing)
            raise
        service.database.append_failures.record_failure(narrowing.rollout, NARROWING, str(error))
        texts = NARROWING_KEPT, NARROWING_NOT_STORED
        raise StopNotStoredError(keep_order(service, narrowing, *texts)) from error
    latches.remove(narrowing)
    return result


def append_pending_narrowing(database: Database, row: PendingNarrowing) -> None:
    """Append a narrowing that a file keeps, for the cells that the policy still has.

    Raises:
        RefusalError: nothing is left to narrow.
        StoreError: the ledger lacks the narrowing still.
    """

    def build_command(state: RolloutState) -> NarrowCells:
        cells = tuple(cell for cell in row.cells if cell in state.policy.cell_set)
        return NarrowCells(at=row.at, by=row.by, cells=cells, to=row.to, reason=row.reason)

    execute_command(database, row.rollout, build_command, row.access_head, NARROWING)


log = logging.getLogger("rollout.stops")
UNTIL_RESTART: Final = (
    "this replica hands every case to people until it restarts; other replicas may not know; send"
    " the stop again"
)
ALSO_AFTER_RESTART: Final = (
    "this replica hands every case to people, also after it restarts; other replicas may not know;"
    " send the stop again"
)
NOT_IN_LEDGER: Final = (
    "every replica obeys the stop; the ledger can't take it now and gets it as soon as it can"
)


def latch_stop(
    service: Service,
    caller: Caller,
    rollout_name: str,
    target: StopTarget,
    *,
    at: datetime,
    reason: str = "",
    is_drill: bool = False,
) -> AbstractContextManager[Callable[[], StopResult]]:
    """Obey a stop at once, from memory alone, and return what writes it.

    The block may wait for its turn to write. If it never writes, the thread that retries does.

    Raises:
        UnknownCellError: no named cell exists.
        NotAllowedError: the caller operates none of them.
        StopNotStoredError: the ledger lacks the stop, after `WRITE_SECONDS` at most if others hold
            locks; the text says who obeys it.
    """
    require_permission(caller, Permission.OPERATE, rollout_name)
    stop = PendingStop(
        id=secrets.token_hex(8),
        rollout=rollout_name,
        cells=(),
        by=caller.as_actor(rollout_name),
        reason=reason,
        drill=is_drill,
        at=at,
        access_head=caller.access_head,
        order=StopOrder(target, caller.role_assignments),
    )
    append = partial(
        stop_cells,
        *(service.database, caller, rollout_name, target),
        at=at,
        reason=reason,
        is_drill=is_drill,
    )
    return latch_and_write(service, stop, partial(_write_stop, service, append))


def stop_at_once(
    service: Service,
    caller: Caller,
    rollout_name: str,
    target: StopTarget,
    *,
    at: datetime,
    reason: str = "",
    is_drill: bool = False,
) -> StopResult:
    """Stop the named cells that the caller operates, whatever can be written.

    Raises as `latch_stop` does.
    """
    with latch_stop(
        service, caller, rollout_name, target, at=at, reason=reason, is_drill=is_drill
    ) as write_stop:
        return write_stop()


def _write_stop(
    service: Service, append_stop: Callable[[], StopResult], latched_stop: PendingStop
) -> StopResult:
    """Store a latched stop, append it, and forget the latch."""
    stop, is_stored = latched_stop, False
    try:
        stop = name_cells(service, latched_stop)
        with limit_waits(service, WRITE_SECONDS / 2):  # and the ledger may be free
            is_stored = not _is_in_force(service.database, stop) and store_for_replicas(
                service.database, stop
            )
        result = append_stop()
    except RefusalError:
        _forget_stop(service, stop, is_stored=is_stored)
        raise
    except Exception as error:
        if service.autonomy.is_write_needed and not isinstance(error, DatabaseUnavailableError):
            log.exception("a stop of %s is not in the ledger", stop.rollout)  # once per outage
        service.database.append_failures.record_failure(stop.rollout, STOP, str(error))
        text = keep_order(service, stop, ALSO_AFTER_RESTART, UNTIL_RESTART)
        text = NOT_IN_LEDGER if is_stored else text
        raise StopNotStoredError(text, is_stored=is_stored) from error
    _forget_stop(service, stop, is_stored=is_stored)
    return result


def _is_in_force(database: Database, stop: PendingStop) -> bool:
    """Return whether the ledger's stops hold all cells already, so that nothing is written."""
    try:
        with database.begin_read() as transaction:
            state = load_rollout_state(transaction, stop.rollout)
        return bool(stop.cells) and not decide(
            _build_command(stop, state), state.scope, state.policy
        )
    except Exception:  # noqa: BLE001 - in doubt the stop is written
        return False


def _forget_stop(service: Service, stop: PendingStop, *, is_stored: bool) -> None:
    """Forget a stop that is in the ledger or was refused.

    A row that can't be deleted is left to the thread that retries, which finds it in the ledger.
    """
    if is_stored:
        try:
            _delete_stored(service.database, stop)
        except StoreError as error:
            log.warning("a stop of %s is in the ledger and still stored: %s", stop.rollout, error)
    service.autonomy.latches.remove(stop)


def store_for_replicas(database: Database, stop: PendingStop) -> bool:
    """Store a stop for all replicas; return whether that was done."""
    if not stop.cells:
        return False
    try:
        with database.begin_write(is_urgent=True) as transaction:
            store_pending_stop(transaction, stop)
    except Exception as error:
        if not is_storage_failure(error):
            raise
        log.warning("a stop of %s is in memory only: %s", stop.rollout, error)
        return False
    return True


def _delete_stored(database: Database, stop: PendingStop) -> None:
    with database.begin_write(is_urgent=True) as transaction:
        delete_pending_stop(transaction, stop.id)


def append_pending_stop(database: Database, stop: PendingStop) -> None:
    """Append a stop to the ledger, unless it stands there, and delete it elsewhere.

    Raises:
        RefusalError: the rollout is gone.
        StoreError: the ledger lacks the stop still.
    """
    with database.begin_read() as transaction:
        cells = _list_missing_cells(transaction, stop)
    if cells:
        build_command = partial(_build_command, replace(stop, cells=cells))
        execute_command(database, stop.rollout, build_command, stop.access_head, STOP)
    else:
        database.append_failures.record_success(stop.rollout, STOP)
    _delete_stored(database, stop)


def _build_command(stop: PendingStop, state: RolloutState) -> StopCells:
    """Return the command for the cells that the policy still has."""
    cells = tuple(cell for cell in stop.cells if cell in state.policy.cell_set)
    return StopCells(at=stop.at, by=stop.by, cells=cells, reason=stop.reason, drill=stop.drill)


def _list_missing_cells(transaction: Transaction, stop: PendingStop) -> tuple[Cell, ...]:
    """Return the cells that the policy has and the ledger did not stop, by the names of today.

    It may have got the stop although the answer was lost. That may have ended since, so that
    appending it again would stop what was resumed. A drill is no stop in earnest: who resumes after
    it does not know of that one.
    """
    state = load_rollout_state(transaction, stop.rollout)
    ledger = Ledger(transaction, state.rollout)
    edits = [event for event in ledger.list_of(PolicyApplied) if event.at >= stop.at]

    def find_name(cell: Cell) -> Cell:
        for edit in edits:
            cell = dict(zip(edit.former, edit.renamed, strict=True)).get(cell, cell)
        return cell

    stopped_cells = {
        find_name(cell)
        for event in ledger.list_of(Stopped)
        if event.at >= stop.at and event.by == stop.by.name and event.drill <= stop.drill
        for cell in event.cells
    }
    cells = set(map(find_name, stop.cells)) & state.policy.cell_set
    return tuple(sorted(cells - stopped_cells))
