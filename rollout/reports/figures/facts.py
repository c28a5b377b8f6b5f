"""The facts of a report: all figures, independent of any page."""

from dataclasses import dataclass

from rollout.reports.figures.agreement import AgreementFigures, compute_agreements
from rollout.reports.figures.answer_patterns import Anchoring, compute_anchoring
from rollout.reports.figures.audit_cost import (
    Hindsight,
    VisibleAgreement,
    compute_hindsights,
    compute_visible_agreements,
)
from rollout.reports.figures.audits import AuditFigures, build_sampling_frame, compute_audits
from rollout.reports.figures.baseline_change import BaselineChange, compute_baseline_changes
from rollout.reports.figures.calibration import Calibration, compute_calibrations
from rollout.reports.figures.cell_timeline import compute_cell_timelines
from rollout.reports.figures.detector_courses import IncidentCourse, compute_incident_courses
from rollout.reports.figures.drift import DriftFigures, compute_drift
from rollout.reports.figures.evidence_facts import EvidenceFacts, compute_evidence_facts
from rollout.reports.figures.feedback_loop import FeedbackLoop, compute_feedback
from rollout.reports.figures.funnel import (
    FileRowCounts,
    Funnel,
    RowExample,
    UnknownLabels,
    compute_funnels,
    count_file_rows,
    find_unknown_labels,
    list_rejected_examples,
)
from rollout.reports.figures.gains import GainFacts, compute_gains
from rollout.reports.figures.holdout import HoldoutActions, compute_holdout_actions
from rollout.reports.figures.label_issues import CleaningFigures, compute_cleaning
from rollout.reports.figures.label_sources import (
    DecisionSources,
    compute_decision_sources,
    count_vouched_units,
)
from rollout.reports.figures.latency import Latency, compute_latencies
from rollout.reports.figures.methods import MethodOutcome, compare_methods
from rollout.reports.figures.missing_decisions import count_cell_reasons
from rollout.reports.figures.model_cost import (
    CellModelCost,
    ModelCost,
    build_model_cases,
    compute_cell_costs,
    compute_model_cost,
)
from rollout.reports.figures.naive_baselines import NaiveOpening, find_naive_openings
from rollout.reports.figures.next_step import OpenProposal
from rollout.reports.figures.number_agreement import NumberAgreement, compute_number_agreements
from rollout.reports.figures.outcomes import Correctness, compute_correctness
from rollout.reports.figures.oversight import (
    Oversight,
    PermitCount,
    compute_oversight,
    count_permits,
)
from rollout.reports.figures.pending_work import PendingWork, compute_pending_work
from rollout.reports.figures.report_identity import (
    PolicySummary,
    ReportIdentity,
    build_identity,
    describe_promises,
    summarize_policy,
)
from rollout.reports.figures.report_version import SCHEMA, ReportVersion, build_report_version
from rollout.reports.figures.reviewer_agreement import ReviewerAgreement, compute_reviewer_agreement
from rollout.reports.figures.reviewers import ReviewQuality, compute_review_quality
from rollout.reports.figures.slices import SliceSearch, compute_slice_searches
from rollout.reports.figures.stage_map import SiteCalendar, build_calendars
from rollout.reports.figures.timeline_parts import CellTimeline
from rollout.reports.figures.unfamiliar import UnfamiliarCases, compute_unfamiliar_cases
from rollout.reports.inputs.actions import ActionFrequencyChange, compute_action_changes
from rollout.reports.inputs.decided_by import assign_deciders
from rollout.reports.inputs.divergences import (
    DivergenceFigures,
    build_divergence_frame,
    compute_divergences,
)
from rollout.reports.inputs.evidence_paths import build_all_evidence_paths
from rollout.reports.inputs.gate_progress import build_state_periods
from rollout.reports.inputs.inputs import ReportInputs
from rollout.reports.inputs.losses import LossFigures, compute_losses
from rollout.reports.inputs.pairs import build_assisted_pairs
from rollout.reports.inputs.stages import CellStages, compute_stage_histories
from rollout.reports.text.event_text import EventDescription, describe_events
from rollout.tally.late_senders import find_costly_spells, find_late_senders


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

    schema: str
    identity: ReportIdentity
    policy: PolicySummary
    promises: tuple[str, ...]
    files: tuple[FileRowCounts, ...]
    rejected_examples: tuple[RowExample, ...]
    unknown_labels: tuple[UnknownLabels, ...]
    funnels: tuple[Funnel, ...]
    agreements: tuple[AgreementFigures, ...]
    anchoring: tuple[Anchoring, ...]
    correctness: tuple[Correctness, ...]
    audits: AuditFigures
    hold_outs: tuple[HoldoutActions, ...]
    baseline_changes: tuple[BaselineChange, ...]
    evidence: tuple[EvidenceFacts, ...]
    stages: tuple[CellStages, ...]
    calendar: tuple[SiteCalendar, ...]
    events: tuple[EventDescription, ...]
    model_cost: ModelCost
    cell_model_costs: tuple[CellModelCost, ...]
    hindsights: tuple[Hindsight, ...]
    visible_agreements: tuple[VisibleAgreement, ...]
    naive_openings: tuple[NaiveOpening, ...]
    actions: tuple[ActionFrequencyChange, ...]
    divergences: DivergenceFigures
    reviewer_agreement: ReviewerAgreement
    review_quality: ReviewQuality
    calibrations: tuple[Calibration, ...]
    slice_searches: tuple[SliceSearch, ...]
    drift: DriftFigures
    latencies: tuple[Latency, ...]
    losses: tuple[LossFigures, ...]
    pending_work: PendingWork
    feedback_loops: tuple[FeedbackLoop, ...]
    cleaning: CleaningFigures
    oversight: Oversight

    report_version: ReportVersion
    sources: DecisionSources
    permits: tuple[PermitCount, ...]
    number_agreements: tuple[NumberAgreement, ...]
    unfamiliar_cases: tuple[UnfamiliarCases, ...]
    gains: tuple[GainFacts, ...]
    planted_cases: int
    cell_timelines: tuple[CellTimeline, ...]
    methods: tuple[MethodOutcome, ...]
    detector_courses: tuple[IncidentCourse, ...]

    @property
    def open_proposals(self) -> tuple[OpenProposal, ...]:
        """Return the proposals that need approvals, in the order of the cells."""
        return tuple(item.proposal for item in self.evidence if item.proposal is not None)


