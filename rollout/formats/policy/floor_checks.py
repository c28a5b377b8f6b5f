"""Check confidence floors: what can be asked at several of them."""

from collections.abc import Iterator

from rollout.core.policy.outcomes import GAIN
from rollout.core.policy.policy import Policy
from rollout.formats.policy.model import ConditionShape, PolicyShape
from rollout.formats.policy.names import Faults, PolicyCheck
from rollout.formats.policy.yaml_reader import DocumentFault, DocumentPath

FLOORS_PATH: DocumentPath = ("evidence", "confidence_floors")
WRITE_ONE = "write one floor"


def _check_one_key(shape: PolicyShape, _: Policy) -> Faults:
    if shape.evidence.confidence_floor is not None and shape.evidence.confidence_floors is not None:
        text = "and confidence_floor are both written; write one of them"
        yield DocumentFault(FLOORS_PATH, text)


def _check_several_floors(_: PolicyShape, policy: Policy) -> Faults:
    """Check what a whole policy may have beside several floors."""
    if policy.evidence.higher_floors:
        for problem in _list_problems(policy):
            yield DocumentFault(FLOORS_PATH, f"has several floors, but {problem}")


def _list_problems(policy: Policy) -> Iterator[str]:
    if len(policy.levers) > 1:
        yield (
            f"a case has one confidence for {len(policy.levers)} levers; {WRITE_ONE}, or roll out"
            " each lever by itself"
        )
    for lever in policy.levers:
        if lever.many or lever.number is not None:
            kind = "sets of labels" if lever.many else "a number"
            yield f"lever {lever.id} has {kind}, and confidence is of one label; {WRITE_ONE}"
    if policy.evidence.unit == "episode":
        yield f"the cases of an episode have one each; {WRITE_ONE}, or write unit: case"
    if policy.evidence.familiar is not None:
        yield f"familiar cases have no floors of their own yet; {WRITE_ONE}, or remove familiar"
    if policy.waves is not None:
        yield f"waves don't ask which floor a cell holds yet; {WRITE_ONE}, or remove waves"


def _check_conditions(shape: PolicyShape, policy: Policy) -> Faults:
    """Check that conditions count decided cases, which have a confidence each."""
    if not policy.evidence.higher_floors:
        return
    for path, row in _list_rows(shape):
        if row.measure in {GAIN, "drift"} or row.slice is not None or row.of is not None:
            text = f"can't be read at several confidence floors yet; remove it, or {WRITE_ONE}"
            yield DocumentFault(path, text)


def _list_rows(shape: PolicyShape) -> Iterator[tuple[DocumentPath, ConditionShape]]:
    for i, gate in enumerate(shape.gates):
        for j, condition in enumerate(gate.require):
            yield ("gates", i, "require", j), condition
    for i, guard in enumerate(shape.guards):
        yield ("guards", i), guard


FLOOR_CHECKS: tuple[PolicyCheck, ...] = (
    (("evidence.confidence_floor", "evidence.confidence_floors"), _check_one_key),
    (("evidence.confidence_floors",), _check_several_floors),
    (("evidence.confidence_floors", "gates.*.require.*", "guards.*.*"), _check_conditions),
)
