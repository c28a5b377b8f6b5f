"""Check outcomes with a value, conditions on gain, and those of a wave together."""

from collections import Counter
from collections.abc import Iterator

from rollout.core.calendar.sites import Cell
from rollout.core.policy.measures import Condition
from rollout.core.policy.outcomes import CELL_POOL, DECIDES, GAIN
from rollout.core.policy.planted_conditions import PLANTED
from rollout.core.policy.policy import Policy
from rollout.core.policy.stages import HIGHEST_SHARE, LOWEST_SHARE, Stage
from rollout.core.policy.wave_conditions import (
    MAX_WAVE_SITES,
    WAVE_MEASURES,
    WAVE_POOL,
    WaveCondition,
)
from rollout.formats.policy.measures import parse_threshold, read_condition
from rollout.formats.policy.model import ConditionShape, GateShape, PolicyShape
from rollout.formats.policy.names import RESERVED, Faults, PolicyCheck, describe_unknown_name
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
_WAVE_POOLS = ("gates.*.require.*.pool",)
_THRESHOLDS = ("gates.*.require.*.at_least", "gates.*.require.*.each_at_least")

WAVE_CHECKS: tuple[PolicyCheck, ...] = (
    ((*_WAVE_POOLS, "guards.*.pool", "guards.*.each_at_least"), _check_places),
    ((*_WAVE_POOLS, "gates.*.require.*.measure"), _check_measures),
    ((*_WAVE_POOLS, *_THRESHOLDS), _check_thresholds),
    ((*_WAVE_POOLS, "gates.*.to", "stages.*.id", "stages.*.audit"), _check_stages),
    ((*_WAVE_POOLS, "waves", "sites.*.wave"), _check_waves),
    ((*_WAVE_POOLS, "evidence.confidence_floors"), _check_others),
    ((*_ROWS, "guards.*.*", "sites.*.id", "windows.*.id"), _check_guards),
)

RECORD_COLUMNS = frozenset({"case_key", "harm", "outcome_at", "label", "values"})
START_MEASURES = frozenset({"agreement", "cost"})
"""Measures of a gate to a shared stage, so that no case is sampled for an unmeasured model."""


def _check_outcome_rows(shape: PolicyShape, policy: Policy) -> Faults:
    ids = [row.id for row in shape.outcomes]
    for i, row in enumerate(shape.outcomes):
        path: DocumentPath = ("outcomes", i)
        if row.low >= row.high:
            text = f"{row.low:g} is not below to: {row.high:g}; swap them"
            yield DocumentFault((*path, "from"), text)
        if row.id in ids[:i]:
            text = f"{row.id!r} is repeated, first as outcomes[{ids.index(row.id)}]; rename one"
            yield DocumentFault((*path, "id"), text)
        elif row.id in policy.levers_by_id:
            text = f"{row.id!r} is a lever, too, and files have one column for each; rename one"
            yield DocumentFault((*path, "id"), text)
        elif row.id in RECORD_COLUMNS | RESERVED:
            text = f"{row.id!r} is a name that records use themselves; choose another"
            yield DocumentFault((*path, "id"), text)


def _list_gain_rows(shape: PolicyShape) -> Iterator[tuple[DocumentPath, ConditionShape]]:
    for i, gate in enumerate(shape.gates):
        for j, condition in enumerate(gate.require):
            if condition.measure == GAIN:
                yield ("gates", i, "require", j), condition
    for i, guard in enumerate(shape.guards):
        if guard.measure == GAIN:
            yield ("guards", i), guard


def _check_pooled_measures(shape: PolicyShape, _: Policy) -> Faults:
    rows: list[tuple[DocumentPath, ConditionShape]] = [
        (("gates", i, "require", j), row)
        for i, gate in enumerate(shape.gates)
        for j, row in enumerate(gate.require)
    ]
    for path, row in [*rows, *((("guards", i), row) for i, row in enumerate(shape.guards))]:
        if row.pool not in {None, WAVE_POOL} and row.measure != GAIN:
            yield DocumentFault((*path, "pool"), f"does not apply to {row.measure}; leave it out")


def _check_pools(shape: PolicyShape, _: Policy) -> Faults:
    for path, row in _list_gain_rows(shape):
        if row.pool in {None, WAVE_POOL}:
            continue
        if path[0] == "guards":
            text = "is for gates, and a guard watches each cell by itself; leave it out"
            yield DocumentFault((*path, "pool"), text)
        elif row.pool != CELL_POOL and all(
            other.measure == GAIN or other.of == PLANTED
            for other in shape.gates[int(path[1])].require
        ):
            text = (
                f"the average over the {row.pool} says nothing of one cell; also require another"
                " measure, as a floor for each cell, such as {measure: agreement, at_least: 80%}"
            )
            yield DocumentFault((*path, "pool"), text)


def _check_gain_outcome(shape: PolicyShape, _: Policy) -> Faults:
    ids = [row.id for row in shape.outcomes]
    for path, row in _list_gain_rows(shape):
        if row.of is None:
            example = f", such as of: {ids[0]}" if ids else "; there are no outcomes yet"
            yield DocumentFault(path, f"gain is of one outcome; name it{example}")
        elif row.of not in ids:
            text = describe_unknown_name(row.of, ids, "outcome")
            hint = "" if ids else "; add outcomes: [{id: profit, from: -20, to: 60, closes: 14d}]"
            yield DocumentFault((*path, "of"), text + hint)


