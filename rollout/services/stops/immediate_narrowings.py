"""Narrowings that hold although the database fails: in memory first, then in the ledger."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Final

from rollout.core.scope.commands import NarrowCells
from rollout.core.scope.permissions import Caller, Permission, require_permission
from rollout.core.scope.stop_targets import StopOrder, StopTarget
from rollout.services.engine.command_handler import execute_command
from rollout.services.engine.latch_files import PendingNarrowing
from rollout.services.engine.rollout_state import RolloutState
from rollout.services.engine.service import Service
from rollout.services.stops.order_latching import (
    NOT_LATCHED,
    StopNotStoredError,
    describe_command_file,
    latch_order,
    limit_waits,
    name_cells,
    name_from_memory,
)
from rollout.services.stops.stops import NarrowingResult, narrow_cells
from rollout.store.database.append_failures import NARROWING, is_storage_failure
from rollout.store.database.session import Database

NARROWING_NOT_STORED: Final = (
    "this replica hands every case to people and repeats the narrowing until it restarts; other"
    " replicas may not know; send the narrowing again"
)
NARROWING_KEPT: Final = (
    "this replica hands every case to people and repeats the narrowing, also after it restarts;"
    " other replicas may not know; send the narrowing again"
)


@contextmanager
def latch_narrowing(
    service: Service,
    caller: Caller,
    rollout_name: str,
    target: StopTarget,
    to: str,
    *,
    at: datetime,
    reason: str = "",
) -> Iterator[Callable[[], NarrowingResult]]:
    """Let humans decide the cells of a narrowing at once, and yield what writes it.

    Raises:
        StopNotStoredError: the ledger lacks the narrowing; it is retried.
    """
    require_permission(caller, Permission.OPERATE, rollout_name)
    narrowing = name_from_memory(
        service,
        PendingNarrowing(
            id=secrets.token_hex(8),
            rollout=rollout_name,
            cells=(),
            to=to,
            by=caller.as_actor(rollout_name),
            reason=reason,
            at=at,
            access_head=caller.access_head,
            order=StopOrder(target, caller.role_assignments),
        ),
    )

    def append_narrowing() -> NarrowingResult:
        return narrow_cells(
            service.database, caller, rollout_name, target, to, at=at, reason=reason
        )

    def write_narrowing() -> NarrowingResult:
        with limit_waits(service):
            return _write_narrowing(service, narrowing, append_narrowing)

    with latch_order(service, narrowing):
        yield write_narrowing


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
    service: Service, latched: PendingNarrowing, append_narrowing: Callable[[], NarrowingResult]
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
        text = _describe_missing_narrowing(service, narrowing)
        raise StopNotStoredError(text) from error
    latches.remove(narrowing)
    return result


def _describe_missing_narrowing(service: Service, narrowing: PendingNarrowing) -> str:
    is_latched = service.autonomy.latches.latch(narrowing)
    is_kept = service.autonomy.latches.save(narrowing)
    if not is_latched:
        return NOT_LATCHED
    if not service.autonomy.is_write_needed:
        return describe_command_file(service, is_kept=is_kept)
    return NARROWING_KEPT if is_kept else NARROWING_NOT_STORED


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
