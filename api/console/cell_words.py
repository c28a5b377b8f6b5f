"""What a cell says: its tag and every sentence that holds, of what the service knows."""

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from markupsafe import Markup

from api.console.cell_seen import (
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
from api.console.holding_words import ceiling, holding, no_data, rejected
from api.console.times import took
from api.console.waiting_words import eligible
from rollout.core.policy import Policy, duration_text
from rollout.core.proposing import alarmed, renewal_starts
from rollout.core.scope import CellState, Scope
from rollout.core.stopping import resume_needs
from rollout.reports.words import separated, several
from rollout.services.cell_rows import CellRow, Lately

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
    seen = Seen(policy, scope, row, lately, at, clock)
    found = [saying for tell in _TELLING for saying in tell(seen)]
    found.sort(key=lambda saying: ORDER.index(saying.state))
    first = next((saying for saying in found if saying.tag), None)
    if first is None:
        return CellWords("", "", tuple(found))
    return CellWords(first.kind, first.tag, tuple(found))


# What withholds, what was taken


def _stopped(seen: Seen) -> Iterator[Saying]:
    for stop in seen.scope.stops.values():
        if seen.cell not in stop.cells:
            continue
        reason = seen.lately.reasons.get(stop.id, "")
        drill = " (a drill)" if stop.drill else ""
        needs = len(resume_needs(seen.scope, seen.policy, stop, seen.at))
        asked = _resume(seen, stop.id) or f"Resuming needs {several(needs, 'person', 'people')}."
        says = say(
            "Stopped by {}{}, {}: {}. {}",
            stop.by, drill, seen.clock(stop.at), _quoted(reason), asked,
        )  # fmt: skip
        yield Saying("stopped", "stopped", "Stopped", says)


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
    state = seen.state
    if state is None or not state.suspended_by:
        return
    event = seen.lately.suspended.get(seen.cell)
    guards = [g for g in seen.policy.guards_of(seen.cell) if g.id in state.suspended_by]
    why = [separated(event.reason)] if event is not None and event.reason else []
    why = why or sorted(state.suspended_by)
    spans = [g.over or seen.policy.tick for g in guards]
    back = f" Returns by itself after {took(max(spans))} within the line." if spans else ""
    since = max((at for name, at in state.suspensions if name in state.suspended_by), default=None)
    when = Markup("") if since is None else say(" since {}", seen.clock(since))
    says = say("People decide{}: {}.{}", when, "; ".join(why), back)
    yield Saying("suspended", "suspended", "Suspended", says)


def _narrowed(seen: Seen) -> Iterator[Saying]:
    event = seen.lately.narrowed.get(seen.cell)
    if event is None:
        return
    why = separated(event.reason) if event.guard else f"by {event.by}: {_quoted(event.reason)}"
    here = event.at.astimezone(seen.zone)
    says = say(
        "Narrowed from {} to {} on {}: {}.{}",
        event.from_stage, event.to_stage, seen.clock(event.at), why,
        " Evidence starts anew." if event.restart else "",
    )  # fmt: skip
    yield Saying("narrowed", "bad", f"Narrowed {here.day} {here:%b}", says)


# Grants and their ends


def _lapsing(seen: Seen) -> Iterator[Saying]:
    state, policy = seen.state, seen.policy
    for rung in range(seen.held, 0, -1):
        assert state is not None  # noqa: S101 - a rung is held
        grant = next(g for g in state.grants if g.stage == policy.rungs[rung])
        since = renewal_starts(policy, state, rung)
        if seen.at < since:
            continue
        says = say(
            "Lapses to {} in {}, {}, unless renewed. {}",
            policy.rungs[rung - 1], took(grant.until - seen.at), seen.clock(grant.until),
            _renewal(seen, state, rung, since),
        )  # fmt: skip
        yield Saying("lapsing", "warn", "Lapsing", says)


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
    event, state = seen.lately.lapsed.get(seen.cell), seen.state
    ends = [] if state is None else [g.until for g in state.grants if g.until <= seen.at]
    ended = max([*ends, *([event.until] if event is not None else [])], default=None)
    if ended is None or ended > seen.at:
        return
    since = "" if seen.row.now.withheld else f" {seen.row.now.stage.capitalize()} since then."
    says = say("The grant ended {}.{} Nothing failed: nobody renewed it.", seen.clock(ended), since)
    yield Saying("lapsed", "warn", "Lapsed", says)


def _reported(seen: Seen) -> Iterator[Saying]:
    """Tell of guards that are in alarm and narrow nothing."""
    state = seen.state
    for guard in seen.policy.guards_of(seen.cell):
        if state is None or guard.id not in state.reported:
            continue
        measure = guard.condition.measure
        name = {"unaudited": "unaudited", "heartbeat": "stale"}.get(measure, "reported")
        over = "" if guard.over is None else f" over {duration_text(guard.over)}"
        says = say(
            "In alarm: {}{}. It is reported and narrows nothing.", str(guard.condition), over
        )
        yield Saying(name, "warn", name.capitalize(), says)


_TELLING: Final = (
    _stopped, _suspended, _narrowed, _lapsing, _lapsed, _reported, eligible, holding,
    rejected, ceiling, no_data,
)  # fmt: skip
