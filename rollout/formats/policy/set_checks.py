"""Check levers whose answers are sets of labels, and the conditions on them."""

from collections.abc import Iterator

from rollout.core.policy.label_sets import EMPTY_SET, MAX_SET_BYTES, PAIR_SIGN, SEPARATOR
from rollout.core.policy.policy import Policy
from rollout.formats.policy.model import ConditionShape, LeverShape, PolicyShape
from rollout.formats.policy.names import Faults, PolicyCheck
from rollout.formats.policy.yaml_reader import DocumentFault, DocumentPath

UNFIT_MEASURES = frozenset({"parity", "action_change", "drift"})
"""Measures that compare single answers."""


def _check_set_keys(shape: PolicyShape, _: Policy) -> Faults:
    for i, lever in enumerate(shape.levers):
        path: DocumentPath = ("levers", i)
        if lever.many and lever.labels is None:
            yield DocumentFault((*path, "many"), "is for labels; leave it out, or write labels:")
        if not lever.many and "overlap" in lever.model_fields_set:
            text = "is of sets of labels; write many: true, or leave it out"
            yield DocumentFault((*path, "overlap"), text)
        if lever.many and lever.actions is not None:
            yield DocumentFault((*path, "actions"), "a set is its own action; leave actions out")
        if lever.many and _has_cost_pairs(lever):
            text = "sets that differ cost the same, however they differ; write one row, {cost: 1}"
            yield DocumentFault((*path, "costs"), text)


def _has_cost_pairs(lever: LeverShape) -> bool:
    rows = lever.costs or []
    return len(rows) > 1 or any(row.model_fields_set != {"cost"} for row in rows)


def _check_set_labels(shape: PolicyShape, _: Policy) -> Faults:
    for i, lever in enumerate(shape.levers):
        labels = (lever.labels or []) if lever.many else []
        for j, label in enumerate(labels):
            signs = [sign for sign in (SEPARATOR, PAIR_SIGN.strip()) if sign in label]
            if signs or label == EMPTY_SET:
                problem = f"has {signs[0]!r}" if signs else f"is {EMPTY_SET!r}"
                text = f"{problem}, which the text of a set needs itself; rename the label"
                yield DocumentFault(("levers", i, "labels", j), text)
        size = len(SEPARATOR.join(labels).encode())
        if size > MAX_SET_BYTES:
            text = (
                f"take {size} bytes together, and a set has at most {MAX_SET_BYTES}; shorten them"
            )
            yield DocumentFault(("levers", i, "labels"), text)


def _check_set_measures(shape: PolicyShape, policy: Policy) -> Faults:
    for path, row in _list_rows(shape):
        if row.measure not in UNFIT_MEASURES or row.slice is not None:
            continue
        levers = policy.levers if row.lever is None else [policy.levers_by_id.get(row.lever)]
        names = [lever.id for lever in levers if lever is not None and lever.many]
        if names:
            text = (
                f"lever {names[0]} has sets of labels, and {row.measure} compares single labels;"
                " use agreement, or recall or precision of a label"
            )
            yield DocumentFault((*path, "measure"), text)


def _list_rows(shape: PolicyShape) -> Iterator[tuple[DocumentPath, ConditionShape]]:
    for i, gate in enumerate(shape.gates):
        for j, condition in enumerate(gate.require):
            yield ("gates", i, "require", j), condition
    for i, guard in enumerate(shape.guards):
        yield ("guards", i), guard


SET_CHECKS: tuple[PolicyCheck, ...] = (
    (("levers.*.many", "levers.*.labels", "levers.*.costs.*"), _check_set_keys),
    (("levers.*.many", "levers.*.labels.*"), _check_set_labels),
    (("levers.*.many", "levers.*.id", "guards.*.lever", "guards.*.slice"), _check_set_measures),
)
