"""Pages of a rollout and of one cell, now or in the past, with the rows of the cell table.

A row has stage, tag, evidence against thresholds, and sentences.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Request, Response
from markupsafe import Markup

from api.cells.cell_gates import CellDescription, describe_cell
from api.cells.map_rows import (
    StageSchedule,
    compute_schedules,
    describe_window_changes,
    has_hours_outside,
)
from api.cells.overview_pages import describe_traffic
from api.cells.rollout_text import (
    build_next_decision,
    describe_allowed,
    describe_versions,
    format_caption,
    lead_with_stops,
    list_limits,
)
from api.cells.value_table import (
    NumberTable,
    RequestedTime,
    build_history_entries,
    build_number_tables,
    build_value_tables,
    format_link_time,
    list_gate_slices,
    parse_requested_time,
)
from api.cells.week_map import OUTSIDE_MARKER, draw_week_map
from api.proposals.path_chart import build_path_charts
from api.web_kit.cell_view import (
    TimeFormatter,
    build_grant_rows,
    build_stage_markers,
    build_withheld_marker,
    describe_stop_latency,
    format_cell_value,
    load_timeline_view,
    parse_cell_address,
)
from api.web_kit.figures import draw_scale, format_bound, format_counts, name_measure
from api.web_kit.page import (
    add_full_stop,
    format_site_time,
    format_time_span,
    mark_code,
    render_page,
)
from api.web_kit.page_context import CurrentVisitor, Visitor, build_live_region
from api.web_kit.waiting import list_requestable_stops
from rollout.engine.decide.permissions import Permission, may_be_asked_blind, require_permission
from rollout.engine.decide.scope import Scope
from rollout.engine.evidence.evidence_view import BATCH_SIZE
from rollout.engine.evidence.late_senders import LateSenders, SilentSpell
from rollout.engine.words.evidence_text import describe_late_cases, describe_spell
from rollout.engine.words.formatting import (
    format_estimate,
    format_threshold,
)
from rollout.features.cells.cell_table import (
    CellListPage,
    CellSummary,
    load_cell_page,
    load_cell_values,
    load_number_agreements,
    load_single_cell_page,
)
from rollout.features.cells.cells import find_main_evidence, load_cell
from rollout.features.cells.overview import load_rollout_summary
from rollout.features.divergences.closed_units import load_action_changes
from rollout.features.ledger.activity import find_adjacent_changes, load_activity
from rollout.features.proposals.proposals import list_pending_approvals
from rollout.features.reports.figures.evidence_facts import EvidenceFacts
from rollout.features.reports.inputs.cell_facts import ConditionFacts
from rollout.features.reports.pages.timeline_layout import StageMarker
from rollout.features.stops.stops import load_stops
from rollout.kernel.calendar.instants import EPOCH, Cell
from rollout.kernel.measures import Condition
from rollout.kernel.statistics.evidence import ConditionEvidence
from rollout.live.rollout_state import RolloutState

AGREEMENT: Final = "agreement"
QUIET_KINDS: Final = frozenset({"", "mute", "good"})
"""Kinds of tags that warn of nothing."""


@dataclass(frozen=True, slots=True)
class MeasureReading:
    """A measure against its threshold.

    Attributes:
        name: the measure.
        estimate, bound, threshold: formatted; bound "" if there is none.
        counts: formatted counts.
        met: whether the threshold is met.
        drawing: chart, or "".
        is_empty: whether nothing was counted.
    """

    name: str
    estimate: str
    bound: str
    threshold: str
    counts: str
    met: bool
    drawing: Markup
    is_empty: bool


@dataclass(frozen=True, slots=True)
class CellTableRow:
    """A row of the cell table.

    Attributes:
        cell: the cell.
        mark: marker of the allowed stage.
        words: tag and sentences.
        version: version of the evidence, or "".
        measured: evidence against thresholds; the first one has a chart.
        until, time_left: end of its grant and the time until then; None and "" in shadow.
        withheld_until: end of its grant while that is withheld, else None.
        proposal: id of an open proposal, or "".
        value: its form value on the stop and narrow pages.
        zone: timezone of its site.
    """

    cell: Cell
    mark: StageMarker
    words: CellDescription
    version: str
    measured: tuple[MeasureReading, ...]
    until: datetime | None
    time_left: str
    withheld_until: datetime | None
    proposal: str
    value: str
    zone: str

    @property
    def is_quiet(self) -> bool:
        """Return whether it asks for no attention, so that a phone may fold it."""
        return self.words.kind in QUIET_KINDS and not self.proposal


def _find_withheld_end(summary: CellSummary, scope: Scope, at: datetime) -> datetime | None:
    """Return when the first withheld grant of a cell ends; None if none is withheld."""
    holder = scope.get_holder(summary.cell)
    if summary.status.until is not None or not summary.status.withheld or holder is None:
        return None
    grants = scope.get_cell_state(summary.cell, holder).grants
    return min((grant.until for grant in grants if grant.is_valid(at)), default=None)


@dataclass(frozen=True, slots=True)
class ChallengerComparison:
    """A challenger in a cell beside the acting version."""

    cell: Cell
    acting: str
    acting_reading: MeasureReading | None
    version: str
    challenger_reading: MeasureReading | None
    text: str


def build_cell_rows(
    cell_page: CellListPage,
    schedules: Mapping[Cell, StageSchedule],
    time_formatters: Mapping[str, TimeFormatter],
) -> tuple[CellTableRow, ...]:
    """Return the rows of a page of cells.

    Args:
        cell_page: the cells.
        schedules: stage markers by cell.
        time_formatters: time formatters by site.
    """
    return tuple(
        build_cell_row(cell_page, summary, schedules, time_formatters[summary.cell.site])
        for summary in cell_page.rows
    )


def build_cell_row(
    cell_page: CellListPage,
    summary: CellSummary,
    schedules: Mapping[Cell, StageSchedule],
    format_time: TimeFormatter,
) -> CellTableRow:
    """Return the row of one cell."""
    scope, policy = cell_page.state.scope, cell_page.state.policy
    evidence = find_main_evidence(summary.evidence, scope.get_holder(summary.cell))
    return CellTableRow(
        cell=summary.cell,
        mark=schedules[summary.cell].marker,
        words=describe_cell(
            policy, scope, summary, cell_page.recent_changes, cell_page.at, format_time
        ),
        version="" if evidence is None else evidence.version,
        measured=build_measure_readings(
            evidence, summary.passed_thresholds, policy.charter.cost_in
        ),
        until=summary.status.until,
        time_left=""
        if summary.status.until is None
        else format_time_span(summary.status.until - cell_page.at),
        withheld_until=_find_withheld_end(summary, scope, cell_page.at),
        proposal=summary.status.proposals[0] if summary.status.proposals else "",
        value=format_cell_value(summary.cell),
        zone=policy.sites_by_id[summary.cell.site].timezone,
    )


def build_measure_readings(
    evidence: EvidenceFacts | None, passed_thresholds: Sequence[ConditionEvidence], cost_in: str
) -> tuple[MeasureReading, ...]:
    """Return evidence against the next gate's thresholds, or the passed gate's at the top.

    If a measure has several thresholds, the strictest counts. Costs are in `cost_in`, per unit.
    """
    readings: list[tuple[Condition | ConditionFacts, MeasureReading]]
    if evidence is not None and evidence.gate is not None:
        readings = [
            (facts, _build_reading(facts.measure, facts.unit, facts, facts, is_met=facts.met))
            for facts in evidence.gate.conditions
        ]
    else:
        readings = [
            (passed.condition, _build_passed_reading(passed, cost_in))
            for passed in passed_thresholds
        ]
    strictest: dict[str, tuple[float, MeasureReading]] = {}
    for condition, reading in readings:
        strictness = condition.threshold if condition.at_least else -condition.threshold
        previous = strictest.get(reading.name)
        if previous is None or strictness > previous[0]:
            strictest[reading.name] = (strictness, reading)
    strictest_readings = (reading for _, reading in strictest.values())
    # agreement first, the measure of most gates
    return tuple(sorted(strictest_readings, key=lambda reading: reading.name != AGREEMENT))


def _build_passed_reading(passed: ConditionEvidence, cost_in: str) -> MeasureReading:
    condition, bound = passed.condition, passed.bound
    is_met = bound is not None and (bound >= condition.threshold) == condition.at_least
    unit = condition.find_unit(cost_in)
    return _build_reading(condition.measure.name, unit, condition, passed, is_met=is_met)


def _build_reading(
    measure: str,
    unit: str,
    condition: Condition | ConditionFacts,
    figures: ConditionEvidence | ConditionFacts,
    *,
    is_met: bool,
) -> MeasureReading:
    threshold, at_least, bound = condition.threshold, condition.at_least, figures.bound
    return MeasureReading(
        name=name_measure(condition.name, unit),
        estimate=format_estimate(measure, figures.estimate),
        bound="" if bound is None else format_bound(measure, bound, threshold, at_least=at_least),
        threshold=format_threshold(measure, threshold),
        counts=format_counts(measure, figures.counts),
        met=is_met,
        drawing=draw_scale(measure, threshold, figures.estimate, bound, at_least=at_least),
        is_empty=figures.estimate is None,
    )


def build_challenger_comparisons(cell_page: CellListPage) -> tuple[ChallengerComparison, ...]:
    """Return every challenger in the cells beside the acting version, or beside humans.

    Where humans act, a single version is compared with none.
    """
    state = cell_page.state
    return tuple(
        _build_challenger_comparison(summary, state, acting_id, challenger_evidence)
        for summary in cell_page.rows
        if (acting_id := state.scope.get_holder(summary.cell)) or len(summary.evidence) > 1
        for challenger_evidence in summary.evidence
        if challenger_evidence.version != acting_id
    )


def _build_challenger_comparison(
    summary: CellSummary,
    state: RolloutState,
    acting_id: str | None,
    challenger_evidence: EvidenceFacts,
) -> ChallengerComparison:
    cost_in = state.policy.charter.cost_in
    acting_evidence = next(
        (facts for facts in summary.evidence if facts.version == acting_id), None
    )
    acting_readings = (
        ()
        if acting_evidence is None
        else build_measure_readings(acting_evidence, summary.passed_thresholds, cost_in)
    )
    challenger_readings = build_measure_readings(challenger_evidence, (), cost_in)
    return ChallengerComparison(
        cell=summary.cell,
        acting=acting_id or "",
        acting_reading=acting_readings[0] if acting_readings else None,
        version=challenger_evidence.version,
        challenger_reading=challenger_readings[0] if challenger_readings else None,
        text=add_full_stop(challenger_evidence.next_step),
    )


router = APIRouter()
PAGE_SIZE: Final = 25
TIMELINE_STARTS: Final[Mapping[str, Callable[[datetime], datetime | None]]] = {
    "": lambda _at: None,
    "14d": lambda at: at - timedelta(days=14),
    "all": lambda _at: EPOCH,
}
"""From when a timeline is drawn, by what the address asks for."""
OUTSIDE_TEXT: Final = "Outside every window, humans decide."
GUARD_ACTION_TEXTS: Final = {
    "one-stage": "One stage down",
    "shadow": "Back to shadow",
    "suspend": "Humans decide until it is within the threshold again",
    "report": "An incident is reported",
}
TimeQuery = Annotated[str, Query(max_length=100)]
OffsetQuery = Annotated[int, Query(ge=0, le=1_000_000)]
RevisionQuery = Annotated[int | None, Query(ge=1, le=10**12)]


@router.get("/rollouts/{rollout}")
def show_rollout(
    request: Request,
    rollout: str,
    visitor: CurrentVisitor,
    at: TimeQuery = "",
    cells_from: Annotated[int, Query(alias="from", ge=0, le=1_000_000)] = 0,
    before: RevisionQuery = None,
) -> Response:
    """Show a rollout, now or at a past instant."""
    require_permission(
        visitor.caller, Permission.READ, rollout
    )  # first, so that users without access learn no names
    live_region = build_live_region(request, visitor, rollout)
    timezone = visitor.service.state_cache.load_rollout(rollout).state.policy.timezone
    requested_time = parse_requested_time(at, timezone, visitor.at)
    cell_page = load_cell_page(
        visitor.service, visitor.caller, rollout,
        at=visitor.at, past_at=requested_time.at, first_index=cells_from, limit=PAGE_SIZE,
    )  # fmt: skip
    if cell_page is None:
        return _render_before_policy(request, visitor, rollout, requested_time, timezone)
    context = _build_page_context(visitor, rollout, cell_page, timezone)
    context |= _build_history_context(visitor, rollout, cell_page, before)
    context |= (
        _build_past_context(visitor, rollout)
        if cell_page.is_past
        else _build_current_context(visitor, rollout, cell_page)
    )
    return render_page(
        request, visitor, "rollout", 422 if requested_time.error else 200,
        rollout=rollout, live=None if cell_page.is_past else live_region,
        requested_time=requested_time, zone=timezone,
        errors={"at": requested_time.error} if requested_time.error else {}, **context,
    )  # fmt: skip


@router.get("/rollouts/{rollout}/cells/{cell:path}")
def show_cell(
    request: Request,
    rollout: str,
    cell: str,
    visitor: CurrentVisitor,
    before: OffsetQuery = 0,
    span: Literal["", "14d", "all"] = "",
) -> Response:
    """Show one cell: timeline, evidence of each version, guards, history."""
    require_permission(visitor.caller, Permission.READ, rollout)
    live_region = build_live_region(request, visitor, rollout)
    selected_cell = parse_cell_address(request, cell)
    detail = load_cell(visitor.service, visitor.caller, rollout, selected_cell, at=visitor.at)
    cell_page = load_single_cell_page(
        visitor.service, visitor.caller, rollout, selected_cell, at=visitor.at
    )
    policy = cell_page.state.policy
    schedules = compute_schedules(cell_page.state.scope, policy, cell_page.at)
    timezone = policy.sites_by_id[selected_cell.site].timezone
    history = tuple(reversed(detail.history))
    return render_page(
        request,
        visitor,
        "rollout_cell",
        rollout=rollout,
        live=live_region,
        cell=selected_cell,
        zone=timezone,
        marks=build_stage_markers(policy),
        row=build_cell_row(
            cell_page, cell_page.rows[0], schedules, _get_time_formatter(visitor, timezone)
        ),
        detail=detail,
        lateness={
            version: _describe_lateness(lateness, timezone)
            for version, lateness in detail.lateness.items()
        },
        timeline=load_timeline_view(
            visitor, rollout, selected_cell, TIMELINE_STARTS[span](visitor.at)
        ),
        charts=build_path_charts(detail.evidence, timezone),
        readings=[
            build_measure_readings(
                facts,
                cell_page.rows[0].passed_thresholds if facts.acting else (),
                policy.charter.cost_in,
            )
            for facts in detail.evidence
        ],
        decides=[add_full_stop(facts.next_step) for facts in detail.evidence],
        value_tables=build_value_tables(
            load_cell_values(visitor.service, cell_page.state, selected_cell, visitor.at),
            [facts.version for facts in detail.evidence],
            is_blind=may_be_asked_blind(visitor.caller, rollout, (selected_cell.site,)),
            sliced=list_gate_slices(policy, selected_cell),
        ),
        number_tables=_build_number_tables(
            visitor, cell_page.state, selected_cell, [facts.version for facts in detail.evidence]
        ),
        guards=GUARD_ACTION_TEXTS,
        value=format_cell_value(selected_cell),
        may_stop=visitor.has_permission(Permission.OPERATE, rollout, selected_cell.site),
        begun=cell_page.state.scope.list_begun(selected_cell),
        is_stopped=cell_page.state.scope.is_stopped(selected_cell),
        grants=build_grant_rows(cell_page, (selected_cell,)),
        history=build_history_entries(history[before : before + PAGE_SIZE], policy),
        older=before + PAGE_SIZE if len(history) > before + PAGE_SIZE else None,
    )


def _describe_lateness(
    lateness: LateSenders | tuple[SilentSpell, ...], timezone: str
) -> tuple[str, ...]:
    return (
        (mark_code(describe_late_cases(lateness)),)
        if isinstance(lateness, LateSenders)
        else tuple(describe_spell(spell, timezone) for spell in lateness)
    )


def _build_number_tables(
    visitor: Visitor, state: RolloutState, cell: Cell, versions: list[str]
) -> tuple[tuple[NumberTable, ...], ...]:
    """Return each version's tables; none for a visitor who may be asked for a blind review."""
    if may_be_asked_blind(visitor.caller, state.rollout.name, (cell.site,)):
        return build_number_tables({}, versions)
    agreements = load_number_agreements(visitor.service, state, cell, visitor.at)
    return build_number_tables(agreements, versions)


