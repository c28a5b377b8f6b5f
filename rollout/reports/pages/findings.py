"""Findings of each reader: at most five, the most severe first."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

from rollout.core.calendar.sites import SHADOW
from rollout.core.scope.scope import STOPPED, SUSPENDED
from rollout.reports.figures.audit_cost import Hindsight
from rollout.reports.figures.evidence_facts import EvidenceFacts
from rollout.reports.figures.facts import ReportFacts
from rollout.reports.figures.naive_baselines import NaiveOpening
from rollout.reports.figures.next_step import OpenProposal, describe_requirement
from rollout.reports.pages.data_findings import (
    AUDITOR,
    BAD,
    ENGINEER,
    NOTE,
    OPERATOR,
    SEVERITIES,
    WARN,
    Finding,
    list_data_findings,
    list_gain_findings,
)
from rollout.reports.pages.summary import list_other_narrowings
from rollout.reports.text.formatting import (
    describe_duration,
    format_cell_name,
    format_count,
    format_percent,
    format_quantity,
    format_ratio,
    format_zoned_time,
    join_words,
)
from rollout.reports.text.truth_text import choose_words
from rollout.reports.text.value_text import is_amount

MAX_FINDINGS: Final = 5
MAX_NAMED = 3  # cells listed by name


def rank_findings(facts: ReportFacts, reader: str) -> tuple[Finding, ...]:
    """Return the findings of `operator`, `engineer` or `auditor`, at most five."""
    findings = [item for item in _list_findings(facts) if reader in item.readers]
    ranked = sorted(findings, key=lambda item: SEVERITIES.index(item.severity))
    return tuple(ranked[:MAX_FINDINGS])


def _list_findings(facts: ReportFacts) -> Iterator[Finding]:
    """Yield all findings; within a severity, the order is the rank."""
    yield from _find_withheld_cells(facts)
    yield from _find_narrowings(facts)
    yield from list_gain_findings(facts)
    yield from _find_open_proposals(facts)
    yield from _find_shadow_cells(facts)
    yield from list_data_findings(facts)
    yield from _find_missing_practice(facts)


def _find_withheld_cells(facts: ReportFacts) -> Iterator[Finding]:
    """Yield suspended and stopped cells."""
    for withheld, tag in ((STOPPED, "Stopped"), (SUSPENDED, "Suspended")):
        holds = {
            format_cell_name(item.site, item.window): item.next_step
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
    """Yield the narrowings, one finding for each cell and version."""
    rows = sorted(facts.hindsights, key=lambda row: (row.site, row.window, row.version))
    for (site, window, version), group in groupby(
        rows, key=lambda row: (row.site, row.window, row.version)
    ):
        narrowings = sorted(group, key=lambda row: row.narrowed_at)
        title = f"{version} was narrowed in {format_cell_name(site, window)}"
        if len(narrowings) > 1:
            title += f", {format_count(len(narrowings))} times, last to {narrowings[-1].to_stage}"
        text = _describe_narrowing(narrowings[0], facts)
        yield Finding(BAD, "Narrowed", title, text, "auditing", (OPERATOR, ENGINEER, AUDITOR))
    yield from _find_other_narrowings(facts)


def _describe_narrowing(row: Hindsight, facts: ReportFacts) -> str:
    zone = facts.identity.zones[row.site]
    delay = describe_duration(row.narrowed_at - row.began_at)
    text = (
        f"{format_zoned_time(row.narrowed_at, zone, facts.identity.first)}: {row.from_stage} to"
        f" {row.to_stage} by the guard “{row.guard}”, {delay} after errors rose."
    )
    if row.cost.known_cases:
        words = choose_words(row.cost.by_outcome, row.cost.known_cases)
        text += (
            f" The model decided {format_quantity(row.cost.known_cases, 'case')} meanwhile,"
            f" {format_count(row.cost.wrong_action.count)} of them {words.wrong}."
        )
    return text + _describe_earlier_alarm(row)


def _describe_earlier_alarm(row: Hindsight) -> str:
    """Describe what blind decisions outside the audit would have saved."""
    if row.seen_at is None or row.seen_at >= row.narrowed_at:
        return ""
    delay = describe_duration(row.seen_at - row.began_at)
    text = f" On all blind decisions it trips after {delay}"
    if row.cost.known_cases and row.cost_if_seen is not None:
        words = choose_words(row.cost_if_seen.by_outcome, row.cost_if_seen.known_cases)
        count = row.cost_if_seen.wrong_action.count
        text += f" and {format_quantity(count, 'case')} {words.wrong}"
    return f"{text}."


def _find_other_narrowings(facts: ReportFacts) -> Iterator[Finding]:
    """Yield narrowings that no quality guard explains."""
    events = list_other_narrowings(facts)
    if events:
        cells = list(dict.fromkeys(format_cell_name(item.site, item.window) for item in events))
        text = f"Last, {events[-1].local}: {events[-1].short_text}."
        title = f"{_name_cells(cells)} narrowed"
        yield Finding(BAD, "Narrowed", title, text, "events", (OPERATOR, ENGINEER, AUDITOR))


def _find_open_proposals(facts: ReportFacts) -> Iterator[Finding]:
    proposals = facts.open_proposals
    for proposal in proposals[: MAX_NAMED - 1]:
        yield _build_proposal_finding(proposal, facts)
    if len(proposals) >= MAX_NAMED:
        rest = proposals[MAX_NAMED - 1 :]
        cells = [format_cell_name(item.site, item.window) for item in rest]
        title = f"{format_quantity(len(rest), 'more proposal')} need approvals"
        yield Finding(WARN, "Due", title, f"{_name_cells(cells)}.", "cells", (OPERATOR, AUDITOR))


def _build_proposal_finding(proposal: OpenProposal, facts: ReportFacts) -> Finding:
    cell = format_cell_name(proposal.site, proposal.window)
    title = (
        f"{proposal.kind.capitalize()} of {cell} to {proposal.stage} needs"
        f" {format_quantity(proposal.needed, 'more approval')}"
    )
    text = f"{proposal.proposal} for {proposal.version} is open until {proposal.until}."
    ends = [
        grant.until
        for state in facts.stages
        if (state.site, state.window) == (proposal.site, proposal.window)
        for grant in state.grants
        if grant.stage == proposal.stage
    ]
    if ends and proposal.kind == "renewal":
        zone = facts.identity.zones[proposal.site]
        end = format_zoned_time(min(ends), zone, facts.identity.last)
        text = (
            f"{proposal.proposal} for {proposal.version}: approve it by {end}, when the grant ends;"
            " without approval the cell is narrowed then."
        )
    return Finding(WARN, "Due", title, text, "cells", (OPERATOR, AUDITOR))


def _find_shadow_cells(facts: ReportFacts) -> Iterator[Finding]:
    """Yield cells that never left shadow although they have evidence."""
    shadow_cells = {(item.site, item.window) for item in facts.stages if not item.was_above_shadow}
    shadow_cells -= {(item.site, item.window) for item in facts.open_proposals}  # are due
    rows: dict[tuple[str, str], EvidenceFacts] = {}
    for item in sorted(facts.evidence, key=lambda item: -item.closed_units):
        cell = (item.site, item.window)
        if cell in shadow_cells and item.closed_units and item.stage == SHADOW:
            rows.setdefault(cell, item)
    described = list(rows.values())[: MAX_NAMED - 1]
    for item in described:
        title = f"{format_cell_name(item.site, item.window)} stays in shadow"
        opening = _describe_naive_opening(item, facts)
        section = "rules" if opening else "cells"
        text = _describe_shortfall(item) + opening
        yield Finding(WARN, "Held", title, text, section, (OPERATOR, ENGINEER))
    rest = [format_cell_name(*cell) for cell in list(rows)[len(described) :]]
    if rest:
        title = f"{format_quantity(len(rest), 'more cell')} {_agree(rest)} in shadow"
        text = f"{', '.join(rest[:MAX_NAMED])}, …"  # no full stop after an ellipsis
        if len(rest) <= MAX_NAMED:
            text = f"{join_words(rest)}."
        yield Finding(WARN, "Held", title, text, "cells", (OPERATOR,))


def _agree(names: Sequence[str]) -> str:
    return "stays" if len(names) == 1 else "stay"


def _describe_shortfall(evidence: EvidenceFacts) -> str:
    """Describe what the gate needs and what the evidence is."""
    gate = evidence.gate
    unmet = [item for item in gate.conditions if not item.met] if gate else []
    beyond = [item for item in unmet if not item.is_estimate_met]
    if (
        gate is None or not beyond or not evidence.decided_units
    ):  # a share of nothing would read as 0 %
        return f"{evidence.version}: {evidence.next_step}."
    worst = min(beyond, key=lambda item: item.log_e - item.log_e_needed)
    measured = _format_measured(worst.measure, worst.estimate, worst.counts)
    text = f"{evidence.version}: {measured}; {worst.describe_need()}."
    if gate.missing:
        lacking = "; ".join(describe_requirement(unmet) for unmet in gate.unmet)
        text += f" Also missing: {lacking}."
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
        if (item.site, item.window, item.version)
        == (evidence.site, evidence.window, evidence.version)
    ]
    return (
        _format_opening(min(openings, key=lambda item: item.opened_at), facts) if openings else ""
    )


def _format_opening(opening: NaiveOpening, facts: ReportFacts) -> str:
    zone = facts.identity.zones[opening.site]
    text = (
        f" Rule “{opening.rule}” would widen on"
        f" {format_zoned_time(opening.opened_at, zone, facts.identity.first)}"
    )
    if not opening.wrong.n:
        return f"{text}."
    words = choose_words(opening.by_outcome, opening.wrong.n)
    text += f": model {words.wrong} in {format_ratio(opening.wrong)} cases"
    if opening.human_wrong.n:
        text += f", humans wrong in {format_ratio(opening.human_wrong)}"
    return f"{text}."


def _find_missing_practice(facts: ReportFacts) -> Iterator[Finding]:
    if facts.oversight.last_drill is None:
        used = "was never used and never" if facts.oversight.last_stop is None else "was never"
        text = f"The stop {used} drilled. A drill measures how soon a stop holds at each site."
        if facts.identity.simulated:
            text = "A replay has no drill. A drill measures how soon a stop holds at each site."
        yield Finding(NOTE, "Drill", "No stop drill yet", text, "incidents", (OPERATOR, AUDITOR))
