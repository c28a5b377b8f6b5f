"""A cell in words: its tag and all sentences that apply.

Some are about open proposals, the next gate, the ceiling and missing data.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from markupsafe import Markup

from api.web_kit.cell_view import (
    STATE_ORDER,
    CellContext,
    CellDescription,
    CellSentence,
    TimeFormatter,
    describe_missing_approvals,
    format_sentence,
    list_open_proposals,
)
from api.web_kit.figures import format_bound
from api.web_kit.page import format_time_span
from rollout.engine.decide.proposals import (
    ProposalHold,
    compute_renewal_start,
    has_alarm,
    list_proposal_holds,
)
from rollout.engine.decide.scope import CellState, ProposalState, Scope
from rollout.engine.decide.stops import find_resume_needs
from rollout.engine.decide.widening_steps import find_wave_hold, find_wave_opening
from rollout.engine.events import ENGINE
from rollout.engine.words.formatting import (
    capitalize_first,
    format_count,
    format_estimate,
    format_quantity,
    format_threshold,
    is_difference,
    join_words,
)
from rollout.engine.words.state_text import describe_hold
from rollout.features.cells.cell_table import CellSummary, RecentChanges
from rollout.features.reports.figures.evidence_facts import EvidenceFacts
from rollout.features.reports.inputs.cell_facts import ConditionFacts
from rollout.kernel.calendar.instants import SHADOW, find_slot_after, to_instant
from rollout.kernel.facts import DAYS, REVIEWERS, UnmetRequirement
from rollout.kernel.measures import Watch
from rollout.kernel.policy.cell_evidence import describe_floor_cases, format_floor
from rollout.kernel.policy.policy import NEVER, Policy, describe_guard
from rollout.kernel.policy.stages import describe_sample_share
from rollout.kernel.words import say_alarms, say_void


def describe_open_proposals(context: CellContext) -> Iterator[CellSentence]:
    """Describe open and approved proposals and what delays them."""
    for proposal in list_open_proposals(context):
        if proposal.is_approved:
            yield from _describe_approved(context, proposal)
        elif not proposal.rules.extends_grant:
            text = format_sentence(
                "{}. Needs {} until {}.",
                _describe_proposed_gate(context, proposal),
                describe_missing_approvals(proposal),
                context.format_time(proposal.expires_at),
            )
            yield CellSentence("eligible", text)


def _describe_proposed_gate(context: CellContext, proposal: ProposalState) -> Markup:
    """Describe since when the gate is met, or that it was met only when it was proposed."""
    raised_text = context.format_time(proposal.raised_at)
    unmet = _list_unmet_subjects(context, proposal)
    gate_text = _describe_met_gate(context, proposal, is_met=not unmet)
    if not unmet:
        return format_sentence("{} since {}", gate_text, raised_text)
    return format_sentence(
        "{} when {} was raised on {}; {} no longer {} the threshold",
        gate_text, proposal.id, raised_text, join_words(unmet),
        "meets" if len(unmet) == 1 else "meet",
    )  # fmt: skip


def _list_unmet_subjects(context: CellContext, proposal: ProposalState) -> list[str]:
    """Return the measures of the proposal's gate that don't meet their threshold now."""
    return [
        condition.name
        for facts in context.summary.evidence
        if facts.version == proposal.version
        and facts.gate is not None
        and facts.gate.to == proposal.to
        for condition in facts.gate.conditions
        if not condition.met
    ]


def _describe_met_gate(context: CellContext, proposal: ProposalState, *, is_met: bool) -> str:
    if proposal.rules.replaces_version:
        acting_version = context.scope.get_holder(context.cell)
        replaced_text = f" in place of {acting_version}" if acting_version else ""
        verb = "meets" if is_met else "met"
        return f"{proposal.version} {verb} every condition for {proposal.to}{replaced_text}"
    actor_text = "" if proposal.raised_by == ENGINE else f" (proposed by {proposal.raised_by})"
    verb = "is" if is_met else "was"
    return f"Every condition for {proposal.to} {verb} met{actor_text}"


def _describe_approved(context: CellContext, proposal: ProposalState) -> Iterator[CellSentence]:
    subject = "Approved" if proposal.kind == "widening" else f"The {proposal.kind} is approved"
    holds = {hold.kind: hold for hold in _list_holds(context, proposal)}
    waits = ("stop", "alarm", "facts", "harm", "fresh")
    if hold := next((holds[kind] for kind in waits if kind in holds), None):
        text = format_sentence("{}. It waits for the {}.", subject, describe_hold(hold, str))
        yield CellSentence("approved", text, f"Held: {hold.kind}")
    elif freeze := holds.get("freeze"):
        yield CellSentence("approved", _describe_freeze(context, subject, freeze), "Held: freeze")
    elif "wave" in holds:
        text = format_sentence("{}. {}", subject, describe_wave(context))
        yield CellSentence("approved", text, "Held: wave")
    elif "settling" in holds:
        text = format_sentence("{}. {}", subject, _describe_settling(context))
        yield CellSentence("approved", text, "Held: settling")
    elif "observing" in holds:
        text = format_sentence("{}. The policy only observes: nothing is applied.", subject)
        yield CellSentence("approved", text, "Held: observing")
    else:
        tick = context.policy.tick
        next_tick = to_instant(find_slot_after(context.at + timedelta(microseconds=1), tick), tick)
        text = format_sentence(
            "{}. Takes effect with the next tick, {}.", subject, context.format_time(next_tick)
        )
        yield CellSentence("approved", text)


def _describe_freeze(context: CellContext, subject: str, freeze: ProposalHold) -> Markup:
    end = freeze.until
    end_text = "" if end is None else format_sentence(", {}", context.format_time(end))
    return format_sentence(
        "{}. Takes effect after the freeze{} ({}).", subject, end_text, freeze.reason
    )


def _list_holds(context: CellContext, proposal: ProposalState) -> tuple[ProposalHold, ...]:
    holds = list_proposal_holds(context.scope, context.policy, proposal, context.at)
    return holds or (ProposalHold("fresh", ""),) * proposal.is_held


def describe_wave(context: CellContext) -> Markup:
    """Describe which sites the cell's wave waits for, and until when."""
    waves = context.policy.waves
    assert waves is not None  # noqa: S101 - a wave holds it
    cells_ahead, opens_at = find_wave_opening(
        context.scope, context.policy, context.cell, context.at
    )
    if not cells_ahead and opens_at is not None:
        return format_sentence("Its wave opens {}.", context.format_time(opens_at))
    sites = [cell.site for cell in cells_ahead]
    names = join_words(sites) if len(sites) < 4 else f"{len(sites)} sites of an earlier wave"
    verb = "has" if len(sites) == 1 else "have"
    share_text = "" if waves.share >= 1 else f" {waves.share * 100:g} % of"
    opening_text = (
        Markup("")
        if opens_at is None
        else format_sentence(": from {}", context.format_time(opens_at))
    )
    return format_sentence(
        "Waits until{} {} {} been {} for {} in the same window{}.",
        share_text, names, verb, waves.stage, format_time_span(waves.hold), opening_text,
    )  # fmt: skip


