"""A cell in words: its tag and all sentences that apply."""

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from markupsafe import Markup

from api.console.page.cell_view import (
    STATE_ORDER,
    CellContext,
    CellDescription,
    CellSentence,
    TimeFormatter,
    describe_missing_approvals,
    find_main_evidence,
    format_sentence,
    list_open_proposals,
)
from api.console.page.time_format import format_time_span
from api.console.rollouts.cell_gates import (
    describe_ceiling,
    describe_gate_needs,
    describe_open_proposals,
    describe_rejection,
    describe_silence,
)
from rollout.core.policy.confidence_floors import describe_floor_cases, format_floor
from rollout.core.policy.policy import Policy, describe_guard
from rollout.core.policy.stages import describe_sample_share
from rollout.core.scope.proposal_holds import has_alarm
from rollout.core.scope.proposals import compute_renewal_start
from rollout.core.scope.scope import CellState, Scope
from rollout.core.scope.stop_targets import find_resume_needs
from rollout.kernel.measures import Watch
from rollout.kernel.words import say_alarms
from rollout.reports.text.formatting import format_quantity
from rollout.services.cells.cell_table import CellSummary, RecentChanges

__all__ = [
    "CellDescription",
    "CellSentence",
    "TimeFormatter",
    "describe_cell",
    "find_main_evidence",
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
    reason = say_alarms(event.alarms) or f"by {event.by}: {_quote_reason(event.reason)}"
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
