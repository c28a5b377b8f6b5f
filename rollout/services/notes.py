"""What a caller should know of an item that was kept: it may not count as they think."""

from collections.abc import Mapping

from rollout.core.policy import Policy
from rollout.core.records import Action, Case, Record
from rollout.store.records import Answer


def noted(answer: Answer, note: str) -> Answer:
    """Return an answer with what else there is to say."""
    return Answer(answer.verdict, "; ".join(filter(None, [answer.reason, note])))


class Notes:
    """What a caller should know of an item that was kept: it may not count as they think."""

    def __init__(self, policy: Policy) -> None:
        self._sites = policy.site
        self._labels = {
            lever.id: None if lever.number is not None else frozenset({*lever.labels, None})
            for lever in policy.levers
        }

    def on(self, record: Record) -> str:
        """Return what else there is to say of a record that was kept; mostly nothing."""
        if isinstance(record, Case):
            if record.site in self._sites:
                return ""
            return f"{record.site} is no site of the policy: kept, never evidence"
        if isinstance(record, Action):
            return ""
        for lever, said in record.answers.items():
            labels = self._labels.get(lever, ())
            if labels is not None and said not in labels:
                return "; ".join(self._unlisted(record.answers))
        return ""

    def _unlisted(self, answers: Mapping[str, str | None]) -> list[str]:
        notes = []
        for lever, said in answers.items():
            labels = self._labels.get(lever, ())
            if labels == ():
                notes.append(f"the policy has no lever {lever}: kept, not counted")
            elif labels is not None and said not in labels:
                notes.append(f"{said} is no label of {lever}: kept, counts as a disagreement")
        return notes