def _describe_settling(context: CellContext) -> Markup:
    waves = context.policy.waves
    assert waves is not None and waves.at_once is not None  # noqa: S101, PT018 - settling says so
    recent_cells = [
        (at, cell_item)
        for cell_item, at in context.scope.widened_at.items()
        if context.at - at < waves.settle
    ]
    recent_cells.sort(reverse=True)
    at, cell = recent_cells[waves.at_once - 1]
    count_text = format_quantity(waves.at_once, "cell settles", "cells settle")
    return format_sentence(
        "{} at once at most: after {}, {}.",
        count_text,
        str(cell),
        context.format_time(at + waves.settle),
    )


MAX_SILENCE: Final = timedelta(days=1)  # a case of a day ago has closed, whatever its grace period
OFF_COURSE_CHANCE: Final = 0.5


def describe_gate_needs(context: CellContext) -> Iterator[CellSentence]:
    """Describe what the next gate needs; nothing if a proposal is open."""
    evidence = context.main_facts
    if (
        evidence is None
        or evidence.gate is None
        or any(proposal.version == evidence.version for proposal in list_open_proposals(context))
    ):
        return
    gate, policy = evidence.gate, context.policy
    yield from (
        _describe_shortage(requirement, evidence)
        for requirement in gate.unmet
        if requirement.is_minimum
    )
    for condition in gate.conditions:
        if not condition.met:
            yield _describe_condition(condition)
    if evidence.undecided_units > policy.evidence.missing_at_most * evidence.closed_units:
        limit = f"{policy.evidence.missing_at_most * 100:g} %"
        text = format_sentence(
            "{} of {} cases are missing ({}, at most {}): undecided, or not known before.",
            format_count(evidence.undecided_units), format_count(evidence.closed_units),
            format_estimate("missing", evidence.undecided_units / evidence.closed_units), limit,
        )  # fmt: skip
        yield CellSentence("missing decisions", text)
    if find_wave_hold(
        context.scope, policy, context.cell, policy.stage_ids.index(gate.to), context.at
    ):
        yield CellSentence("wave", describe_wave(context))


