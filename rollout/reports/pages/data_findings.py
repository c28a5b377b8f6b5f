"""Findings about records, reviewers and data: unusable decisions, slices, drift, sampling."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from rollout.reports.figures.facts import ReportFacts
from rollout.reports.figures.reviewer_agreement import (
    compute_other_rate,
    list_visible_standouts,
    select_reviewer_share,
)
from rollout.reports.figures.slices import CAUSE_TEXTS, DivergentSlice
from rollout.reports.inputs.slice_units import LABEL_KIND
from rollout.reports.pages.gain_text import describe_conflicts, describe_gain
from rollout.reports.pages.summary import describe_set_remedy
from rollout.reports.text.formatting import (
    describe_duration,
    format_cell_name,
    format_count,
    format_local_time,
    format_percent,
    format_quantity,
    join_words,
    to_sentence,
)
from rollout.reports.text.source_text import (
    describe_registered_units,
    describe_sources,
    describe_spell,
)

BAD, WARN, NOTE = "bad", "warn", "note"
SEVERITIES: Final = (BAD, WARN, NOTE)
OPERATOR, ENGINEER, AUDITOR = "operator", "engineer", "auditor"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to know.

    Attributes:
        severity: `bad`, `warn` or `note`: the kind of its tag.
        tag: one word.
        title, text: what it is; then the figures, each with its denominator.
        section: id of the section with the details.
        readers: whose page lists it.
    """

    severity: str
    tag: str
    title: str
    text: str
    section: str
    readers: tuple[str, ...]


MAX_CONFLICTS: Final = 2


def list_gain_findings(facts: ReportFacts) -> Iterator[Finding]:
    """Yield cells in which the model surely loses, and where agreement and gain point apart.

    Operators may still review blind, so they are not told how often the model agrees.
    """
    for gain in facts.gains:
        if gain.upper < 0:
            cell = format_cell_name(gain.site, gain.window)
            title = f"{gain.version} has the worse {gain.outcome} in {cell}"
            text = describe_gain(gain)
            yield Finding(BAD, "Loss", title, text, "outcomes", (OPERATOR, ENGINEER, AUDITOR))
    conflicts = list(describe_conflicts(facts.gains, facts.visible_agreements))
    if conflicts:
        title = f"Agreement would mislead in {format_quantity(len(conflicts), 'cell')}"
        yield Finding(
            WARN, "Apart", title, " ".join(conflicts[:MAX_CONFLICTS]), "outcomes", (ENGINEER,)
        )


MAX_SLICES = 3
COMPARISON_NAMES = {"outcome": "outcomes", "others": "other reviewers", "model": "the model"}
EXPOSURE_WORD = "exposure"  # in the reason
EXPOSURE_REMEDY = (
    " If the reviewers had not seen the model's answer, write `outside: blind` under `evidence:` in"
    " the policy, or give the decisions a column `exposure`."
)
ALL = (OPERATOR, ENGINEER, AUDITOR)


def list_data_findings(facts: ReportFacts) -> Iterator[Finding]:
    """Yield the findings about records, reviewers and data."""
    yield from _find_uncounted_decisions(facts)
    yield from _find_sources(facts)
    yield from _find_feedback_loops(facts)
    yield from _find_unknown_labels(facts)
    yield from _find_overdue_reviews(facts)
    yield from _find_sampling_off_plan(facts)
    yield from _find_slices(facts)
    yield from _find_new_values(facts)
    yield from _find_drift(facts)
    yield from _find_standout_reviewer(facts)


def _find_uncounted_decisions(facts: ReportFacts) -> Iterator[Finding]:
    """Yield versions for which most units have no decision that counts."""
    for funnel in facts.funnels:
        reasons = funnel.steps[-1].lost
        units = funnel.steps[-1].remaining + sum(reasons.values())
        reason, count = max(reasons.items(), key=lambda row: row[1], default=("", 0))
        if count > units / 2:
            title = f"Most units of {funnel.version} are not counted"
            text = f"{format_count(count)} of {format_quantity(units, 'unit')}: {reason}."
            text += EXPOSURE_REMEDY if EXPOSURE_WORD in reason else ""
            yield Finding(BAD, "Not counted", title, text, "funnel", ALL)


def _find_sources(facts: ReportFacts) -> Iterator[Finding]:
    """Yield from where decisions came, and those that are no evidence because of it."""
    for item in facts.sources.unsourced:
        title = f"{format_quantity(item.decisions, 'decision')} from no source of evidence"
        text = f"They are stored, never evidence: {item.reason}."
        yield Finding(WARN, "Sources", title, text, "funnel", ALL)
    if facts.sources.vouched_text:
        title = "Senders that could have seen answers"
        yield Finding(WARN, "Sources", title, facts.sources.vouched_text, "funnel", ALL)
    for spell in facts.sources.spells:
        title = f"{spell.site} sent no case for {describe_duration(spell.until - spell.since)}"
        text = to_sentence(describe_spell(spell, facts.identity.timezone))
        yield Finding(WARN, "Sources", title, text, "funnel", ALL)
    if facts.sources.registered:
        text = to_sentence(describe_registered_units(facts.sources.registered))
        yield Finding(NOTE, "Sources", "Who registered cases", text, "funnel", ALL)
    if facts.sources.counted:
        title = "Where human decisions came from"
        is_recorded = facts.identity.simulated
        text = f"{describe_sources(facts.sources.counted, is_recorded=is_recorded)}."
        yield Finding(NOTE, "Sources", title, text, "funnel", (ENGINEER, AUDITOR))


