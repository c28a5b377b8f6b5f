"""The rollouts at a glance: where each ledger is, what waits to be counted or approved."""

from dataclasses import dataclass
from datetime import datetime

from rollout.core.rights import Act, Caller, require
from rollout.services.standing import standing
from rollout.store.deliveries import Deliveries
from rollout.store.due import DueQueue
from rollout.store.ledger import Ledger
from rollout.store.rollouts import Rollouts
from rollout.store.session import Database, Transaction
from rollout.store.slots import Slots
from rollout.tally.slots import instant


@dataclass(frozen=True, slots=True)
class Overview:
    """One rollout at a glance; `ticked_at` is the newest slot that is done.

    `undelivered` counts the reports that no try brought to their channel.
    """

    name: str
    revision: int
    hash: str
    policy: int
    at: datetime | None
    ticked_at: datetime | None
    pending: int
    open_proposals: int
    stops: int
    undelivered: int


def rollouts_of(database: Database, caller: Caller) -> tuple[Overview, ...]:
    """Return the rollouts that the caller may read, by name; none if there are none."""
    with database.reading() as transaction:
        names = sorted(known.name for known in Rollouts(transaction).all())
        mine = [name for name in names if caller.may_somewhere(Act.READ, name)]
        return tuple(_overview(transaction, name) for name in mine)


def overview(database: Database, caller: Caller, name: str) -> Overview:
    """Return one rollout at a glance.

    Raises:
        UnknownRollout: there is none that the caller may see.
        NotAllowed: the caller may not read it.
    """
    require(caller, Act.READ, name)
    with database.reading() as transaction:
        return _overview(transaction, name)


def _overview(transaction: Transaction, name: str) -> Overview:
    stood = standing(transaction, name)
    last = Slots(transaction, stood.rollout).last_done()
    return Overview(
        name=name,
        revision=stood.scope.revision,
        hash=Ledger(transaction, stood.rollout).head().hash,
        policy=stood.scope.policy_number,
        at=stood.scope.at,
        ticked_at=None if last is None else instant(last, stood.policy.tick),
        pending=DueQueue(transaction, stood.rollout).waiting(),
        open_proposals=len(stood.scope.proposals),
        stops=len(stood.scope.stops),
        undelivered=Deliveries(transaction, stood.rollout).failed(),
    )
