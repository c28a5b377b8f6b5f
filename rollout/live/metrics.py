"""Gauges of each rollout for monitoring: open work, queue length, tick age."""

from dataclasses import dataclass
from datetime import datetime

from rollout.data.counting.count_queue import CountQueue
from rollout.data.database.rollouts import list_rollout_names
from rollout.data.ledger.scopes import TickSlots
from rollout.data.reports.reports import DeliveryStore
from rollout.engine.decide.permissions import Caller, Permission, require_permission
from rollout.kernel.calendar.instants import to_instant
from rollout.live.service import Service


@dataclass(frozen=True, slots=True)
class RolloutMetrics:
    """The gauges of one rollout.

    Attributes:
        pending_entries: queue entries that are not counted yet.
        failed_deliveries: deliveries of reports that failed finally.
        slot_age_seconds: seconds since the start of the newest slot with a finished tick; None
            before the first.
        ticks_overdue: 1 if humans decide since no tick has done what has long been due, else 0.
    """

    name: str
    ledger_revision: int
    open_proposals: int
    open_incidents: int
    active_stops: int
    pending_entries: int
    failed_deliveries: int
    slot_age_seconds: float | None
    ticks_overdue: int


def load_all_metrics(
    service: Service, caller: Caller, *, at: datetime
) -> tuple[RolloutMetrics, ...]:
    """Return the gauges of every rollout, by name; three short queries each.

    Raises:
        NotAllowedError: the caller may not read all rollouts.
    """
    require_permission(caller, Permission.READ, "")
    rollout_names = sorted(list_rollout_names(service.database))
    return tuple(_load_metrics(service, rollout_name, at) for rollout_name in rollout_names)


def _load_metrics(service: Service, rollout_name: str, at: datetime) -> RolloutMetrics:
    state = service.state_cache.load_rollout(rollout_name).state
    with service.database.begin_read() as transaction:
        last_slot = TickSlots(transaction, state.rollout).load_last_done()
        pending = CountQueue(transaction, state.rollout).count_waiting()
        failed = DeliveryStore(transaction, state.rollout).count_failed()
    age = (
        None
        if last_slot is None
        else (at - to_instant(last_slot, state.policy.tick)).total_seconds()
    )
    return RolloutMetrics(
        name=rollout_name,
        ledger_revision=state.scope.revision,
        open_proposals=len(state.scope.proposals),
        open_incidents=len(state.scope.open_incidents),
        active_stops=len(state.scope.stops),
        pending_entries=pending,
        failed_deliveries=failed,
        slot_age_seconds=age,
        ticks_overdue=int(rollout_name in service.autonomy.overdue),
    )
