"""Add the guards that a policy omits.

A gate judges the average so far; only a guard detects that a model becomes worse. So each measure
that a gate requires gets a guard, with a threshold below the gate's.
"""

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta

from rollout.core.calendar.sites import Cell
from rollout.core.policy.policy import (
    TIME_BETWEEN_FALSE_ALARMS,
    Gate,
    Guard,
    Policy,
    Where,
)
from rollout.kernel.measures import UNAUDITED, Condition, MeasureKey
from rollout.kernel.populations import BothArms

ERROR_FACTOR = 1.4  # times the error that the gate permits


def add_missing_guards(policy: Policy) -> Policy:
    """Return the policy with a narrowing guard for each measure that its gates require.

    Guards watch the cases that occur, so a condition on planted cases gets none.
    A guard that only reports does not count, because it narrows no cell.
    """
    required = _collect_required(policy)
    added_guards = [
        guard for key in required for guard in _build_missing_guards(policy, key, required[key])
    ]
    return replace(policy, guards=(*policy.guards, *added_guards, *_build_unaudited_guard(policy)))


def _collect_required(policy: Policy) -> dict[MeasureKey, list[tuple[Gate, Condition]]]:
    required: dict[MeasureKey, list[tuple[Gate, Condition]]] = {}
    for gate in policy.gates:
        for condition in gate.require:
            if condition.population.is_planted:
                continue
            watched = _build_watched_condition(condition)
            required.setdefault(watched.key, []).append((gate, watched))
    return required


def _build_watched_condition(condition: Condition) -> Condition:
    """Return what a guard watches: of a gain, whichever arm its stage has."""
    if condition.population.has_gain:
        return replace(condition, population=BothArms(condition.population.outcome))
    return condition


def _build_missing_guards(
    policy: Policy, key: MeasureKey, rows: list[tuple[Gate, Condition]]
) -> list[Guard]:
    """Return guards on a measure for the cells where a gate requires it unguarded."""
    cells = [
        cell
        for cell in policy.cells
        if any(_is_first_gate(policy, gate, cell) for gate, _ in rows)
        and not _is_watched(policy, key, cell)
    ]
    if not cells:
        return []
    condition = widen_condition(
        _find_loosest(condition for _, condition in rows), policy.largest_cost
    )
    selectors = build_selectors(policy, cells)
    return [Guard(condition, "one-stage", where=selector, added=True) for selector in selectors]


def _is_first_gate(policy: Policy, gate: Gate, cell: Cell) -> bool:
    """Return whether `gate` is the first for its stage that fits the cell."""
    return (
        gate.to in policy.stage_ids
        and policy.find_gate(policy.stage_ids.index(gate.to), cell) is gate
    )


def _is_watched(policy: Policy, key: MeasureKey, cell: Cell) -> bool:
    guards = (
        guard for guard in policy.guards if guard.condition.key == key and guard.then != "report"
    )
    return any(guard.where.fits(cell) for guard in guards)


def _find_loosest(conditions: Iterable[Condition]) -> Condition:
    """Return the loosest condition, so that the guard is below every gate."""
    return min(
        conditions,
        key=lambda condition: condition.threshold if condition.at_least else -condition.threshold,
    )


def widen_condition(condition: Condition, largest_cost: float) -> Condition:
    """Return a gate's condition with 1.4 times the error that it permits.

    >>> from rollout.kernel.measures import MEASURES
    >>> widen_condition(Condition(MEASURES["agreement"], 0.95), 1.0).threshold
    0.93
    """
    threshold = condition.measure.widen(
        condition.threshold, largest=largest_cost, factor=ERROR_FACTOR
    )
    return replace(condition, threshold=threshold)


def build_selectors(policy: Policy, cells: Iterable[Cell]) -> list[Where]:
    """Return selectors that fit exactly `cells`, one for each shared set of windows."""
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


def _build_unaudited_guard(policy: Policy) -> list[Guard]:
    has_guard = any(guard.condition.measure.reads_audits for guard in policy.guards)
    if has_guard or not any(stage.audit for stage in policy.stages):
        return []
    condition = Condition(UNAUDITED, 0.1)
    return [
        Guard(
            condition,
            "one-stage",
            over=timedelta(days=7),
            false_alarm_span=TIME_BETWEEN_FALSE_ALARMS,
            added=True,
        )
    ]
