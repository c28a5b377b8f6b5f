"""What keeps an approved proposal from being applied, and until when."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Final, NamedTuple

from rollout.core.calendar.opening_hours import find_next_change
from rollout.core.calendar.sites import Cell
from rollout.core.policy.confidence_floors import find_floor_index
from rollout.core.policy.fresh_evidence import FreshEvidence, list_fresh_facts
from rollout.core.policy.policy import Policy
from rollout.core.scope.events import HARM_FACT
from rollout.core.scope.scope import ProposalState, Scope
from rollout.core.scope.waves import find_settled_at, find_wave_hold, find_wave_opening
from rollout.kernel.readings import FreshFact

# policies and clock corrections are applied before
"""Kinds that answers which don't count yet may hold."""
MAX_ADJACENT_FREEZES: Final = 100


class ProposalHold(NamedTuple):
    """A reason to wait; `until` is None if its end is not known.

    `kind` is observing, facts, harm, stop, freeze, alarm, wave or settling. For facts and
    harm `reason` names the incidents.
    """

    kind: str
    reason: str
    until: datetime | None = None


def list_proposal_holds(
    scope: Scope, policy: Policy, proposal: ProposalState, at: datetime
) -> tuple[ProposalHold, ...]:
    """Return all that holds a proposal back at `at`; () if the next tick applies it."""
    if proposal.rules.changes_policy:
        return ()
    return tuple(_find_holds(scope, policy, proposal, at))


def list_proposal_facts(
    policy: Policy, proposal: ProposalState, evidence: FreshEvidence
) -> tuple[FreshFact, ...]:
    """Return what holds a proposal for a cell by answers that don't count yet."""
    cell = proposal.cell
    if cell is None or not proposal.rules.gives_more:
        return ()
    if cell not in policy.cell_set or policy.find_gate_to(proposal.to, cell) is None:
        return ()
    floor = find_floor_index(policy.evidence, next(iter(proposal.floors), ""))
    stage_level = policy.stage_ids.index(proposal.to)
    return list_fresh_facts(policy, cell, stage_level, evidence.get_floor(floor))


def _find_holds(
    scope: Scope, policy: Policy, proposal: ProposalState, at: datetime
) -> Iterator[ProposalHold]:
    if policy.observe and not _resumes_nothing(scope, proposal):
        yield ProposalHold("observing", "the policy only observes: nothing is granted")
    if proposal.unconfirmed:
        yield ProposalHold("facts", " and ".join(proposal.unconfirmed))
    if harms := _list_harms(scope, proposal):
        yield ProposalHold("harm", " and ".join(harms))
    if proposal.cell is None:  # a resume restores grants only: no wave, no settling
        stop = scope.stops.get(proposal.about)
        yield from _find_freeze_hold(policy, stop.cells if stop else (), at)
    elif proposal.cell in policy.cell_set:
        yield from _find_cell_holds(scope, policy, proposal, proposal.cell, at)


def _list_harms(scope: Scope, proposal: ProposalState) -> list[str]:
    """Return the harms that nobody has acknowledged, and that hold a proposal."""
    harms = [i for i in scope.open_incidents.values() if i.fact == HARM_FACT]
    if not harms or _resumes_nothing(scope, proposal):
        return []
    stop = scope.stops.get(proposal.about)
    cells = (proposal.cell,) if proposal.cell is not None else stop.cells if stop else ()
    sites = {cell.site for cell in cells}
    versions = {proposal.version, *(scope.get_holder(cell) for cell in cells)}
    return [
        harm.id
        for harm in harms
        if harm.holds != "site"
        or harm.version in versions
        or (harm.cell is not None and harm.cell.site in sites)
    ]


def _find_cell_holds(
    scope: Scope, policy: Policy, proposal: ProposalState, cell: Cell, at: datetime
) -> Iterator[ProposalHold]:
    if scope.is_stopped(cell):
        yield ProposalHold("stop", "the cell is stopped")
    yield from _find_freeze_hold(policy, (cell,), at)
    if has_alarm(scope, cell, proposal.version):
        yield ProposalHold("alarm", "a guard is in alarm there")
    if proposal.rules.extends_grant or proposal.to not in policy.stage_ids:
        return
    stage_level = policy.stage_ids.index(proposal.to)
    wave_hold = find_wave_hold(scope, policy, cell, stage_level, at)
    if proposal.rules.waits_for_wave and wave_hold is not None:
        yield ProposalHold("wave", str(wave_hold), find_wave_opening(scope, policy, cell, at)[1])
    settled_at = find_settled_at(scope, policy, at)
    if settled_at is not None:
        yield ProposalHold("settling", "recently widened cells settle", settled_at)


def _find_freeze_hold(
    policy: Policy, cells: Iterable[Cell], at: datetime
) -> Iterator[ProposalHold]:
    """Yield the freeze of any of the cells, with the latest end."""
    frozen_cells = [
        (cell, freeze)
        for cell in sorted(cells)
        if cell in policy.cell_set and (freeze := policy.find_freeze(cell, at)) is not None
    ]
    if frozen_cells:
        ends = [find_freeze_end(policy, cell, at) for cell, _ in frozen_cells]
        known_ends = [end for end in ends if end is not None]
        is_known = len(known_ends) == len(ends)
        yield ProposalHold(
            "freeze", frozen_cells[0][1].reason, max(known_ends) if is_known else None
        )


def find_freeze_end(policy: Policy, cell: Cell, at: datetime) -> datetime | None:
    """Return when no freeze holds a frozen cell any more, or None if that is not known."""
    site, instant = policy.sites_by_id[cell.site], at
    for _ in range(MAX_ADJACENT_FREEZES):
        freeze = policy.find_freeze(cell, instant)
        if freeze is None:
            return instant
        change = find_next_change(freeze.hours, site, instant)
        if change is None:
            return None
        instant = change
    return None


def _resumes_nothing(scope: Scope, proposal: ProposalState) -> bool:
    """Return whether a proposal resumes a stop in whose cells nothing is granted."""
    stop = scope.stops.get(proposal.about) if proposal.rules.ends_stop else None
    return stop is not None and all(scope.get_holder(cell) is None for cell in stop.cells)


def has_alarm(scope: Scope, cell: Cell, version: str) -> bool:
    """Return whether a guard is in alarm on `version` or the cell's holder.

    An alarm that narrows restarts its guard, so these are guards that suspend or only report.
    """
    version_ids = {version, scope.get_holder(cell) or version}
    states = [scope.get_cell_state(cell, version_id) for version_id in version_ids]
    return any(state.suspended_by or state.reported_guards for state in states)
