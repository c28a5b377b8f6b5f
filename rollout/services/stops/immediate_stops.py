"""Stops that hold although the database fails: in memory first, then stored, then in the ledger.

A replica obeys a stop from the moment it is latched. Every replica obeys it as soon as the small
table `pending_stops` has it. It is then appended to the ledger, and retried until it stands there.
A command holds nothing in memory: the replicas of its machine find its file.
"""

import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from rollout.core.calendar.sites import Cell
from rollout.core.errors import RefusalError, UnknownCellError
from rollout.core.ledger.ledger import parse_event
from rollout.core.policy.policy import Policy
from rollout.core.scope.commands import NarrowCells, StopCells
from rollout.core.scope.decider import decide
from rollout.core.scope.events import Stopped
from rollout.core.scope.permissions import Caller, Permission, require_permission
from rollout.services.engine.command_handler import execute_command
from rollout.services.engine.rollout_state import RolloutState, load_rollout_state
from rollout.services.engine.service import Service
from rollout.services.engine.stop_latches import FailedNarrowing, PendingNarrowing
from rollout.services.stops.stop_targets import StopTarget, resolve_target
from rollout.services.stops.stops import NarrowingResult, StopResult, narrow_cells, stop_cells
from rollout.store.database.append_failures import NARROWING, STOP, is_storage_failure
from rollout.store.database.errors import DatabaseUnavailableError, StoreError
from rollout.store.database.session import Database, Transaction
from rollout.store.ledger.ledger import Ledger
from rollout.store.ledger.pending_stops import (
    PendingStop,
    delete_pending_stop,
    store_pending_stop,
)

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
NOWHERE: Final = (
    "neither the database nor the folder in ROLLOUT_LATCH_FOLDER could take it, so no replica knows"
    " of it; send it again"
)
KEPT_FOR_REPLICAS: Final = (
    "the database can't take it now; it is kept in {folder}: replicas of this machine whose"
    " ROLLOUT_LATCH_FOLDER is that folder obey it within 2 s and repeat it; no other replica knows;"
    " send it again"
)
NARROWING_NOT_STORED: Final = (
    "this replica hands every case to people and repeats the narrowing until it restarts; other"
    " replicas may not know; send the narrowing again"
)
NARROWING_KEPT: Final = (
    "this replica hands every case to people and repeats the narrowing, also after it restarts;"
    " other replicas may not know; send the narrowing again"
)


