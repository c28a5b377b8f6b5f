"""What is watched from outside: how late each rollout is, and what waits for people."""

from dataclasses import dataclass
from datetime import datetime

from rollout.core.rights import Act, Caller, require
from rollout.services.service import Service
from rollout.store.deliveries import Deliveries
from rollout.store.due import DueQueue
from rollout.store.rollouts import Rollouts
from rollout.store.slots import Slots
from rollout.tally.slots import instant


@dataclass(frozen=True, slots=True)
class Gauges:
    """One rollout.

    Attributes:
        name: the rollout's.
        revision: of its ledger.
        proposals, incidents, stops: that are open.
        backlog: entries that wait to be counted.
        undelivered: reports that no try brought to their channel.
        slot_age: seconds since the newest slot that is done began; None before the first.
    """

    name: str
    revision: int
    proposals: int
    incidents: int
    stops: int
    backlog: int
    undelivered: int
    slot_age: float | None


def gauges_of(service: Service, caller: Caller, *, at: datetime) -> tuple[Gauges, ...]:
    """Return every rollout, by name, from memory but for three short queries each.

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
        backlog = DueQueue(transaction, stood.rollout).waiting()
        undelivered = Deliveries(transaction, stood.rollout).failed()
    age = None if last is None else (at - instant(last, stood.policy.tick)).total_seconds()
    return Gauges(
        name=name,
        revision=stood.scope.revision,
        proposals=len(stood.scope.proposals),
        incidents=len(stood.scope.open_incidents),
        stops=len(stood.scope.stops),
        backlog=backlog,
        undelivered=undelivered,
        slot_age=age,
    )
