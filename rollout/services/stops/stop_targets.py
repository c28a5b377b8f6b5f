"""What a person may stop or narrow, and what it holds now: little is read, nothing is counted."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from rollout.core.calendar.sites import SHADOW, Cell
from rollout.core.errors import UnknownCell
from rollout.core.ledger.ledger import event_of
from rollout.core.policy.policy import Policy
from rollout.core.scope.events import Narrowed
from rollout.core.scope.permissions import Act, Caller, require
from rollout.core.scope.scope import acting, held_rung
from rollout.services.engine.rollout_state import Standing
from rollout.services.engine.service import Service
from rollout.services.stops.stop_latency import Past, StopLatency, past_of, reach_of
from rollout.services.stops.stops import Chosen, Named, chosen
from rollout.store.database.rollouts import Rollouts
from rollout.store.database.session import Database
from rollout.store.ledger.ledger import Ledger

BEFORE = 200  # rows of others that may stand among those of one command


@dataclass(frozen=True, slots=True)
class Holding:
    """What a cell holds now.

    Attributes:
        cell: which.
        version: that holds grants there, "" where none does.
        stage: on which it acts now; shadow where that is withheld.
        granted: the highest stage of its valid grants, withheld or not.
        stopped: whether a stop withholds them.
        model_decides: whether the version acts there now without a person's yes.
    """

    cell: Cell
    version: str
    stage: str
    granted: str
    stopped: bool
    model_decides: bool


@dataclass(frozen=True, slots=True)
class Drill:
    """A stop that was tried out."""

    at: datetime
    by: str


@dataclass(frozen=True, slots=True)
class Stoppable:
    """What a caller may stop in a rollout.

    Attributes:
        policy: in force.
        cells: theirs to operate, in the policy's order, with what each holds.
        others: the sites that are not theirs.
        reach: how soon a stop holds at each of their sites.
        last_drill: None where none ever was.
    """

    policy: Policy
    cells: tuple[Holding, ...]
    others: tuple[str, ...]
    reach: tuple[StopLatency, ...]
    last_drill: Drill | None

    @property
    def sites(self) -> tuple[str, ...]:
        """Return the sites that are theirs."""
        return tuple(dict.fromkeys(cell_grant.cell.site for cell_grant in self.cells))


def rollouts_to_stop(database: Database, caller: Caller) -> tuple[str, ...]:
    """Return the names of the rollouts in which the caller may stop something, by name."""
    with database.reading() as transaction:
        rollout_names = sorted(rollout.name for rollout in Rollouts(transaction).all())
    return tuple(
        rollout_name
        for rollout_name in rollout_names
        if caller.may_somewhere(Act.OPERATE, rollout_name)
    )


def stoppable(service: Service, caller: Caller, name: str, *, at: datetime) -> Stoppable:
    """Return what the caller may stop.

    Raises:
        NotAllowed: they operate no site of the rollout.
    """
    require(caller, Act.OPERATE, name)
    state = service.watch.confirmed(name).standing
    operable_sites = [site for site in state.policy.site if caller.may(Act.OPERATE, name, site)]
    if not operable_sites:
        require(caller, Act.OPERATE, name, tuple(state.policy.site))
    with service.database.reading() as transaction:
        stop_history = past_of(transaction, state)
        last_drill = _last_drill(Ledger(transaction, state.rollout), stop_history)
    return Stoppable(
        policy=state.policy,
        cells=tuple(
            holdings(
                state, (cell for cell in state.policy.cells if cell.site in set(operable_sites)), at
            )
        ),
        others=tuple(site for site in state.policy.site if site not in set(operable_sites)),
        reach=reach_of(stop_history, state.policy, operable_sites, at),
        last_drill=last_drill,
    )


def holdings(stood: Standing, cells: Iterable[Cell], at: datetime) -> Iterator[Holding]:
    """Yield what each cell holds at an instant."""
    scope, policy = stood.scope, stood.policy
    at = at if scope.at is None else max(at, scope.at)
    for cell in cells:
        acting_version, acting_grant = scope.holder(cell), acting(scope, policy, cell, at)
        granted_level = (
            0
            if acting_version is None
            else held_rung(policy, scope.state(cell, acting_version), at)
        )
        yield Holding(
            cell=cell,
            version=acting_version or "",
            stage=SHADOW if acting_grant is None else policy.rungs[acting_grant[1]],
            granted=policy.rungs[granted_level],
            stopped=scope.stopped(cell),
            model_decides=acting_grant is not None and policy.stage(acting_grant[1]).model_decides,
        )


def meant(service: Service, caller: Caller, name: str, named: Named) -> Chosen:
    """Return the cells that the caller names and may operate, with what is left out.

    Raises:
        Refusal: nothing was named, nothing of it exists, or none of it is theirs.
    """
    require(caller, Act.OPERATE, name)
    return chosen(named, service.watch.confirmed(name).standing.policy, caller)


def narrowed_by(
    service: Service, caller: Caller, name: str, *, until: int, count: int
) -> tuple[Narrowed, ...]:
    """Return the last narrowings of the caller up to a revision of the ledger, `count` at most.

    Raises:
        NotAllowed: they operate no site of the rollout.
        UnknownCell: the ledger has no such revision.
    """
    require(caller, Act.OPERATE, name)
    state = service.watch.confirmed(name).standing
    if until > state.scope.revision:
        raise UnknownCell(f"{name} has no revision {until} yet; its ledger shows those that it has")
    after = max(0, until - count - BEFORE)
    with service.database.reading() as transaction:
        rows = Ledger(transaction, state.rollout).rows(
            after=after, until=until, kinds=(Narrowed.__name__,)
        )
        events = [event_of(row) for row in rows if row.by == caller.name]
    own_narrowings = [event for event in events if isinstance(event, Narrowed)]
    return tuple(
        own_narrowings[len(own_narrowings) - count :]
        if count < len(own_narrowings)
        else own_narrowings
    )


def _last_drill(ledger: Ledger, past: Past) -> Drill | None:
    if past.last_drill is None:
        return None
    until = ledger.revision_at(past.last_drill)
    rows = ledger.rows(after=max(0, until - BEFORE), until=until, kinds=("Stopped",))
    actors = [row.by for row in rows if row.fields["drill"]]
    return Drill(past.last_drill, actors[-1] if actors else "")
