"""What a user may stop or narrow, how soon a stop holds, and the latching of such orders.

Options are the cells' current grants; nothing is counted for them.

Stop latency by site follows from leases and earlier policies in the ledger.

A latched order holds the cells that it names; without names it holds all cells.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from math import ceil
from typing import Final, TypeVar

from rollout.data.database.append_failures import (
    StoreError,
)
from rollout.data.database.rollouts import PolicyTexts, list_rollout_names
from rollout.data.database.session import Database, Transaction, limit_lock_waits
from rollout.data.ledger.ledger import Ledger
from rollout.data.ledger.scopes import PendingStop
from rollout.engine.decide.permissions import (
    OPERATOR,
    AssignedRole,
    Caller,
    Permission,
    require_permission,
)
from rollout.engine.decide.scope import compute_held_level, find_acting_version
from rollout.engine.decide.stops import (
    ResolvedTarget,
    StopOrder,
    StopTarget,
    resolve_target,
)
from rollout.engine.events import Narrowed, PolicyApplied, Stopped
from rollout.engine.words.formatting import join_words
from rollout.kernel.calendar.instants import SHADOW, Cell
from rollout.kernel.errors import UnknownCellError
from rollout.kernel.policy.policy import Policy
from rollout.kernel.units import group_pairs
from rollout.live.rollout_state import (
    RolloutState,
    parse_stored_policy,
)
from rollout.live.service import Service
from rollout.live.state_cache import MAX_STALENESS
from rollout.live.stop_latches import PendingNarrowing, PendingOrder

STALENESS = timedelta(seconds=MAX_STALENESS)
MINUTE, HOUR, DAY = 60, 3_600, 86_400  # seconds


@dataclass(frozen=True, slots=True)
class StopLatency:
    """Seconds after the answer by which a stop holds at a site."""

    site: str
    within_seconds: float


@dataclass(frozen=True, slots=True)
class LastDrill:
    """The last drill of a stop."""

    at: datetime
    by: str


@dataclass(frozen=True, slots=True)
class StopHistory:
    """Earlier stops and policies.

    Attributes:
        stop_reasons: by stop id.
        last_drill: None before the first.
        replaced_policies: earlier policies, with the time of their end.
    """

    stop_reasons: Mapping[str, str]
    last_drill: LastDrill | None
    replaced_policies: tuple[tuple[datetime, Policy], ...]

    @property
    def last_drilled_at(self) -> datetime | None:
        """Return the time of the last drill."""
        return None if self.last_drill is None else self.last_drill.at


def load_stop_history(transaction: Transaction, state: RolloutState) -> StopHistory:
    """Return earlier stops and policies, up to the state's revision."""
    ledger, until = Ledger(transaction, state.rollout), state.scope.revision
    stops = list(ledger.list_of(Stopped, until=until))
    applied = list(ledger.list_of(PolicyApplied, until=until))
    drills = [LastDrill(event.at, event.by) for event in reversed(stops) if event.drill]
    texts = PolicyTexts(transaction, state.rollout).load_texts(
        {event.policy_hash for event in applied[:-1]}
    )
    end_times = [event.at for event in applied[1:]]
    return StopHistory(
        stop_reasons={event.stop: event.cause_text for event in stops},
        last_drill=max(drills, key=lambda drill: drill.at, default=None),
        replaced_policies=tuple(
            (end, parse_stored_policy(texts[event.policy_hash]))
            for end, event in zip(end_times, applied, strict=False)
        ),
    )


def compute_stop_latencies(
    stop_history: StopHistory, policy: Policy, sites: Iterable[str], at: datetime
) -> tuple[StopLatency, ...]:
    """Return the stop latency at each site: replica staleness plus lease.

    An answer under a longer lease of an earlier policy is valid for the rest of it.
    """
    return tuple(
        StopLatency(site, _compute_stop_latency(stop_history, policy, site, at).total_seconds())
        for site in sites
    )


