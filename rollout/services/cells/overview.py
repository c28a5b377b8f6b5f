"""The overview of all rollouts: state, pending units and proposals."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from rollout.core.scope.permissions import Caller, Permission, require_permission
from rollout.services.engine.rollout_state import RolloutState, load_rollout_state
from rollout.services.engine.service import Service
from rollout.store.counting.count_queue import CountQueue
from rollout.store.database.rollouts import Rollouts
from rollout.store.database.session import Database, Transaction
from rollout.store.ledger.ledger import Ledger
from rollout.store.ledger.revisions import MAX_RECENT_CASES, RolloutActivity, load_activity
from rollout.store.ledger.tick_slots import TickSlots
from rollout.store.reports.deliveries import DeliveryStore
from rollout.tally.slots import to_instant

ONE_HOUR = timedelta(hours=1)
NO_PULSE = RolloutActivity(None, None, 0)


@dataclass(frozen=True, slots=True)
class RolloutSummary:
    """Summary of one rollout.

    Attributes:
        ticked_at: newest completed slot; None before the first.
        last_case: receipt time of the newest case; None without cases.
        has_more_cases: whether `cases_in_last_hour` stopped at its maximum.
        is_overdue: whether humans decide since no tick has done what has long been due.
    """

    name: str
    state: RolloutState
    ticked_at: datetime | None
    last_case: datetime | None
    cases_in_last_hour: int
    has_more_cases: bool
    is_overdue: bool


def load_rollout_summaries(
    service: Service, caller: Caller, at: datetime
) -> tuple[RolloutSummary, ...]:
    """Return summaries of the readable rollouts, by name."""
    cached_rollouts = service.state_cache.load_all()
    readable_states = [
        cached_rollout.state
        for cached_rollout in cached_rollouts
        if _is_readable(caller, cached_rollout.state)
    ]
    with service.database.begin_read() as transaction:
        pulses_by_rollout = load_activity(transaction, at - ONE_HOUR)
    return tuple(
        _build_rollout_summary(
            service, state, pulses_by_rollout.get(state.rollout.number, NO_PULSE)
        )
        for state in readable_states
    )


def load_rollout_summary(
    service: Service, caller: Caller, rollout_name: str, at: datetime
) -> RolloutSummary:
    """Return the summary of one rollout.

    Raises:
        UnknownRolloutError: the caller may not see such a rollout.
        NotAllowedError: the caller may not read it.
    """
    require_permission(caller, Permission.READ, rollout_name)
    state = service.state_cache.reload_rollout(rollout_name).state
    with service.database.begin_read() as transaction:
        pulses_by_rollout = load_activity(transaction, at - ONE_HOUR)
    return _build_rollout_summary(
        service, state, pulses_by_rollout.get(state.rollout.number, NO_PULSE)
    )


def _is_readable(caller: Caller, state: RolloutState) -> bool:
    return caller.has_permission_somewhere(Permission.READ, state.rollout.name)


def _build_rollout_summary(
    service: Service, state: RolloutState, pulse: RolloutActivity
) -> RolloutSummary:
    last_slot = pulse.last_slot
    return RolloutSummary(
        name=state.rollout.name,
        state=state,
        ticked_at=None if last_slot is None else to_instant(last_slot, state.policy.tick),
        last_case=pulse.last_case_at,
        cases_in_last_hour=pulse.recent_cases,
        has_more_cases=pulse.recent_cases == MAX_RECENT_CASES,
        is_overdue=state.rollout.name in service.autonomy.overdue,
    )


@dataclass(frozen=True, slots=True)
class RolloutOverview:
    """One rollout in the overview; `ticked_at` is the newest completed slot.

    `undelivered` is the number of reports whose delivery failed at every try.
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


def load_rollouts(database: Database, caller: Caller) -> tuple[RolloutOverview, ...]:
    """Return the overview entries of the readable rollouts, by name."""
    with database.begin_read() as transaction:
        rollout_names = sorted(rollout.name for rollout in Rollouts(transaction).list_all())
        readable_names = [
            rollout_name
            for rollout_name in rollout_names
            if caller.has_permission_somewhere(Permission.READ, rollout_name)
        ]
        return tuple(_load_overview(transaction, rollout_name) for rollout_name in readable_names)


def load_rollout_overview(database: Database, caller: Caller, rollout_name: str) -> RolloutOverview:
    """Return the overview entry of one rollout.

    Raises:
        UnknownRolloutError: the caller may not see such a rollout.
        NotAllowedError: the caller may not read it.
    """
    require_permission(caller, Permission.READ, rollout_name)
    with database.begin_read() as transaction:
        return _load_overview(transaction, rollout_name)


def _load_overview(transaction: Transaction, rollout_name: str) -> RolloutOverview:
    state = load_rollout_state(transaction, rollout_name)
    last_slot = TickSlots(transaction, state.rollout).load_last_done()
    return RolloutOverview(
        name=rollout_name,
        revision=state.scope.revision,
        hash=Ledger(transaction, state.rollout).load_head().hash,
        policy=state.scope.policy_number,
        at=state.scope.at,
        ticked_at=None if last_slot is None else to_instant(last_slot, state.policy.tick),
        pending=CountQueue(transaction, state.rollout).count_waiting(),
        open_proposals=len(state.scope.proposals),
        stops=len(state.scope.stops),
        undelivered=DeliveryStore(transaction, state.rollout).count_failed(),
    )
