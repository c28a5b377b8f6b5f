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
        names = sorted(known.name for known in Rollouts(transaction).all())
    return tuple(_gauges(service, name, at) for name in names)


def _gauges(service: Service, name: str, at: datetime) -> Gauges:
    stood = service.watch.rollout(name).standing
    with service.database.reading() as transaction:
        last = Slots(transaction, stood.rollout).last_done()
        pending = DueQueue(transaction, stood.rollout).waiting()
        failed = Deliveries(transaction, stood.rollout).failed()
    age = None if last is None else (at - instant(last, stood.policy.tick)).total_seconds()
    return Gauges(
        name=name,
        ledger_revision=stood.scope.revision,
        open_proposals=len(stood.scope.proposals),
        open_incidents=len(stood.scope.open_incidents),
        active_stops=len(stood.scope.stops),
        pending_entries=pending,
        failed_deliveries=failed,
        slot_age_seconds=age,
    )