def _compute_stop_latency(
    stop_history: StopHistory, policy: Policy, site: str, at: datetime
) -> timedelta:
    remaining_leases = [
        find_lease(old_policy, site) - (at - end)
        for end, old_policy in stop_history.replaced_policies
        if site in old_policy.sites_by_id
    ]
    return STALENESS + max(find_lease(policy, site), *remaining_leases, timedelta(0))


def find_lease(policy: Policy, site: str) -> timedelta:
    """Return how long an answer may be used at a site."""
    site_lease = policy.sites_by_id[site].lease
    return policy.lease if site_lease is None else site_lease


def describe_stop_latency(latencies: Sequence[StopLatency]) -> str:
    """Describe stop latencies, shortest first, equal sites together."""
    sites_by_latency = group_pairs(
        (latency.within_seconds, latency.site)
        for latency in sorted(latencies, key=lambda latency: latency.within_seconds)
    )
    latency_texts = (
        f"{join_words(sites)} within {format_stop_latency(seconds)}"
        for seconds, sites in sites_by_latency.items()
    )
    return f"the model stops acting on earlier assignments at {', '.join(latency_texts)}"


def format_stop_latency(seconds: float) -> str:
    """Format a stop latency in at most two units, rounded up, as it is a promise.

    >>> [format_stop_latency(seconds) for seconds in (0.5, 10.5, 60.5, 3_599.5)]
    ['1 s', '11 s', '1 min 1 s', '1 h']
    >>> [format_stop_latency(seconds) for seconds in (43_200.5, 86_399.5, 86_400.5)]
    ['12 h 1 min', '1 d', '1 d 1 h']
    """
    step = 1 if seconds < HOUR else MINUTE if seconds < DAY else HOUR
    remaining, parts = ceil(seconds / step) * step, []
    for size, unit in ((DAY, "d"), (HOUR, "h"), (MINUTE, "min"), (1, "s")):
        count, remaining = divmod(remaining, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts) or "0 s"


MAX_OTHER_ROWS = 200  # other entries that may lie among those of one command


@dataclass(frozen=True, slots=True)
class CellGrant:
    """The current grant of a cell.

    Attributes:
        version: the version with grants there, or "".
        stage: the stage on which it acts; shadow if that is withheld.
        granted_stage: the highest stage of its valid grants, withheld or not.
        is_stopped: whether a stop withholds them.
        model_decides: whether the version acts now without a human decision.
    """

    cell: Cell
    version: str
    stage: str
    granted_stage: str
    is_stopped: bool
    model_decides: bool


@dataclass(frozen=True, slots=True)
class StopOptions:
    """What a caller may stop in a rollout.

    Attributes:
        cells: the cells they operate, in the policy's order.
        other_sites: the sites they don't operate.
        stop_latencies: of the sites they operate.
        last_drill: None before the first.
    """

    policy: Policy
    cells: tuple[CellGrant, ...]
    other_sites: tuple[str, ...]
    stop_latencies: tuple[StopLatency, ...]
    last_drill: LastDrill | None

    @property
    def sites(self) -> tuple[str, ...]:
        """Return the sites they operate."""
        return tuple(dict.fromkeys(cell_grant.cell.site for cell_grant in self.cells))


def load_stoppable_rollouts(database: Database, caller: Caller) -> tuple[str, ...]:
    """Return the rollouts in which the caller may stop something, by name."""
    return tuple(
        rollout_name
        for rollout_name in sorted(list_rollout_names(database))
        if caller.has_permission_somewhere(Permission.OPERATE, rollout_name)
    )


def load_stop_options(
    service: Service, caller: Caller, rollout_name: str, *, at: datetime
) -> StopOptions:
    """Return what the caller may stop.

    Raises:
        NotAllowedError: the caller operates no site of the rollout.
    """
    state = service.load_permitted_state(caller, Permission.OPERATE, rollout_name)
    operable_sites = [
        site
        for site in state.policy.sites_by_id
        if caller.has_permission(Permission.OPERATE, rollout_name, site)
    ]
    if not operable_sites:
        require_permission(
            caller, Permission.OPERATE, rollout_name, tuple(state.policy.sites_by_id)
        )
    with service.database.begin_read() as transaction:
        stop_history = load_stop_history(transaction, state)
    return StopOptions(
        policy=state.policy,
        cells=tuple(
            list_cell_grants(
                state, (cell for cell in state.policy.cells if cell.site in set(operable_sites)), at
            )
        ),
        other_sites=tuple(
            site for site in state.policy.sites_by_id if site not in set(operable_sites)
        ),
        stop_latencies=compute_stop_latencies(stop_history, state.policy, operable_sites, at),
        last_drill=stop_history.last_drill,
    )