def compute_report_facts(inputs: ReportInputs) -> ReportFacts:
    """Return the facts that follow from the inputs; the same inputs give the same facts."""
    pairs = inputs.pairs
    assisted_pairs = build_assisted_pairs(inputs.records, inputs.case_facts, inputs.policy)
    state_periods = build_state_periods(inputs)
    decided_cases = assign_deciders(inputs)
    sampled_cases = build_sampling_frame(inputs, decided_cases)
    model_cases = build_model_cases(inputs, decided_cases)
    late_senders = None if inputs.records.backtest else find_late_senders(inputs.records)
    return ReportFacts(
        schema=SCHEMA,
        identity=build_identity(inputs),
        policy=summarize_policy(inputs.policy),
        promises=describe_promises(inputs.policy),
        files=count_file_rows(inputs.records),
        rejected_examples=list_rejected_examples(inputs.records),
        unknown_labels=find_unknown_labels(inputs.records, inputs.policy),
        sources=compute_decision_sources(
            inputs.records,
            inputs.chosen_sources,
            late_senders,
            find_costly_spells(inputs.records, late_senders),
            count_vouched_units(inputs),
            inputs.policy.samples_by_version,
            inputs.registered,
        ),
        funnels=compute_funnels(inputs, pairs.predicted),
        agreements=compute_agreements(pairs, assisted_pairs, inputs.records, inputs.policy),
        anchoring=compute_anchoring(pairs, assisted_pairs, inputs.policy),
        correctness=compute_correctness(inputs.records, inputs.case_facts, inputs.policy),
        audits=compute_audits(inputs, pairs, sampled_cases),
        hold_outs=compute_holdout_actions(inputs, sampled_cases),
        baseline_changes=compute_baseline_changes(inputs),
        evidence=compute_evidence_facts(
            inputs,
            state_periods,
            build_all_evidence_paths(inputs, state_periods),
            count_cell_reasons(inputs),
        ),
        stages=compute_stage_histories(inputs),
        calendar=build_calendars(inputs),
        events=describe_events(
            inputs.policy,
            inputs.events,
            inputs.first,
            inputs.last,
            is_simulated=inputs.is_simulated,
        ),
        model_cost=compute_model_cost(model_cases),
        cell_model_costs=compute_cell_costs(model_cases),
        hindsights=compute_hindsights(inputs, state_periods, model_cases),
        visible_agreements=compute_visible_agreements(inputs),
        naive_openings=find_naive_openings(inputs, pairs),
        actions=compute_action_changes(pairs, inputs.policy),
        divergences=compute_divergences(
            build_divergence_frame(pairs, inputs.records, inputs.policy),
            inputs.policy,
            inputs.media,
        ),
        reviewer_agreement=compute_reviewer_agreement(
            pairs, inputs.records, inputs.case_facts, inputs.policy
        ),
        review_quality=compute_review_quality(inputs, decided_cases),
        calibrations=compute_calibrations(pairs, inputs.records, inputs.case_facts, inputs.policy),
        slice_searches=compute_slice_searches(inputs.records, inputs.case_facts, inputs.policy),
        drift=compute_drift(inputs),
        latencies=compute_latencies(inputs.records, inputs.cases, inputs.policy),
        losses=compute_losses(inputs.records, inputs.cases, inputs.policy),
        pending_work=compute_pending_work(inputs),
        feedback_loops=compute_feedback(inputs),
        cleaning=compute_cleaning(inputs, pairs),
        oversight=compute_oversight(inputs),
        permits=count_permits(inputs),
        report_version=build_report_version(inputs),
        number_agreements=compute_number_agreements(pairs, inputs.policy),
        unfamiliar_cases=compute_unfamiliar_cases(inputs, decided_cases),
        gains=compute_gains(inputs),
        planted_cases=_count_planted_cases(inputs),
        cell_timelines=compute_cell_timelines(inputs, state_periods),
        methods=compare_methods(inputs, decided_cases, model_cases),
        detector_courses=compute_incident_courses(inputs),
    )


def _count_planted_cases(inputs: ReportInputs) -> int:
    """Return the planted cases of a replay; 0 in a service.

    There a count that rises when a case arrives would tell its reviewers that it is planted.
    """
    planted = inputs.records.planted
    return planted.cases.height if inputs.is_simulated and planted is not None else 0