def _check_gain_threshold(shape: PolicyShape, _: Policy) -> Faults:
    spans = {row.id: row.high - row.low for row in shape.outcomes}
    for path, row in _list_gain_rows(shape):
        span = spans.get(row.of or "", 0.0)
        if row.at_least is None or span <= 0:
            continue
        try:
            line = parse_threshold(GAIN, row.at_least)
        except ValueError:
            continue  # reported with the other thresholds
        if abs(line) >= span:
            text = (
                f"{line:g} can never be decided: between the ends of {row.of} lie {span:g}; write"
                " less than that"
            )
            yield DocumentFault((*path, "at_least"), text)


def _check_shared_stages(shape: PolicyShape, _: Policy) -> Faults:
    for i, row in enumerate(shape.stages):
        if row.share is None:
            continue
        if row.blind > 0:
            text = (
                f"share and blind exclude each other: humans decide {(1 - row.share) * 100:g}%"
                " already, blind; leave blind out"
            )
            yield DocumentFault(("stages", i, "share"), text)
        elif not LOWEST_SHARE <= row.share <= HIGHEST_SHARE:
            text = "leaves one arm without units to compare; write from 2% to 98%"
            yield DocumentFault(("stages", i, "share"), text)


def _check_gates_to_shares(shape: PolicyShape, _: Policy) -> Faults:
    # As written: a condition with a fault of its own is none of the policy's.
    for i, stage in enumerate(shape.stages):
        if stage.share is None:
            continue
        gates = [gate for gate in shape.gates if gate.to == stage.id]
        text = (
            f"{stage.id} needs a gate of its own on agreement or cost, so that no case is sampled"
            f" for a model that nobody compared; add {{to: {stage.id}, require: [{{measure:"
            " agreement, at_least: 80%}]}"
        )
        if not gates or not all(_has_start_measure(gate, shape, i) for gate in gates):
            yield DocumentFault(("stages", i, "share"), text)


def _has_start_measure(gate: GateShape, shape: PolicyShape, position: int) -> bool:
    """Return whether a gate asks for agreement or cost, or for gain at a share below."""
    has_lower_share = any(stage.share is not None for stage in shape.stages[:position])
    return any(
        (row.measure in START_MEASURES and row.of != PLANTED)
        or (has_lower_share and row.measure == GAIN)
        for row in gate.require
    )


def _check_gain_arms(shape: PolicyShape, policy: Policy) -> Faults:
    for path, _ in _list_gain_rows(shape):
        if path[0] == "guards":
            if not any(stage.model_share for stage in policy.stages):
                text = f"no stage has two arms to compare; {_describe_arms(DECIDES)}"
                yield DocumentFault((*path, "measure"), text)
            continue
        gate = shape.gates[int(path[1])]
        if gate.to in policy.stage_ids:
            yield from _check_gate_arms(path, policy, policy.stage_ids.index(gate.to))


def _check_gate_arms(path: DocumentPath, policy: Policy, stage_level: int) -> Faults:
    stage = policy.get_stage(stage_level)
    lower_stages = policy.stages[: stage_level - 1]
    if not any(other.model_share and other.arm == stage.arm for other in lower_stages):
        text = f"no stage below {stage.id} has two arms to compare; {_describe_arms(stage.arm)}"
        yield DocumentFault((*path, "measure"), text)
    elif not stage.model_share:
        text = (
            f"{stage.id} has no second arm, so its grant could never be renewed on gain; write"
            f" {_describe_second_arm(stage)}"
        )
        yield DocumentFault((*path, "measure"), text)


def _describe_arms(arm: str) -> str:
    example = "{id: trial, share: 10%}" if arm == DECIDES else "{id: advised, blind: 50%}"
    return f"add one before it, such as {example}"


def _describe_second_arm(stage: Stage) -> str:
    return f"share: 90%, or blind: 10%, at {stage.id}"


def _check_familiar_gains(shape: PolicyShape, _: Policy) -> Faults:
    if shape.evidence.familiar is not None and next(_list_gain_rows(shape), None) is not None:
        text = (
            "units sent to humans as unfamiliar are in no arm, which conditions on gain can't tell"
            " yet; leave out familiar, or the conditions on gain"
        )
        yield DocumentFault(("evidence", "familiar"), text)


_OUTCOMES = ("outcomes.*.id", "outcomes.*.from", "outcomes.*.to")
_CONDITIONS = ("gates.*.require.*.of", "guards.*.of")
_POOLS = ("gates.*.require.*.pool", "guards.*.pool")
_SHARES = ("stages.*.share", "stages.*.blind", "stages.*.audit", "stages.*.id")

OUTCOME_CHECKS: tuple[PolicyCheck, ...] = (
    ((*_OUTCOMES, "levers.*.id"), _check_outcome_rows),
    (_POOLS, _check_pooled_measures),
    ((*_POOLS, "gates.*.require.*.measure"), _check_pools),
    (("outcomes.*.id", *_CONDITIONS), _check_gain_outcome),
    ((*_OUTCOMES, *_CONDITIONS), _check_gain_threshold),
    (("stages.*.share", "stages.*.blind"), _check_shared_stages),
    ((*_SHARES, "gates.*.to", "gates.*.require.*"), _check_gates_to_shares),
    ((*_SHARES, *_CONDITIONS, "gates.*.to"), _check_gain_arms),
    (("evidence.familiar",), _check_familiar_gains),
)
