"""Cells for whoever reads a rollout's page: some at a time, with evidence, now or once."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

import numpy as np

from rollout.core.calendar.sites import Cell
from rollout.core.policy.gates import read_gate
from rollout.core.policy.measures import Condition
from rollout.core.policy.policy import Policy
from rollout.core.scope.events import (
    Approved,
    Event,
    GrantExpired,
    Narrowed,
    Stopped,
    Suspended,
    TakenOver,
    Widened,
)
from rollout.core.scope.permissions import Act, Caller, require
from rollout.core.scope.scope import Scope, held_rung
from rollout.reports.figures.evidence_facts import EvidenceFacts
from rollout.reports.statistics.bounds import bounds_of, estimates_of
from rollout.services.cells.cells import CellStatus, cell_now, evidence_of
from rollout.services.engine.evidence_reader import events_of, sights_of
from rollout.services.engine.rollout_state import Standing, kept_policy
from rollout.services.engine.service import Service
from rollout.store.ledger.ledger import Ledger
from rollout.store.ledger.policies import Policies
from rollout.tally.evidence_view import Sight
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
    current_state = service.watch.confirmed(name).standing
    is_past = when is not None and when < at
    state = (
        _stood_at(service, current_state, when) if is_past and when is not None else current_state
    )
    if state is None:
        return None
    shown_at = when if is_past and when is not None else at
    readable_cells = tuple(
        cell for cell in state.policy.cells if caller.may(Act.READ, name, cell.site)
    )
    page = readable_cells[first : first + limit]
    events = events_of(service.database, current_state)[: state.scope.revision]
    has_evidence = state.policy.hash == current_state.policy.hash
    evidence_views = _sights(service, current_state, state, page) if has_evidence else {}
    return Cells(
        stood=state,
        at=shown_at,
        past=is_past,
        cells=readable_cells,
        rows=tuple(_rows(state, events, evidence_views, page, shown_at)),
        first=first,
        after=first + limit if first + limit < len(readable_cells) else None,
        lately=lately_of(events, state.scope, shown_at),
        counted=has_evidence,
    )


def cells_with(service: Service, caller: Caller, name: str, cell: Cell, *, at: datetime) -> Cells:
    """Return one cell of the policy, as a list of it alone.

    Raises:
        NotAllowed: the caller may not read its site.
    """
    require(caller, Act.READ, name, (cell.site,))
    state = service.watch.confirmed(name).standing
    events = events_of(service.database, state)
    evidence_views = sights_of(service.database, state, (cell,))
    return Cells(
        stood=state,
        at=at,
        past=False,
        cells=(cell,),
        rows=tuple(_rows(state, events, evidence_views, (cell,), at)),
        first=0,
        after=None,
        lately=lately_of(events, state.scope, at),
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
    known_versions = stood.scope.versions
    return {
        (cell, version): evidence_view
        if stood is now
        else replace(evidence_view, state=stood.scope.state(cell, version))
        for (cell, version), evidence_view in sights_of(service.database, now, cells).items()
        if version in known_versions
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
        cell_views = [
            evidence_view for (view_cell, _), evidence_view in sights.items() if view_cell == cell
        ]
        yield CellRow(
            cell=cell,
            now=cell_now(stood, cell, evidence[cell], at),
            evidence=evidence[cell],
            held=_held(stood, sights, cell, evidence[cell], at),
            last_case=_last_case(cell_views, stood.policy, at),
        )


def _held(
    stood: Standing,
    sights: Mapping[tuple[Cell, str], Sight],
    cell: Cell,
    evidence: Sequence[EvidenceFacts],
    at: datetime,
) -> tuple[HeldLine, ...]:
    """Return the lines of the gate behind whoever acts, where none lies ahead."""
    acting_version, policy = stood.scope.holder(cell), stood.policy
    if acting_version is None or any(
        facts.version == acting_version and facts.gate is not None for facts in evidence
    ):
        return ()
    evidence_view = sights.get((cell, acting_version))
    stage_level = 0 if evidence_view is None else held_rung(policy, evidence_view.state, at)
    if evidence_view is None or stage_level == 0 or policy.gate(stage_level, cell) is None:
        return ()
    slot = slot_before(at, policy.tick)
    attempt = evidence_view.attempt.at(slot)
    reading = read_gate(policy, cell, stage_level, evidence_view.state.attempt, attempt, attempt)
    return tuple(_line(r.condition, r.counts, r.risk, policy) for r in reading.readings)


def _line(condition: Condition, counts: tuple[int, ...], risk: float, policy: Policy) -> HeldLine:
    row, count = np.array([counts], dtype=np.int64), sum(counts)
    bound = bounds_of(condition, row, risk, policy) if count else None
    estimate = float(estimates_of(condition, row, policy)[0]) if count else None
    return HeldLine(condition, count, counts, estimate, None if bound is None else float(bound[0]))


def _last_case(sights: Sequence[Sight], policy: Policy, at: datetime) -> datetime | None:
    slot = slot_before(at, policy.tick)
    last_slots = [
        int(rows.occurred[is_visible].max())
        for rows in (evidence_view.rows.gate for evidence_view in sights)
        if (is_visible := rows.slot <= slot).any()
    ]
    return instant(max(last_slots), policy.tick) if last_slots else None


def lately_of(events: Sequence[Event], scope: Scope, at: datetime) -> Lately:
    """Return what happened to cells within the last seven days before an instant."""
    narrowed_cells: dict[Cell, Narrowed] = {}
    expired_cells: dict[Cell, GrantExpired] = {}
    suspended_cells: dict[Cell, Suspended] = {}
    approvers: dict[str, tuple[str, ...]] = {}
    for event in events:
        match event:
            case Approved():
                approvers[event.proposal] = (*approvers.get(event.proposal, ()), event.by)
            case Widened() | TakenOver():
                narrowed_cells.pop(event.cell, None)
                expired_cells.pop(event.cell, None)
            case Narrowed():
                narrowed_cells[event.cell] = event
            case GrantExpired():
                expired_cells[event.cell] = event
            case Suspended():
                suspended_cells[event.cell] = event
    since = at - LATELY
    return Lately(
        {cell: e for cell, e in narrowed_cells.items() if e.at > since},
        {cell: e for cell, e in expired_cells.items() if e.until > since},
        suspended_cells,
        {e.stop: e.reason for e in events if isinstance(e, Stopped) and e.stop in scope.stops},
        approvers,
    )