def _find_feedback_loops(facts: ReportFacts) -> Iterator[Finding]:
    for loop in facts.feedback_loops:
        if loop.is_shown:
            title = f"{loop.version} shapes its own training data"
            yield Finding(BAD, "Feedback", title, " ".join(loop.summary[1:]), "feedback", ALL)


def _find_unknown_labels(facts: ReportFacts) -> Iterator[Finding]:
    for item in facts.unknown_labels:
        answers = join_words([f"'{label}' ({format_count(n)})" for label, n in item.answers])
        side = "the model" if item.side == "model" else "humans"
        title = f"{format_quantity(item.count, 'answer')} by {side} outside the policy's labels"
        text = f"For {item.lever}, most often {answers}. Each counts as a disagreement."
        text += describe_set_remedy(item)
        yield Finding(WARN, "Labels", title, text, "funnel", (OPERATOR, ENGINEER))


def _find_overdue_reviews(facts: ReportFacts) -> Iterator[Finding]:
    if facts.pending_work.overdue:
        title = f"{format_quantity(facts.pending_work.overdue, 'review')} overdue"
        text = "A missing decision counts as a disagreement."
        yield Finding(WARN, "Overdue", title, text, "incidents", (OPERATOR,))
    silent = [
        activity.site
        for activity in facts.pending_work.site_activities
        if activity.last_activity_at is None
    ]
    if silent:
        title = f"{format_quantity(len(silent), 'site')} never sent anything"
        text = f"{join_words(silent[:MAX_SLICES])}."
        yield Finding(WARN, "Silent", title, text, "incidents", (OPERATOR, ENGINEER))


def _find_sampling_off_plan(facts: ReportFacts) -> Iterator[Finding]:
    rows = [row for row in facts.audits.sampling if row.differs_from_plan]
    if rows:
        row = rows[0]
        title = f"Sampling is off plan in {format_quantity(len(rows), 'cell and stage')}"
        text = (
            f"{format_cell_name(row.site, row.window)}, {row.stage}: planned"
            f" {format_percent(row.planned)}, sampled {format_percent(row.drawn.rate)} of"
            f" {format_quantity(row.cases, 'case')}."
        )
        yield Finding(WARN, "Sampling", title, text, "sampling", (ENGINEER, AUDITOR))


def _find_slices(facts: ReportFacts) -> Iterator[Finding]:
    for search in facts.slice_searches:
        slices = [row for row in search.slices if row.names[0][0] != LABEL_KIND][:MAX_SLICES]
        if slices:
            title = f"{search.version} differs from humans most for {slices[0].name}"
            text = "; of the rest, ".join(_describe_slice(row) for row in slices)
            yield Finding(WARN, "Slice", title, f"{text}.", "slices", (ENGINEER,))


def _describe_slice(row: DivergentSlice) -> str:
    cause = f", {CAUSE_TEXTS[row.wrong_side]}" if row.wrong_side else ""
    return (
        f"{row.name}: {format_count(row.differ)} of {format_count(row.n)} units differ"
        f" ({format_percent(row.share)}, elsewhere {format_percent(row.elsewhere)}{cause})"
    )


def _find_new_values(facts: ReportFacts) -> Iterator[Finding]:
    rows = sorted(facts.drift.new_values, key=lambda row: -row.count)
    if rows:
        row = rows[0]
        first = format_local_time(
            row.first_seen_at, facts.identity.zones[row.site], facts.identity.first
        )
        title = f"{row.site} met {row.attribute} “{row.value}” only after it left shadow"
        text = (
            f"{format_count(row.count)} of the site's {format_count(row.cases_since)} cases since"
            f" it left shadow; the first of them on {first}."
        )
        if len(rows) > 1:
            text += f" {format_quantity(len(rows) - 1, 'more value')} in the section on drift."
        yield Finding(NOTE, "New value", title, text, "drift", (OPERATOR, ENGINEER))


def _find_drift(facts: ReportFacts) -> Iterator[Finding]:
    rows = [row for row in facts.drift.changes if row.differs]
    if rows:
        title = f"{format_quantity(len(rows), 'distribution')} changed since the first days"
        text = f"Most: {rows[0].site}, {rows[0].summary}."
        yield Finding(NOTE, "Drift", title, text, "drift", (ENGINEER,))


def _find_standout_reviewer(facts: ReportFacts) -> Iterator[Finding]:
    """Yield the reviewer who stands out most."""
    reviewers = facts.reviewer_agreement.reviewers
    standouts = list_visible_standouts(reviewers)
    if not standouts:
        return
    reviewer, comparison = standouts[0]
    share = select_reviewer_share(reviewer, comparison)
    rate = compute_other_rate(reviewers, reviewer, comparison)
    text = (
        f"Agreement with {COMPARISON_NAMES[comparison]}: {format_percent(share.rate)} of"
        f" {format_quantity(share.n, 'case')}, the other"
        f" {format_quantity(len(reviewers) - 1, 'reviewer')} {format_percent(rate)}."
    )
    if len(standouts) > 1:
        text += (
            f" {format_quantity(len(standouts) - 1, 'more reviewer')} with a smaller difference."
        )
    title = f"{reviewer.reviewer} agrees less with {COMPARISON_NAMES[comparison]} than others do"
    yield Finding(NOTE, "Reviewer", title, text, "reviewers", ALL)
