"""Check forgetting: what a policy whose gates forget a bad past can't have yet."""

from rollout.core.policy.outcomes import GAIN
from rollout.core.policy.policy import Policy
from rollout.formats.policy.model import PolicyShape
from rollout.formats.policy.names import Faults, PolicyCheck
from rollout.formats.policy.yaml_reader import DocumentFault

WRITE_NEVER = "write forget: never"


def _check_conditions(shape: PolicyShape, policy: Policy) -> Faults:
    """Check that gates count units in an order of blocks, all of one population."""
    if policy.evidence.forget is None:
        return
    for i, gate in enumerate(shape.gates):
        for j, row in enumerate(gate.require):
            if row.measure == GAIN:
                problem = "a gain keeps all its outcomes"
            elif row.slice is not None:
                problem = f"each {row.slice} keeps all its units"
            elif row.of is not None:
                problem = "planted cases are kept whole"
            else:
                continue
            text = f"can't forget yet: {problem}; remove it, or {WRITE_NEVER}"
            yield DocumentFault(("gates", i, "require", j), text)


def _check_floors(_: PolicyShape, policy: Policy) -> Faults:
    if policy.evidence.forget is not None and policy.evidence.higher_floors:
        text = f"can't forget at several confidence floors yet; write one floor, or {WRITE_NEVER}"
        yield DocumentFault(("evidence", "forget"), text)


FORGET_CHECKS: tuple[PolicyCheck, ...] = (
    (("evidence.forget", "gates.*.require.*"), _check_conditions),
    (("evidence.forget", "evidence.confidence_floors"), _check_floors),
)
