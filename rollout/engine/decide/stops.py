"""Stops and resumes: the cells that a stop means, and what a resume needs."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from rollout.engine.decide.commands import ProposeResume, StopCells
from rollout.engine.decide.permissions import (
    AssignedRole,
    Caller,
    Permission,
    require_permission,
)
from rollout.engine.decide.projection import PendingEvents
from rollout.engine.decide.proposals import build_proposal
from rollout.engine.decide.scope import Scope, Stop, compute_held_level
from rollout.engine.events import Stopped
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.errors import RefusalError, UnknownCellError
from rollout.kernel.policy.policy import Policy, matches_any, matches_pattern

TWO_OPERATORS = ("operator", "operator")  # needs without a gate


def apply_stop(command: StopCells, pending: PendingEvents) -> None:
    """Stop the cells that no equal stop holds already."""
    cells = list_unstopped_cells(pending.scope, command.cells, is_drill=command.drill)
    if not cells:
        return
    pending.emit(
        Stopped(
            at=pending.at,
            by=command.by.name,
            stop=f"S-{pending.scope.revision + 1}",
            cells=cells,
            reason=command.reason,
            drill=command.drill,
        )
    )


def list_unstopped_cells(
    scope: Scope, cells: Iterable[Cell], *, is_drill: bool = False
) -> tuple[Cell, ...]:
    """Return the cells that no equal stop holds already, sorted."""
    return tuple(sorted(c for c in set(cells) if not _is_already_stopped(scope, c, is_drill)))


def _is_already_stopped(scope: Scope, cell: Cell, is_drill: bool) -> bool:
    """Return whether a stop in force makes another one redundant in `cell`.

    A drill, or a stop with an open resume, does not: the resume would restore what was stopped
    after the resume was proposed.
    """
    return any(
        cell in stop.cells and (is_drill or not stop.drill) and not has_open_resume(scope, stop)
        for stop in scope.stops.values()
    )


def has_open_resume(scope: Scope, stop: Stop) -> bool:
    """Return whether a resume of `stop` is open."""
    return any(p.rules.ends_stop and p.about == stop.id for p in scope.proposals.values())


def propose_resume(command: ProposeResume, stop: Stop, pending: PendingEvents) -> None:
    """Propose to end `stop`, unless that is proposed already."""
    if has_open_resume(pending.scope, stop):
        return
    cells = tuple(sorted(stop.cells))
    lines = (f"resume {stop.id}", *map(str, cells))
    needs = find_resume_needs(pending.scope, pending.policy, stop, pending.at)
    raised = build_proposal(pending, "resume", command.by.name, needs, lines, stop.id)
    pending.emit(replace(raised, cells=cells))


def find_highest_approvals(policy: Policy) -> tuple[str, ...]:
    """Return the approvals of the gate to the highest stage.

    Of several such gates the one with most approvals; two operators for a policy without gates.
    """
    gates = sorted(
        policy.gates, key=lambda gate: (policy.stage_ids.index(gate.to), len(gate.approvals))
    )
    return gates[-1].approvals if gates else TWO_OPERATORS


def find_resume_needs(scope: Scope, policy: Policy, stop: Stop, at: datetime) -> tuple[str, ...]:
    """Return the approvals of the highest gate that comes back, or two operators."""
    level_by_cell = {
        cell: _find_resumed_level(scope, policy, cell, at)
        for cell in sorted(stop.cells & policy.cell_set)
    }
    max_level = max(level_by_cell.values(), default=0)
    cells = [cell for cell, stage_level in level_by_cell.items() if stage_level == max_level]
    return find_return_needs(policy, max_level, cells) if max_level else TWO_OPERATORS


def find_return_needs(policy: Policy, stage_level: int, cells: Iterable[Cell]) -> tuple[str, ...]:
    """Return the approvals of a resume after which cells return to a level.

    If they do so by different gates, the needs of all these gates are combined. Where the policy
    has lost the gate, those of its highest one count.
    """
    gates = (policy.find_gate(stage_level, cell) for cell in cells)
    highest = find_highest_approvals(policy)
    needed_groups: Counter[str] = Counter()
    for approvals in dict.fromkeys(gate.approvals if gate else highest for gate in gates):
        needed_groups |= Counter(approvals)
    return tuple(needed_groups.elements())


def _find_resumed_level(scope: Scope, policy: Policy, cell: Cell, at: datetime) -> int:
    holder = scope.get_holder(cell)
    return (
        0 if holder is None else compute_held_level(policy, scope.get_cell_state(cell, holder), at)
    )


@dataclass(frozen=True, slots=True)
class StopTarget:
    """Cells to stop, by name or by patterns of sites and windows."""

    cells: tuple[Cell, ...] = ()
    sites: tuple[str, ...] = ()
    windows: tuple[str, ...] = ()
    is_everything: bool = False


@dataclass(frozen=True, slots=True)
class StopOrder:
    """A target as it was asked, while the policy that names its cells can't be read."""

    target: StopTarget
    role_assignments: tuple[AssignedRole, ...]