def _describe_shortage(requirement: UnmetRequirement, evidence: EvidenceFacts) -> CellSentence:
    count, needed = requirement.actual, requirement.needed
    missing_count = needed - count
    if requirement.kind == DAYS:
        text = (
            f"Needs {format_quantity(missing_count, 'more day', 'more days')} at this stage"
            f" ({count} of {needed})."
        )
    elif requirement.kind == REVIEWERS:
        reviewer_text = format_quantity(missing_count, "more reviewer")
        text = f"Needs decisions of {reviewer_text} ({count} of {needed})."
    else:
        decision_text = format_quantity(missing_count, "more blind decision")
        rate_text = _describe_daily_rate(missing_count, evidence.decided_units_per_day)
        text = (
            f"Needs {decision_text} ({format_count(count)} of {format_count(needed)}){rate_text}."
        )
    return CellSentence("too few", format_sentence("{}", text))


def _describe_daily_rate(missing_count: int, per_day: float | None) -> str:
    """Format the days needed at the rate of the last two weeks, or ""."""
    if not per_day:
        return ""
    days = max(1, round(missing_count / per_day))
    return (
        f", about {format_quantity(days, 'day')} at {per_day:,.0f} a day" if per_day >= 0.5 else ""
    )


def _describe_condition(condition: ConditionFacts) -> CellSentence:
    facts, subject_text = condition, condition.name
    threshold = format_threshold(facts.measure, facts.threshold)
    if facts.n == 0:
        text = format_sentence("No data yet on: {}.", facts.condition)
        return CellSentence("too few", text)
    if facts.bound is None:
        text = format_sentence(
            "{}: strength of evidence {:.1f}, needs {:.1f}.",
            capitalize_first(facts.condition),
            facts.log_e,
            facts.log_e_needed,
        )
        return CellSentence("below threshold", text)
    is_worse = (
        facts.estimate is not None
        and not is_difference(facts.measure)  # no forecast says how it goes on
        and (facts.estimate < facts.threshold) == facts.at_least
        and facts.estimate != facts.threshold
    )
    if is_worse and (
        facts.probability_below is None or facts.probability_below > OFF_COURSE_CHANCE
    ):
        text = format_sentence(
            "At the current {} ({}), the threshold of {} will probably never be met. "
            "Look at the divergences.",
            subject_text, format_estimate(facts.measure, facts.estimate), threshold,
        )  # fmt: skip
        return CellSentence("off course", text)
    bound_text = format_bound(facts.measure, facts.bound, facts.threshold, at_least=facts.at_least)
    text = format_sentence(
        "{} is {}; the threshold is {}.{}",
        capitalize_first(subject_text),
        bound_text,
        threshold,
        _describe_remaining(facts),
    )
    return CellSentence("below threshold", text)


