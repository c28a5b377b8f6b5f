"""What a cell says: its tag and every sentence that holds, of what the service knows."""

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from markupsafe import Markup

from api.console.page.cell_view import (
    ORDER,
    CellWords,
    Clock,
    Saying,
    Seen,
    main_evidence,
    missing,
    open_here,
    say,
)
from api.console.page.time_format import took
from api.console.page.waiting_text import eligible
from api.console.proposals.hold_reason import ceiling, holding, no_data, rejected
from rollout.core.policy.policy import Policy, duration_text
from rollout.core.scope.proposals import alarmed, renewal_starts
from rollout.core.scope.scope import CellState, Scope
from rollout.core.scope.stops import resume_needs
from rollout.reports.text.formatting import separated, several
from rollout.services.cells.cell_table import CellRow, Lately

__all__ = ["CellWords", "Clock", "Saying", "cell_words", "main_evidence"]


def cell_words(
    policy: Policy, scope: Scope, row: CellRow, lately: Lately, at: datetime, clock: Clock
) -> CellWords:
    """Return what a cell says.

    Args:
        policy: the policy in force.
        scope: the fold of the ledger.
        row: the cell with its evidence.
        lately: what happened to cells within seven days.
        at: the instant that is told of.
        clock: how a time is shown.
    """
    context = Seen(policy, scope, row, lately, at, clock)
    sentences = [sentence for describe in _TELLING for sentence in describe(context)]
    sentences.sort(key=lambda sentence: ORDER.index(sentence.state))
    first = next((sentence for sentence in sentences if sentence.tag), None)
    if first is None:
        return CellWords("", "", tuple(sentences))
    return CellWords(first.kind, first.tag, tuple(sentences))


# What withholds, what was taken


def _stopped(seen: Seen) -> Iterator[Saying]:
    for stop in seen.scope.stops.values():
        if seen.cell not in stop.cells:
            continue
        reason = seen.lately.reasons.get(stop.id, "")
        drill_text = " (a drill)" if stop.drill else ""
        needs = len(resume_needs(seen.scope, seen.policy, stop, seen.at))
        resume_text = (
            _resume(seen, stop.id) or f"Resuming needs {several(needs, 'person', 'people')}."
        )
        text = say(
            "Stopped by {}{}, {}: {}. {}",
            stop.by, drill_text, seen.clock(stop.at), _quoted(reason), resume_text,
        )  # fmt: skip
        yield Saying("stopped", "stopped", "Stopped", text)


def _resume(seen: Seen, stop: str) -> str:
    """Say how far a resume is that was asked for, "" where none was."""
    for proposal in seen.scope.proposals.values():
        if proposal.kind == "resume" and proposal.about == stop:
            if proposal.approved:
                return f"Its resume, {proposal.id}, is approved."
            return f"Its resume, {proposal.id}, waits for {missing(proposal)}."
    return ""


def _quoted(reason: str) -> str:
    return f"“{reason}”" if reason else "no reason given"


def _suspended(seen: Seen) -> Iterator[Saying]:
    cell_state = seen.state
    if cell_state is None or not cell_state.suspended_by:
        return
    event = seen.lately.suspended.get(seen.cell)
    guards = [g for g in seen.policy.guards_of(seen.cell) if g.id in cell_state.suspended_by]
    reasons = [separated(event.reason)] if event is not None and event.reason else []
    reasons = reasons or sorted(cell_state.suspended_by)
    durations = [g.over or seen.policy.tick for g in guards]
    return_text = (
        f" Returns by itself after {took(max(durations))} within the line." if durations else ""
    )
    since = max(
        (at for name, at in cell_state.suspensions if name in cell_state.suspended_by), default=None
    )
    since_text = Markup("") if since is None else say(" since {}", seen.clock(since))
    text = say("People decide{}: {}.{}", since_text, "; ".join(reasons), return_text)
    yield Saying("suspended", "suspended", "Suspended", text)


