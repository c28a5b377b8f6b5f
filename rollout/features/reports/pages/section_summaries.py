"""The folded sections of the report, each with a line: what is in it, and its main figure."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from rollout.engine.records.reviews import HUMANS_DISAGREE
from rollout.engine.words.event_text import count_events
from rollout.engine.words.formatting import (
    NO_DATA,
    choose_words,
    format_count,
    format_local_time,
    format_number_value,
    format_percent,
    format_quantity,
    format_ratio,
    format_signed,
    join_words,
)
from rollout.features.reports.figures.calibration import HUMANS
from rollout.features.reports.figures.facts import ReportFacts
from rollout.features.reports.figures.methods import NaiveOpening
from rollout.features.reports.inputs.losses import UNSURE
from rollout.features.reports.pages.number_charts import choose_differences
from rollout.features.reports.pages.report_tiles import describe_stage_changes
from rollout.features.reports.pages.summary import format_span, select_agreements, summarize_gains
from rollout.kernel.calendar.instants import SHADOW

LOSS_KIND_NAMES = {
    "unsure and different": UNSURE,
    HUMANS_DISAGREE: "human disagrees",
}


def select_naive_openings(facts: ReportFacts) -> list[NaiveOpening]:
    """Return the naive openings of cells that never left shadow."""
    shadow_cells = facts.shadow_cells
    return [opening for opening in facts.naive_openings if opening.cell in shadow_cells]


def _summarize_cells(facts: ReportFacts) -> str:
    counts = Counter(cell.stage for cell in facts.stages)
    parts = [
        f"{format_count(counts[stage])} {'in ' * (stage == SHADOW)}{stage}"
        for stage in reversed(facts.policy.stages)
        if counts[stage]
    ]
    grants = [
        (grant.until, cell.site)
        for cell in facts.stages
        for grant in cell.grants  # a stage ends with any grant below it
    ]
    if not grants:
        return join_words(parts)
    until, site = min(grants)
    ends = format_local_time(until, facts.identity.zones[site], facts.identity.last)
    return f"{join_words(parts)}; the next grant ends {ends}"


def _summarize_actions(facts: ReportFacts) -> str:
    if not facts.actions:
        return NO_DATA
    version = facts.actions[-1].version
    rows = [row for row in facts.actions if row.version == version]
    largest = max(rows, key=lambda row: abs(row.change.per_100 or 0.0))
    newest = ", the newest version" if len(rows) < len(facts.actions) else ""
    return (
        f"{version}{newest}: {format_signed(largest.change.per_100)} {largest.action}"
        " per 100 cases, the largest change"
    )


def _summarize_divergences(facts: ReportFacts) -> str:
    figures = facts.divergences
    if not figures.count:
        return "none"
    text = (
        f"{format_quantity(figures.count, 'divergence')}, {format_count(figures.in_action)} with"
        " another action"
    )
    return "; ".join((*summarize_gains(facts.gains), text))


def _summarize_rules(facts: ReportFacts) -> str:
    openings = select_naive_openings(facts)
    compared = "; other ways to open cells are compared" if facts.methods else ""
    if not openings:
        return f"no cell stayed in shadow that a simple rule would have widened{compared}"
    worst = max(openings, key=lambda row: row.wrong.count)
    cells = {row.cell for row in openings}
    name = worst.cell_name if len(cells) == 1 else format_quantity(len(cells), "cell")
    cases = f"{format_ratio(worst.wrong)} cases {worst.words.wrong}"
    return f"would have widened {name}, with up to {cases}{compared}"


def _summarize_auditing(facts: ReportFacts) -> str:
    if not facts.hindsights:
        return "no guard on the model's decisions narrowed a cell"
    rows = [row for row in facts.hindsights if row.cost.known_cases and row.cost_if_seen]
    narrowed = format_quantity(len(facts.hindsights), "narrowing")
    if not rows:
        return narrowed
    actual = sum(row.cost.wrong_action.count for row in rows)
    best = sum(row.cost_if_seen.wrong_action.count for row in rows if row.cost_if_seen)
    words = choose_words(
        sum(row.cost.by_outcome for row in rows), sum(row.cost.known_cases for row in rows)
    )
    return (
        f"{narrowed}; {format_quantity(actual, 'case')} {words.wrong} before the alarm,"
        f" {format_count(best)} with a guard on all blind decisions"
    )


def _summarize_operations(facts: ReportFacts) -> str:
    incidents = format_quantity(len(facts.oversight.incidents), "incident")
    drilled = "never drilled" if facts.oversight.last_drill is None else "drilled"
    if not facts.pending_work.live:
        return f"{incidents}; a replay has no review queue and no stops"
    return f"{incidents}; {format_quantity(facts.pending_work.open, 'open review')}; stop {drilled}"


def _summarize_evidence(facts: ReportFacts) -> str:
    gates = [row.gate for row in facts.evidence if row.gate is not None]
    met = sum(gate.met for gate in gates)
    return (
        f"{format_quantity(len(gates), 'gate')} to come,"
        f" {format_count(met)} with every condition met"
    )


def _summarize_price(facts: ReportFacts) -> str:
    if not facts.model_cost.cases:
        return "the model decided no case"
    cost = facts.model_cost
    share = format_percent(cost.wrong_action.rate, 2)
    cases = format_quantity(cost.cases, "case")
    text = f"{cases} decided by the model, {share} {cost.words.wrong}"
    return "; ".join((*summarize_gains(facts.gains), text))


def _summarize_events(facts: ReportFacts) -> str:
    kinds, floors = count_events(facts.events)
    steps = floors.total()
    floor_text = f", {format_quantity(steps, 'change')} of a confidence floor" if steps else ""
    return (
        f"{format_quantity(kinds['Widened'], 'widening')},"
        f" {format_quantity(kinds['TakenOver'], 'takeover')},"
        f" {format_quantity(kinds['Narrowed'], 'narrowing')},"
        f" {format_quantity(kinds['Renewed'], 'renewal')}{floor_text}"
    )


def _summarize_funnel(facts: ReportFacts) -> str:
    if not facts.funnels:
        return NO_DATA
    steps = facts.funnels[0].steps
    return (
        f"{format_quantity(steps[0].remaining, 'case')},"
        f" {format_quantity(steps[-1].remaining, 'unit')} of {facts.funnels[0].version}"
        " with a human decision that can count"
    )


def _summarize_agreement(facts: ReportFacts) -> str:
    parts = [
        f"{row.version} {format_percent(row.agreement.rate)} of"
        f" {format_quantity(row.agreement.n, 'case')}"
        for row in select_agreements(facts)
    ]
    parts += [
        f"{row.version} {row.lever}: bias {format_number_value(bias, differences.unit)}"
        for row in facts.number_agreements
        if (bias := (differences := choose_differences(row)).bias.value) is not None
    ]
    return "; ".join(parts) or NO_DATA


def _summarize_slices(facts: ReportFacts) -> str:
    names = [row.name for search in facts.slice_searches for row in search.slices]
    compared = max((search.tested_slices for search in facts.slice_searches), default=0)
    text = f"{format_count(compared)} compared"
    unique = list(dict.fromkeys(names))[:3]
    return f"{text}: {join_words(unique)} stand out" if unique else f"{text}, none stands out"


def _summarize_losses(facts: ReportFacts) -> str:
    counts: Counter[str] = Counter()
    for row in facts.losses:
        counts.update(row.counts)
    parts = [f"{format_count(n)} {format_loss_kind(kind)}" for kind, n in counts.items()]
    has_several = len({row.version for row in facts.losses}) > 1
    return ", ".join(parts) + "; a case counts for each version" * has_several if parts else NO_DATA


def format_loss_kind(kind: str) -> str:
    """Return the name of a kind of loss on pages."""
    return LOSS_KIND_NAMES.get(kind, kind)


def _summarize_confusions(facts: ReportFacts) -> str:
    rows = [row for row in facts.agreements if row.label_matrix and row.label_matrix.labels]
    if not rows or rows[-1].label_matrix is None:
        return "sites, windows and attributes" if facts.number_agreements else NO_DATA
    return f"{format_quantity(len(rows[-1].label_matrix.labels), 'label')} by human and by model"


def _summarize_confidence(facts: ReportFacts) -> str:
    parts = [
        f"{row.version} against {'humans' if row.reference == HUMANS else 'outcomes'}:"
        f" calibration error {format_percent(row.ece)}"
        for row in facts.calibrations
        if row.ece is not None
    ]
    return "; ".join(parts[-2:]) or NO_DATA  # of the newest version, as on its tile


def _summarize_drift(facts: ReportFacts) -> str:
    changed = sum(row.differs for row in facts.drift.changes)
    return (
        f"{format_count(changed)} of {format_quantity(facts.drift.compared, 'comparison')}"
        f" changed; {format_quantity(len(facts.drift.new_values), 'value')} never seen in shadow"
    )


def _summarize_latency(facts: ReportFacts) -> str:
    parts = [
        f"{row.version}: {format_ratio(row.failed)} without an answer"
        for row in facts.latencies
        if row.site is None
    ]
    return "; ".join(parts) or NO_DATA


def _summarize_sampling(facts: ReportFacts) -> str:
    rows = [row for row in facts.audits.sampling if row.planned < 1]
    if not rows:
        return "every case was in shadow, nothing was sampled"
    off = sum(row.differs_from_plan for row in rows)
    cases = sum(row.cases for row in rows)
    sampled = sum(row.drawn.count for row in rows)
    return (
        f"{format_count(sampled)} of {format_quantity(cases, 'case')} sampled;"
        f" {format_count(off)} of {format_count(len(rows))} rows off plan"
    )


def _summarize_outcomes(facts: ReportFacts) -> str:
    parts = [
        f"{row.version} right in {format_percent(row.model.rate)} of {format_count(row.model.n)}"
        for row in facts.correctness
        if row.reference == "outcome"
    ]
    return "; ".join((*summarize_gains(facts.gains), *parts[:2])) or "no outcomes"


def _summarize_reviewers(facts: ReportFacts) -> str:
    names = [row.reviewer for row in facts.reviewer_agreement.reviewers if row.clearly_below_in]
    text = format_quantity(len(facts.reviewer_agreement.reviewers), "reviewer")
    return (
        f"{text}; {join_words(names[:3])} {'stands' if len(names) == 1 else 'stand'} out"
        if names
        else f"{text}, none stands out"
    )


def _summarize_cleaning(facts: ReportFacts) -> str:
    return (
        f"{format_quantity(len(facts.cleaning.headlines), 'version')} with training choices"
        if facts.cleaning.has_choices
        else "a replay has no training choices"
    )


def _summarize_feedback(facts: ReportFacts) -> str:
    loops = [row.version for row in facts.feedback_loops if row.is_shown]
    return f"{join_words(loops)} shapes its own data" if loops else "no feedback loop found"


def _summarize_policy(facts: ReportFacts) -> str:
    rules = facts.policy
    return (
        f"policy {facts.identity.policy_number}: {format_quantity(len(rules.gates), 'gate')},"
        f" {format_quantity(len(rules.guards), 'guard')},"
        f" {format_quantity(len(rules.sites), 'site')}"
    )


def _summarize_ledger(facts: ReportFacts) -> str:
    kinds = Counter(event.kind for event in facts.events)
    text = (
        f"{format_quantity(kinds['ProposalRaised'], 'proposal')},"
        f" {format_quantity(kinds['Approved'], 'approval')}"
    )
    return f"{text}, all simulated" if facts.identity.simulated and kinds["Approved"] else text


def _summarize_stops(facts: ReportFacts) -> str:
    drills = sum(stop.drill for stop in facts.oversight.stops)
    return (
        f"{format_quantity(len(facts.oversight.stops) - drills, 'stop')},"
        f" {format_quantity(drills, 'drill')},"
        f" {format_quantity(len(facts.oversight.incidents), 'incident')}"
    )


def _summarize_gaps(facts: ReportFacts) -> str:
    silences = facts.oversight.silences
    if not silences:
        return NO_DATA
    longest = max(silences, key=lambda row: row.hours)
    return f"longest gap: {longest.hours:.0f} hours at {longest.site}"


@dataclass(frozen=True, slots=True)
class ReportSection:
    """A folded section of a reader's page.

    Attributes:
        reader: whose page has it.
        title: its heading.
        parts: its templates in order: `READER_PART.html.j2`.
        summarize: returns its line.
    """

    reader: str
    title: str
    parts: tuple[str, ...]
    summarize: Callable[[ReportFacts], str]


SECTIONS: Final[Mapping[str, ReportSection]] = {
    "stages": ReportSection(
        "operator",
        "Stages over time",
        ("stages",),
        lambda facts: f"{format_span(facts.identity)}: {describe_stage_changes(facts)}",
    ),
    "cells": ReportSection("operator", "Cells and next steps", ("cells",), _summarize_cells),
    "actions": ReportSection("operator", "Change in actions", ("actions",), _summarize_actions),
    "divergences": ReportSection(
        "operator", "Costliest divergences", ("divergences",), _summarize_divergences
    ),
    "incidents": ReportSection("operator", "Operations", ("desk",), _summarize_operations),
    "evidence": ReportSection(
        "engineer",
        "Evidence against thresholds",
        ("evidence", "floors", "planted", "shown"),
        _summarize_evidence,
    ),
    "rules": ReportSection("engineer", "Simple rules", ("rules", "methods"), _summarize_rules),
    "auditing": ReportSection(
        "engineer", "Price of auditing little", ("auditing",), _summarize_auditing
    ),
    "price": ReportSection(
        "engineer", "Cost of the model's decisions", ("price",), _summarize_price
    ),
    "events": ReportSection("engineer", "What happened", ("events",), _summarize_events),
    "timelines": ReportSection(
        "engineer",
        "Timelines of cells",
        ("timelines",),
        lambda facts: (
            f"{format_quantity(len(facts.cell_timelines), 'cell')} with most events: who decided,"
            " agreement with bounds, and what happened"
        ),
    ),
    "funnel": ReportSection("engineer", "From records to evidence", ("funnel",), _summarize_funnel),
    "agreement": ReportSection(
        "engineer", "Agreement", ("agreement", "numbers", "anchoring"), _summarize_agreement
    ),
    "slices": ReportSection("engineer", "Slices", ("slices",), _summarize_slices),
    "losses": ReportSection(
        "engineer", "Cases to look at again", ("losses", "worst"), _summarize_losses
    ),
    "confusion": ReportSection(
        "engineer", "Confusions", ("confusion", "actions"), _summarize_confusions
    ),
    "confidence": ReportSection("engineer", "Confidence", ("calibration",), _summarize_confidence),
    "drift": ReportSection("engineer", "Drift", ("drift",), _summarize_drift),
    "latency": ReportSection("engineer", "Latency", ("latency",), _summarize_latency),
    "sampling": ReportSection("engineer", "Sampling", ("audits",), _summarize_sampling),
    "outcomes": ReportSection(
        "engineer", "Outcomes and baseline", ("outcomes", "baseline"), _summarize_outcomes
    ),
    "reviewers": ReportSection(
        "engineer", "Reviewers", ("people", "reviewers"), _summarize_reviewers
    ),
    "cleaning": ReportSection("engineer", "Training choices", ("cleaning",), _summarize_cleaning),
    "feedback": ReportSection("engineer", "Feedback", ("feedback",), _summarize_feedback),
    "policy": ReportSection("auditor", "Policy", ("policy",), _summarize_policy),
    "promises": ReportSection(
        "auditor",
        "Promises and limits",
        ("promises",),
        lambda facts: (
            f"{format_quantity(len(facts.promises), 'promise')} on widening,"
            " and what is not claimed"
        ),
    ),
    "versions": ReportSection(
        "auditor",
        "Versions and attempts",
        ("versions",),
        lambda facts: (
            f"{format_quantity(len(facts.identity.versions), 'version')} in"
            f" {format_quantity(len(facts.stages), 'cell')}"
        ),
    ),
    "ledger": ReportSection("auditor", "Proposals and approvals", ("ledger",), _summarize_ledger),
    "checks": ReportSection(
        "auditor",
        "Reviewer checks",
        ("reviewers",),
        lambda facts: format_quantity(len(facts.review_quality.reviewers), "reviewer"),
    ),
    "stops": ReportSection("auditor", "Stops and incidents", ("oversight",), _summarize_stops),
    "gaps": ReportSection("auditor", "Gaps in the records", ("gaps",), _summarize_gaps),
    "sources": ReportSection(
        "auditor",
        "Reproduce this report",
        ("sources",),
        lambda facts: (
            f"{facts.identity.product or 'program not stated'},"
            f" policy {facts.identity.policy_hash[:16]}"
        ),
    ),
}
"""Sections in the order of the page; a finding links to the section of its details."""
