"""Findings of each reader: at most five, the most severe first."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from typing import Final

from rollout.engine.decide.scope import STOPPED, SUSPENDED
from rollout.engine.words.evidence_text import (
    describe_registered_units,
    describe_sources,
    describe_spell,
)
from rollout.engine.words.formatting import (
    describe_duration,
    format_cell_name,
    format_count,
    format_local_time,
    format_percent,
    format_quantity,
    format_ratio,
    format_zoned_time,
    is_amount,
    join_words,
    to_sentence,
)
from rollout.features.reports.figures.evidence_facts import EvidenceFacts, OpenProposal
from rollout.features.reports.figures.facts import ReportFacts, list_other_narrowings
from rollout.features.reports.figures.funnel import EXPOSURE_UNKNOWN, ONLY_ASSISTED
from rollout.features.reports.figures.oversight import Hindsight
from rollout.features.reports.figures.reviewer_agreement import (
    list_visible_standouts,
)
from rollout.features.reports.figures.slices import CAUSE_TEXTS, LABEL_KIND, DivergentSlice
from rollout.features.reports.pages.summary import (
    REMEDIES,
    describe_conflicts,
    describe_gain,
    describe_set_remedy,
)
from rollout.kernel.calendar.instants import SHADOW, Cell

BAD, WARN, NOTE = "bad", "warn", "note"
SEVERITIES: Final = (BAD, WARN, NOTE)
OPERATOR, ENGINEER, AUDITOR = ALL = ("operator", "engineer", "auditor")


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
            title = f"{gain.version} has the worse {gain.outcome} in {gain.cell_name}"
            yield Finding(BAD, "Loss", title, describe_gain(gain), "outcomes", ALL)
    conflicts = list(describe_conflicts(facts.gains, facts.visible_agreements))
    if conflicts:
        title = f"Agreement would mislead in {format_quantity(len(conflicts), 'cell')}"
        text = " ".join(conflicts[:MAX_CONFLICTS])
        yield Finding(WARN, "Apart", title, text, "outcomes", (ENGINEER,))


MAX_SLICES = 3
COMPARISON_NAMES = {"outcome": "outcomes", "others": "other reviewers", "model": "the model"}


def list_data_findings(facts: ReportFacts) -> Iterator[Finding]:
    """Return the findings about records, reviewers and data."""
    return chain(
        _find_uncounted_decisions(facts),
        _find_sources(facts),
        _find_feedback_loops(facts),
        _find_unknown_labels(facts),
        _find_overdue_reviews(facts),
        _find_sampling_off_plan(facts),
        _find_slices(facts),
        _find_new_values(facts),
        _find_drift(facts),
        _find_standout_reviewer(facts),
    )


def _find_uncounted_decisions(facts: ReportFacts) -> Iterator[Finding]:
    """Yield versions for which most units have no decision that counts."""
    for funnel in facts.funnels:
        reason, count = funnel.main_loss
        if count > funnel.evidence_units / 2:
            title = f"Most units of {funnel.version} are not counted"
            units = format_quantity(funnel.evidence_units, "unit")
            text = f"{format_count(count)} of {units}: {reason}."
            text += f" {REMEDIES[EXPOSURE_UNKNOWN]}" * (reason in {ONLY_ASSISTED, EXPOSURE_UNKNOWN})
            yield Finding(BAD, "Not counted", title, text, "funnel", ALL)


def _find_sources(facts: ReportFacts) -> Iterator[Finding]:
    """Yield from where decisions came, and those that are no evidence because of it."""
    for item in facts.sources.unsourced:
        title = f"{format_quantity(item.decisions, 'decision')} from no source of evidence"
        text = f"They are stored, never evidence: {item.reason}."
        yield Finding(WARN, "Sources", title, text, "funnel", ALL)
    if text := facts.sources.vouched_text:
        yield Finding(WARN, "Sources", "Senders that could have seen answers", text, "funnel", ALL)
    for spell in facts.sources.spells:
        title = f"{spell.site} sent no case for {describe_duration(spell.until - spell.since)}"
        text = describe_spell(spell, facts.identity.timezone)
        yield Finding(WARN, "Sources", title, text, "funnel", ALL)
    if facts.sources.registered:
        text = to_sentence(describe_registered_units(facts.sources.registered))
        yield Finding(NOTE, "Sources", "Who registered cases", text, "funnel", ALL)
    if facts.sources.counted:
        title = "Where human decisions came from"
        text = describe_sources(facts.sources.counted, is_recorded=facts.identity.simulated)
        yield Finding(NOTE, "Sources", title, f"{text}.", "funnel", (ENGINEER, AUDITOR))


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
            f"{row.cell_name}, {row.stage}: planned"
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
    reviewer, comparison, share, rate = standouts[0]
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


MAX_FINDINGS: Final = 5
MAX_NAMED = 3  # cells listed by name


def rank_findings(facts: ReportFacts, reader: str) -> tuple[Finding, ...]:
    """Return the findings of `operator`, `engineer` or `auditor`, at most five."""
    findings = [
        item
        for item in chain(
            _find_withheld_cells(facts),
            _find_narrowings(facts),
            list_gain_findings(facts),
            _find_open_proposals(facts),
            _find_shadow_cells(facts),
            list_data_findings(facts),
            _find_missing_practice(facts),
        )
        if reader in item.readers
    ]
    return tuple(sorted(findings, key=lambda item: SEVERITIES.index(item.severity))[:MAX_FINDINGS])


def _find_withheld_cells(facts: ReportFacts) -> Iterator[Finding]:
    """Yield suspended and stopped cells."""
    for withheld, tag in ((STOPPED, "Stopped"), (SUSPENDED, "Suspended")):
        holds = {
            item.cell_name: item.next_step
            for item in sorted(facts.evidence, key=lambda item: item.acting)
            if item.withheld == withheld
        }
        if holds:
            text = "; ".join(f"{cell}: {hold}" for cell, hold in list(holds.items())[:MAX_NAMED])
            title = f"{_name_cells(list(holds))} {'is' if len(holds) == 1 else 'are'} {tag.lower()}"
            yield Finding(BAD, tag, title, f"{text}.", "cells", (OPERATOR, AUDITOR))


def _name_cells(cells: Sequence[str]) -> str:
    """Return the names of up to three cells, else their number."""
    return (
        join_words(list(cells)) if len(cells) <= MAX_NAMED else format_quantity(len(cells), "cell")
    )


def _find_narrowings(facts: ReportFacts) -> Iterator[Finding]:
    """Yield the narrowings by cell and version, then those that no quality guard explains."""
    rows = sorted(facts.hindsights, key=lambda row: (row.site, row.window, row.version))
    for _, group in groupby(rows, key=lambda row: (row.site, row.window, row.version)):
        first, *others = sorted(group, key=lambda row: row.narrowed_at)
        title = f"{first.version} was narrowed in {first.cell_name}"
        if others:
            title += f", {format_count(1 + len(others))} times, last to {others[-1].to_stage}"
        yield Finding(BAD, "Narrowed", title, _describe_narrowing(first, facts), "auditing", ALL)
    events = list_other_narrowings(facts)
    if events:
        cells = list(dict.fromkeys(format_cell_name(item.site, item.window) for item in events))
        text = f"Last, {events[-1].local}: {events[-1].short_text}."
        yield Finding(BAD, "Narrowed", f"{_name_cells(cells)} narrowed", text, "events", ALL)


def _describe_narrowing(row: Hindsight, facts: ReportFacts) -> str:
    at = format_zoned_time(row.narrowed_at, facts.identity.zones[row.site], facts.identity.first)
    text = (
        f"{at}: {row.from_stage} to {row.to_stage} by the guard “{row.guard}”,"
        f" {describe_duration(row.narrowed_at - row.began_at)} after errors rose."
    )
    if row.cost.known_cases:
        text += (
            f" The model decided {format_quantity(row.cost.known_cases, 'case')} meanwhile,"
            f" {format_count(row.cost.wrong_action.count)} of them {row.cost.words.wrong}."
        )
    return text + _describe_earlier_alarm(row)


def _describe_earlier_alarm(row: Hindsight) -> str:
    """Describe what blind decisions outside the audit would have saved."""
    if row.seen_at is None or row.seen_at >= row.narrowed_at:
        return ""
    text = f" On all blind decisions it trips after {describe_duration(row.seen_at - row.began_at)}"
    if row.cost.known_cases and row.cost_if_seen is not None:
        count = format_quantity(row.cost_if_seen.wrong_action.count, "case")
        text += f" and {count} {row.cost_if_seen.words.wrong}"
    return f"{text}."


def _find_open_proposals(facts: ReportFacts) -> Iterator[Finding]:
    proposals = facts.open_proposals
    for proposal in proposals[: MAX_NAMED - 1]:
        yield _build_proposal_finding(proposal, facts)
    if len(proposals) >= MAX_NAMED:
        rest = proposals[MAX_NAMED - 1 :]
        title = f"{format_quantity(len(rest), 'more proposal')} need approvals"
        text = f"{_name_cells([item.cell_name for item in rest])}."
        yield Finding(WARN, "Due", title, text, "cells", (OPERATOR, AUDITOR))


def _build_proposal_finding(proposal: OpenProposal, facts: ReportFacts) -> Finding:
    title = (
        f"{proposal.kind.capitalize()} of {proposal.cell_name} to {proposal.stage} needs"
        f" {format_quantity(proposal.needed, 'more approval')}"
    )
    text = f"{proposal.proposal} for {proposal.version} is open until {proposal.until}."
    ends = [
        grant.until
        for state in facts.stages
        if state.cell == proposal.cell
        for grant in state.grants
        if grant.stage == proposal.stage
    ]
    if ends and proposal.kind == "renewal":
        end = format_zoned_time(min(ends), facts.identity.zones[proposal.site], facts.identity.last)
        text = (
            f"{proposal.proposal} for {proposal.version}: approve it by {end}, when the grant ends;"
            " without approval the cell is narrowed then."
        )
    return Finding(WARN, "Due", title, text, "cells", (OPERATOR, AUDITOR))


def _find_shadow_cells(facts: ReportFacts) -> Iterator[Finding]:
    """Yield cells that never left shadow although they have evidence."""
    shadow_cells = facts.shadow_cells - {item.cell for item in facts.open_proposals}  # are due
    rows: dict[Cell, EvidenceFacts] = {}
    for item in sorted(facts.evidence, key=lambda item: -item.closed_units):
        if item.cell in shadow_cells and item.closed_units and item.stage == SHADOW:
            rows.setdefault(item.cell, item)
    for item in list(rows.values())[: MAX_NAMED - 1]:
        title = f"{item.cell_name} stays in shadow"
        opening = _describe_naive_opening(item, facts)
        text = _describe_shortfall(item) + opening
        section = "rules" if opening else "cells"
        yield Finding(WARN, "Held", title, text, section, (OPERATOR, ENGINEER))
    rest = [item.cell_name for item in list(rows.values())[MAX_NAMED - 1 :]]
    if rest:
        title = f"{format_quantity(len(rest), 'more cell stays', 'more cells stay')} in shadow"
        text = f"{', '.join(rest[:MAX_NAMED])}, …"  # no full stop after an ellipsis
        if len(rest) <= MAX_NAMED:
            text = f"{join_words(rest)}."
        yield Finding(WARN, "Held", title, text, "cells", (OPERATOR,))


def _describe_shortfall(evidence: EvidenceFacts) -> str:
    """Describe what the gate needs and what the evidence is."""
    gate = evidence.gate
    worst = gate.worst_condition if gate else None
    # a share of nothing would read as 0 %
    if gate is None or worst is None or not evidence.decided_units:
        return f"{evidence.version}: {evidence.next_step}."
    measured = _format_measured(worst.measure, worst.estimate, worst.counts)
    text = f"{evidence.version}: {measured}; {worst.describe_need()}."
    if gate.missing:
        text += f" Also missing: {'; '.join(gate.missing)}."
    return text


def _format_measured(measure: str, estimate: float | None, counts: tuple[int, ...]) -> str:
    if estimate is None:
        return "no data"
    if is_amount(measure):
        return f"{measure} {estimate:.3g}"
    ratio = f"{format_count(counts[0])} of {format_count(sum(counts))}"
    return f"{measure} {format_percent(estimate)} ({ratio})"


def _describe_naive_opening(evidence: EvidenceFacts, facts: ReportFacts) -> str:
    """Describe what the first simple rule would have done in a cell."""
    openings = [
        item
        for item in facts.naive_openings
        if (item.cell, item.version) == (evidence.cell, evidence.version)
    ]
    if not openings:
        return ""
    opening = min(openings, key=lambda item: item.opened_at)
    zone = facts.identity.zones[opening.site]
    text = (
        f" Rule “{opening.rule}” would widen on"
        f" {format_zoned_time(opening.opened_at, zone, facts.identity.first)}"
    )
    if not opening.wrong.n:
        return f"{text}."
    text += f": model {opening.words.wrong} in {format_ratio(opening.wrong)} cases"
    if opening.human_wrong.n:
        text += f", humans wrong in {format_ratio(opening.human_wrong)}"
    return f"{text}."


def _find_missing_practice(facts: ReportFacts) -> Iterator[Finding]:
    if facts.oversight.last_drill is None:
        used = "was never used and never" if facts.oversight.last_stop is None else "was never"
        lack = "A replay has no drill" if facts.identity.simulated else f"The stop {used} drilled"
        text = f"{lack}. A drill measures how soon a stop holds at each site."
        yield Finding(NOTE, "Drill", "No stop drill yet", text, "incidents", (OPERATOR, AUDITOR))
