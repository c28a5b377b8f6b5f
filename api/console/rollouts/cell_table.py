"""Rows of the cell table: stage, tag, evidence against thresholds, sentences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

from markupsafe import Markup

from api.console.page.cell_view import TimeFormatter
from api.console.page.figures import (
    draw_scale,
    format_bound,
    format_counts,
    name_measure,
)
from api.console.page.stop_target import format_cell_value
from api.console.page.text import add_full_stop
from api.console.page.time_format import format_time_span
from api.console.rollouts.cell_text import CellDescription, describe_cell, find_main_evidence
from api.console.rollouts.map_rows import StageSchedule
from rollout.core.calendar.sites import Cell
from rollout.core.scope.scope import Scope
from rollout.reports.figures.evidence_facts import EvidenceFacts
from rollout.reports.figures.gate_facts import ConditionFacts
from rollout.reports.pages.stage_markers import StageMarker
from rollout.reports.statistics.bounds import ConditionEvidence
from rollout.reports.text.value_text import format_estimate, format_threshold
from rollout.services.cells.cell_table import CellListPage, CellSummary
from rollout.services.engine.rollout_state import RolloutState

AGREEMENT: Final = "agreement"
QUIET_KINDS: Final = frozenset({"", "mute", "good"})
"""Kinds of tags that warn of nothing."""


class MeasureThreshold(NamedTuple):
    """A threshold of a measure and its direction."""

    measure: str
    threshold: float
    at_least: bool


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
    evidence = find_main_evidence(summary, scope)
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
    if evidence is not None and evidence.gate is not None:
        readings = [
            (condition.threshold, condition.at_least, _build_gate_reading(condition))
            for condition in evidence.gate.conditions
        ]
    else:
        readings = [
            (
                passed.condition.threshold,
                passed.condition.at_least,
                _build_passed_reading(passed, cost_in),
            )
            for passed in passed_thresholds
        ]
    strictest: dict[str, tuple[float, MeasureReading]] = {}
    for threshold, at_least, reading in readings:
        strictness = threshold if at_least else -threshold
        previous = strictest.get(reading.name)
        if previous is None or strictness > previous[0]:
            strictest[reading.name] = (strictness, reading)
    return tuple(sorted((reading for _, reading in strictest.values()), key=_get_reading_order))


def _get_reading_order(reading: MeasureReading) -> bool:
    """Put agreement first, the measure of most gates."""
    return reading.name != AGREEMENT


def _build_gate_reading(condition: ConditionFacts) -> MeasureReading:
    threshold = MeasureThreshold(condition.measure, condition.threshold, condition.at_least)
    return _build_reading(
        name_measure(condition.name, condition.unit),
        threshold,
        condition.counts,
        condition.estimate,
        condition.bound,
        is_met=condition.met,
    )


def _build_passed_reading(passed: ConditionEvidence, cost_in: str) -> MeasureReading:
    condition = passed.condition
    threshold = MeasureThreshold(condition.measure.name, condition.threshold, condition.at_least)
    is_met = (
        passed.bound is not None and (passed.bound >= condition.threshold) == condition.at_least
    )
    return _build_reading(
        name_measure(condition.name, condition.find_unit(cost_in)),
        threshold,
        passed.counts,
        passed.estimate,
        passed.bound,
        is_met=is_met,
    )


def _build_reading(
    name: str,
    measure_threshold: MeasureThreshold,
    counts: tuple[int, ...],
    estimate: float | None,
    bound: float | None,
    *,
    is_met: bool,
) -> MeasureReading:
    measure, threshold, at_least = measure_threshold
    return MeasureReading(
        name=name,
        estimate=format_estimate(measure, estimate),
        bound="" if bound is None else format_bound(measure, bound, threshold, at_least=at_least),
        threshold=format_threshold(measure, threshold),
        counts=format_counts(measure, counts),
        met=is_met,
        drawing=draw_scale(measure, threshold, estimate, bound, at_least=at_least),
        is_empty=estimate is None,
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
