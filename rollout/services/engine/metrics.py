"""Gauges of each rollout for a monitor: what is open, what is pending, how old the last tick is."""

from dataclasses import dataclass
from datetime import datetime

from rollout.core.scope.permissions import Act, Caller, require
from rollout.services.engine.service import Service
from rollout.store.counting.count_queue import DueQueue
from rollout.store.database.rollouts import Rollouts
from rollout.store.ledger.tick_slots import Slots
from rollout.store.reports.deliveries import Deliveries
from rollout.tally.slots import instant


@dataclass(frozen=True, slots=True)
class Gauges:
    """The gauges of one rollout.

    Attributes:
        name: name of the rollout.
        ledger_revision: revision of its ledger.
        open_proposals, open_incidents, active_stops: how many there are.
        pending_entries: queue entries that are not counted yet.
        failed_deliveries: deliveries of reports that failed for good.
        slot_age_seconds: seconds since the start of the newest slot with a finished tick; None
            before the first.
    """

    name: str
    ledger_revision: int
    open_proposals: int
    open_incidents: int
    active_stops: int
    pending_entries: int
    failed_deliveries: int
    slot_age_seconds: float | None


def gauges_of(service: Service, caller: Caller, *, at: datetime) -> tuple[Gauges, ...]:
    """Return the gauges of every rollout, by name. Takes three short queries each.

    Raises:
        NotAllowed: the caller may not read all rollouts.
    """
    require(caller, Act.READ, "")
    with service.database.reading() as transaction:
        rollout_names = sorted(rollout.name for rollout in Rollouts(transaction).all())
    return tuple(_gauges(service, rollout_name, at) for rollout_name in rollout_names)


def _gauges(service: Service, name: str, at: datetime) -> Gauges:
    state = service.watch.rollout(name).standing
    with service.database.reading() as transaction:
        last_slot = Slots(transaction, state.rollout).last_done()
        pending = DueQueue(transaction, state.rollout).waiting()
        failed = Deliveries(transaction, state.rollout).failed()
    age = (
        None if last_slot is None else (at - instant(last_slot, state.policy.tick)).total_seconds()
    )
    return Gauges(
        name=name,
        ledger_revision=state.scope.revision,
        open_proposals=len(state.scope.proposals),
        open_incidents=len(state.scope.open_incidents),
        active_stops=len(state.scope.stops),
        pending_entries=pending,
        failed_deliveries=failed,
        slot_age_seconds=age,
    )
