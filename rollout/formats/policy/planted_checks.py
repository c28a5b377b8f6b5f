"""Check conditions on planted cases: only in gates, beside a condition on cases that occur."""

from collections.abc import Iterator

from rollout.core.policy.outcomes import GAIN
from rollout.core.policy.planted_conditions import PLANTED, PLANTED_MEASURES
from rollout.core.policy.policy import Policy
from rollout.formats.policy.model import ConditionShape, PolicyShape
from rollout.formats.policy.names import Faults, PolicyCheck
from rollout.formats.policy.yaml_reader import DocumentFault, DocumentPath


def _list_rows(shape: PolicyShape) -> Iterator[tuple[DocumentPath, ConditionShape]]:
    """Yield the conditions with `of` that are about no outcome."""
    for i, gate in enumerate(shape.gates):
        for j, row in enumerate(gate.require):
            if row.of is not None and row.measure != GAIN:
                yield ("gates", i, "require", j), row
    for i, guard in enumerate(shape.guards):
        if guard.of is not None and guard.measure != GAIN:
            yield ("guards", i), guard


def _check_population(shape: PolicyShape, _: Policy) -> Faults:
    for path, row in _list_rows(shape):
        if fault := _find_fault(row, is_guard=path[0] == "guards"):
            yield DocumentFault((*path, "of"), fault)


def _find_fault(row: ConditionShape, *, is_guard: bool) -> str:
    """Return what is wrong with `of`, or ""."""
    measures = " and ".join(PLANTED_MEASURES)
    if row.measure not in PLANTED_MEASURES:
        return f"does not apply to {row.measure}; leave it out"
    if row.of != PLANTED:
        text = f"can only be {PLANTED} for {row.measure}"
        return f"{text}; leave it out for the cases that occur"
    if is_guard:
        return "guards watch the cases that occur; leave it out, and require it in a gate"
    if row.slice is not None:
        return f"planted cases have no slices; leave slice or of out ({measures} alone)"
    return ""


def _check_natural_condition(shape: PolicyShape, _: Policy) -> Faults:
    """Check that no gate opens on planted cases alone."""
    for i, gate in enumerate(shape.gates):
        if all(row.of == PLANTED and row.measure in PLANTED_MEASURES for row in gate.require):
            text = (
                "requires planted cases alone, which prove nothing about the cases that occur; add"
                " {measure: agreement, at_least: 95%}"
            )
            yield DocumentFault(("gates", i, "require"), text)


PLANTED_CHECKS: tuple[PolicyCheck, ...] = (
    (("gates.*.require.*.of", "guards.*.of"), _check_population),
    (("gates.*.require.*",), _check_natural_condition),
)