def _describe_remaining(facts: ConditionFacts) -> str:
    if not facts.records_needed_min:
        return ""
    expected_text = limit_text = ""
    if facts.records_needed_p50 is not None and facts.records_needed_p50 > facts.records_needed_min:
        if (
            facts.records_needed_p90 is not None
            and facts.records_needed_p90 > facts.records_needed_p50
        ):
            limit_text = f" (with 90 % chance within {format_count(facts.records_needed_p90)})"
        decision_text = format_quantity(facts.records_needed_p50, "more blind decision")
        expected_text = f"; probably after {decision_text}{limit_text}"
    return (
        f" Needs at least {format_count(facts.records_needed_min)} more that agree{expected_text}."
    )


def describe_rejection(context: CellContext) -> Iterator[CellSentence]:
    """Describe the quiet time after a rejection."""
    evidence = context.main_facts
    if evidence is None:
        return
    quiet_until = context.scope.get_cell_state(context.cell, evidence.version).quiet_until
    if quiet_until is not None and context.at < quiet_until:
        text = format_sentence(
            "A proposal was rejected. The next one is raised after {} at the earliest.",
            context.format_time(quiet_until),
        )
        yield CellSentence("rejected", text)


def describe_ceiling(context: CellContext) -> Iterator[CellSentence]:
    """Describe the ceiling of the policy, and an observing policy."""
    policy, cell = context.policy, context.cell
    ceiling_level, trial_end = policy.compute_ceiling(cell, context.at), policy.compute_end(cell)
    if trial_end != NEVER and context.at >= trial_end:
        text = format_sentence(
            "The trial here ended {}. The policy allows at most {}.",
            context.format_time(trial_end),
            SHADOW,
        )
        yield CellSentence("ceiling", text)
        return
    if trial_end != NEVER:
        text = format_sentence(
            "The trial here ends {}. Then humans decide everything.",
            context.format_time(trial_end),
        )
        yield CellSentence("", text)
    top_level = len(policy.stages)
    if context.held_level >= ceiling_level and ceiling_level < top_level:
        window_text = f" by {cell.window}" if len(policy.windows) > 1 else ""
        text = format_sentence(
            "The policy allows at most {} here{}.",
            policy.stage_ids[ceiling_level],
            window_text,
        )
        yield CellSentence("ceiling", text)
    elif context.held_level == top_level:
        yield CellSentence("", Markup("This is the highest stage."))
    elif policy.find_gate(context.held_level + 1, cell) is None:
        text = format_sentence(
            "The policy has no gate to {} here.", policy.stage_ids[context.held_level + 1]
        )
        yield CellSentence("", text)


def describe_silence(context: CellContext) -> Iterator[CellSentence]:
    """Describe missing data: none ever, or none for a day."""
    last_case = context.summary.last_case
    if list_open_proposals(context):
        return  # its evidence is complete: an approval can widen without new cases
    if last_case is None:
        text = (
            "No case from here has been counted yet. Without data nothing widens."
            if context.scope.versions
            else "No version has sent a prediction yet. Without data nothing widens."
        )
        yield CellSentence("no data", Markup("{}").format(text))
    elif context.at - last_case > MAX_SILENCE + context.policy.evidence.grace:
        silence_text = format_sentence(
            "No case from here was counted for {}; the last one is from {}. "
            "Without data nothing widens.",
            format_time_span(context.at - last_case), context.format_time(last_case),
        )  # fmt: skip
        yield CellSentence("no data", silence_text)


__all__ = [
    "CellDescription",
    "CellSentence",
    "TimeFormatter",
    "describe_cell",
]


def describe_cell(
    policy: Policy,
    scope: Scope,
    summary: CellSummary,
    recent_changes: RecentChanges,
    at: datetime,
    format_time: TimeFormatter,
) -> CellDescription:
    """Describe a cell in words.

    Args:
        policy: the policy in force.
        scope: the projected scope.
        summary: the cell with its evidence.
        recent_changes: changes of cells within seven days.
        at: the described instant.
        format_time: formats times.
    """
    context = CellContext(policy, scope, summary, recent_changes, at, format_time)
    sentences = [sentence for describe in _DESCRIBERS for sentence in describe(context)]
    sentences.sort(key=lambda sentence: STATE_ORDER.index(sentence.state))
    first = next((sentence for sentence in sentences if sentence.state), None)
    if first is None:
        return CellDescription("", "", tuple(sentences))
    return CellDescription(first.tag_kind, first.tag_text, tuple(sentences))


