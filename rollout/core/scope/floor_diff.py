"""What an edit of the confidence floors loosens."""

from collections.abc import Iterator

from rollout.core.policy.confidence_floors import format_floor, list_floors
from rollout.core.policy.policy import EvidenceRules


def compare_floors(old: EvidenceRules, new: EvidenceRules) -> Iterator[str]:
    """Yield what is looser: fewer floors share the risk, or some lie where none did.

    The first means that each may use more of it. A higher floor opens before the others, so with
    it the model may decide where a whole cell is not good enough.
    """
    old_floors, new_floors = list_floors(old), list_floors(new)
    if len(new_floors) < len(old_floors):
        yield (
            f"fewer confidence floors share the risk, so each has more: 1/{len(new_floors)} instead"
            f" of 1/{len(old_floors)}"
        )
    added = [floor for floor in new.higher_floors if floor not in old_floors]
    if added:
        texts = ", ".join(format_floor(floor) for floor in added)
        yield f"the model may decide sure cases where others are not good enough: floors {texts}"
