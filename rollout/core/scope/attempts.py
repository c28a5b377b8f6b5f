"""Start of attempts: which share of the year's risk each one gets, and when."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from functools import cache, partial
from zoneinfo import ZoneInfo

from rollout.core.calendar.sites import Cell
from rollout.core.policy.policy import Policy
from rollout.core.policy.risk_shares import compute_yearly_share
from rollout.core.scope.commands import (
    AcceptRestore,
    AnsweredByCell,
    EvidenceByCell,
    StopAfterRollback,
    Tick,
)
from rollout.core.scope.events import (
    ENGINE,
    AttemptsBegan,
    EraBegan,
    IncidentOpened,
    Stopped,
)
from rollout.core.scope.incident_kinds import LEDGER_ROLLED_BACK
from rollout.core.scope.pending_events import PendingEvents
from rollout.core.scope.scope import AttemptYear, CellState, Scope
from rollout.core.scope.stop_targets import list_unstopped_cells
from rollout.kernel.readings import NEW_ERA


def stop_after_rollback(command: StopAfterRollback, pending: PendingEvents) -> None:
    """Open an incident, begin an era and stop every cell, once for each era."""
    if command.era < pending.scope.era:
        return
    pending.emit(
        IncidentOpened(
            at=pending.at,
            by=ENGINE,
            incident=pending.next_incident_id,
            kind=LEDGER_ROLLED_BACK.name,
            effect=LEDGER_ROLLED_BACK.effects[1].name,
            reason=command.reason,
            about=command.about,
        )
    )
    _begin_era(pending, ENGINE, command.reason, command.era)


def accept_restore(command: AcceptRestore, pending: PendingEvents) -> None:
    """Begin an era and stop every cell, in a user's name."""
    _begin_era(pending, command.by.name, command.reason, command.known_era)


def _begin_era(pending: PendingEvents, by: str, reason: str, known_era: int) -> None:
    """Begin an era above each known one.

    Open proposals end: the lost entries may have rejected them.
    """
    era = max(pending.scope.era, known_era) + 1
    for proposal in tuple(pending.scope.proposals):
        pending.void_proposal(proposal, NEW_ERA, str(era))
    pending.emit(EraBegan(at=pending.at, by=by, era=era, reason=reason))
    cells = list_unstopped_cells(pending.scope, pending.policy.cells)
    if cells:
        stop = f"S-{pending.scope.revision + 1}"
        pending.emit(Stopped(at=pending.at, by=by, stop=stop, cells=cells, reason=reason))


def begin_attempts(pending: PendingEvents, tick: Tick) -> None:
    """Begin each attempt whose first unit this tick counts, all in one event.

    An attempt begins before its gate is evaluated, so its share is fixed while its e-value is 1.
    Attempts of one cell that begin in one slot are numbered in the order of their versions' first
    use. A running attempt keeps its number and share at New Year.
    """
    keys = _list_starting_keys(pending.scope, pending.policy, tick.evidence)
    _emit_begun(pending, keys, pending.at if tick.slot is None else tick.slot)


def begin_answered_attempts(pending: PendingEvents, answered: AnsweredByCell) -> None:
    """Begin the attempts of which answers are stored, though none counts yet.

    Args:
        pending: the events so far.
        answered: by cell and version when the last unit occurred that was predicted before it was
            decided, and is.
    """
    places = {version: place for place, version in enumerate(pending.scope.versions)}
    keys = [
        key
        for key, occurred in answered.items()
        if _may_begin(pending.scope, pending.policy, key)
        and _is_of_attempt(pending.scope.get_cell_state(*key), occurred)
    ]
    _emit_begun(pending, sorted(keys, key=lambda key: (key[0], places[key[1]])), pending.at)


def _is_of_attempt(state: CellState, occurred: datetime) -> bool:
    return state.attempt == 1 or occurred >= state.attempt_since


