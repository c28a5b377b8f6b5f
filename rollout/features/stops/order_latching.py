"""Latching of stops and narrowings, and naming of the cells that they hold."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Final, TypeVar

from rollout.data.database.errors import StoreError
from rollout.data.database.session import limit_lock_waits
from rollout.data.ledger.pending_stops import PendingStop
from rollout.engine.decide.permissions import OPERATOR, AssignedRole, Caller
from rollout.engine.decide.stop_targets import StopOrder, StopTarget, resolve_target
from rollout.kernel.errors import UnknownCellError
from rollout.kernel.policy.policy import Policy
from rollout.live.service import Service
from rollout.live.stop_latches import PendingNarrowing, PendingOrder

OrderT = TypeVar("OrderT", PendingStop, PendingNarrowing)
ALL_CELLS: Final = StopOrder(StopTarget(is_everything=True), (AssignedRole(OPERATOR),))
"""What a file of an earlier version holds if it names no cells."""
NOWHERE: Final = (
    "neither the database nor the folder in ROLLOUT_LATCH_FOLDER could take it, so no replica knows"
    " of it; send it again"
)
KEPT_FOR_REPLICAS: Final = (
    "the database can't take it now; it is kept in {folder}: replicas of this machine whose"
    " ROLLOUT_LATCH_FOLDER is that folder obey it within 2 s and repeat it; no other replica knows;"
    " send it again"
)
NOT_LATCHED: Final = (
    "this replica keeps no more orders of yours for cells that it can't name; send it again when"
    " the database responds"
)


WRITE_SECONDS: Final = 2.0
"""Seconds that a service's stop or narrowing waits for locks; it holds in memory meanwhile."""


class StopNotStoredError(StoreError):
    """A stop or narrowing that holds here and isn't in the ledger yet.

    `is_stored` says whether the database has it, so that every replica obeys it.
    """

    code = "stop-not-stored"

    def __init__(self, text: str, *, is_stored: bool = False) -> None:
        super().__init__(text)
        self.is_stored = is_stored


def limit_waits(service: Service, seconds: float = WRITE_SECONDS) -> AbstractContextManager[None]:
    """Limit what a service waits for locks, since it hands cases to people and writes later.

    A command does neither: it waits as long as any other write.
    """
    return limit_lock_waits(seconds) if service.autonomy.is_write_needed else nullcontext()


def name_from_memory(service: Service, order: OrderT) -> OrderT:
    """Return an order with its cells, if the policy last read has them; without cells it is wide.

    Raises:
        NotAllowedError: the caller operates none of them.
    """
    policy = service.state_cache.find_last_policy(order.rollout)
    if policy is None:
        return order
    try:
        named_order = _resolve_order(order, policy)
    except UnknownCellError:  # perhaps of a newer policy
        return order
    if service.state_cache.find_cached(order.rollout) is None:
        return replace(named_order, order=order.order)  # a newer policy may have other cells
    return named_order


def _resolve_order(order: OrderT, policy: Policy) -> OrderT:
    unresolved = order.order or ALL_CELLS
    caller = Caller(
        order.by.name,
        is_service_account=order.by.is_service_account,
        role_assignments=unresolved.role_assignments,
    )
    resolved_target = resolve_target(unresolved.target, policy, caller)
    groups = caller.as_actor(order.rollout, resolved_target.sites).groups
    by = replace(order.by, groups=groups)
    return replace(order, cells=resolved_target.cells, by=by, order=None)


@contextmanager
def latch_order(service: Service, order: PendingOrder) -> Iterator[None]:
    """Obey an order until it is written or refused.

    One whose cells the policy in force does not have would hold all cells for a name mistyped: it
    is latched if the database, which decides that, does not respond.
    """
    latches = service.autonomy.latches
    if order.cells or service.state_cache.find_cached(order.rollout) is None:
        latches.latch(order)  # before anything is written, and before any turn is waited for
    try:
        yield
    finally:
        latches.release(order)


def name_cells(service: Service, order: OrderT) -> OrderT:
    """Return an order with the cells that the policy in force has; from then on it holds these.

    Raises:
        RefusalError: nothing is left to stop or narrow.
        StoreError: the policy can't be read, so that the order stays wide.
    """
    if order.cells and order.order is None:
        return order
    policy = service.state_cache.reload_rollout(order.rollout).state.policy
    named_order = _resolve_order(order, policy)
    service.autonomy.latches.name_cells(named_order)
    return named_order


def describe_command_file(service: Service, *, is_kept: bool) -> str:
    """Say where a command, which ends, left what the database could not take."""
    path = service.autonomy.latches.folder.path
    if path is None or not is_kept:
        return NOWHERE
    return KEPT_FOR_REPLICAS.format(folder=path.absolute())
