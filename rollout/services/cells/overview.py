"""The rollouts at a glance: where each ledger is, what waits to be counted or approved."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from rollout.core.scope.permissions import Act, Caller, require
from rollout.services.engine.rollout_state import Standing, standing
from rollout.services.engine.service import Service
from rollout.store.counting.count_queue import DueQueue
from rollout.store.database.rollouts import Rollouts
from rollout.store.database.session import Database, Transaction
from rollout.store.ledger.ledger import Ledger
from rollout.store.ledger.revisions import LATELY, Pulse, pulses
from rollout.store.ledger.tick_slots import Slots
from rollout.store.reports.deliveries import Deliveries
from rollout.tally.slots import instant

HOUR = timedelta(hours=1)
SILENT = Pulse(None, None, 0)


@dataclass(frozen=True, slots=True)
class Line:
    """One rollout as it stands now.

    Attributes:
        name: of the rollout.
        stood: its standing.
        ticked_at: the newest slot that is done; None before the first.
        last_case: when the newest case came in; None where none did.
        in_last_hour: cases that came in within an hour.
        or_more: whether there were more of them, uncounted.
    """

    name: str
    stood: Standing
    ticked_at: datetime | None
    last_case: datetime | None
    in_last_hour: int
    or_more: bool


def board(service: Service, caller: Caller, at: datetime) -> tuple[Line, ...]:
    """Return the rollouts that the caller may read, by name; none if there are none."""
    watched = service.watch.everything()
    mine = [one.standing for one in watched if _reads(caller, one.standing)]
    with service.database.reading() as transaction:
        felt = pulses(transaction, at - HOUR)
    return tuple(_line(stood, felt.get(stood.rollout.number, SILENT)) for stood in mine)


def _reads(caller: Caller, stood: Standing) -> bool:
    return caller.may_somewhere(Act.READ, stood.rollout.name)


def _line(stood: Standing, pulse: Pulse) -> Line:
    last = pulse.last_done
    return Line(
        name=stood.rollout.name,
        stood=stood,
        ticked_at=None if last is None else instant(last, stood.policy.tick),
        last_case=pulse.last_case,
        in_last_hour=pulse.lately,
        or_more=pulse.lately == LATELY,
    )


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
