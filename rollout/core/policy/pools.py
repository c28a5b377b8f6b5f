"""Cells whose units count together in a condition on gain.

A pool counts all cells of a site or rollout in the policy, whichever gate they have: a pool that
left some out could leave out those that lose.
"""

from collections.abc import Iterable

from rollout.core.calendar.sites import Cell
from rollout.core.policy.outcomes import CELL_POOL, POOLS, SITE_POOL, GainCondition
from rollout.core.policy.policy import Policy


def list_pooled_cells(policy: Policy, cell: Cell, pool: str) -> tuple[Cell, ...]:
    """Return the cells of a pool that a cell belongs to, in the policy's order."""
    if pool == CELL_POOL:
        return (cell,)
    return tuple(c for c in policy.cells if pool != SITE_POOL or c.site == cell.site)


def list_pooled_conditions(policy: Policy) -> tuple[GainCondition, ...]:
    """Return the conditions of gates that count several cells together."""
    if not policy.outcomes:
        return ()  # asked for each cell
    conditions = (condition for gate in policy.gates for condition in gate.require)
    return tuple(c for c in conditions if isinstance(c, GainCondition) and c.pool != CELL_POOL)


def list_counted_cells(policy: Policy, cell: Cell, stage: str) -> tuple[Cell, ...]:
    """Return the cells whose units a gate of a cell counts, its own among them."""
    if not policy.outcomes or stage not in policy.stage_ids or cell not in policy.cell_set:
        return (cell,)
    conditions = policy.list_conditions(policy.stage_ids.index(stage), cell)
    pools = (c.pool for c in conditions if isinstance(c, GainCondition))
    return list_pooled_cells(policy, cell, max(pools, key=POOLS.index, default=CELL_POOL))


def find_widest_pool(policy: Policy) -> str:
    """Return the widest pool of the policy's gates."""
    pools = (condition.pool for condition in list_pooled_conditions(policy))
    return max(pools, key=POOLS.index, default=CELL_POOL)


def list_sharing_cells(policy: Policy, cells: Iterable[Cell]) -> set[Cell]:
    """Return the cells, and those whose gates count units of them."""
    pool, changed_cells = find_widest_pool(policy), set(cells)
    if pool == CELL_POOL or not changed_cells:
        return changed_cells
    sharing = (list_pooled_cells(policy, cell, pool) for cell in changed_cells)
    return changed_cells.union(*sharing)
