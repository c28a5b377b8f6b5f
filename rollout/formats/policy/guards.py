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
    required = _asked(policy)
    added_guards = [guard for key in required for guard in _added(policy, key, required[key])]
    return replace(policy, guards=(*policy.guards, *added_guards, *_unaudited(policy)))


def _asked(policy: Policy) -> dict[Key, list[tuple[Gate, Condition]]]:
    required: dict[Key, list[tuple[Gate, Condition]]] = {}
    for gate in policy.gates:
        for condition in gate.require:
            if condition.measure in WATCHED:
                required.setdefault(condition.key, []).append((gate, condition))
    return required


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
    return [Guard(condition, "one-stage", where=selector, added=True) for selector in selectors]


def _leads(policy: Policy, gate: Gate, cell: Cell) -> bool:
    """Say whether `gate` is the first that fits the cell."""
    return gate.to in policy.rungs and policy.gate(policy.rungs.index(gate.to), cell) is gate


def _watched(policy: Policy, key: Key, cell: Cell) -> bool:
    guards = (
        guard for guard in policy.guards if guard.condition.key == key and guard.then != "report"
    )
    return any(guard.where.fits(cell) for guard in guards)


def _loosest(conditions: Iterable[Condition]) -> Condition:
    """Return the condition that permits most, so that the guard stays below every gate."""
    return min(
        conditions, key=lambda condition: condition.line if condition.at_least else -condition.line
    )


def widened(condition: Condition, largest_cost: float) -> Condition:
    """Return a gate's condition with 1.4 times the error that it permits.

    Where that would be everything (a line below 29 %, a cost near the largest one) the line goes
    halfway to it, so that the guard can still alarm.

    >>> widened(Condition("agreement", 0.95, at_least=True), 1.0).line
    0.93
    """
    maximum = 1.0 if condition.at_least else largest_cost
    allowed_error = 1 - condition.line if condition.at_least else condition.line
    error = min(WIDER * allowed_error, (allowed_error + maximum) / 2)
    return replace(condition, line=round(1 - error if condition.at_least else error, 9))


def selecting(policy: Policy, cells: Iterable[Cell]) -> list[Where]:
    """Return selectors that fit exactly `cells`: one for each set of windows that sites share."""
    windows: dict[str, tuple[str, ...]] = {}
    for cell in cells:
        windows[cell.site] = (*windows.get(cell.site, ()), cell.window)
    sites: dict[tuple[str, ...], tuple[str, ...]] = {}
    for site, window_names in windows.items():
        sites[window_names] = (*sites.get(window_names, ()), site)
    return [
        Where(
            () if len(site_names) == len(policy.sites) else site_names,
            () if len(window_names) == len(policy.windows) else window_names,
        )
        for window_names, site_names in sites.items()
    ]


def _unaudited(policy: Policy) -> list[Guard]:
    has_guard = any(guard.condition.measure == "unaudited" for guard in policy.guards)
    if has_guard or not any(stage.audit for stage in policy.stages):
        return []
    condition = Condition("unaudited", 0.1, at_least=False)
    return [Guard(condition, "one-stage", over=timedelta(days=7), added=True)]
