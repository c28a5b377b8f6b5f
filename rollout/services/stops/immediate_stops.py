"""Stops that hold although the database fails: in memory first, then stored, then in the ledger.

A replica obeys a stop from the moment it is latched. Every replica obeys it as soon as the small
table `pending_stops` has it. It is then appended to the ledger, and retried until it stands there.
A command holds nothing in memory: the replicas of its machine find its file.
"""

import logging
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Final

from rollout.core.errors import RefusalError
from rollout.core.scope.commands import StopCells
from rollout.core.scope.decider import decide
from rollout.core.scope.events import Stopped
from rollout.core.scope.permissions import Caller, Permission, require_permission
from rollout.core.scope.stop_targets import StopOrder, StopTarget
from rollout.services.engine.command_handler import execute_command
from rollout.services.engine.rollout_state import RolloutState, load_rollout_state
from rollout.services.engine.service import Service
from rollout.services.stops.order_latching import (
    NOT_LATCHED,
    WRITE_SECONDS,
    StopNotStoredError,
    describe_command_file,
    latch_order,
    limit_waits,
    name_cells,
    name_from_memory,
)
from rollout.services.stops.stops import StopResult, stop_cells
from rollout.store.database.append_failures import STOP, is_storage_failure
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


@contextmanager
def latch_stop(
    service: Service,
    caller: Caller,
    rollout_name: str,
    target: StopTarget,
    *,
    at: datetime,
    reason: str = "",
    is_drill: bool = False,
) -> Iterator[Callable[[], StopResult]]:
    """Obey a stop at once, from memory alone, and yield what writes it.

    The block may wait for its turn to write. If it never writes, the thread that retries does.

    Raises:
        UnknownCellError: no named cell exists.
        NotAllowedError: the caller operates none of them.
        StopNotStoredError: the ledger lacks the stop, after `WRITE_SECONDS` at most if others hold
            locks; the text says who obeys it.
    """
    require_permission(caller, Permission.OPERATE, rollout_name)
    order = StopOrder(target, caller.role_assignments)
    stop = name_from_memory(
        service,
        PendingStop(
            id=secrets.token_hex(8),
            rollout=rollout_name,
            cells=(),
            by=caller.as_actor(rollout_name),
            reason=reason,
            drill=is_drill,
            at=at,
            access_head=caller.access_head,
            order=order,
        ),
    )

    def append_stop() -> StopResult:
        return stop_cells(
            service.database, caller, rollout_name, target, at=at, reason=reason, is_drill=is_drill
        )

    def write_stop() -> StopResult:
        with limit_waits(service):
            return _write_stop(service, stop, append_stop)

    with latch_order(service, stop):
        yield write_stop


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
    service: Service, latched_stop: PendingStop, append_stop: Callable[[], StopResult]
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
        text = _describe_missing_stop(service, stop, is_stored=is_stored)
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


def _describe_missing_stop(service: Service, stop: PendingStop, *, is_stored: bool) -> str:
    is_latched = service.autonomy.latches.latch(stop)  # unless it is, or was held by another one
    is_kept = service.autonomy.latches.save(stop)
    if is_stored:
        return NOT_IN_LEDGER
    if not is_latched:
        return NOT_LATCHED
    if not service.autonomy.is_write_needed:
        return describe_command_file(service, is_kept=is_kept)
    return ALSO_AFTER_RESTART if is_kept else UNTIL_RESTART


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
    stopped_cells = {
        cell
        for event in Ledger(transaction, state.rollout).list_of(Stopped)
        if event.at >= stop.at and event.by == stop.by.name
        for cell in event.cells
    }
    return stopped_cells.issuperset(stop.cells)