@dataclass(frozen=True, slots=True)
class ExcludedTarget:
    """A named part that was not changed, and why."""

    target: str
    reason: str


@dataclass(frozen=True, slots=True)
class ResolvedTarget:
    """The named cells that the caller operates, and the excluded parts."""

    cells: tuple[Cell, ...]
    excluded: tuple[ExcludedTarget, ...]

    @property
    def sites(self) -> tuple[str, ...]:
        """Return the sites of the cells, each once."""
        return tuple(dict.fromkeys(cell.site for cell in self.cells))


def resolve_target(target: StopTarget, policy: Policy, caller: Caller) -> ResolvedTarget:
    """Return the named cells that exist and that the caller operates.

    Raises:
        RefusalError: nothing was named.
        UnknownCellError: nothing of it exists; the text lists the cells.
        NotAllowedError: the caller operates none of it.
    """
    if not (target.cells or target.sites or target.windows or target.is_everything):
        raise RefusalError("name cells: `cells`, `sites`, `windows` or `all: true`")
    matching_cells = _list_matching_cells(target, policy)
    if not matching_cells:
        cell_text = ", ".join(str(cell) for cell in policy.cells)
        raise UnknownCellError(f"no cell fits; cells: {cell_text}")
    sites = tuple(dict.fromkeys(cell.site for cell in matching_cells))
    operable_sites = {
        site for site in sites if caller.has_permission(Permission.OPERATE, policy.rollout, site)
    }
    if not operable_sites:
        require_permission(caller, Permission.OPERATE, policy.rollout, sites)
    excluded_sites = (
        ExcludedTarget(site, f"{caller.name} is no operator there")
        for site in sites
        if site not in operable_sites
    )
    unknown_targets = (
        ExcludedTarget(unknown_name, "the policy has none")
        for unknown_name in _iterate_unknown_names(target, policy)
    )
    return ResolvedTarget(
        tuple(cell for cell in matching_cells if cell.site in operable_sites),
        (*excluded_sites, *unknown_targets),
    )


def _list_matching_cells(target: StopTarget, policy: Policy) -> tuple[Cell, ...]:
    """Return the named cells; patterns are matched per site, not per cell."""
    if target.is_everything:
        return tuple(policy.cells)
    sites: set[str] = set()
    if target.sites or target.windows:
        sites = {site for site in policy.sites_by_id if matches_any(target.sites, site)}
    windows = {
        window
        for window in {cell.window for cell in policy.cells}
        if matches_any(target.windows, window)
    }
    return tuple(
        cell
        for cell in policy.cells
        if cell in target.cells or (cell.site in sites and cell.window in windows)
    )


def _iterate_unknown_names(target: StopTarget, policy: Policy) -> Iterable[str]:
    """Yield the names and patterns that match nothing."""
    windows = [window.id for window in policy.windows]
    yield from (str(cell) for cell in target.cells if cell not in policy.cell_set)
    yield from (
        pattern
        for pattern in target.sites
        if not any(matches_pattern(pattern, site) for site in policy.sites_by_id)
    )
    yield from (
        pattern
        for pattern in target.windows
        if not any(matches_pattern(pattern, window) for window in windows)
    )
