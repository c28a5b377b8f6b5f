"""What a person may stop or narrow, and what it holds now: little is read, nothing is counted."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from rollout.core.errors import UnknownCell
from rollout.core.events import Narrowed
from rollout.core.ledger import event_of
from rollout.core.places import SHADOW, Cell
from rollout.core.policy import Policy
from rollout.core.rights import Act, Caller, require
from rollout.core.scope import acting, held_rung
from rollout.services.reach import Past, StopLatency, past_of, reach_of
from rollout.services.service import Service
from rollout.services.standing import Standing
from rollout.services.stopping import Chosen, Named, chosen
from rollout.store.ledger import Ledger
from rollout.store.rollouts import Rollouts
from rollout.store.session import Database

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
        return tuple(dict.fromkeys(one.cell.site for one in self.cells))


def rollouts_to_stop(database: Database, caller: Caller) -> tuple[str, ...]:
    """Return the names of the rollouts in which the caller may stop something, by name."""
    with database.reading() as transaction:
        names = sorted(known.name for known in Rollouts(transaction).all())
    return tuple(name for name in names if caller.may_somewhere(Act.OPERATE, name))


def stoppable(service: Service, caller: Caller, name: str, *, at: datetime) -> Stoppable:
    """Return what the caller may stop.

    Raises:
        NotAllowed: they operate no site of the rollout.
    """
    require(caller, Act.OPERATE, name)
    stood = service.watch.confirmed(name).standing
    mine = [s for s in stood.policy.site if caller.may(Act.OPERATE, name, s)]
    if not mine:
        require(caller, Act.OPERATE, name, tuple(stood.policy.site))
    with service.database.reading() as transaction:
        past = past_of(transaction, stood)
        drill = _last_drill(Ledger(transaction, stood.rollout), past)
    return Stoppable(
        policy=stood.policy,
        cells=tuple(holdings(stood, (c for c in stood.policy.cells if c.site in set(mine)), at)),
        others=tuple(s for s in stood.policy.site if s not in set(mine)),
        reach=reach_of(past, stood.policy, mine, at),
        last_drill=drill,
    )


def holdings(stood: Standing, cells: Iterable[Cell], at: datetime) -> Iterator[Holding]:
    """Yield what each cell holds at an instant."""
    scope, policy = stood.scope, stood.policy
    at = at if scope.at is None else max(at, scope.at)
    for cell in cells:
        holder, here = scope.holder(cell), acting(scope, policy, cell, at)
        held = 0 if holder is None else held_rung(policy, scope.state(cell, holder), at)
        yield Holding(
            cell=cell,
            version=holder or "",
            stage=SHADOW if here is None else policy.rungs[here[1]],
            granted=policy.rungs[held],
            stopped=scope.stopped(cell),
            model_decides=here is not None and policy.stage(here[1]).model_decides,
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
    stood = service.watch.confirmed(name).standing
    if until > stood.scope.revision:
        raise UnknownCell(f"{name} has no revision {until} yet; its ledger shows those that it has")
    after = max(0, until - count - BEFORE)
    with service.database.reading() as transaction:
        rows = Ledger(transaction, stood.rollout).rows(
            after=after, until=until, kinds=(Narrowed.__name__,)
        )
        events = [event_of(row) for row in rows if row.by == caller.name]
    mine = [event for event in events if isinstance(event, Narrowed)]
    return tuple(mine[len(mine) - count :] if count < len(mine) else mine)


def _last_drill(ledger: Ledger, past: Past) -> Drill | None:
    if past.last_drill is None:
        return None
    until = ledger.revision_at(past.last_drill)
    rows = ledger.rows(after=max(0, until - BEFORE), until=until, kinds=("Stopped",))
    by = [row.by for row in rows if row.fields["drill"]]
    return Drill(past.last_drill, by[-1] if by else "")
