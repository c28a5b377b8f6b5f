"""Guards are never absent: the ones that a policy leaves out are added here.

A gate promises something about the average so far and nothing about tomorrow; only a guard
notices that a model has become worse. So whatever a gate asks for is watched, at a line below it.
"""

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta

from rollout.core.calendar.sites import Cell
from rollout.core.policy.measures import Condition
from rollout.core.policy.policy import Gate, Guard, Policy, Where

WATCHED = frozenset({"agreement", "recall", "precision", "cost"})
WIDER = 1.4  # times the error that the gate permits

Key = tuple[str, str | None, str | None]


def with_added_guards(policy: Policy) -> Policy:
    """Return the policy with a guard for whatever its gates require and nothing narrows on.

    A guard that only reports watches nothing away: it narrows no cell.
    """
    asked = _asked(policy)
    added = [guard for key in asked for guard in _added(policy, key, asked[key])]
    return replace(policy, guards=(*policy.guards, *added, *_unaudited(policy)))


def _asked(policy: Policy) -> dict[Key, list[tuple[Gate, Condition]]]:
    asked: dict[Key, list[tuple[Gate, Condition]]] = {}
    for gate in policy.gates:
        for condition in gate.require:
            if condition.measure in WATCHED:
                asked.setdefault(condition.key, []).append((gate, condition))
    return asked


def _added(policy: Policy, key: Key, rows: list[tuple[Gate, Condition]]) -> list[Guard]:
    """Return the guards on one measure: in every cell that a gate asks it of and none watches."""
    cells = [
        cell
        for cell in policy.cells
        if any(_leads(policy, gate, cell) for gate, _ in rows) and not _watched(policy, key, cell)
    ]
    if not cells:
        return []
    condition = widened(_loosest(condition for _, condition in rows), policy.largest_cost)
    selectors = selecting(policy, cells)
    return [Guard(condition, "one-stage", where=where, added=True) for where in selectors]


def _leads(policy: Policy, gate: Gate, cell: Cell) -> bool:
    """Say whether `gate` is the first that fits the cell."""
    return gate.to in policy.rungs and policy.gate(policy.rungs.index(gate.to), cell) is gate


def _watched(policy: Policy, key: Key, cell: Cell) -> bool:
    guards = (g for g in policy.guards if g.condition.key == key and g.then != "report")
    return any(guard.where.fits(cell) for guard in guards)


def _loosest(conditions: Iterable[Condition]) -> Condition:
    """Return the condition that permits most, so that the guard stays below every gate."""
    return min(conditions, key=lambda c: c.line if c.at_least else -c.line)


def widened(condition: Condition, largest_cost: float) -> Condition:
    """Return a gate's condition with 1.4 times the error that it permits.

    Where that would be everything (a line below 29 %, a cost near the largest one) the line goes
    halfway to it, so that the guard can still alarm.

    >>> widened(Condition("agreement", 0.95, at_least=True), 1.0).line
    0.93
    """
    whole = 1.0 if condition.at_least else largest_cost
    permitted = 1 - condition.line if condition.at_least else condition.line
    error = min(WIDER * permitted, (permitted + whole) / 2)
    return replace(condition, line=round(1 - error if condition.at_least else error, 9))


def selecting(policy: Policy, cells: Iterable[Cell]) -> list[Where]:
    """Return selectors that fit exactly `cells`: one for each set of windows that sites share."""
    windows: dict[str, tuple[str, ...]] = {}
    for cell in cells:
        windows[cell.site] = (*windows.get(cell.site, ()), cell.window)
    sites: dict[tuple[str, ...], tuple[str, ...]] = {}
    for site, shared in windows.items():
        sites[shared] = (*sites.get(shared, ()), site)
    return [
        Where(
            () if len(named) == len(policy.sites) else named,
            () if len(shared) == len(policy.windows) else shared,
        )
        for shared, named in sites.items()
    ]


def _unaudited(policy: Policy) -> list[Guard]:
    given = any(guard.condition.measure == "unaudited" for guard in policy.guards)
    if given or not any(stage.audit for stage in policy.stages):
        return []
    condition = Condition("unaudited", 0.1, at_least=False)
    return [Guard(condition, "one-stage", over=timedelta(days=7), added=True)]
