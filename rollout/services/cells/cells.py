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
    cached_rollout = service.watch.confirmed(name)
    state = cached_rollout.standing
    readable_cells = [cell for cell in state.policy.cells if caller.may(Act.READ, name, cell.site)]
    page = readable_cells[after : after + limit]
    evidence_views = sights_of(service.database, state, page)
    evidence = evidence_of(state, events_of(service.database, state), evidence_views, page, at)
    items = tuple(cell_now(state, cell, evidence[cell], at) for cell in page)
    next_index = after + limit if after + limit < len(readable_cells) else None
    head = cached_rollout.head
    return CellPage(name, head.revision, head.hash, state.scope.policy_number, items, next_index)


def cell_of(service: Service, caller: Caller, name: str, cell: Cell, *, at: datetime) -> CellDetail:
    """Return one cell with its evidence and history.

    Raises:
        NotAllowed: the caller may not read the site.
        UnknownCell: the policy has no such cell.
    """
    require(caller, Act.READ, name)
    require(caller, Act.READ, name, (cell.site,))
    state = service.watch.confirmed(name).standing
    if cell not in state.policy.known:
        readable_cells = (str(c) for c in state.policy.cells if caller.may(Act.READ, name, c.site))
        raise UnknownCell(f"the policy has no {cell}; cells: {', '.join(readable_cells)}")
    evidence_views = sights_of(service.database, state, (cell,))
    inputs = _inputs(state, events_of(service.database, state), evidence_views, at)
    state_periods = courses(inputs)
    paths = {key: paths_of(key, periods, inputs) for key, periods in state_periods.items()}
    evidence = _facts(inputs, state_periods, paths)
    event_descriptions = happenings(inputs)
    return CellDetail(
        status=cell_now(state, cell, evidence, at),
        evidence=evidence,
        guards=_guards(state, cell),
        history=tuple(
            event_description
            for event_description in event_descriptions
            if (event_description.site, event_description.window) == (cell.site, cell.window)
        ),
    )


def cell_now(
    stood: Standing, cell: Cell, evidence: Sequence[EvidenceFacts], at: datetime
) -> CellStatus:
    """Return what is allowed in a cell, with the evidence that says what comes next."""
    scope, policy = stood.scope, stood.policy
    at = at if scope.at is None else max(at, scope.at)
    acting_version, acting_grant = scope.holder(cell), acting(scope, policy, cell, at)
    grant_state = None if acting_version is None else scope.state(cell, acting_version)
    grant_ends = (
        []
        if grant_state is None or acting_grant is None
        else _ends(grant_state, policy, acting_grant[1])
    )
    proposals = scope.proposals.values()
    return CellStatus(
        site=cell.site,
        window=cell.window,
        stage=SHADOW if acting_grant is None else policy.rungs[acting_grant[1]],
        version=acting_version or "",
        until=min(grant_ends, default=None),
        ceiling=policy.rungs[policy.ceiling(cell, at)],
        withheld=_withheld(stood, cell, grant_state),
        suspended_by=() if grant_state is None else tuple(sorted(grant_state.suspended_by)),
        stops=tuple(stop.id for stop in scope.stops.values() if cell in stop.cells),
        proposals=tuple(proposal.id for proposal in proposals if proposal.cell == cell),
        next_step=_next(evidence, acting_version),
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
    acting_evidence = [facts for facts in evidence if facts.version == holder]
    if acting_evidence:
        return acting_evidence[0].decides_next
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
    state_periods = {key: (_stands(key, stood, inputs.last),) for key in inputs.sights}
    all_facts = _facts(inputs, state_periods, dict.fromkeys(state_periods, ()))
    return {
        cell: tuple(
            facts for facts in all_facts if (facts.site, facts.window) == (cell.site, cell.window)
        )
        for cell in cells
    }


def _facts(
    inputs: Inputs, went: Mapping[Key, tuple[Leg, ...]], paths: Mapping[Key, tuple[Path, ...]]
) -> tuple[EvidenceFacts, ...]:
    version_order = {version: number for number, version in enumerate(_versions(inputs.sights))}
    return tuple(
        sorted(evidence_facts(inputs, went, paths), key=lambda facts: version_order[facts.version])
    )


def _stands(key: Key, stood: Standing, at: datetime) -> Leg:
    """Return where a version stands in a cell, as the last leg of its course."""
    (cell, version), scope, policy = key, stood.scope, stood.policy
    grant_state, acting_version = scope.state(cell, version), scope.holder(cell)
    acting_state = (
        None if acting_version in (None, version) else scope.state(cell, str(acting_version))
    )
    acting_level = 0 if acting_state is None else held_rung(policy, acting_state, at)
    return Leg(
        grant_state.changed_at, at, grant_state, held_rung(policy, grant_state, at), acting_level
    )


def _versions(keys: Iterable[Key]) -> list[str]:
    """Return the versions in the order in which they were seen."""
    return list(dict.fromkeys(version for _, version in keys))


def _inputs(
    stood: Standing, events: tuple[Event, ...], sights: Mapping[Key, Sight], at: datetime
) -> Inputs:
    """Return what facts about evidence follow from; records themselves play no part in them."""
    empty_frame = pl.DataFrame()
    return Inputs(
        policy=stood.policy,
        events=events,
        timelines={},
        sights={
            key: evidence_view
            for key, evidence_view in sights.items()
            if not stood.scope.versions[key[1]].retired
        },
        units=empty_frame,
        records=Records(
            empty_frame, empty_frame, empty_frame, empty_frame, empty_frame, empty_frame, {}
        ),
        cases=empty_frame,
        left_out={},
        first=events[0].at,
        last=max(at.astimezone(UTC), events[-1].at),
        salt=b"",
        simulated=False,
    )


def _guards(stood: Standing, cell: Cell) -> tuple[GuardStatus, ...]:
    acting_version = stood.scope.holder(cell)
    grant_state = None if acting_version is None else stood.scope.state(cell, acting_version)
    return tuple(
        GuardStatus(
            guard=guard.id,
            text=_line(guard),
            action=guard.then,
            suspends=grant_state is not None and guard.id in grant_state.suspended_by,
            reported=grant_state is not None and guard.id in grant_state.reported,
            last_alarm=None if grant_state is None else grant_state.alarms.get(guard.id),
        )
        for guard in stood.policy.guards_of(cell)
    )


def _line(guard: Guard) -> str:
    period_text = "" if guard.over is None else f" over {duration_text(guard.over)}"
    return f"{guard.condition}{period_text}"
