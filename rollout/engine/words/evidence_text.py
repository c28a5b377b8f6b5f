"""Sources of evidence in words, and sentences about what speaks against a proposal.

These sentences are the only ones there are about what speaks against a proposal.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from rollout.engine.decide.approvals import TrackRecord
from rollout.engine.decide.incident_kinds import UNAUTHORIZED
from rollout.engine.events import HARM_FACT, SUSPENSION_FACT, TrackFact
from rollout.engine.evidence.late_senders import CLOCKS, LateSenders, SilentSpell
from rollout.engine.words.formatting import (
    format_count,
    format_local_time,
    format_quantity,
    join_words,
)
from rollout.kernel.calendar.instants import Cell, format_duration
from rollout.kernel.facts import ALARM, NEWEST, UNPLACED, FreshFact
from rollout.kernel.policy.cell_evidence import EvidenceCounts
from rollout.kernel.policy.evidence_sources import (
    BEFORE_SOURCES,
    IMPORTS,
    REVIEWS,
    CountedOutcomeSource,
    CountedSource,
    EvidenceSources,
    RegisteredUnits,
)
from rollout.kernel.units import LATE_CASE, SILENT_REASONS

KINDS = {
    REVIEWS: "reviews made here",
    IMPORTS: "imports",
    BEFORE_SOURCES: "before sources were stored",
}


@dataclass(frozen=True, slots=True)
class VouchedUnits:
    """Counted units of a sender that could have seen their answers.

    Attributes:
        account: the sender; "" in recorded files, which name none.
        units: those that were known after their first decision only.
        counted: all units that count.
        within_seconds: the time after a case for which the sender is vouched for.
        vouched_by: who approved or applied that line of the policy; () where no ledger says it.
    """

    account: str
    units: int
    counted: int
    within_seconds: int
    vouched_by: tuple[str, ...] = ()


def describe_late_senders(late: LateSenders) -> str:
    """Return what late senders look like, and the two lines of policy that fit.

    >>> describe_late_senders(LateSenders(9, 10, "services that race", 300))[14:]
    'services that race. If the sender does not see what humans decide, write under `evidence:` in \
the policy `grace: 5m` (or longer) and `sources: {vouched: [{account: NAME, within: 5m}]}`.'
    """
    text = f"It looks like {late.set_up}."
    if late.set_up == CLOCKS:
        return f"{text} Write the times of both files with their offsets, as 14:05:09+02:00."
    if not late.policy_lines:
        remedy = "nothing opens by it, but in a replay with `--backtest`"
        return f"{text} Who predicts after the decision may know the answer: {remedy}."
    grace, sources = late.policy_lines
    return (
        f"{text} If the sender does not see what humans decide, write under `evidence:` in the"
        f" policy `{grace}` (or longer) and `{sources}`."
    )


def describe_spell(spell: SilentSpell, zone: str) -> str:
    """Return what a time without cases cost, and what to do, in a site's local time.

    >>> from datetime import UTC, datetime
    >>> week = datetime(2025, 11, 3, tzinfo=UTC), datetime(2025, 11, 10, tzinfo=UTC)
    >>> describe_spell(SilentSpell("ward-2", *week, 140, 691_200), "UTC")
    'No case from ward-2 between Mon 3 Nov 00:00 and Mon 10 Nov 2025 00:00; 140 units of that time \
are missing; begin the next attempt or vouch within 8d.'
    """
    since = format_local_time(spell.since, zone, spell.until)
    until = format_local_time(spell.until, zone)
    units = format_quantity(spell.missing, "unit of that time is", "units of that time are")
    within = format_duration(timedelta(seconds=spell.within_seconds))
    return (
        f"No case from {spell.site} between {since} and {until}; {units} missing; begin the next"
        f" attempt or vouch within {within}."
    )


def describe_late_cases(late: LateSenders) -> str:
    """Return how many cases came too late to be evidence, and what their sender looks like.

    >>> describe_late_cases(LateSenders(3, 4, "services that race", 300, "box-7"))[:71]
    'Of 4 decided cases 3 came after the first decision and are no evidence.'
    """
    cases, verb = format_quantity(late.decided, "decided case"), "is" if late.late == 1 else "are"
    lateness = f"{format_count(late.late)} came after the first decision and {verb} no evidence"
    return f"Of {cases} {lateness}. {describe_late_senders(late)}"


def describe_vouched_units(vouched: VouchedUnits) -> str:
    """Return one sentence for the units of a sender that could have seen the answers.

    >>> describe_vouched_units(VouchedUnits("box-7", 380, 412, 180_000, ("ana",)))
    '380 of 412 units from box-7, which could have seen the answer (vouched for by ana, within 50h)'
    """
    sender = f"from {vouched.account}" if vouched.account else "from a vouched sender"
    names = f"for by {join_words(list(vouched.vouched_by))}" if vouched.vouched_by else "for"
    noun = "unit" if vouched.counted == 1 else "units"
    within = format_duration(timedelta(seconds=vouched.within_seconds))
    return (
        f"{vouched.units:,} of {vouched.counted:,} {noun} {sender}, which could have seen the"
        f" answer (vouched {names}, within {within})"
    )


def describe_registered_units(counts: Sequence[RegisteredUnits], version: str = "") -> str:
    """Return one sentence for who registered the cases of a version's units, "" for none.

    Without a version, of a rollout's cases, whichever predicted them.

    >>> describe_registered_units([RegisteredUnits("box-7", 380, 360)], "v1")
    'cases registered by: box-7 380; of them 360 by the account that also predicted them with v1'
    """
    names = (f"{KINDS.get(count.source, count.source)} {count.units:,}" for count in counts)
    text = f"cases registered by: {', '.join(names)}" if counts else ""
    own = sum(count.own for count in counts)
    by_version = f" with {version}" if version else ""
    return text + (
        f"; of them {own:,} by the account that also predicted them{by_version}" if own else ""
    )


def describe_registering(sources: EvidenceSources) -> str:
    """Return from which accounts cases count.

    >>> describe_registering(EvidenceSources(cases=("camera-1",)))
    'for gates cases count from camera-1 alone (`evidence.sources.cases`)'
    """
    names = join_words(list(sources.cases or ())) or "imports"
    return f"for gates cases count from {names} alone (`evidence.sources.cases`)"


def describe_outcome_sources(counts: Iterable[CountedOutcomeSource]) -> str:
    """Return one sentence for the sources of outcomes, "" for none.

    >>> describe_outcome_sources([CountedOutcomeSource("till", 1210)])
    'outcomes of 1,210 units: service account till'
    """
    texts = (
        f"outcomes of {count.units:,} {'unit' if count.units == 1 else 'units'}: "
        f"{KINDS.get(count.source) or f'service account {count.source}'}"
        for count in counts
    )
    return "; ".join(texts)


def describe_sources(counts: Iterable[CountedSource], *, is_recorded: bool = False) -> str:
    """Return one sentence for the sources of decisions, "" for none.

    Sources of recorded files are no accounts.

    >>> describe_sources([CountedSource("reviews", 210, 6), CountedSource("people", 30, 4)])
    '210 of 240 decisions: reviews made here; 30: service account people for 4 reviewers'
    """
    kind = "" if is_recorded else "service account "
    parts = [(count.decisions, _describe_source(count, kind)) for count in counts]
    total = sum(decisions for decisions, _ in parts)
    texts = [f"{decisions:,}: {text}" for decisions, text in parts]
    if texts:
        first, text = parts[0]
        noun = "decision" if total == 1 else "decisions"
        texts[0] = f"{first:,} of {total:,} {noun}: {text}"
    return "; ".join(texts)


def _describe_source(count: CountedSource, account_kind: str) -> str:
    kind = KINDS.get(count.source)
    reviewers = "reviewer" if count.reviewers == 1 else "reviewers"
    return kind or f"{account_kind}{count.source} for {count.reviewers:,} {reviewers}"


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
