"""When an approved proposal takes effect, and what would hold it back."""

from datetime import datetime

from api.console.page.time_format import took
from api.console.proposals.proposal_text import APPROVED, CLOCK, POLICY, RENEWAL, RESUME, WIDENING
from rollout.core.calendar.sites import Cell
from rollout.core.scope.proposals import alarmed
from rollout.core.scope.waves import settling, wave_holds
from rollout.reports.text.formatting import several
from rollout.services.engine.rollout_state import Standing
from rollout.services.proposals.proposal_details import Proposal


def takes_effect(stood: Standing, shown: Proposal, at: datetime) -> str:
    """Say what the reader's own yes would set off, or what an approved proposal waits for."""
    hold = held_back(stood, shown, at)
    if shown.state != APPROVED and shown.approvals_missing > 1:
        remaining_text = several(shown.approvals_missing - 1, "more approval", "more approvals")
        hold_text = f"; as it stands it then waits for the {hold}" if hold else ""
        return f"After yours it takes {remaining_text}{hold_text}."
    prefix = "" if shown.state == APPROVED else "Yours is the last approval: it "
    effect = f"waits for the {hold}" if hold else f"takes effect {_soon(stood, shown)}"
    return f"{prefix}{effect}." if prefix else f"It {effect}."


def _soon(stood: Standing, shown: Proposal) -> str:
    return "at once" if shown.kind == CLOCK else f"within {took(stood.policy.tick)}"


def held_back(stood: Standing, shown: Proposal, at: datetime) -> str:
    """Say what would hold a proposal back now, "" where nothing does: as a tick would find it.

    Whatever else an observing policy lets through, it grants nothing.
    """
    policy, scope = stood.policy, stood.scope
    at = at if scope.at is None else max(at, scope.at)
    if shown.kind in {CLOCK, POLICY}:
        return ""
    if policy.observe and shown.kind != RESUME:
        return "end of observing: under this policy nothing is granted"
    for cell in _cells(stood, shown):
        if (freeze := policy.frozen(cell, at)) is not None:
            return f"end of the freeze ({freeze.reason})"
    if shown.kind == RESUME:
        return ""
    return _of_cell(stood, shown, Cell(shown.site, shown.window), at)


def _of_cell(stood: Standing, shown: Proposal, cell: Cell, at: datetime) -> str:
    policy, scope = stood.policy, stood.scope
    if cell not in policy.known or shown.to not in policy.rungs:
        return ""
    if scope.stopped(cell):
        return "resume of the stop that holds the cell"
    if alarmed(scope, cell, shown.version):
        return "end of a guard's alarm there"
    if shown.kind == RENEWAL:
        return ""
    wave = wave_holds(scope, policy, cell, policy.rungs.index(shown.to), at)
    if shown.kind == WIDENING and wave is not None:
        return f"wave before it ({wave})"
    return "cells that were widened lately to settle" if settling(scope, policy, at) else ""


def _cells(stood: Standing, shown: Proposal) -> list[Cell]:
    """Return the cells that a proposal is about, those that the policy knows."""
    stop = stood.scope.stops.get(shown.about)
    cells = stop.cells if shown.kind == RESUME and stop else {Cell(shown.site, shown.window)}
    return sorted(cells & stood.policy.known)
