"""Sentences about what speaks against a proposal: the only ones there are."""

from collections.abc import Callable, Mapping
from datetime import datetime

from rollout.engine.decide.approvals import TrackRecord
from rollout.engine.decide.incident_kinds import UNAUTHORIZED
from rollout.engine.events import HARM_FACT, SUSPENSION_FACT, TrackFact
from rollout.engine.words.formatting import format_count, format_quantity
from rollout.kernel.calendar.sites import Cell
from rollout.kernel.facts import ALARM, NEWEST, UNPLACED, FreshFact
from rollout.kernel.policy.cell_evidence import EvidenceCounts
from rollout.kernel.units import LATE_CASE, SILENT_REASONS

SHORT_REASONS = {SILENT_REASONS[LATE_CASE]: "late"}


def describe_fresh_fact(fact: FreshFact) -> str:
    """Say what answers that don't count yet hold against a widening.

    >>> from rollout.kernel.measures import MEASURES, Condition
    >>> describe_fresh_fact(FreshFact("newest", Condition(MEASURES["agreement"], 0.9), 3, 20))
    'of the newest 20 answers 3 agree, for agreement at least 90 %'
    """
    if fact.kind == ALARM:
        return f"the guard on {fact.condition} would trip now"
    if fact.kind == NEWEST:
        return f"of the newest {fact.units} answers {fact.agreed} agree, for {fact.condition}"
    if fact.kind == UNPLACED:
        decided = format_quantity(fact.units, "decision")
        return f"{fact.agreed} of {decided} have neither a case nor a site, so no cell counts them"
    counts = f"{fact.agreed} of {fact.units}" if fact.units else "the costs"
    return f"with answers that don't count yet, {counts} speak against {fact.condition}"


def describe_track_fact(
    fact: TrackFact, format_time: Callable[[datetime], str], name_cell: Callable[[Cell | None], str]
) -> str:
    """Say what spoke against a version."""
    what = f"a harm came while {fact.version} acted"
    if fact.kind != HARM_FACT:
        what = f"{fact.version} was narrowed for quality"
    read = "" if fact.acknowledged_at else ", not acknowledged"
    return f"{what} {name_cell(fact.cell)}, {format_time(fact.at)} ({fact.incident}{read})"


def describe_track_counts(record: TrackRecord) -> str:
    """Say what else a version's record holds, "" if it holds nothing else."""
    unauthorized, suspended = map(len, map(record.list_facts, (UNAUTHORIZED.fact, SUSPENSION_FACT)))
    parts = [
        format_quantity(unauthorized, "action") + " without authorization at this site",
        format_quantity(suspended, "suspension"),
        f"{record.values_mistaken} of {record.values_met} attribute values differ too often",
    ]
    counts = (unauthorized, suspended, record.values_met)
    return ", ".join(part for part, count in zip(parts, counts, strict=True) if count)


def describe_losses(closed: int, losses: Mapping[str, int]) -> str:
    """Say how many units counted, and why the others are missing.

    >>> describe_losses(412, {"case received late": 20, "without a decision": 8})
    'of 412 units 384 counted, 20 late, 8 without a decision'
    >>> describe_losses(66, {})
    '66 counted'
    """
    counted = f"{format_count(closed - sum(losses.values()))} counted"
    if not losses:
        return counted
    parts = [
        f"{format_count(count)} {SHORT_REASONS.get(reason, reason)}"
        for reason, count in sorted(losses.items(), key=lambda item: (-item[1], item[0]))
    ]
    return f"of {format_quantity(closed, 'unit')} {', '.join((counted, *parts))}"


def describe_fresh_counts(counts: EvidenceCounts) -> str:
    """Say how many answers are stored and don't count yet."""
    lost = f", {counts.missing} can no longer count" if counts.missing else ""
    return f"{format_quantity(counts.decided, 'answer')} inside the grace count later{lost}"