def _get_time_formatter(visitor: Visitor, zone: str) -> Callable[[datetime], Markup]:
    return partial(format_site_time, zone=zone, visitor=visitor)


def _build_page_context(
    visitor: Visitor, rollout: str, cell_page: CellListPage, zone: str
) -> dict[str, Any]:
    """Return the context common to current and past pages."""
    policy, scope = cell_page.state.policy, cell_page.state.scope
    schedules = compute_schedules(scope, policy, cell_page.at)
    markers = build_stage_markers(policy)
    time_formatters = {
        site: _get_time_formatter(visitor, policy.sites_by_id[site].timezone)
        for site in cell_page.sites
    }
    now_label = "then" if cell_page.is_past else "now"
    has_outside = has_hours_outside(policy, cell_page.at, cell_page.sites)
    lede = describe_allowed(policy, scope, schedules, cell_page.sites)
    return {
        "lede": f"{lede} {OUTSIDE_TEXT}" if has_outside else lede,
        "map": draw_week_map(policy, schedules, cell_page.at, cell_page.sites, now_word=now_label),
        "window_changes": describe_window_changes(policy, cell_page.at, cell_page.sites),
        "legend": (
            *markers.values(),
            build_withheld_marker(markers),
            *([OUTSIDE_MARKER] if has_outside else []),
        ),
        "cell_page": cell_page,
        "batch": BATCH_SIZE
        if may_be_asked_blind(visitor.caller, rollout, cell_page.sites)
        else None,
        "rows": build_cell_rows(cell_page, schedules, time_formatters),
        "caption": format_caption(cell_page.first_index, len(cell_page.rows), len(cell_page.cells)),
        "challengers": build_challenger_comparisons(cell_page),
        "side_by_side": describe_versions(scope, cell_page.cells),
        "grants": build_grant_rows(cell_page, [row.cell for row in cell_page.rows]),
        "limits": list_limits(
            policy, scope, cell_page.sites, cell_page.at, _get_time_formatter(visitor, zone)
        ),
        "adjacent_times": _build_adjacent_links(visitor, rollout, cell_page.at),
    }