def list_cell_grants(
    state: RolloutState, cells: Iterable[Cell], at: datetime
) -> Iterator[CellGrant]:
    """Yield each cell's grant at an instant."""
    scope, policy = state.scope, state.policy
    at = at if scope.at is None else max(at, scope.at)
    for cell in cells:
        acting_version = scope.get_holder(cell)
        acting_grant = find_acting_version(scope, policy, cell, at)
        granted_level = (
            0
            if acting_version is None
            else compute_held_level(policy, scope.get_cell_state(cell, acting_version), at)
        )
        yield CellGrant(
            cell=cell,
            version=acting_version or "",
            stage=SHADOW if acting_grant is None else policy.stage_ids[acting_grant[1]],
            granted_stage=policy.stage_ids[granted_level],
            is_stopped=scope.is_stopped(cell),
            model_decides=acting_grant is not None
            and policy.get_stage(acting_grant[1]).model_decides,
        )


def resolve_stop_target(
    service: Service, caller: Caller, rollout_name: str, target: StopTarget
) -> ResolvedTarget:
    """Return the named cells that the caller operates, and the excluded ones.

    Raises:
        RefusalError: nothing was named, none of it exists, or the caller operates none of it.
    """
    require_permission(caller, Permission.OPERATE, rollout_name)
    return resolve_target(
        target, service.state_cache.reload_rollout(rollout_name).state.policy, caller
    )


def load_own_narrowings(
    service: Service, caller: Caller, rollout_name: str, *, until: int, count: int
) -> tuple[Narrowed, ...]:
    """Return the caller's last narrowings up to a revision, at most `count`.

    Raises:
        NotAllowedError: the caller operates no site of the rollout.
        UnknownCellError: the ledger has no such revision.
    """
    state = service.load_permitted_state(caller, Permission.OPERATE, rollout_name)
    if until > state.scope.revision:
        raise UnknownCellError(
            f"{rollout_name} has no revision {until} yet; its ledger shows those that it has"
        )
    after = max(0, until - count - MAX_OTHER_ROWS)
    with service.database.begin_read() as transaction:
        events = Ledger(transaction, state.rollout).list_of(Narrowed, after=after, until=until)
        own_narrowings = [event for event in events if event.by == caller.name]
    return tuple(own_narrowings[max(0, len(own_narrowings) - count) :])


OrderT = TypeVar("OrderT", PendingStop, PendingNarrowing)
ResultT = TypeVar("ResultT")
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
    by = replace(order.by, groups=caller.as_actor(order.rollout, resolved_target.sites).groups)
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


@contextmanager
def latch_and_write(
    service: Service, order: OrderT, write: Callable[[OrderT], ResultT]
) -> Iterator[Callable[[], ResultT]]:
    """Obey an order from memory, and yield what names its cells and writes it."""
    order = name_from_memory(service, order)

    def write_order() -> ResultT:
        with limit_waits(service):
            return write(order)

    with latch_order(service, order):
        yield write_order


def keep_order(
    service: Service, order: PendingOrder, after_restart: str, until_restart: str
) -> str:
    """Keep an order that the ledger lacks, and return who obeys it."""
    is_latched = service.autonomy.latches.latch(order)  # unless it is, or was held by another one
    is_kept = service.autonomy.latches.save(order)
    if not is_latched:
        return NOT_LATCHED
    if not service.autonomy.is_write_needed:
        return describe_command_file(service, is_kept=is_kept)
    return after_restart if is_kept else until_restart