def _emit_begun(pending: PendingEvents, keys: Sequence[tuple[Cell, str]], slot: datetime) -> None:
    if not keys:
        return
    years = dict(pending.scope.attempt_years)
    find_year = cache(partial(_find_year, slot, pending.policy))
    starts = []
    for cell, version in keys:
        year = find_year(cell.site)
        years[cell] = _count_attempt(years.get(cell), year, pending.policy.evidence.releases)
        starts.append((cell, version, years[cell]))
    format_share = cache(lambda year: repr(compute_yearly_share(*year)))
    pending.emit(
        AttemptsBegan(
            at=pending.at,
            by=ENGINE,
            cells=tuple(cell for cell, _, _ in starts),
            versions=tuple(version for _, version, _ in starts),
            years=tuple(year.year for _, _, year in starts),
            numbers=tuple(year.count for _, _, year in starts),
            releases=tuple(year.releases for _, _, year in starts),
            shares=tuple(format_share((year.count, year.releases)) for _, _, year in starts),
        )
    )


def foresee_attempt(
    scope: Scope, policy: Policy, cell: Cell, version: str, at: datetime
) -> CellState:
    """Return a version's state in a cell, with the share that its attempt would get if it began.

    The scope alone knows neither the policy's planned releases nor the site's year.
    """
    state = scope.get_cell_state(cell, version)
    if state.has_begun:
        return state
    year = foresee_year(scope, policy, cell, at)
    return replace(state, risk_share=compute_yearly_share(year.count, year.releases))


def describe_cell_attempt(
    scope: Scope, policy: Policy, cell: Cell, version: str, at: datetime
) -> str:
    """Describe a version's attempt in a cell by its number, as the ledger has it.

    Before its first unit an attempt has no number: the text then has the one that it would get.
    """
    state = scope.get_cell_state(cell, version)
    if state.has_begun:
        return f"attempt {state.number} of the year in this cell"
    if scope.versions[version].retired:
        return f"no attempt: {version} is retired"
    following = foresee_year(scope, policy, cell, at)
    return f"no attempt yet; the next would be number {following.count} of the year in this cell"


def foresee_year(scope: Scope, policy: Policy, cell: Cell, at: datetime) -> AttemptYear:
    """Return a cell's year as it would be if an attempt began."""
    year = _find_year(at, policy, cell.site)
    return _count_attempt(scope.attempt_years.get(cell), year, policy.evidence.releases)


def _list_starting_keys(
    scope: Scope, policy: Policy, evidence: EvidenceByCell
) -> list[tuple[Cell, str]]:
    """Return the cells and versions whose attempt has evidence and has not begun, in order."""
    places = {version: place for place, version in enumerate(scope.versions)}
    keys = [
        (cell, version)
        for cell, version in evidence
        if _may_begin(scope, policy, (cell, version))
        and evidence[cell, version].attempt.has_evidence
    ]
    return sorted(keys, key=lambda key: (key[0], places[key[1]]))


def _may_begin(scope: Scope, policy: Policy, key: tuple[Cell, str]) -> bool:
    """Return whether an attempt waits for evidence: its version is not retired."""
    cell, version = key
    is_in_use = version in scope.versions and not scope.versions[version].retired
    return cell in policy.cell_set and is_in_use and not scope.has_begun(cell, version)


def _find_year(slot: datetime, policy: Policy, site: str) -> int:
    """Return the calendar year of a slot in a site's zone."""
    return slot.astimezone(ZoneInfo(policy.get_timezone(site))).year


def _count_attempt(previous: AttemptYear | None, year: int, releases: int) -> AttemptYear:
    """Return a cell's year with one more attempt.

    The planned number of releases is that of the year's first attempt, so shares never change
    within a year. No year begins twice: if the clock or the site's zone was set back over New Year,
    attempts go on in the later year.
    """
    if previous is None or year > previous.year:
        return AttemptYear(year, 1, releases)
    return AttemptYear(previous.year, previous.count + 1, previous.releases)