def _build_adjacent_links(visitor: Visitor, rollout: str, at: datetime) -> dict[str, str]:
    adjacent_changes = find_adjacent_changes(visitor.service, visitor.caller, rollout, at)
    return {
        "before": ""
        if adjacent_changes.before is None
        else format_link_time(adjacent_changes.before),
        "after": (
            ""
            if adjacent_changes.after is None or adjacent_changes.after > visitor.at
            else format_link_time(adjacent_changes.after)
        ),
    }


def _build_history_context(
    visitor: Visitor, rollout: str, cell_page: CellListPage, before: int | None
) -> dict[str, Any]:
    until = cell_page.at if cell_page.is_past else None
    activity = load_activity(visitor.service, visitor.caller, rollout, until=until, before=before)
    return {
        "history": build_history_entries(activity.items, cell_page.state.policy),
        "older": activity.before,
        "is_older": before is not None,
        "revision": cell_page.state.scope.revision,
        "reads_all": all(
            visitor.has_permission(Permission.READ, rollout, site)
            for site in cell_page.state.policy.sites_by_id
        ),
    }


def _build_current_context(
    visitor: Visitor, rollout: str, cell_page: CellListPage
) -> dict[str, Any]:
    """Return the context of current pages: next decision, actions, stop latency."""
    state, service, caller = cell_page.state, visitor.service, visitor.caller
    own_proposals = list_pending_approvals(state, caller, at=visitor.at)

    def get_time_formatter(site: str) -> Callable[[datetime], Markup]:
        return _get_time_formatter(visitor, state.policy.get_timezone(site))

    versions = tuple(version.id for version in state.scope.versions.values() if not version.retired)
    stops = load_stops(service, caller, rollout, at=visitor.at)
    return {
        "next": lead_with_stops(
            build_next_decision(
                state.scope, own_proposals, cell_page.sites, visitor.at, get_time_formatter
            ),
            [
                cell
                for cell in state.policy.cells
                if cell.site in cell_page.sites and state.scope.is_stopped(cell)
            ],
            own_proposals,
            may_request=bool(list_requestable_stops(state, visitor)),
        ),
        "changes": load_action_changes(service, caller, rollout, versions[-2:]),
        "stops": stops,
        "stop_latency": describe_stop_latency(stops.stop_latency),
        "traffic": _describe_all_traffic(visitor, state),
        "may_stop": any(
            visitor.has_permission(Permission.OPERATE, rollout, site) for site in cell_page.sites
        ),
    }


