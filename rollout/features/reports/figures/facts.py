"""All facts of a report, independent of any page, among them latency and pending work.

Pending reviews and the last activity of each site are those when a report is made.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from functools import cached_property
from typing import Final, TypeVar, cast

import numpy as np
import polars as pl
import scipy

from rollout.engine.evidence.frames import VALUE_PREFIX, RecordFrames
from rollout.engine.evidence.late_senders import LateSenders, find_costly_spells, find_late_senders
from rollout.engine.words.event_text import EventDescription, describe_events
from rollout.features.reports.figures.agreement import (
    AgreementFigures,
    NumberAgreement,
    compute_agreements,
    compute_number_agreements,
)
from rollout.features.reports.figures.baseline_change import (
    BaselineChange,
    compute_baseline_changes,
)
from rollout.features.reports.figures.calibration import (
    Calibration,
    Correctness,
    compute_calibrations,
    compute_correctness,
)
from rollout.features.reports.figures.cell_timeline import (
    SiteCalendar,
    build_calendars,
    compute_cell_timelines,
)
from rollout.features.reports.figures.drift import DriftFigures, compute_drift
from rollout.features.reports.figures.evidence_facts import (
    EvidenceFacts,
    OpenProposal,
    compute_evidence_facts,
)
from rollout.features.reports.figures.funnel import (
    FileRowCounts,
    Funnel,
    RowExample,
    UnfamiliarCases,
    UnknownLabels,
    compute_funnels,
    compute_unfamiliar_cases,
    count_cell_reasons,
    count_file_rows,
    find_unknown_labels,
    list_rejected_examples,
)
from rollout.features.reports.figures.holdout import (
    FeedbackLoop,
    HoldoutActions,
    compute_feedback,
    compute_holdout_actions,
)
from rollout.features.reports.figures.incident_cause import IncidentCourse, compute_incident_courses
from rollout.features.reports.figures.label_issues import CleaningFigures, compute_cleaning
from rollout.features.reports.figures.label_sources import (
    DecisionSources,
    compute_decision_sources,
    count_vouched_units,
)
from rollout.features.reports.figures.methods import (
    CellModelCost,
    GainFacts,
    MethodOutcome,
    ModelCost,
    NaiveOpening,
    build_model_cases,
    compare_methods,
    compute_cell_costs,
    compute_gains,
    compute_model_cost,
    find_naive_openings,
)
from rollout.features.reports.figures.oversight import (
    AuditFigures,
    Hindsight,
    Oversight,
    PermitCount,
    VisibleAgreement,
    build_sampling_frame,
    compute_audits,
    compute_hindsights,
    compute_oversight,
    compute_visible_agreements,
    count_permits,
)
from rollout.features.reports.figures.report_identity import (
    PolicySummary,
    ReportIdentity,
    build_identity,
    describe_promises,
    summarize_policy,
)
from rollout.features.reports.figures.report_version import (
    SCHEMA,
    ReportVersion,
    build_report_version,
)
from rollout.features.reports.figures.reviewer_agreement import (
    ReviewerAgreement,
    compute_reviewer_agreement,
)
from rollout.features.reports.figures.reviewers import (
    Anchoring,
    ReviewQuality,
    compute_anchoring,
    compute_review_quality,
)
from rollout.features.reports.figures.slices import (
    SliceSearch,
    compute_slice_searches,
)
from rollout.features.reports.inputs.cell_facts import CellStages, CellTimeline
from rollout.features.reports.inputs.divergences import (
    DivergenceFigures,
    build_divergence_frame,
    compute_divergences,
)
from rollout.features.reports.inputs.evidence_inputs import (
    StatePeriod,
    build_evidence_paths,
    build_state_periods,
)
from rollout.features.reports.inputs.inputs import (
    ActionFrequencyChange,
    PendingReviews,
    ReportInputs,
    compute_action_changes,
    compute_stage_histories,
)
from rollout.features.reports.inputs.losses import LossFigures, compute_losses
from rollout.features.reports.inputs.pairs import (
    build_assisted_pairs,
)
from rollout.kernel.arrays import Floats
from rollout.kernel.calendar.instants import (
    Cell,
    CellVersion,
    count_micros,
    format_duration,
)
from rollout.kernel.policy.policy import Policy
from rollout.kernel.statistics.intervals import (
    CONFIDENCE_LEVEL,
    Estimate,
    Share,
    compute_unit_share,
)

PERCENTS = (50, 95, 99)
ORDER_METHOD = "order statistics, 95 %"
UNBOUNDED_METHOD = "too few answers for an interval"
MAX_ERRORS = 20  # distinct errors in a report
NO_ERROR_TEXT = "no answer, and no word why"


@dataclass(frozen=True, slots=True)
class LatencyQuantile(Estimate):
    """The time within which `percent` of the answers came, in milliseconds.

    `low` and `high` are order statistics; an end is None with too few answers to bound it.
    """

    percent: int


@dataclass(frozen=True, slots=True)
class Lateness:
    """Share of timed answers on one lever that came after `answer_within`.

    `answer_within` is in seconds, `limit` is the same in the notation of policies.
    """

    lever: str
    answer_within: float
    limit: str
    late: Share


@dataclass(frozen=True, slots=True)
class Latency:
    """Latency of one version, everywhere (site None) or at one site.

    Attributes:
        version, site: whose answers, and where.
        predictions: cases with a prediction of the version.
        timed: cases with a latency.
        quantiles: of these latencies; empty without any.
        late: per lever with a time limit; from the answer's time, else from its latency.
        failed: cases without an answer on some lever.
        errors: at most 20 reasons of failures, the most frequent first.
    """

    version: str
    site: str | None
    predictions: int
    timed: int
    quantiles: tuple[LatencyQuantile, ...]
    late: tuple[Lateness, ...]
    failed: Share
    errors: tuple[tuple[str, int], ...]


def compute_latencies(
    records: RecordFrames, cases: pl.DataFrame, policy: Policy
) -> tuple[Latency, ...]:
    """Return the latency of every version, in all and then by site.

    `cases`: the cases in a cell, with t and unit; other cases can't be late, and are each a unit.
    """
    case_times = cases.select("case_key", "occurred_us", "unit")
    sites = records.cases.select("case_key", "site")
    predictions = (
        records.predictions.join(sites, on="case_key", how="left")
        .join(case_times, on="case_key", how="left")
        .with_columns(unit=pl.coalesce("unit", "case_key").rank("dense"))
    )
    order = [site.id for site in policy.sites]
    figures = []
    for (version,), part in sorted(predictions.partition_by("version", as_dict=True).items()):
        figures.append(_compute_latency(part, str(version), None, policy))
        parts_by_site = part.partition_by("site", as_dict=True)
        if len(parts_by_site) > 1:
            figures += [
                _compute_latency(parts_by_site[(site,)], str(version), site, policy)
                for site in order
                if (site,) in parts_by_site
            ]
    return tuple(figures)


def compute_quantile(values: Floats, percent: int) -> LatencyQuantile | None:
    """Return a quantile with a distribution-free interval, None without values.

    The value is the smallest that is at least as large as `percent` in 100 of the values. The
    number of values below the true quantile is binomial, so two order statistics bound it.

    Args:
        values: shape (answers,), in any order.
        percent: in 1 … 99.

    >>> quantile = compute_quantile(np.arange(1.0, 101.0), 50)
    >>> quantile.value, quantile.low, quantile.high, quantile.method
    (50.0, 40.0, 61.0, 'order statistics, 95 %')

    Source: David and Nagaraja, Order Statistics, 3rd ed. (2003), section 7.1.
    """
    n = len(values)
    if not n:
        return None
    ranked, q, tail = np.sort(values), percent / 100, (1 - CONFIDENCE_LEVEL) / 2
    index = max(int(np.ceil(q * n)), 1)
    counts = range(n + 1)  # of the values below the true quantile
    below = bisect_left(counts, tail, key=lambda k: float(scipy.special.bdtr(k, n, q)))
    above = bisect_left(counts, -tail, key=lambda k: -float(scipy.special.bdtrc(k, n, q))) + 1
    return LatencyQuantile(
        n=n,
        percent=percent,
        value=float(ranked[index - 1]),
        low=float(ranked[below - 1]) if below >= 1 else None,
        high=float(ranked[above - 1]) if above <= n else None,
        method=ORDER_METHOD if below >= 1 or above <= n else UNBOUNDED_METHOD,
    )


def _compute_latency(part: pl.DataFrame, version: str, site: str | None, policy: Policy) -> Latency:
    times = part["latency_ms"].drop_nulls().to_numpy()
    has_missing_answer = pl.any_horizontal(
        pl.col(VALUE_PREFIX + lever.id).is_null() for lever in policy.levers
    )
    failed = part.filter(has_missing_answer)
    reasons = failed.select(error=pl.col("error").fill_null(NO_ERROR_TEXT)).group_by("error").len()
    top = reasons.sort("len", "error", descending=[True, False]).head(MAX_ERRORS)
    return Latency(
        version=version,
        site=site,
        predictions=part.height,
        timed=len(times),
        quantiles=tuple(
            quantile
            for percent in PERCENTS
            if (quantile := compute_quantile(times, percent)) is not None
        ),
        late=tuple(
            _compute_lateness(part, lever.id, lever.answer_within)
            for lever in policy.levers
            if lever.answer_within
        ),
        failed=compute_unit_share(part, has_missing_answer),
        errors=tuple(top.iter_rows()),
    )


def _compute_lateness(part: pl.DataFrame, lever: str, answer_within: timedelta) -> Lateness:
    waiting_time = pl.coalesce(
        pl.col("at").dt.epoch("us") - pl.col("occurred_us"), pl.col("latency_ms") * 1000
    )
    is_late = waiting_time > count_micros(answer_within)
    answered = part.drop_nulls(VALUE_PREFIX + lever).select("unit", late=is_late).drop_nulls()
    return Lateness(
        lever=lever,
        answer_within=answer_within.total_seconds(),
        limit=format_duration(answer_within),
        late=compute_unit_share(answered, "late"),
    )


@dataclass(frozen=True, slots=True)
class SiteActivity:
    """The last activity of a site, a record or a heartbeat; None if never."""

    site: str
    last_activity_at: datetime | None


@dataclass(frozen=True, slots=True)
class PendingWork:
    """Pending reviews, and the last activity of each site.

    Attributes:
        live: False for a replay; all other fields are then empty.
        open, overdue, expiring: reviews over all sites, as in `PendingReviews`.
        oldest: when the oldest open review was created; None without one.
        sites: the same by site, for sites with reviews.
        site_activities: every site of the policy; never active first, then the longest silent.
    """

    live: bool
    open: int
    overdue: int
    expiring: int
    oldest: datetime | None
    sites: tuple[PendingReviews, ...]
    site_activities: tuple[SiteActivity, ...]


def compute_pending_work(inputs: ReportInputs) -> PendingWork:
    """Return the pending reviews and site activity; empty for a replay."""
    sites, last = inputs.pending_reviews, inputs.last_activity
    activities = [SiteActivity(site.id, last.get(site.id)) for site in inputs.policy.sites]
    return PendingWork(
        live=inputs.is_live,
        open=sum(site.open for site in sites),
        overdue=sum(site.overdue for site in sites),
        expiring=sum(site.expiring for site in sites),
        oldest=min((site.oldest for site in sites if site.oldest), default=None),
        sites=tuple(sites),
        site_activities=tuple(  # silent sites first
            sorted(activities, key=lambda item: (item.site in last, last.get(item.site)))
        )
        if inputs.is_live
        else (),
    )


@dataclass(frozen=True)
class ReportMaterial:
    """The inputs of a report, and what several figures share, built when the first one asks."""

    inputs: ReportInputs

    @cached_property
    def assisted_pairs(self) -> pl.DataFrame:
        """Return the pairs of answers that reviewers saw."""
        return build_assisted_pairs(self.inputs.records, self.inputs.case_facts, self.inputs.policy)

    @cached_property
    def state_periods(self) -> Mapping[CellVersion, tuple[StatePeriod, ...]]:
        """Return the periods of each cell and version with evidence."""
        return build_state_periods(self.inputs)

    @cached_property
    def sampled_cases(self) -> pl.DataFrame:
        """Return the decided cases with their chance of an unassisted decision."""
        return build_sampling_frame(self.inputs, self.inputs.decided_cases)

    @cached_property
    def model_cases(self) -> pl.DataFrame:
        """Return the cases that the model decided, with errors and costs."""
        return build_model_cases(self.inputs, self.inputs.decided_cases)

    @cached_property
    def late_senders(self) -> LateSenders | None:
        """Return what late records look like; None of a backtest, whose predictions all are."""
        return None if self.inputs.records.backtest else find_late_senders(self.inputs.records)


FigureT = TypeVar("FigureT")


def declare_figure(compute: Callable[[ReportMaterial], FigureT]) -> FigureT:
    """Return a field of `ReportFacts` with its computation, whose result has the field's type."""
    return cast("FigureT", field(metadata={declare_figure: compute}))


