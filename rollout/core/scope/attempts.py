"""Start of attempts: which share of the year's risk each one gets, and when."""

from datetime import datetime
from zoneinfo import ZoneInfo

from rollout.core.calendar.sites import Cell
from rollout.core.policy.counting_rules import numbers_attempts_by_year
from rollout.core.policy.policy import Policy
from rollout.core.policy.risk_shares import compute_yearly_share
from rollout.core.scope.commands import EvidenceByCell, Tick
from rollout.core.scope.events import AttemptsBegan
from rollout.core.scope.pending_events import PendingEvents
from rollout.core.scope.scope import ENGINE, AttemptYear, Scope


def begin_attempts(pending: PendingEvents, tick: Tick) -> None:
    """Begin each attempt whose first unit this tick counts, all in one event.

    An attempt begins before its gate is evaluated, so its share is fixed while its e-value is 1.
    Attempts of one cell that begin in one slot are numbered in the order of their versions' first
    use. A running attempt keeps its number and share at New Year.
    """
    keys = _list_starting_keys(pending.scope, pending.policy, tick.evidence)
    if not keys:
        return
    slot = pending.at if tick.slot is None else tick.slot
    years = dict(pending.scope.attempt_years)
    starts = []
    for cell, version in keys:
        years[cell] = _count_attempt(years.get(cell), cell, slot, pending.policy)
        starts.append((cell, version, years[cell]))
    pending.emit(
        AttemptsBegan(
            at=pending.at,
            by=ENGINE,
            cells=tuple(cell for cell, _, _ in starts),
            versions=tuple(version for _, version, _ in starts),
            years=tuple(year.year for _, _, year in starts),
            numbers=tuple(year.count for _, _, year in starts),
            releases=tuple(year.releases for _, _, year in starts),
            shares=tuple(
                repr(compute_yearly_share(year.count, year.releases)) for _, _, year in starts
            ),
        )
    )


def describe_cell_attempt(
    scope: Scope, policy: Policy, cell: Cell, version: str, at: datetime
) -> str:
    """Describe a version's attempt in a cell by its number, as the ledger has it.

    An attempt has no number before its first unit: the text then names the one that it would get.
    """
    state = scope.get_cell_state(cell, version)
    if not numbers_attempts_by_year(scope.rules):
        return f"attempt {state.attempt} of {version} in this cell"
    if state.number:
        return f"attempt {state.number} of the year in this cell"
    if state.has_begun:
        return "an attempt from before attempts had numbers"
    following = _count_attempt(scope.attempt_years.get(cell), cell, at, policy)
    return f"no attempt yet; the next would be number {following.count} of the year in this cell"


def _list_starting_keys(
    scope: Scope, policy: Policy, evidence: EvidenceByCell
) -> list[tuple[Cell, str]]:
    """Return the cells and versions whose attempt has evidence and has not begun, in order."""
    if not numbers_attempts_by_year(scope.rules):
        return []
    places = {version: place for place, version in enumerate(scope.versions)}
    keys = [
        (cell, version)
        for cell, version in evidence
        if cell in policy.cell_set
        and version in places
        and not scope.versions[version].retired
        and not scope.get_cell_state(cell, version).has_begun
        and evidence[cell, version].attempt.has_evidence
    ]
    return sorted(keys, key=lambda key: (key[0], places[key[1]]))


def _count_attempt(
    previous: AttemptYear | None, cell: Cell, slot: datetime, policy: Policy
) -> AttemptYear:
    """Return the cell's year with one more attempt; the site's zone decides which year it is.

    The planned number of releases is that of the year's first attempt, so shares never change
    within a year. No year begins twice: if the clock or the site's zone was set back over New Year,
    attempts go on in the later year.
    """
    year = slot.astimezone(ZoneInfo(policy.get_timezone(cell.site))).year
    if previous is None or year > previous.year:
        return AttemptYear(year, 1, policy.evidence.releases)
    return AttemptYear(previous.year, previous.count + 1, previous.releases)