def _describe_all_traffic(visitor: Visitor, state: RolloutState) -> str:
    """Describe the traffic for readers of every site; "" for others."""
    name = state.rollout.name
    if not visitor.has_permission(Permission.READ, name):
        return ""
    summary = load_rollout_summary(visitor.service, visitor.caller, name, visitor.at)
    return ", ".join(describe_traffic(summary, visitor.at))


def _build_past_context(visitor: Visitor, rollout: str) -> dict[str, Any]:
    """Return the context of past pages: what is allowed now, in one sentence."""
    state = visitor.service.state_cache.reload_rollout(rollout).state
    schedules = compute_schedules(state.scope, state.policy, visitor.at)
    sites = visitor.list_permitted_sites(Permission.READ, rollout, state.policy)
    return {
        "current_text": describe_allowed(state.policy, state.scope, schedules, sites),
        "next": None,
        "changes": (),
        "stops": None,
        "stop_latency": "",
        "traffic": "",
        "may_stop": False,
    }


def _render_before_policy(
    request: Request, visitor: Visitor, rollout: str, requested_time: RequestedTime, zone: str
) -> Response:
    """Show that there was no policy yet."""
    after = _build_adjacent_links(visitor, rollout, requested_time.at or visitor.at)["after"]
    return render_page(
        request,
        visitor,
        "rollout_before",
        rollout=rollout,
        requested_time=requested_time,
        after=after,
        zone=zone,
    )
