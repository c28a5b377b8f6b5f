"""What a user may stop or narrow, and its current grants; nothing is counted."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from rollout.core.calendar.sites import SHADOW, Cell
from rollout.core.errors import UnknownCellError
from rollout.core.policy.policy import Policy
from rollout.core.scope.events import Narrowed
from rollout.core.scope.permissions import Caller, Permission, require_permission
from rollout.core.scope.scope import compute_held_level, find_acting_version
from rollout.core.scope.stop_targets import ResolvedTarget, StopTarget, resolve_target
from rollout.services.engine.rollout_state import RolloutState
from rollout.services.engine.service import Service
from rollout.services.stops.stop_latency import (
    StopHistory,
    StopLatency,
    compute_stop_latencies,
    load_stop_history,
)
from rollout.store.database.rollouts import Rollouts
from rollout.store.database.session import Database
from rollout.store.ledger.ledger import Ledger

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
class LastDrill:
    """The last drill of a stop."""

    at: datetime
    by: str


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
    with database.begin_read() as transaction:
        rollout_names = sorted(rollout.name for rollout in Rollouts(transaction).list_all())
    return tuple(
        rollout_name
        for rollout_name in rollout_names
        if caller.has_permission_somewhere(Permission.OPERATE, rollout_name)
    )


def load_stop_options(
    service: Service, caller: Caller, rollout_name: str, *, at: datetime
) -> StopOptions:
    """Return what the caller may stop.

    Raises:
        NotAllowedError: the caller operates no site of the rollout.
    """
    require_permission(caller, Permission.OPERATE, rollout_name)
    state = service.state_cache.reload_rollout(rollout_name).state
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
        last_drill = _find_last_drill(Ledger(transaction, state.rollout), stop_history)
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
        last_drill=last_drill,
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
    require_permission(caller, Permission.OPERATE, rollout_name)
    state = service.state_cache.reload_rollout(rollout_name).state
    if until > state.scope.revision:
        raise UnknownCellError(
            f"{rollout_name} has no revision {until} yet; its ledger shows those that it has"
        )
    after = max(0, until - count - MAX_OTHER_ROWS)
    with service.database.begin_read() as transaction:
        events = Ledger(transaction, state.rollout).list_of(Narrowed, after=after, until=until)
        own_narrowings = [event for event in events if event.by == caller.name]
    return tuple(own_narrowings[max(0, len(own_narrowings) - count) :])


def _find_last_drill(ledger: Ledger, stop_history: StopHistory) -> LastDrill | None:
    if stop_history.last_drill is None:
        return None
    until = ledger.find_revision_at(stop_history.last_drill)
    rows = ledger.list_rows(after=max(0, until - MAX_OTHER_ROWS), until=until, kinds=("Stopped",))
    actors = [row.by for row in rows if row.fields["drill"]]
    return LastDrill(stop_history.last_drill, actors[-1] if actors else "")
