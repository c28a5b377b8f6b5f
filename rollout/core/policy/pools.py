"""Cells whose units count together in a condition.

A pool counts all cells of a site, rollout or wave in the policy, whichever gate they have: a pool
that left some out could leave out those that lose.
"""

from collections.abc import Iterable
from typing import TypeAlias

from rollout.core.calendar.sites import Cell
from rollout.core.policy.measures import Condition
from rollout.core.policy.outcomes import CELL_POOL, POOLS, SITE_POOL, GainCondition
from rollout.core.policy.policy import Policy
from rollout.core.policy.wave_conditions import WAVE_POOL, WaveCondition

PooledCondition: TypeAlias = GainCondition | WaveCondition
_WIDTHS = (*POOLS, WAVE_POOL)  # no policy has both gains and pools of a wave


def list_pooled_cells(policy: Policy, cell: Cell, pool: str) -> tuple[Cell, ...]:
    """Return the cells of a pool that a cell belongs to, in the policy's order.

    Of a site that the policy has no more, the cell alone: it is in no wave.
    """
    if pool == CELL_POOL or (pool == WAVE_POOL and cell.site not in policy.sites_by_id):
        return (cell,)
    if pool == WAVE_POOL:  # of the same window
        wave = policy.sites_by_id[cell.site].wave
        return tuple(Cell(site.id, cell.window) for site in policy.sites if site.wave == wave)
    return tuple(c for c in policy.cells if pool != SITE_POOL or c.site == cell.site)


def get_pool(condition: Condition) -> str:
    """Return which cells a condition counts together."""
    if isinstance(condition, WaveCondition):
        return WAVE_POOL
    return condition.pool if isinstance(condition, GainCondition) else CELL_POOL


def list_pooled_conditions(policy: Policy) -> tuple[PooledCondition, ...]:
    """Return the conditions of gates that count several cells together."""
    if not policy.outcomes and policy.waves is None:
        return ()  # called for each cell
    conditions = (condition for gate in policy.gates for condition in gate.require)
    return tuple(
        c
        for c in conditions
        if isinstance(c, GainCondition | WaveCondition) and get_pool(c) != CELL_POOL
    )


def list_counted_cells(policy: Policy, cell: Cell, stage: str) -> tuple[Cell, ...]:
    """Return the cells whose units a gate of a cell counts, its own among them."""
    if stage not in policy.stage_ids or cell not in policy.cell_set:
        return (cell,)
    conditions = policy.list_conditions(policy.stage_ids.index(stage), cell)
    pools = map(get_pool, conditions)
    return list_pooled_cells(policy, cell, max(pools, key=_WIDTHS.index, default=CELL_POOL))


def find_widest_pool(policy: Policy) -> str:
    """Return the widest pool of the policy's gates."""
    pools = map(get_pool, list_pooled_conditions(policy))
    return max(pools, key=_WIDTHS.index, default=CELL_POOL)


def list_sharing_cells(policy: Policy, cells: Iterable[Cell]) -> set[Cell]:
    """Return the cells, and those whose gates count units of them."""
    pool, changed_cells = find_widest_pool(policy), set(cells)
    if pool == CELL_POOL or not changed_cells:
        return changed_cells
    sharing = (list_pooled_cells(policy, cell, pool) for cell in changed_cells)
    return changed_cells.union(*sharing)
