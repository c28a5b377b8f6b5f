"""What an edit of forgetting loosens."""

from collections.abc import Iterator

from rollout.core.policy.policy import EvidenceRules


def compare_forgetting(old: EvidenceRules, new: EvidenceRules) -> Iterator[str]:
    """Yield what is looser: any forgetting where there was none, or other blocks.

    A gate that forgets promises less: one good stretch is enough, and the past before it counts
    for little. Other blocks are other stretches, and neither has more of all of them.
    """
    if new.forget is not None and new.forget != old.forget:
        instead = f" instead of {old.forget}" if old.forget else ", where gates forgot nothing"
        yield f"gates forget a bad past, {new.forget}{instead}: a good stretch since is enough"
