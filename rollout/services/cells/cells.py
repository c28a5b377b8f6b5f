"""The cells: what is allowed in each now, what its evidence says, what it still needs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import polars as pl

from rollout.core.calendar.sites import SHADOW, Cell
from rollout.core.errors import UnknownCell
from rollout.core.policy.policy import Guard, Policy, duration_text
from rollout.core.scope.events import Event
from rollout.core.scope.permissions import Act, Caller, require
from rollout.core.scope.scope import CellState, acting, held_rung
from rollout.reports.figures.evidence_facts import EvidenceFacts, evidence_facts
from rollout.reports.inputs.evidence_paths import Path, paths_of
from rollout.reports.inputs.gate_progress import Leg, courses
from rollout.reports.inputs.inputs import Inputs, Key
from rollout.reports.text.event_text import Happening, happenings
from rollout.services.engine.evidence_reader import events_of, sights_of
from rollout.services.engine.rollout_state import Standing
from rollout.services.engine.service import Service
from rollout.tally.evidence_view import Sight
from rollout.tally.frames import Records

STOPPED, SUSPENDED = "stopped", "suspended"
NOBODY_YET = "no version was ever seen here: the first prediction brings one"


@dataclass(frozen=True, slots=True)
class CellStatus:
    """What is allowed in a cell now, and what comes next.

    Attributes:
        site, window: the cell.
        stage: on which it stands; shadow whenever in doubt.
        version: the one that holds grants here, "" where none does.
        until: when the highest grant in use ends, None in shadow.
        ceiling: the highest stage that the policy's limits allow now.
        withheld: stopped or suspended, "" where grants are in use.
        suspended_by: the guards that withhold them.
        stops, proposals: ids of those that hold or are open here.
        next_step: what decides about the next step, in a sentence.
    """

    site: str
    window: str
    stage: str
    version: str
    until: datetime | None
    ceiling: str
    withheld: str
    suspended_by: tuple[str, ...]
    stops: tuple[str, ...]
    proposals: tuple[str, ...]
    next_step: str


@dataclass(frozen=True, slots=True)
class GuardStatus:
    """A guard that watches a cell: its name in the ledger, its line, and what it did."""

    guard: str
    text: str
    action: str
    suspends: bool
    reported: bool
    last_alarm: datetime | None


@dataclass(frozen=True, slots=True)
class CellDetail:
    """A cell with its evidence, its guards, and its history, the newest last."""

    status: CellStatus
    evidence: tuple[EvidenceFacts, ...]
    guards: tuple[GuardStatus, ...]
    history: tuple[Happening, ...]


@dataclass(frozen=True, slots=True)
class CellPage:
    """Some cells in the policy's order; `after` is where the next page goes on, None at the end."""

    rollout: str
    revision: int
    hash: str
    policy: int
    items: tuple[CellStatus, ...]
    after: int | None


def cells_of(
    service: Service, caller: Caller, name: str, *, at: datetime, after: int = 0, limit: int = 100
) -> CellPage:
    """Return the cells of the sites that the caller may read, `after` so many of them.

    Raises:
        NotAllowed: the caller may read none.
    """
    require(caller, Act.READ, name)
    watched = service.watch.confirmed(name)
    stood = watched.standing
    mine = [cell for cell in stood.policy.cells if caller.may(Act.READ, name, cell.site)]
    some = mine[after : after + limit]
    sights = sights_of(service.database, stood, some)
    evidence = evidence_of(stood, events_of(service.database, stood), sights, some, at)
    items = tuple(cell_now(stood, cell, evidence[cell], at) for cell in some)
    further = after + limit if after + limit < len(mine) else None
    head = watched.head
    return CellPage(name, head.revision, head.hash, stood.scope.policy_number, items, further)


def cell_of(service: Service, caller: Caller, name: str, cell: Cell, *, at: datetime) -> CellDetail:
    """Return one cell with its evidence and history.

    Raises:
        NotAllowed: the caller may not read the site.
        UnknownCell: the policy has no such cell.
    """
    require(caller, Act.READ, name)
    require(caller, Act.READ, name, (cell.site,))
    stood = service.watch.confirmed(name).standing
    if cell not in stood.policy.known:
        there = (str(c) for c in stood.policy.cells if caller.may(Act.READ, name, c.site))
        raise UnknownCell(f"the policy has no {cell}; cells: {', '.join(there)}")
    sights = sights_of(service.database, stood, (cell,))
    inputs = _inputs(stood, events_of(service.database, stood), sights, at)
    went = courses(inputs)
    paths = {key: paths_of(key, legs, inputs) for key, legs in went.items()}
    evidence = _facts(inputs, went, paths)
    told = happenings(inputs)
    return CellDetail(
        status=cell_now(stood, cell, evidence, at),
        evidence=evidence,
        guards=_guards(stood, cell),
        history=tuple(h for h in told if (h.site, h.window) == (cell.site, cell.window)),
    )