@dataclass(frozen=True, slots=True)
class ReportFacts:
    """All facts of a report.

    Attributes:
        schema: name and version of this format; removing a field or changing its meaning raises
            the version, adding one doesn't.
        identity, policy, promises: rollout and span, the policy, and what the policy guarantees.
        files, rejected_examples: counts of the rows read, and examples of rejected rows.
        unknown_labels: answers that are none of the policy's labels, or out of its range.
        sources: from where human decisions came.
        funnels: per version, cases from record to evidence.
        agreements: per version and lever, agreement over records; never evidence.
        anchoring: how much more reviewers agree with an answer they see.
        correctness: versions and humans against outcomes and adjudications; never evidence.
        audits: how cases were sampled, and the agreement of all cases that this implies.
        hold_outs: actions of the model and of humans on randomly split cases.
        baseline_changes: actions now against the manual baseline; empty without one.
        evidence: per cell and version, the evidence that gates use.
        stages, calendar, events: stages by cell and by hour, and the ledger's events.
        model_cost, cell_model_costs: cost of the model's decisions, in all and by cell.
        hindsights, visible_agreements: what the same guards and agreement show on all decisions.
        naive_openings: when plain rules would have widened each cell, for comparison.
        actions: how often model and humans take each action, on the same cases.
        divergences: their number, and the costliest.
        reviewer_agreement: reviewers, and how far they agree with each other.
        review_quality: review quality: decision times, runs of equal answers, gold cases, reviewer
            checks.
        calibrations: per version and lever, how often it is right by confidence.
        slice_searches: per version and lever, slices that differ more than elsewhere.
        drift: changes since the first days of each site.
        latencies: per version and site, answer times and failures.
        losses: per version and lever, cases to look at again.
        pending_work: pending reviews and the last activity of each site; empty for a replay.
        feedback_loops: per version and lever, how the model's actions shape later data.
        cleaning: choices about training labels, and their effect on agreement.
        oversight: stops, incidents, and the longest silence of each site.
        permits: actions of the model by kind of permit and authorization; empty for a replay.
        report_version: the version of this report, and until when it may change.
        number_agreements: per version and lever with a number, how far the numbers differ.
        unfamiliar_cases: cases that humans decided because the acting version was not familiar with
            them.
        gains: per cell, version and outcome with a value, what the model brought beyond people.
        cell_timelines: of the cells with most events, who decided, how versions agreed, and when.
        detector_courses: how the detectors behind the newest incidents came to their alarms.
        planted_cases: of a replay, cases that users planted; only `evidence[].planted` has them.
        methods: of a replay with several confidence floors, what other ways to open cells give.
    """

    schema: str = declare_figure(lambda _: SCHEMA)
    identity: ReportIdentity = declare_figure(lambda m: build_identity(m.inputs))
    policy: PolicySummary = declare_figure(lambda m: summarize_policy(m.inputs.policy))
    promises: tuple[str, ...] = declare_figure(lambda m: describe_promises(m.inputs.policy))
    files: tuple[FileRowCounts, ...] = declare_figure(lambda m: count_file_rows(m.inputs.records))
    rejected_examples: tuple[RowExample, ...] = declare_figure(
        lambda m: list_rejected_examples(m.inputs.records)
    )
    unknown_labels: tuple[UnknownLabels, ...] = declare_figure(
        lambda m: find_unknown_labels(m.inputs.records, m.inputs.policy)
    )
    funnels: tuple[Funnel, ...] = declare_figure(
        lambda m: compute_funnels(m.inputs, m.inputs.pairs.predicted)
    )
    agreements: tuple[AgreementFigures, ...] = declare_figure(
        lambda m: compute_agreements(
            m.inputs.pairs, m.assisted_pairs, m.inputs.records, m.inputs.policy
        )
    )
    anchoring: tuple[Anchoring, ...] = declare_figure(
        lambda m: compute_anchoring(m.inputs.pairs, m.assisted_pairs, m.inputs.policy)
    )
    correctness: tuple[Correctness, ...] = declare_figure(
        lambda m: compute_correctness(m.inputs.records, m.inputs.case_facts, m.inputs.policy)
    )
    audits: AuditFigures = declare_figure(
        lambda m: compute_audits(m.inputs, m.inputs.pairs, m.sampled_cases)
    )
    hold_outs: tuple[HoldoutActions, ...] = declare_figure(
        lambda m: compute_holdout_actions(m.inputs, m.sampled_cases)
    )
    baseline_changes: tuple[BaselineChange, ...] = declare_figure(
        lambda m: compute_baseline_changes(m.inputs)
    )
    evidence: tuple[EvidenceFacts, ...] = declare_figure(
        lambda m: compute_evidence_facts(
            m.inputs,
            m.state_periods,
            {
                key: build_evidence_paths(key, rows, m.inputs)
                for key, rows in m.state_periods.items()
            },
            count_cell_reasons(m.inputs),
        )
    )
    stages: tuple[CellStages, ...] = declare_figure(lambda m: compute_stage_histories(m.inputs))
    calendar: tuple[SiteCalendar, ...] = declare_figure(lambda m: build_calendars(m.inputs))
    events: tuple[EventDescription, ...] = declare_figure(
        lambda m: describe_events(
            m.inputs.policy,
            m.inputs.events,
            m.inputs.first,
            m.inputs.last,
            is_simulated=m.inputs.is_simulated,
        )
    )
    model_cost: ModelCost = declare_figure(lambda m: compute_model_cost(m.model_cases))
    cell_model_costs: tuple[CellModelCost, ...] = declare_figure(
        lambda m: compute_cell_costs(m.model_cases)
    )
    hindsights: tuple[Hindsight, ...] = declare_figure(
        lambda m: compute_hindsights(m.inputs, m.state_periods, m.model_cases)
    )
    visible_agreements: tuple[VisibleAgreement, ...] = declare_figure(
        lambda m: compute_visible_agreements(m.inputs)
    )
    naive_openings: tuple[NaiveOpening, ...] = declare_figure(
        lambda m: find_naive_openings(m.inputs, m.inputs.pairs)
    )
    actions: tuple[ActionFrequencyChange, ...] = declare_figure(
        lambda m: compute_action_changes(m.inputs.pairs, m.inputs.policy)
    )
    divergences: DivergenceFigures = declare_figure(
        lambda m: compute_divergences(
            build_divergence_frame(m.inputs.pairs, m.inputs.records, m.inputs.policy),
            m.inputs.policy,
            m.inputs.media,
        )
    )
    reviewer_agreement: ReviewerAgreement = declare_figure(
        lambda m: compute_reviewer_agreement(
            m.inputs.pairs, m.inputs.records, m.inputs.case_facts, m.inputs.policy
        )
    )
    review_quality: ReviewQuality = declare_figure(
        lambda m: compute_review_quality(m.inputs, m.inputs.decided_cases)
    )
    calibrations: tuple[Calibration, ...] = declare_figure(
        lambda m: compute_calibrations(
            m.inputs.pairs, m.inputs.records, m.inputs.case_facts, m.inputs.policy
        )
    )
    slice_searches: tuple[SliceSearch, ...] = declare_figure(
        lambda m: compute_slice_searches(m.inputs.records, m.inputs.case_facts, m.inputs.policy)
    )
    drift: DriftFigures = declare_figure(lambda m: compute_drift(m.inputs))
    latencies: tuple[Latency, ...] = declare_figure(
        lambda m: compute_latencies(m.inputs.records, m.inputs.cases, m.inputs.policy)
    )
    losses: tuple[LossFigures, ...] = declare_figure(
        lambda m: compute_losses(m.inputs.records, m.inputs.cases, m.inputs.policy)
    )
    pending_work: PendingWork = declare_figure(lambda m: compute_pending_work(m.inputs))
    feedback_loops: tuple[FeedbackLoop, ...] = declare_figure(lambda m: compute_feedback(m.inputs))
    cleaning: CleaningFigures = declare_figure(lambda m: compute_cleaning(m.inputs, m.inputs.pairs))
    oversight: Oversight = declare_figure(lambda m: compute_oversight(m.inputs))
    report_version: ReportVersion = declare_figure(lambda m: build_report_version(m.inputs))
    sources: DecisionSources = declare_figure(
        lambda m: compute_decision_sources(
            m.inputs.records,
            m.inputs.chosen_sources,
            m.late_senders,
            find_costly_spells(m.inputs.records, m.late_senders),
            count_vouched_units(m.inputs),
            m.inputs.policy.samples_by_version,
            m.inputs.registered,
        )
    )
    permits: tuple[PermitCount, ...] = declare_figure(lambda m: count_permits(m.inputs))
    number_agreements: tuple[NumberAgreement, ...] = declare_figure(
        lambda m: compute_number_agreements(m.inputs.pairs, m.inputs.policy)
    )
    unfamiliar_cases: tuple[UnfamiliarCases, ...] = declare_figure(
        lambda m: compute_unfamiliar_cases(m.inputs, m.inputs.decided_cases)
    )
    gains: tuple[GainFacts, ...] = declare_figure(lambda m: compute_gains(m.inputs))
    # 0 in a service: a count that rises when a case arrives would tell that it is planted
    planted_cases: int = declare_figure(
        lambda m: (
            m.inputs.records.planted.cases.height
            if m.inputs.is_simulated and m.inputs.records.planted is not None
            else 0
        )
    )
    cell_timelines: tuple[CellTimeline, ...] = declare_figure(
        lambda m: compute_cell_timelines(m.inputs, m.state_periods)
    )
    methods: tuple[MethodOutcome, ...] = declare_figure(
        lambda m: compare_methods(m.inputs, m.inputs.decided_cases, m.model_cases)
    )
    detector_courses: tuple[IncidentCourse, ...] = declare_figure(
        lambda m: compute_incident_courses(m.inputs)
    )

    @property
    def shadow_cells(self) -> set[Cell]:
        """Return the cells that were never above shadow in the report's span."""
        return {item.cell for item in self.stages if not item.was_above_shadow}

    @property
    def open_proposals(self) -> tuple[OpenProposal, ...]:
        """Return the proposals that need approvals, in the order of the cells."""
        return tuple(item.proposal for item in self.evidence if item.proposal is not None)


COMPUTATIONS: Final = {item.name: item.metadata[declare_figure] for item in fields(ReportFacts)}
"""How each figure is computed, in the order of the fields; a field without it fails here."""


def compute_report_facts(inputs: ReportInputs) -> ReportFacts:
    """Return the facts that follow from the inputs; the same inputs give the same facts."""
    material = ReportMaterial(inputs)
    return ReportFacts(**{name: compute(material) for name, compute in COMPUTATIONS.items()})


def list_other_narrowings(facts: ReportFacts) -> list[EventDescription]:
    """Return the narrowings without an estimate of when errors began, oldest first."""
    explained = {(row.site, row.window, row.narrowed_at) for row in facts.hindsights}
    return [
        event
        for event in facts.events
        if event.kind == "Narrowed"
        and event.to is not None
        and (event.site, event.window, event.at) not in explained
    ]
