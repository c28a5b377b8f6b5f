"""The facts of a report: numbers with their intervals, and nothing about how they are shown."""

from dataclasses import dataclass

from rollout.reports.figures.agreement import Agreement, agreement_figures
from rollout.reports.figures.anchoring import Anchoring, anchoring_of
from rollout.reports.figures.audit_cost import Hindsight, Sighted, hindsights, sighted
from rollout.reports.figures.audits import Audits, audits_of, drawn_cases
from rollout.reports.figures.baseline_change import BaselineChange, baseline_changes
from rollout.reports.figures.calibration import Calibration, calibrations
from rollout.reports.figures.drift import Drifts, drifts_of
from rollout.reports.figures.evidence_facts import EvidenceFacts, evidence_facts
from rollout.reports.figures.feedback_loop import Feedback, feedback_of
from rollout.reports.figures.funnel import (
    FileRows,
    Funnel,
    RowExample,
    file_rows,
    funnels,
    set_aside_examples,
)
from rollout.reports.figures.holdout_actions import HoldOutActions, hold_out_actions
from rollout.reports.figures.label_issues import Cleaning, cleaning_of
from rollout.reports.figures.latency import Latency, latencies
from rollout.reports.figures.model_cost import CellPrice, Price, cell_prices, price_of, priced_cases
from rollout.reports.figures.naive_baselines import NaiveOpening, naive_openings
from rollout.reports.figures.outcomes import Correctness, correctness_of
from rollout.reports.figures.oversight import Oversight, oversight
from rollout.reports.figures.pending_work import Desk, desk_of
from rollout.reports.figures.report_identity import Identity, Rules, identity_of, promise, rules_of
from rollout.reports.figures.report_version import Edition, edition_of
from rollout.reports.figures.reviewer_agreement import Judged, judged
from rollout.reports.figures.reviewers import Health, health_of
from rollout.reports.figures.slices import SliceSearch, slice_searches
from rollout.reports.figures.stage_map import Panel, panels_of
from rollout.reports.inputs.actions import ActionChange, action_changes
from rollout.reports.inputs.decided_by import standing
from rollout.reports.inputs.divergences import Divergences, divergence_frame, divergences_of
from rollout.reports.inputs.evidence_paths import all_paths
from rollout.reports.inputs.gate_progress import courses
from rollout.reports.inputs.inputs import Inputs
from rollout.reports.inputs.losses import Losses, losses_of
from rollout.reports.inputs.pairs import pair_up
from rollout.reports.inputs.stages import CellStages, stages_of
from rollout.reports.inputs.unblinded import seen_pairs
from rollout.reports.inputs.unknown_labels import Unlisted, unlisted_answers
from rollout.reports.text.event_text import Happening, happenings

