"""Check conditions that count the cells of a wave together."""

from collections import Counter
from collections.abc import Iterator

from rollout.core.calendar.sites import Cell
from rollout.core.policy.measures import Condition
from rollout.core.policy.outcomes import GAIN
from rollout.core.policy.policy import Policy
from rollout.core.policy.wave_conditions import (
    MAX_WAVE_SITES,
    WAVE_MEASURES,
    WAVE_POOL,
    WaveCondition,
)
from rollout.formats.policy.measures import parse_threshold, read_condition
from rollout.formats.policy.model import ConditionShape, PolicyShape
from rollout.formats.policy.names import Faults, PolicyCheck
from rollout.formats.policy.yaml_reader import DocumentFault, DocumentPath

REMOVE_POOL = "remove pool: wave"


def _list_rows(shape: PolicyShape) -> Iterator[tuple[DocumentPath, ConditionShape]]:
    for i, gate in enumerate(shape.gates):
        for j, condition in enumerate(gate.require):
            yield ("gates", i, "require", j), condition


def _list_wave_rows(shape: PolicyShape) -> Iterator[tuple[DocumentPath, ConditionShape]]:
    return ((path, row) for path, row in _list_rows(shape) if row.pool == WAVE_POOL)


def _check_places(shape: PolicyShape, _: Policy) -> Faults:
    """Check that both keys stand in gates, and `each_at_least` with a wave alone."""
    for i, guard in enumerate(shape.guards):
        if guard.pool == WAVE_POOL:
            text = "is for gates, and a guard watches each cell by itself; leave it out"
            yield DocumentFault(("guards", i, "pool"), text)
        if guard.each_at_least is not None:
            yield DocumentFault(("guards", i, "each_at_least"), "is for gates; leave it out")
    for path, row in _list_rows(shape):
        if row.each_at_least is not None and row.pool != WAVE_POOL:
            text = "applies to the cells of a wave; write pool: wave too, or leave it out"
            yield DocumentFault((*path, "each_at_least"), text)


def _check_measures(shape: PolicyShape, _: Policy) -> Faults:
    for path, row in _list_wave_rows(shape):
        if row.measure not in WAVE_MEASURES:
            names = ", ".join(sorted(WAVE_MEASURES))
            hint = "write pool: site or rollout" if row.measure == GAIN else REMOVE_POOL
            text = f"wave is for {names}, not for {row.measure}; {hint}"
            yield DocumentFault((*path, "pool"), text)
        for key in ("slice", "of"):
            if getattr(row, key) is not None and row.measure != GAIN:
                text = f"can't be counted over a wave yet; leave it out, or {REMOVE_POOL}"
                yield DocumentFault((*path, key), text)


def _check_thresholds(shape: PolicyShape, _: Policy) -> Faults:
    for path, row in _list_wave_rows(shape):
        if row.measure not in WAVE_MEASURES:
            continue
        if row.each_at_least is None:
            text = (
                "the average over a wave says nothing of one cell; write what each must reach,"
                " such as each_at_least: 85%"
            )
            yield DocumentFault((*path, "pool"), text)
            continue
        try:
            each_line = parse_threshold(row.measure, row.each_at_least)
            line = parse_threshold(row.measure, row.at_least or "")
        except ValueError as error:
            if row.at_least is not None:
                yield DocumentFault((*path, "each_at_least"), str(error))
            continue
        if each_line >= line:
            text = (
                f"{row.each_at_least} is not below at_least: {row.at_least}; write less, or"
                f" {REMOVE_POOL}: then each cell must reach {row.at_least}"
            )
            yield DocumentFault((*path, "each_at_least"), text)


def _check_stages(shape: PolicyShape, policy: Policy) -> Faults:
    """Check that a human confirms each answer at the stage, since one cell may be worse."""
    for path, _ in _list_wave_rows(shape):
        gate = shape.gates[int(path[1])]
        if gate.to not in policy.stage_ids[1:]:
            continue
        if policy.get_stage(policy.stage_ids.index(gate.to)).model_decides:
            text = (
                f"the model decides at {gate.to}, and a single cell of the wave may be below"
                f" at_least; {REMOVE_POOL}, or require it at a stage without audit"
            )
            yield DocumentFault((*path, "pool"), text)


