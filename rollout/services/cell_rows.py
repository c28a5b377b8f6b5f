"""Cells for whoever reads a rollout's page: some at a time, with evidence, now or once."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

import numpy as np

from rollout.core.events import (
    Approved,
    Event,
    GrantExpired,
    Narrowed,
    Stopped,
    Suspended,
    TakenOver,
    Widened,
)
from rollout.core.gates import read_gate
from rollout.core.measures import Condition
from rollout.core.places import Cell
from rollout.core.policy import Policy
from rollout.core.rights import Act, Caller, require
from rollout.core.scope import Scope, held_rung
from rollout.reports.bounds import bounds_of, estimates_of
from rollout.reports.evidence_facts import EvidenceFacts
from rollout.services.cells import CellStatus, cell_now, evidence_of
from rollout.services.service import Service
from rollout.services.sights import events_of, sights_of
from rollout.services.standing import Standing, kept_policy
from rollout.store.ledger import Ledger
from rollout.store.policies import Policies
from rollout.tally.sight import Sight
from rollout.tally.slots import instant, slot_before

LATELY: Final = timedelta(days=7)
"""How long a narrowing, and a grant that ran out, are told beside the cell."""


@dataclass(frozen=True, slots=True)
class HeldLine:
    """A condition of the gate that a cell has passed, on all evidence of the attempt so far.

    `bound` holds at every look; None where there is none, as of parity.
    """

    condition: Condition
    n: int
    counts: tuple[int, ...]
    estimate: float | None
    bound: float | None


@dataclass(frozen=True, slots=True)
class CellRow:
    """A cell in a list.

    Attributes:
        cell, now: which, and what is allowed there.
        evidence: of each version that is served, in the order in which they were seen.
        held: at its highest stage, the lines that it has passed.
        last_case: when the newest case of which evidence was counted occurred, None without any.
    """

    cell: Cell
    now: CellStatus
    evidence: tuple[EvidenceFacts, ...]
    held: tuple[HeldLine, ...] = ()
    last_case: datetime | None = None


@dataclass(frozen=True, slots=True)
class Lately:
    """What happened to cells within the last seven days, the newest of each; and why they stopped.

    Attributes:
        narrowed, lapsed, suspended: by cell. What was widened again since is no narrowing.
        reasons: what was said of each stop that holds, by its id.
        approvers: who said yes to each proposal.
    """

    narrowed: Mapping[Cell, Narrowed] = field(default_factory=dict)
    lapsed: Mapping[Cell, GrantExpired] = field(default_factory=dict)
    suspended: Mapping[Cell, Suspended] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    approvers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Cells:
    """Some cells of a rollout.

    Attributes:
        stood: how the rollout stands, or stood then.
        at: the instant that they are shown at.
        past: whether that is over.
        cells: every cell that the reader may read, in the policy's order.
        rows: those that are shown, from place `first` on.
        first, after: where they begin, and where the next page does; None at the end.
        lately: what happened to them.
        counted: whether evidence of then can be shown: under another policy other things counted.
    """

    stood: Standing
    at: datetime
    past: bool
    cells: tuple[Cell, ...]
    rows: tuple[CellRow, ...]
    first: int
    after: int | None
    lately: Lately
    counted: bool

    @property
    def sites(self) -> tuple[str, ...]:
        """Return the sites of the cells, each once."""
        return tuple(dict.fromkeys(cell.site for cell in self.cells))


def cell_rows(
    service: Service,
    caller: Caller,
    name: str,
    *,
    at: datetime,
    when: datetime | None = None,
    first: int = 0,
    limit: int = 25,
) -> Cells | None:
    """Return some cells of the sites that the caller may read.

    Args:
        service: the replica that is asked.
        caller: who asks.
        name: of the rollout.
        at: now.
        when: an instant of the past to show instead; None for now.
        first: the place of the first cell that is shown.
        limit: how many at most.

    Returns:
        None where the rollout had no policy yet at that instant.

    Raises:
        NotAllowed: the caller may read none.
    """
    require(caller, Act.READ, name)
    now = service.watch.confirmed(name).standing
    past = when is not None and when < at
    stood = _stood_at(service, now, when) if past and when is not None else now
    if stood is None:
        return None
    shown = when if past and when is not None else at
    mine = tuple(c for c in stood.policy.cells if caller.may(Act.READ, name, c.site))
    some = mine[first : first + limit]
    events = events_of(service.database, now)[: stood.scope.revision]
    counted = stood.policy.hash == now.policy.hash
    sights = _sights(service, now, stood, some) if counted else {}
    return Cells(
        stood=stood,
        at=shown,
        past=past,
        cells=mine,
        rows=tuple(_rows(stood, events, sights, some, shown)),
        first=first,
        after=first + limit if first + limit < len(mine) else None,
        lately=lately_of(events, stood.scope, shown),
        counted=counted,
    )


def cells_with(service: Service, caller: Caller, name: str, cell: Cell, *, at: datetime) -> Cells:
    """Return one cell of the policy, as a list of it alone.

    Raises:
        NotAllowed: the caller may not read its site.
    """
    require(caller, Act.READ, name, (cell.site,))
    stood = service.watch.confirmed(name).standing
    events = events_of(service.database, stood)
    sights = sights_of(service.database, stood, (cell,))
    return Cells(
        stood=stood,
        at=at,
        past=False,
        cells=(cell,),
        rows=tuple(_rows(stood, events, sights, (cell,), at)),
        first=0,
        after=None,
        lately=lately_of(events, stood.scope, at),
        counted=True,
    )


def _stood_at(service: Service, now: Standing, when: datetime) -> Standing | None:
    """Return how a rollout stood once, None before its first policy."""
    with service.database.reading() as transaction:
        scope = Ledger(transaction, now.rollout).scope_at(when)
        text = Policies(transaction, now.rollout).texts({scope.policy_hash}).get(scope.policy_hash)
    if text is None:
        return None
    policy = kept_policy(text)
    return replace(now, scope=scope, policy=policy, pending={})


def _sights(
    service: Service, now: Standing, stood: Standing, cells: Sequence[Cell]
) -> dict[tuple[Cell, str], Sight]:
    """Return what was counted, as the versions that were known by then stood."""
    known = stood.scope.versions
    return {
        (cell, version): sight
        if stood is now
        else replace(sight, state=stood.scope.state(cell, version))
        for (cell, version), sight in sights_of(service.database, now, cells).items()
        if version in known
    }


def _rows(
    stood: Standing,
    events: tuple[Event, ...],
    sights: Mapping[tuple[Cell, str], Sight],
    cells: Sequence[Cell],
    at: datetime,
) -> Iterable[CellRow]:
    evidence = evidence_of(stood, events, sights, cells, at)
    for cell in cells:
        own = [sight for (of, _), sight in sights.items() if of == cell]
        yield CellRow(
            cell=cell,
            now=cell_now(stood, cell, evidence[cell], at),
            evidence=evidence[cell],
            held=_held(stood, sights, cell, evidence[cell], at),
            last_case=_last_case(own, stood.policy, at),
        )


def _held(
    stood: Standing,
    sights: Mapping[tuple[Cell, str], Sight],
    cell: Cell,
    evidence: Sequence[EvidenceFacts],
    at: datetime,
) -> tuple[HeldLine, ...]:
    """Return the lines of the gate behind whoever acts, where none lies ahead."""
    holder, policy = stood.scope.holder(cell), stood.policy
    if holder is None or any(e.version == holder and e.gate is not None for e in evidence):
        return ()
    sight = sights.get((cell, holder))
    rung = 0 if sight is None else held_rung(policy, sight.state, at)
    if sight is None or rung == 0 or policy.gate(rung, cell) is None:
        return ()
    slot = slot_before(at, policy.tick)
    attempt = sight.attempt.at(slot)
    reading = read_gate(policy, cell, rung, sight.state.attempt, attempt, attempt)
    return tuple(_line(r.condition, r.counts, r.risk, policy) for r in reading.readings)


def _line(condition: Condition, counts: tuple[int, ...], risk: float, policy: Policy) -> HeldLine:
    row, n = np.array([counts], dtype=np.int64), sum(counts)
    bound = bounds_of(condition, row, risk, policy) if n else None
    estimate = float(estimates_of(condition, row, policy)[0]) if n else None
    return HeldLine(condition, n, counts, estimate, None if bound is None else float(bound[0]))


def _last_case(sights: Sequence[Sight], policy: Policy, at: datetime) -> datetime | None:
    slot = slot_before(at, policy.tick)
    last = [
        int(rows.occurred[known].max())
        for rows in (sight.rows.gate for sight in sights)
        if (known := rows.slot <= slot).any()
    ]
    return instant(max(last), policy.tick) if last else None


def lately_of(events: Sequence[Event], scope: Scope, at: datetime) -> Lately:
    """Return what happened to cells within the last seven days before an instant."""
    narrowed: dict[Cell, Narrowed] = {}
    lapsed: dict[Cell, GrantExpired] = {}
    suspended: dict[Cell, Suspended] = {}
    approvers: dict[str, tuple[str, ...]] = {}
    for event in events:
        match event:
            case Approved():
                approvers[event.proposal] = (*approvers.get(event.proposal, ()), event.by)
            case Widened() | TakenOver():
                narrowed.pop(event.cell, None)
                lapsed.pop(event.cell, None)
            case Narrowed():
                narrowed[event.cell] = event
            case GrantExpired():
                lapsed[event.cell] = event
            case Suspended():
                suspended[event.cell] = event
    since = at - LATELY
    return Lately(
        {cell: e for cell, e in narrowed.items() if e.at > since},
        {cell: e for cell, e in lapsed.items() if e.until > since},
        suspended,
        {e.stop: e.reason for e in events if isinstance(e, Stopped) and e.stop in scope.stops},
        approvers,
    )
