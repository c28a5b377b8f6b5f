"""Pages of cells with evidence, agreement on numbers, and the attribute values that versions met.

A page is of now or of an earlier time.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, TypeVar
from zoneinfo import ZoneInfo

import polars as pl

from rollout.data.counting.closed_units import PeriodRecords
from rollout.data.database.rollouts import PolicyTexts
from rollout.data.database.session import Transaction
from rollout.data.ledger.ledger import Ledger
from rollout.data.records.history import StoredHistory
from rollout.data.records.incoming_cases import SiteSignStore
from rollout.engine.decide.permissions import Caller, Permission
from rollout.engine.decide.scope import Scope, compute_held_level
from rollout.engine.events import (
    Approved,
    CellEvent,
    GrantExpired,
    LedgerEvent,
    Narrowed,
    Stopped,
    Suspended,
    select_events,
)
from rollout.engine.evidence.case_placement import place_cases
from rollout.engine.evidence.evidence_view import EvidenceView
from rollout.engine.evidence.gate_series import (
    NO_READING,
    UnfamiliarUnits,
    ValueCounts,
    ValueSeries,
    count_unfamiliar_units,
    count_values,
)
from rollout.features.cells.cells import (
    CellStatus,
    batch_evidence,
    build_cell_evidence,
    build_cell_status,
)
from rollout.features.reports.figures.agreement import NumberAgreement, compute_number_agreements
from rollout.features.reports.figures.evidence_facts import EvidenceFacts
from rollout.features.reports.inputs.pairs import build_pairs
from rollout.kernel.calendar.instants import LAST_SLOT, Cell, find_slot_before, to_instant
from rollout.kernel.policy.familiarity import AttributeValue, ValueReading
from rollout.kernel.policy.gates import read_gate
from rollout.kernel.policy.policy import Policy
from rollout.kernel.statistics.evidence import ConditionEvidence, build_condition_evidence
from rollout.live.evidence.evidence_reader import load_events, load_evidence_views
from rollout.live.rollout_state import RolloutState, parse_stored_policy
from rollout.live.service import Service

RECENT_PERIOD: Final = timedelta(days=7)
"""How long narrowings and expired grants are shown."""


@dataclass(frozen=True, slots=True)
class CellSummary:
    """A cell in a list.

    Attributes:
        evidence: one entry per version, in order of first use.
        passed_thresholds: for cells at their highest stage; else empty.
        last_case: time of the newest counted case, None without cases.
    """

    cell: Cell
    status: CellStatus
    evidence: tuple[EvidenceFacts, ...]
    passed_thresholds: tuple[ConditionEvidence, ...] = ()
    last_case: datetime | None = None


CellEventT = TypeVar("CellEventT", bound=CellEvent)


@dataclass(frozen=True, slots=True)
class RecentChanges:
    """The newest changes of each cell within seven days, and stop reasons.

    Attributes:
        narrowed_cells: without cells that were widened again since.
        stop_reasons: reason of each active stop, by id.
        approvers: user names by proposal.
    """

    narrowed_cells: Mapping[Cell, Narrowed] = field(default_factory=dict)
    expired_cells: Mapping[Cell, GrantExpired] = field(default_factory=dict)
    suspended_cells: Mapping[Cell, Suspended] = field(default_factory=dict)
    stop_reasons: Mapping[str, str] = field(default_factory=dict)
    approvers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CellListPage:
    """A page of cells of a rollout.

    Attributes:
        state: the rollout state at `at`.
        is_past: whether `at` lies in the past.
        cells: all cells that the caller may read, in policy order.
        rows: the cells of this page, from `first_index` on.
        next_index: start of the next page; None on the last page.
        has_evidence: False if another policy was in force, which counted differently.
    """

    state: RolloutState
    at: datetime
    is_past: bool
    cells: tuple[Cell, ...]
    rows: tuple[CellSummary, ...]
    first_index: int
    next_index: int | None
    recent_changes: RecentChanges
    has_evidence: bool

    @property
    def sites(self) -> tuple[str, ...]:
        """Return the sites of the cells, each once."""
        return tuple(dict.fromkeys(cell.site for cell in self.cells))


def load_cell_page(
    service: Service,
    caller: Caller,
    rollout_name: str,
    *,
    at: datetime,
    past_at: datetime | None = None,
    first_index: int = 0,
    limit: int = 25,
) -> CellListPage | None:
    """Return a page of cells of the sites the caller may read.

    Args:
        past_at: an earlier time to show; None for now.

    Returns:
        None if the rollout had no policy at that time.

    Raises:
        NotAllowedError: the caller may not read any site.
    """
    current_state = service.load_permitted_state(caller, Permission.READ, rollout_name)
    is_past = past_at is not None and past_at < at
    state = (
        _load_state_at(service, current_state, past_at)
        if is_past and past_at is not None
        else current_state
    )
    if state is None:
        return None
    shown_at = past_at if is_past and past_at is not None else at
    readable_cells = tuple(
        cell
        for cell in state.policy.cells
        if caller.has_permission(Permission.READ, rollout_name, cell.site)
    )
    page = readable_cells[first_index : first_index + limit]
    events = load_events(service.database, current_state)[: state.scope.revision]
    has_evidence = state.policy.hash == current_state.policy.hash
    evidence_views = (
        _load_evidence_views(service, current_state, state, page) if has_evidence else {}
    )
    return CellListPage(
        state=state,
        at=shown_at,
        is_past=is_past,
        cells=readable_cells,
        rows=tuple(_build_cell_summaries(state, caller, events, evidence_views, page, shown_at)),
        first_index=first_index,
        next_index=first_index + limit if first_index + limit < len(readable_cells) else None,
        recent_changes=find_recent_changes(events, state.scope, shown_at),
        has_evidence=has_evidence,
    )


def load_single_cell_page(
    service: Service, caller: Caller, rollout_name: str, cell: Cell, *, at: datetime
) -> CellListPage:
    """Return a page with one cell.

    Raises:
        NotAllowedError: the caller may not read its site.
    """
    state = service.load_permitted_state(caller, Permission.READ, rollout_name, (cell.site,))
    events = load_events(service.database, state)
    evidence_views = load_evidence_views(service.database, state, (cell,))
    return CellListPage(
        state=state,
        at=at,
        is_past=False,
        cells=(cell,),
        rows=tuple(_build_cell_summaries(state, caller, events, evidence_views, (cell,), at)),
        first_index=0,
        next_index=None,
        recent_changes=find_recent_changes(events, state.scope, at),
        has_evidence=True,
    )


def _load_state_at(
    service: Service, current_state: RolloutState, past_at: datetime
) -> RolloutState | None:
    """Return the rollout state at an earlier time, None before the first policy."""
    with service.database.begin_read() as transaction:
        scope = Ledger(transaction, current_state.rollout).load_scope_at(past_at)
        text = (
            PolicyTexts(transaction, current_state.rollout)
            .load_texts({scope.policy_hash})
            .get(scope.policy_hash)
        )
    if text is None:
        return None
    return replace(current_state, scope=scope, policy=parse_stored_policy(text), pending={})


def _load_evidence_views(
    service: Service, current_state: RolloutState, state: RolloutState, cells: Sequence[Cell]
) -> dict[tuple[Cell, str], EvidenceView]:
    """Return the evidence of the versions in `state`, with their cell states."""
    known_versions = state.scope.versions
    return {
        (cell, version): evidence_view
        if state is current_state
        else replace(evidence_view, state=state.scope.get_cell_state(cell, version))
        for (cell, version), evidence_view in load_evidence_views(
            service.database, current_state, cells
        ).items()
        if version in known_versions
    }


def _build_cell_summaries(
    state: RolloutState,
    caller: Caller,
    events: tuple[LedgerEvent, ...],
    counted_views: Mapping[tuple[Cell, str], EvidenceView],
    cells: Sequence[Cell],
    at: datetime,
) -> Iterable[CellSummary]:
    evidence_views = batch_evidence(counted_views, caller, state.rollout.name)
    evidence = build_cell_evidence(state, events, evidence_views, cells, at)
    for cell in cells:
        cell_views = [
            evidence_view
            for (view_cell, _), evidence_view in counted_views.items()
            if view_cell == cell
        ]
        yield CellSummary(
            cell=cell,
            status=build_cell_status(state, cell, evidence[cell], at),
            evidence=evidence[cell],
            passed_thresholds=_find_passed_thresholds(
                state, evidence_views, cell, evidence[cell], at
            ),
            last_case=_find_last_case(cell_views, state.policy, at),
        )


def _find_passed_thresholds(
    state: RolloutState,
    evidence_views: Mapping[tuple[Cell, str], EvidenceView],
    cell: Cell,
    evidence: Sequence[EvidenceFacts],
    at: datetime,
) -> tuple[ConditionEvidence, ...]:
    """Return the passed thresholds if the acting version has no further gate."""
    acting_version, policy = state.scope.get_holder(cell), state.policy
    if acting_version is None or any(
        facts.version == acting_version and facts.gate is not None for facts in evidence
    ):
        return ()
    evidence_view = evidence_views.get((cell, acting_version))
    stage_level = (
        0 if evidence_view is None else compute_held_level(policy, evidence_view.state, at)
    )
    if evidence_view is None or stage_level == 0 or policy.find_gate(stage_level, cell) is None:
        return ()
    attempt = evidence_view.attempt_window.count_at(find_slot_before(at, policy.tick))
    reading = read_gate(policy, cell, stage_level, evidence_view.state.risk_share, attempt, attempt)
    return tuple(build_condition_evidence(each, policy) for each in reading.readings)


def _find_last_case(
    evidence_views: Sequence[EvidenceView], policy: Policy, at: datetime
) -> datetime | None:
    slot = find_slot_before(at, policy.tick)
    last_slots = [
        int(rows.occurred[is_visible].max())
        for rows in (evidence_view.rows.gate for evidence_view in evidence_views)
        if (is_visible := rows.slot <= slot).any()
    ]
    return to_instant(max(last_slots), policy.tick) if last_slots else None


def find_recent_changes(events: Sequence[LedgerEvent], scope: Scope, at: datetime) -> RecentChanges:
    """Return the changes of cells within seven days before `at`."""
    opened = {e.opened_key[0]: place for place, e in enumerate(events) if e.opened_key}
    approvers: dict[str, tuple[str, ...]] = {}
    for approval in select_events(events, Approved):
        approvers[approval.proposal] = (*approvers.get(approval.proposal, ()), approval.by)
    later_events = [
        event
        for place, event in enumerate(events)
        if all(place > opened.get(cell, -1) for cell in event.list_cells())
    ]
    narrowings = select_events(later_events, Narrowed)
    expiries = select_events(later_events, GrantExpired)
    since = at - RECENT_PERIOD
    return RecentChanges(
        _select_newest((e for e in narrowings if not e.begins_attempt), lambda e: e.at > since),
        _select_newest(expiries, lambda e: e.until > since),
        {e.cell: e for e in select_events(events, Suspended)},
        {e.stop: e.cause_text for e in select_events(events, Stopped) if e.stop in scope.stops},
        approvers,
    )


def _select_newest(
    events: Iterable[CellEventT], is_recent: Callable[[CellEventT], bool]
) -> dict[Cell, CellEventT]:
    """Return the newest event of each cell, if it is recent."""
    newest = {event.cell: event for event in events}
    return {cell: event for cell, event in newest.items() if is_recent(event)}


NUMBER_DAYS: Final = 30
MAX_NUMBER_CASES: Final = 1_000
"""The newest cases of a site that a page reads."""


def load_number_agreements(
    service: Service, state: RolloutState, cell: Cell, at: datetime
) -> dict[str, tuple[NumberAgreement, ...]]:
    """Return by version how its numbers agree with those of humans in a cell.

    They cover the pairs of a report, of the newest cases of the last 30 days; cases that may still
    be decided blind are left out. Nothing without a lever of numbers.
    """
    if not any(lever.number for lever in state.policy.levers):
        return {}
    with service.database.begin_read() as transaction:
        case_ids = _find_cases(transaction, state, cell, at)
        if not case_ids:
            return {}
        history = StoredHistory(
            transaction,
            state.rollout,
            levers=[lever.id for lever in state.policy.levers],
            attributes=sorted({name for window in state.policy.windows for name in window.when}),
            first_names=state.first_names,
        )
        records = history.load_records(case_ids)
    cases = place_cases(records, state.policy, state.rollout.salt, state.trained_until).cases
    hours = records.cases.with_columns(hour_written=pl.lit(None, pl.Int8))
    pairs = build_pairs(replace(records, cases=hours), cases, state.policy)
    in_cell = (pl.col("site") == cell.site) & (pl.col("window") == cell.window)
    agreements = compute_number_agreements(
        replace(pairs, frame=pairs.frame.filter(in_cell)), state.policy
    )
    filled = [a for a in agreements if a.within.n and a.version is not None]
    return {
        version: tuple(agreement for agreement in filled if agreement.version == version)
        for version in dict.fromkeys(str(agreement.version) for agreement in filled)
    }


def _find_cases(
    transaction: Transaction, state: RolloutState, cell: Cell, at: datetime
) -> list[int]:
    """Return the newest cases of the site that nobody may still decide blind."""
    since = at - timedelta(days=NUMBER_DAYS)
    case_ids = SiteSignStore(transaction, state.rollout).find_site_cases(cell.site, since)
    case_ids -= PeriodRecords(transaction, state.rollout).list_blind_cases(at)
    return sorted(case_ids)[-MAX_NUMBER_CASES:]


UNFAMILIAR_DAYS: Final = 30
"""Days of the share of unfamiliar units, up to today."""


@dataclass(frozen=True, slots=True)
class CellValuesSummary:
    """The attribute values that a version met in a cell.

    Attributes:
        recent: units of the last 30 days.
        values: of all units, most met first. Mistakes are of units that nobody may still review.
    """

    version: str
    recent: UnfamiliarUnits
    values: tuple[ValueCounts, ...]


def load_cell_values(
    service: Service, state: RolloutState, cell: Cell, at: datetime
) -> dict[str, CellValuesSummary]:
    """Return by version what it met in a cell; nothing if the policy doesn't ask for values.

    Retired versions and those without units have none.
    """
    if state.policy.evidence.familiar is None or cell not in state.policy.cell_set:
        return {}
    zone = ZoneInfo(state.policy.sites_by_id[cell.site].timezone)
    first_day = (at.astimezone(zone) - timedelta(days=UNFAMILIAR_DAYS - 1)).date().toordinal()
    closed_slot = find_slot_before(at - state.policy.evidence.grace, state.policy.tick)
    return {
        version: _summarize_view(view, first_day, closed_slot)
        for (_, version), view in load_evidence_views(service.database, state, (cell,)).items()
        if len(view.rows.gate) and not state.scope.versions[version].retired
    }


def read_closed_values(series: ValueSeries, slot: int) -> dict[AttributeValue, ValueReading]:
    """Return the newest status of each value, with counts of units judged by a slot.

    A second blind review of a unit judged since may be open: a count of one unit would tell how the
    model answered, and its reader may become a reviewer.
    """
    closed = series.read_at(slot)
    return {
        value: replace(closed.get(value, NO_READING), status=reading.status)
        for value, reading in series.read_at(LAST_SLOT).items()
    }


def _summarize_view(view: EvidenceView, first_day: int, closed_slot: int) -> CellValuesSummary:
    rule, series = view.policy.evidence.familiar, view.value_series
    assert rule is not None and series is not None  # noqa: S101, PT018 - asked before
    unit_classes, history = view.unit_classes, view.familiar_history
    rows = view.rows.gate.select(unit_classes.is_whole_unit[view.rows.gate.unit_class])
    recent = rows.select(rows.day >= first_day)
    stage_levels = view.stage_history.find_own_levels(view.version, rows.occurred)
    readings = read_closed_values(series, closed_slot)
    return CellValuesSummary(
        view.version,
        count_unfamiliar_units(recent, unit_classes, history),
        count_values(rows, stage_levels, unit_classes, history, readings, rule),
    )