SCHEMA = "rollout-report/1"


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that a report says.

    Attributes:
        schema: name and version of this form; a field that is added keeps the version, one that
            is taken away or changes its meaning raises it.
        identity, rules, promises: what it is of, under which policy, and what that promises.
        files, examples: what became of the rows that were read, and some that were set aside.
        unlisted: answers that are none of the policy's labels, or out of its range.
        funnels: per version, where the cases went.
        agreements: per version and lever, record-level figures: they decide nothing.
        anchoring: how much more people agree who were shown the answer.
        correctness: versions and people against outcomes and adjudications: no evidence.
        audits: how cases were drawn for unseen verdicts, and what these say of all cases.
        hold_outs: what the model does beside people on cases that a draw parted.
        baselines: what is done now against what people did before; empty without a baseline.
        evidence: per cell and version, what decides.
        stages, calendar, timeline: what was allowed where and when, and what happened.
        price, prices: what it cost that the model decided, in all and by cell.
        hindsights, sighted: what somebody who saw every verdict would have known.
        naive: when plain rules would have opened each cell, for comparison.
        actions: what would be done otherwise, on the same cases.
        divergences: how many, and the dearest.
        people: reviewers, and how far they agree with each other.
        health: how people judge: how fast, how evenly, how well where it can be checked.
        calibrations: per version and lever, what its confidence is worth.
        slice_searches: per version and lever, where it differs from people more than elsewhere.
        drifts: what is no longer as it was at the start.
        latencies: per version and site, how fast answers came, and how many failed.
        losses: per version and lever, cases to look at again.
        desk: what waits for people, and who was last heard; a replay has none.
        feedback: per version and lever, what the model has to do with later data.
        cleaning: what people chose about cases for training, and what it does to agreement.
        oversight: stops, incidents, and where nothing was heard.
        edition: which version this is, and until when it may change.
    """

    schema: str
    identity: Identity
    rules: Rules
    promises: tuple[str, ...]
    files: tuple[FileRows, ...]
    examples: tuple[RowExample, ...]
    unlisted: tuple[Unlisted, ...]
    funnels: tuple[Funnel, ...]
    agreements: tuple[Agreement, ...]
    anchoring: tuple[Anchoring, ...]
    correctness: tuple[Correctness, ...]
    audits: Audits
    hold_outs: tuple[HoldOutActions, ...]
    baselines: tuple[BaselineChange, ...]
    evidence: tuple[EvidenceFacts, ...]
    stages: tuple[CellStages, ...]
    calendar: tuple[Panel, ...]
    timeline: tuple[Happening, ...]
    price: Price
    prices: tuple[CellPrice, ...]
    hindsights: tuple[Hindsight, ...]
    sighted: tuple[Sighted, ...]
    naive: tuple[NaiveOpening, ...]
    actions: tuple[ActionChange, ...]
    divergences: Divergences
    people: Judged
    health: Health
    calibrations: tuple[Calibration, ...]
    slice_searches: tuple[SliceSearch, ...]
    drifts: Drifts
    latencies: tuple[Latency, ...]
    losses: tuple[Losses, ...]
    desk: Desk
    feedback: tuple[Feedback, ...]
    cleaning: Cleaning
    oversight: Oversight

    edition: Edition


def facts_of(inputs: Inputs) -> Facts:
    """Return the facts that follow from the inputs; the same inputs give the same facts."""
    pairs = pair_up(inputs.records, inputs.cases, inputs.policy)
    assisted_pairs = seen_pairs(inputs.records, inputs.cases, inputs.policy)
    state_periods = courses(inputs)
    decided_cases = standing(inputs)
    sampled_cases = drawn_cases(inputs, decided_cases)
    model_cases = priced_cases(inputs, decided_cases)
    return Facts(
        schema=SCHEMA,
        identity=identity_of(inputs),
        rules=rules_of(inputs.policy),
        promises=promise(inputs.policy),
        files=file_rows(inputs.records),
        examples=set_aside_examples(inputs.records),
        unlisted=unlisted_answers(inputs.records, inputs.policy),
        funnels=funnels(inputs, pairs.predicted),
        agreements=agreement_figures(pairs, assisted_pairs, inputs.records, inputs.policy),
        anchoring=anchoring_of(pairs, assisted_pairs, inputs.policy),
        correctness=correctness_of(inputs.records, inputs.cases, inputs.policy),
        audits=audits_of(inputs, pairs, sampled_cases),
        hold_outs=hold_out_actions(inputs, sampled_cases),
        baselines=baseline_changes(inputs),
        evidence=evidence_facts(inputs, state_periods, all_paths(inputs, state_periods)),
        stages=stages_of(inputs),
        calendar=panels_of(inputs),
        timeline=happenings(inputs),
        price=price_of(model_cases),
        prices=cell_prices(model_cases),
        hindsights=hindsights(inputs, state_periods, model_cases),
        sighted=sighted(inputs),
        naive=naive_openings(inputs, pairs),
        actions=action_changes(pairs, inputs.policy),
        divergences=divergences_of(divergence_frame(pairs, inputs.policy), inputs.media),
        people=judged(pairs, inputs.records, inputs.cases, inputs.policy),
        health=health_of(inputs, decided_cases),
        calibrations=calibrations(pairs, inputs.records, inputs.cases, inputs.policy),
        slice_searches=slice_searches(inputs.records, inputs.cases, inputs.policy),
        drifts=drifts_of(inputs),
        latencies=latencies(inputs.records, inputs.cases, inputs.policy),
        losses=losses_of(pairs, inputs.records, inputs.cases, inputs.policy),
        desk=desk_of(inputs),
        feedback=feedback_of(inputs),
        cleaning=cleaning_of(inputs, pairs),
        oversight=oversight(inputs),
        edition=edition_of(inputs),
    )