# Stops, suspensions and narrowings


def _describe_stops(context: CellContext) -> Iterator[CellSentence]:
    for stop in context.scope.stops.values():
        if context.cell not in stop.cells:
            continue
        reason = context.recent_changes.stop_reasons.get(stop.id, "")
        drill_text = " (a drill)" if stop.drill else ""
        needs = len(find_resume_needs(context.scope, context.policy, stop, context.at))
        resume_text = (
            _describe_resume(context, stop.id)
            or f"Resuming needs {format_quantity(needs, 'approval')}."
        )
        text = format_sentence(
            "Stopped by {}{}, {}: {}. {}",
            stop.by, drill_text, context.format_time(stop.at), _quote_reason(reason), resume_text,
        )  # fmt: skip
        yield CellSentence("stopped", text)


def _describe_resume(context: CellContext, stop_id: str) -> str:
    """Describe the progress of a requested resume, or ""."""
    for proposal in context.scope.proposals.values():
        if proposal.rules.ends_stop and proposal.about == stop_id:
            if proposal.is_approved:
                return f"Its resume, {proposal.id}, is approved."
            return f"Its resume, {proposal.id}, needs {describe_missing_approvals(proposal)}."
    return ""


def _quote_reason(reason: str) -> str:
    return f"“{reason}”" if reason else "no reason given"


def _describe_suspension(context: CellContext) -> Iterator[CellSentence]:
    cell_state = context.cell_state
    if cell_state is None or not cell_state.suspended_by:
        return
    event = context.recent_changes.suspended_cells.get(context.cell)
    guards = [
        g for g in context.policy.list_guards(context.cell) if g.id in cell_state.suspended_by
    ]
    reason = "" if event is None else say_alarms(event.alarms)
    reason = reason or context.policy.describe_guards(cell_state.suspended_by)
    durations = [g.over or context.policy.tick for g in guards]
    return_text = (
        f" Returns automatically after {format_time_span(max(durations))} within the threshold."
        if durations
        else ""
    )
    since = max(
        (at for name, at in cell_state.suspensions if name in cell_state.suspended_by), default=None
    )
    since_text = (
        Markup("") if since is None else format_sentence(" since {}", context.format_time(since))
    )
    text = format_sentence("Humans decide{}: {}.{}", since_text, reason, return_text)
    yield CellSentence("suspended", text)


def _describe_narrowing(context: CellContext) -> Iterator[CellSentence]:
    event = context.recent_changes.narrowed_cells.get(context.cell)
    if event is None:
        return
    words = say_void(event.cause) if event.cause else _quote_reason(event.reason)
    reason = say_alarms(event.alarms) or f"by {event.by}: {words}"
    local_time = event.at.astimezone(context.timezone)
    if event.confidence_floor:
        cases = describe_floor_cases(event.confidence_floor)
        text = format_sentence(
            "{} for {} alone since {}: {}. Evidence restarts.",
            event.to_stage.capitalize(), cases, context.format_time(event.at), reason,
        )  # fmt: skip
        yield CellSentence("narrowed", text, f"Narrowed {local_time.day} {local_time:%b}")
        return
    text = format_sentence(
        "Narrowed from {} to {} on {}: {}.{}",
        event.from_stage, event.to_stage, context.format_time(event.at), reason,
        " Evidence restarts." if event.restart else "",
    )  # fmt: skip
    yield CellSentence("narrowed", text, f"Narrowed {local_time.day} {local_time:%b}")


# Grants and their ends


def _describe_floor(context: CellContext) -> Iterator[CellSentence]:
    """Say who decides the cases below the floor of a cell, where the policy has several."""
    status = context.summary.status
    if not context.policy.evidence.higher_floors or not status.confidence_floor:
        return
    floor = format_floor(status.confidence_floor)
    text = "{} for {}; humans decide the others."
    stage = status.stage.capitalize()
    yield CellSentence("", format_sentence(text, stage, describe_floor_cases(floor)))