def cell_now(
    stood: Standing, cell: Cell, evidence: Sequence[EvidenceFacts], at: datetime
) -> CellStatus:
    """Return what is allowed in a cell, with the evidence that says what comes next."""
    scope, policy = stood.scope, stood.policy
    at = at if scope.at is None else max(at, scope.at)
    holder, here = scope.holder(cell), acting(scope, policy, cell, at)
    state = None if holder is None else scope.state(cell, holder)
    ends = [] if state is None or here is None else _ends(state, policy, here[1])
    proposals = scope.proposals.values()
    return CellStatus(
        site=cell.site,
        window=cell.window,
        stage=SHADOW if here is None else policy.rungs[here[1]],
        version=holder or "",
        until=min(ends, default=None),
        ceiling=policy.rungs[policy.ceiling(cell, at)],
        withheld=_withheld(stood, cell, state),
        suspended_by=() if state is None else tuple(sorted(state.suspended_by)),
        stops=tuple(s.id for s in scope.stops.values() if cell in s.cells),
        proposals=tuple(p.id for p in proposals if p.cell == cell),
        next_step=_next(evidence, holder),
    )


def _ends(state: CellState, policy: Policy, rung: int) -> list[datetime]:
    """Return the ends of the grants that the stage stands on: with the first of them it falls."""
    return [grant.until for grant in state.grants if policy.rungs.index(grant.stage) <= rung]


def _withheld(stood: Standing, cell: Cell, state: CellState | None) -> str:
    if stood.scope.stopped(cell):
        return STOPPED
    return SUSPENDED if state is not None and state.suspended_by else ""


def _next(evidence: Sequence[EvidenceFacts], holder: str | None) -> str:
    """Say what comes next for whoever acts here; in shadow for the version seen last."""
    mine = [one for one in evidence if one.version == holder]
    if mine:
        return mine[0].decides_next
    return evidence[-1].decides_next if evidence else NOBODY_YET


def evidence_of(
    stood: Standing,
    events: tuple[Event, ...],
    sights: Mapping[Key, Sight],
    cells: Iterable[Cell],
    at: datetime,
) -> Mapping[Cell, tuple[EvidenceFacts, ...]]:
    """Return the evidence of some cells, version by version in the order in which they were seen.

    How it went is left out: it costs more than all the rest.

    Args:
        stood: how the rollout stands.
        events: the whole ledger up to there.
        sights: what was counted in the cells.
        cells: those asked about.
        at: the instant up to which it is counted.
    """
    inputs = _inputs(stood, events, sights, at)
    went = {key: (_stands(key, stood, inputs.last),) for key in inputs.sights}
    found = _facts(inputs, went, dict.fromkeys(went, ()))
    return {
        cell: tuple(f for f in found if (f.site, f.window) == (cell.site, cell.window))
        for cell in cells
    }


def _facts(
    inputs: Inputs, went: Mapping[Key, tuple[Leg, ...]], paths: Mapping[Key, tuple[Path, ...]]
) -> tuple[EvidenceFacts, ...]:
    seen = {version: number for number, version in enumerate(_versions(inputs.sights))}
    return tuple(sorted(evidence_facts(inputs, went, paths), key=lambda f: seen[f.version]))


def _stands(key: Key, stood: Standing, at: datetime) -> Leg:
    """Return where a version stands in a cell, as the last leg of its course."""
    (cell, version), scope, policy = key, stood.scope, stood.policy
    state, holder = scope.state(cell, version), scope.holder(cell)
    other = None if holder in (None, version) else scope.state(cell, str(holder))
    ahead = 0 if other is None else held_rung(policy, other, at)
    return Leg(state.changed_at, at, state, held_rung(policy, state, at), ahead)


def _versions(keys: Iterable[Key]) -> list[str]:
    """Return the versions in the order in which they were seen."""
    return list(dict.fromkeys(version for _, version in keys))


def _inputs(
    stood: Standing, events: tuple[Event, ...], sights: Mapping[Key, Sight], at: datetime
) -> Inputs:
    """Return what facts about evidence follow from; records themselves play no part in them."""
    none = pl.DataFrame()
    return Inputs(
        policy=stood.policy,
        events=events,
        timelines={},
        sights={k: s for k, s in sights.items() if not stood.scope.versions[k[1]].retired},
        units=none,
        records=Records(none, none, none, none, none, none, {}),
        cases=none,
        left_out={},
        first=events[0].at,
        last=max(at.astimezone(UTC), events[-1].at),
        salt=b"",
        simulated=False,
    )


def _guards(stood: Standing, cell: Cell) -> tuple[GuardStatus, ...]:
    holder = stood.scope.holder(cell)
    state = None if holder is None else stood.scope.state(cell, holder)
    return tuple(
        GuardStatus(
            guard=guard.id,
            text=_line(guard),
            action=guard.then,
            suspends=state is not None and guard.id in state.suspended_by,
            reported=state is not None and guard.id in state.reported,
            last_alarm=None if state is None else state.alarms.get(guard.id),
        )
        for guard in stood.policy.guards_of(cell)
    )


def _line(guard: Guard) -> str:
    over = "" if guard.over is None else f" over {duration_text(guard.over)}"
    return f"{guard.condition}{over}"