def _narrowed(seen: Seen) -> Iterator[Saying]:
    event = seen.lately.narrowed.get(seen.cell)
    if event is None:
        return
    reason = separated(event.reason) if event.guard else f"by {event.by}: {_quoted(event.reason)}"
    local_time = event.at.astimezone(seen.zone)
    text = say(
        "Narrowed from {} to {} on {}: {}.{}",
        event.from_stage, event.to_stage, seen.clock(event.at), reason,
        " Evidence starts anew." if event.restart else "",
    )  # fmt: skip
    yield Saying("narrowed", "bad", f"Narrowed {local_time.day} {local_time:%b}", text)


# Grants and their ends


def _lapsing(seen: Seen) -> Iterator[Saying]:
    cell_state, policy = seen.state, seen.policy
    for stage_level in range(seen.held, 0, -1):
        assert cell_state is not None  # noqa: S101 - a rung is held
        grant = next(g for g in cell_state.grants if g.stage == policy.rungs[stage_level])
        since = renewal_starts(policy, cell_state, stage_level)
        if seen.at < since:
            continue
        text = say(
            "Lapses to {} in {}, {}, unless renewed. {}",
            policy.rungs[stage_level - 1], took(grant.until - seen.at), seen.clock(grant.until),
            _renewal(seen, cell_state, stage_level, since),
        )  # fmt: skip
        yield Saying("lapsing", "warn", "Lapsing", text)


def _renewal(seen: Seen, state: CellState, rung: int, since: datetime) -> Markup:
    stage = seen.policy.rungs[rung]
    for proposal in open_here(seen):
        if proposal.kind == "renewal" and proposal.to == stage:
            if proposal.approved:
                return Markup("The renewal is approved.")
            return say("The renewal waits for {}.", missing(proposal))
    if state.quiet_until is not None and seen.at < state.quiet_until:
        return say(
            "A proposal was rejected: none is raised before {}.", seen.clock(state.quiet_until)
        )
    if alarmed(seen.scope, seen.cell, seen.row.now.version) or seen.scope.stopped(seen.cell):
        return Markup("None is proposed while it is withheld or a guard is in alarm.")
    if seen.at - since > seen.policy.tick:
        return Markup("The gate doesn’t hold on this grant’s evidence, so no renewal is proposed.")
    return Markup("")


def _lapsed(seen: Seen) -> Iterator[Saying]:
    event, cell_state = seen.lately.lapsed.get(seen.cell), seen.state
    end_times = (
        [] if cell_state is None else [g.until for g in cell_state.grants if g.until <= seen.at]
    )
    ended_at = max([*end_times, *([event.until] if event is not None else [])], default=None)
    if ended_at is None or ended_at > seen.at:
        return
    stage_text = "" if seen.row.now.withheld else f" {seen.row.now.stage.capitalize()} since then."
    text = say(
        "The grant ended {}.{} Nothing failed: nobody renewed it.", seen.clock(ended_at), stage_text
    )
    yield Saying("lapsed", "warn", "Lapsed", text)


def _reported(seen: Seen) -> Iterator[Saying]:
    """Tell of guards that are in alarm and narrow nothing."""
    cell_state = seen.state
    for guard in seen.policy.guards_of(seen.cell):
        if cell_state is None or guard.id not in cell_state.reported:
            continue
        measure = guard.condition.measure
        tag = {"unaudited": "unaudited", "heartbeat": "stale"}.get(measure, "reported")
        period_text = "" if guard.over is None else f" over {duration_text(guard.over)}"
        text = say(
            "In alarm: {}{}. It is reported and narrows nothing.", str(guard.condition), period_text
        )
        yield Saying(tag, "warn", tag.capitalize(), text)


_TELLING: Final = (
    _stopped, _suspended, _narrowed, _lapsing, _lapsed, _reported, eligible, holding,
    rejected, ceiling, no_data,
)  # fmt: skip