class StopNotStoredError(StoreError):
    """A stop or narrowing that holds here and isn't in the ledger yet."""

    code = "stop-not-stored"


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

    Raises:
        UnknownCellError: no named cell exists.
        NotAllowedError: the caller operates none of them.
        StopNotStoredError: the ledger lacks the stop; the text says who obeys it.
    """
    require_permission(caller, Permission.OPERATE, rollout_name)
    cells, sites = _resolve_cells(service, caller, rollout_name, target)
    stop = PendingStop(
        id=secrets.token_hex(8),
        rollout=rollout_name,
        cells=cells,
        by=caller.as_actor(rollout_name, sites),
        reason=reason,
        drill=is_drill,
        at=at,
        access_head=caller.access_head,
    )

    def append_stop() -> StopResult:
        return stop_cells(
            service.database, caller, rollout_name, target, at=at, reason=reason, is_drill=is_drill
        )

    return _write_latched(service, stop, append_stop)


def _resolve_cells(
    service: Service, caller: Caller, rollout_name: str, target: StopTarget
) -> tuple[tuple[Cell, ...], tuple[str, ...]]:
    """Return the cells to stop and their sites, if possible without the database."""
    policy = service.state_cache.find_last_policy(rollout_name)
    if policy is not None:
        try:
            resolved_target = resolve_target(target, policy, caller)
        except UnknownCellError:  # perhaps of a newer policy
            policy = None
    if policy is None:
        policy = _load_policy(service, rollout_name)
        if policy is None:
            return (), ()
        resolved_target = resolve_target(target, policy, caller)
    return resolved_target.cells, resolved_target.sites


def _load_policy(service: Service, rollout_name: str) -> Policy | None:
    try:
        return service.state_cache.reload_rollout(rollout_name).state.policy
    except RefusalError:
        raise
    except DatabaseUnavailableError:  # the outage is logged once
        return None
    except Exception:
        log.exception("the policy of %s can't be read: all of its cells are stopped", rollout_name)
        return None


def _write_latched(
    service: Service, stop: PendingStop, append_stop: Callable[[], StopResult]
) -> StopResult:
    """Latch a stop, store it, append it, and forget the latch."""
    latches = service.autonomy.latches
    latches.add_stop(stop)  # before anything is written
    is_stored = not _is_in_force(service.database, stop) and store_for_replicas(
        service.database, stop
    )
    try:
        result = append_stop()
    except RefusalError:
        _forget_stop(service, stop, is_stored=is_stored)
        raise
    except Exception as error:
        if service.autonomy.is_write_needed and not isinstance(error, DatabaseUnavailableError):
            log.exception("a stop of %s is not in the ledger", stop.rollout)  # once per outage
        service.database.append_failures.record_failure(stop.rollout, STOP, str(error))
        is_kept = latches.folder.save(stop)
        latches.release_stop(stop)
        raise StopNotStoredError(
            _describe_missing_stop(service, is_stored=is_stored, is_kept=is_kept)
        ) from error
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
    service.autonomy.latches.remove_stop(stop)


def _describe_missing_stop(service: Service, *, is_stored: bool, is_kept: bool) -> str:
    if is_stored:
        return NOT_IN_LEDGER
    if not service.autonomy.is_write_needed:
        return _describe_command_file(service, is_kept=is_kept)
    return ALSO_AFTER_RESTART if is_kept else UNTIL_RESTART


def _describe_command_file(service: Service, *, is_kept: bool) -> str:
    """Say where a command, which ends, left what the database could not take."""
    path = service.autonomy.latches.folder.path
    if path is None or not is_kept:
        return NOWHERE
    return KEPT_FOR_REPLICAS.format(folder=path.absolute())


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

    def build_command(state: RolloutState) -> StopCells:
        return _build_command(stop, state)

    with database.begin_read() as transaction:
        is_in_ledger = _is_in_ledger(transaction, stop)
    if is_in_ledger:
        database.append_failures.record_success(stop.rollout, STOP)
    else:
        execute_command(database, stop.rollout, build_command, stop.access_head, STOP)
    _delete_stored(database, stop)


def _build_command(stop: PendingStop, state: RolloutState) -> StopCells:
    """Return the command for the cells that the policy still has."""
    cells = tuple(cell for cell in stop.cells if cell in state.policy.cell_set)
    return StopCells(at=stop.at, by=stop.by, cells=cells, reason=stop.reason, drill=stop.drill)


def _is_in_ledger(transaction: Transaction, stop: PendingStop) -> bool:
    """Return whether the ledger got a stop, although the answer was lost.

    It may have ended since, so that appending it again would stop what was resumed.
    """
    state = load_rollout_state(transaction, stop.rollout)
    rows = Ledger(transaction, state.rollout).list_rows(kinds=(Stopped.__name__,))
    stopped_cells = {
        cell
        for event in map(parse_event, rows)
        if isinstance(event, Stopped) and event.at >= stop.at and event.by == stop.by.name
        for cell in event.cells
    }
    return stopped_cells.issuperset(stop.cells)


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

    Raises:
        StopNotStoredError: the ledger lacks the narrowing.
    """

    def append_narrowing() -> NarrowingResult:
        return narrow_cells(
            service.database, caller, rollout_name, target, to, at=at, reason=reason
        )

    try:
        return append_narrowing()
    except Exception as error:
        if not is_storage_failure(error):
            raise
        failures = service.database.append_failures
        order = NarrowingOrder(rollout_name, to, reason, at)
        try:
            row = _keep_narrowing(service, caller, target, order)
        except RefusalError:  # nothing is to be narrowed; what waits in memory counts by itself
            failures.record_success(rollout_name, NARROWING)
            raise
        failures.record_failure(rollout_name, NARROWING, str(error))
        if not service.autonomy.is_write_needed:
            text = _describe_command_file(service, is_kept=row is not None)
        else:
            text = NARROWING_NOT_STORED if row is None else NARROWING_KEPT
            service.autonomy.latches.add_narrowing(
                FailedNarrowing(rollout_name, append_narrowing, row)
            )
        raise StopNotStoredError(text) from error


@dataclass(frozen=True, slots=True)
class NarrowingOrder:
    """What a narrowing asks for, its cells aside."""

    rollout: str
    to: str
    reason: str
    at: datetime


def _keep_narrowing(
    service: Service, caller: Caller, target: StopTarget, order: NarrowingOrder
) -> PendingNarrowing | None:
    """Write a file for a narrowing; None if its cells aren't known or nothing could be written."""
    cells, sites = _resolve_cells(service, caller, order.rollout, target)
    row = PendingNarrowing(
        id=secrets.token_hex(8),
        rollout=order.rollout,
        cells=cells,
        to=order.to,
        by=caller.as_actor(order.rollout, sites),
        reason=order.reason,
        at=order.at,
        access_head=caller.access_head,
    )
    return row if cells and service.autonomy.latches.folder.save(row) else None


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
