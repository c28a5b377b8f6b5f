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
    cached_rollouts = service.watch.everything()
    readable_states = [
        cached_rollout.standing
        for cached_rollout in cached_rollouts
        if _reads(caller, cached_rollout.standing)
    ]
    with service.database.reading() as transaction:
        pulses_by_rollout = pulses(transaction, at - HOUR)
    return tuple(
        _line(state, pulses_by_rollout.get(state.rollout.number, SILENT))
        for state in readable_states
    )


def _reads(caller: Caller, stood: Standing) -> bool:
    return caller.may_somewhere(Act.READ, stood.rollout.name)


def _line(stood: Standing, pulse: Pulse) -> Line:
    last_slot = pulse.last_done
    return Line(
        name=stood.rollout.name,
        stood=stood,
        ticked_at=None if last_slot is None else instant(last_slot, stood.policy.tick),
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
        rollout_names = sorted(rollout.name for rollout in Rollouts(transaction).all())
        readable_names = [
            rollout_name
            for rollout_name in rollout_names
            if caller.may_somewhere(Act.READ, rollout_name)
        ]
        return tuple(_overview(transaction, rollout_name) for rollout_name in readable_names)


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
    state = standing(transaction, name)
    last_slot = Slots(transaction, state.rollout).last_done()
    return Overview(
        name=name,
        revision=state.scope.revision,
        hash=Ledger(transaction, state.rollout).head().hash,
        policy=state.scope.policy_number,
        at=state.scope.at,
        ticked_at=None if last_slot is None else instant(last_slot, state.policy.tick),
        pending=DueQueue(transaction, state.rollout).waiting(),
        open_proposals=len(state.scope.proposals),
        stops=len(state.scope.stops),
        undelivered=Deliveries(transaction, state.rollout).failed(),
    )
