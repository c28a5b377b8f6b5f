"""Rules on sets of labels that an edit of a policy loosens, as text."""

from collections.abc import Iterator

from rollout.core.policy.levers import Lever
from rollout.core.policy.policy import Policy

ANSWER_KINDS = ("one label", "a set of labels")


def compare_label_sets(old: Policy, new: Policy) -> Iterator[str]:
    """Yield a sentence for each lever whose answers became sets, or agree with less overlap."""
    for lever in new.levers:
        old_lever = old.levers_by_id.get(lever.id)
        if old_lever is not None and lever.number is old_lever.number is None:
            yield from _compare_lever(old_lever, lever)


def _compare_lever(old: Lever, new: Lever) -> Iterator[str]:
    if new.many != old.many:
        kinds = f"{ANSWER_KINDS[new.many]}, where it was {ANSWER_KINDS[old.many]}"
        yield f"lever {new.id}: an answer is {kinds}"
    if new.overlap < old.overlap:
        yield (
            f"lever {new.id}: sets agree from an overlap of {new.overlap * 100:g} % on, where it"
            f" was {old.overlap * 100:g} %"
        )