def _describe_samples(context: CellContext) -> Iterator[CellSentence]:
    """Say on which part of the cases a version of the cell runs."""
    for version, share in context.policy.samples_by_version.items():
        if any(facts.version == version for facts in context.summary.evidence):
            text = f"{describe_sample_share(version, share)}; its gates count no others."
            yield CellSentence("", format_sentence("{}", text))


def _describe_lapsing_grants(context: CellContext) -> Iterator[CellSentence]:
    cell_state, policy = context.cell_state, context.policy
    for stage_level in range(context.held_level, 0, -1):
        assert cell_state is not None  # noqa: S101 - a stage level is held
        grant = next(g for g in cell_state.grants if g.stage == policy.stage_ids[stage_level])
        since = compute_renewal_start(policy, cell_state, stage_level)
        if context.at < since:
            continue
        text = format_sentence(
            "Lapses to {} in {}, {}, unless renewed. {}",
            policy.stage_ids[stage_level - 1],
            format_time_span(grant.until - context.at),
            context.format_time(grant.until),
            _describe_renewal(context, cell_state, stage_level, since),
        )
        yield CellSentence("lapsing", text)


def _describe_renewal(
    context: CellContext, cell_state: CellState, stage_level: int, since: datetime
) -> Markup:
    stage = context.policy.stage_ids[stage_level]
    for proposal in list_open_proposals(context):
        if proposal.rules.extends_grant and proposal.to == stage:
            if proposal.is_approved:
                return Markup("The renewal is approved.")
            return format_sentence("The renewal needs {}.", describe_missing_approvals(proposal))
    if cell_state.quiet_until is not None and context.at < cell_state.quiet_until:
        return format_sentence(
            "A proposal was rejected. The next one is raised after {} at the earliest.",
            context.format_time(cell_state.quiet_until),
        )
    if has_alarm(
        context.scope, context.cell, context.summary.status.version
    ) or context.scope.is_stopped(context.cell):
        return Markup("No renewal is proposed while the grant is withheld or a guard is in alarm.")
    if context.at - since > context.policy.tick:
        return Markup("The gate isn’t met on this grant’s evidence, so no renewal is proposed.")
    return Markup("")


def _describe_lapse(context: CellContext) -> Iterator[CellSentence]:
    event, cell_state = context.recent_changes.expired_cells.get(context.cell), context.cell_state
    end_times = (
        [] if cell_state is None else [g.until for g in cell_state.grants if g.until <= context.at]
    )
    ended_at = max([*end_times, *([event.until] if event is not None else [])], default=None)
    if ended_at is None or ended_at > context.at:
        return
    stage_text = (
        ""
        if context.summary.status.withheld
        else f" {context.summary.status.stage.capitalize()} since then."
    )
    text = format_sentence(
        "The grant ended {}.{} It was not renewed; nothing failed.",
        context.format_time(ended_at),
        stage_text,
    )
    yield CellSentence("lapsed", text)


def _describe_alarms(context: CellContext) -> Iterator[CellSentence]:
    """Describe guards in alarm that only report."""
    cell_state = context.cell_state
    for guard in context.policy.list_guards(context.cell):
        if cell_state is None or guard.id not in cell_state.reported_guards:
            continue
        measure = guard.condition.measure
        state = "unaudited" if measure.reads_audits else "reported"
        state = "stale" if measure.watch is Watch.SIGNS else state
        text = format_sentence(
            "In alarm: {}. The guard only reports; nothing is narrowed.", describe_guard(guard)
        )
        yield CellSentence(state, text)


_DESCRIBERS: Final = (
    _describe_stops,
    _describe_suspension,
    _describe_narrowing,
    _describe_floor,
    _describe_samples,
    _describe_lapsing_grants,
    _describe_lapse,
    _describe_alarms,
    describe_open_proposals,
    describe_gate_needs,
    describe_rejection,
    describe_ceiling,
    describe_silence,
)