def _check_waves(shape: PolicyShape, policy: Policy) -> Faults:
    largest = Counter(site.wave for site in policy.sites).most_common(1)
    for path, _ in _list_wave_rows(shape):
        if policy.waves is None:
            stages = [row.to for row in shape.gates]
            text = f"the policy has no waves; add waves: {{stage: {stages[0]}}}, or {REMOVE_POOL}"
            yield DocumentFault((*path, "pool"), text)
        elif largest and largest[0][1] > MAX_WAVE_SITES:
            wave, count = largest[0]
            text = (
                f"wave {wave} has {count} sites, and a proposal lists each; write waves of at most"
                f" {MAX_WAVE_SITES}, or {REMOVE_POOL}"
            )
            yield DocumentFault((*path, "pool"), text)


def _check_others(shape: PolicyShape, policy: Policy) -> Faults:
    """Check that nothing else changes which units a gate counts."""
    rules = policy.evidence
    problems = {
        "several confidence floors share the risk": bool(rules.higher_floors),
        "evidence.forget cuts each cell into blocks of its own": rules.forget is not None,
        "evidence.familiar sends other cases to humans in each cell": rules.familiar is not None,
        "gates on gain count other cells": any(
            row.measure == GAIN for gate in shape.gates for row in gate.require
        ),
    }
    for path, _ in _list_wave_rows(shape):
        for problem in (text for text, is_present in problems.items() if is_present):
            text = f"can't be read yet where {problem}; remove one of them"
            yield DocumentFault((*path, "pool"), text)


def _check_guards(shape: PolicyShape, policy: Policy) -> Faults:
    """Check that each cell's threshold lies above its guard's, which would narrow it again."""
    for path, row in _list_wave_rows(shape):
        condition = read_condition(row, levers=len(policy.levers))
        if isinstance(condition, WaveCondition) and (
            line := _find_highest_guard(policy, shape.gates[int(path[1])].to, condition)
        ):
            text = (
                f"{condition.each_text} is not above the guard's {line * 100:g} % of"
                f" {condition.measure}, which would narrow the cell again; write more, or a lower"
                " guard"
            )
            yield DocumentFault((*path, "each_at_least"), text)


def _find_highest_guard(policy: Policy, to: str, condition: WaveCondition) -> float | None:
    """Return the highest threshold of guards that is not below that of each cell."""
    lines = [
        guard.condition.line
        for cell in policy.cells
        if _requires(policy, to, cell, condition)
        for guard in policy.list_guards(cell)
        if type(guard.condition) is Condition
        and guard.condition.key == condition.cell_condition.key
    ]
    highest = max(lines, default=0.0)
    return highest if highest >= condition.each_line else None


def _requires(policy: Policy, to: str, cell: Cell, condition: WaveCondition) -> bool:
    gate = policy.find_gate_to(to, cell)
    return gate is not None and condition in gate.require


_ROWS = ("gates.*.require.*",)
_POOLS = ("gates.*.require.*.pool",)
_THRESHOLDS = ("gates.*.require.*.at_least", "gates.*.require.*.each_at_least")

WAVE_CHECKS: tuple[PolicyCheck, ...] = (
    ((*_POOLS, "guards.*.pool", "guards.*.each_at_least"), _check_places),
    ((*_POOLS, "gates.*.require.*.measure"), _check_measures),
    ((*_POOLS, *_THRESHOLDS), _check_thresholds),
    ((*_POOLS, "gates.*.to", "stages.*.id", "stages.*.audit"), _check_stages),
    ((*_POOLS, "waves", "sites.*.wave"), _check_waves),
    ((*_POOLS, "evidence.confidence_floors", "evidence.forget"), _check_others),
    ((*_ROWS, "guards.*.*", "sites.*.id", "windows.*.id"), _check_guards),
)
