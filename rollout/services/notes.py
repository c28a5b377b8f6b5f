"""What a caller should know of an item that was kept: it may not count as they think."""

import json
from collections.abc import Mapping, Sequence

from rollout.core.policy import Policy
from rollout.core.records import Action, Case, Decision, Outcome, Prediction
from rollout.core.sent import CASES, AnyRecord
from rollout.store.records import Answer, Kept, Verdict


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

    def answers(self, records: Sequence[AnyRecord], kept: Kept) -> Sequence[Answer]:
        """Return what became of records, with what else there is to say of those accepted."""
        if not self._any_on(kept):
            return kept.answers
        pairs = zip(records, kept.answers, strict=True)
        return [
            noted(answer, self.on(r)) if answer.verdict is Verdict.ACCEPTED else answer
            for r, answer in pairs
        ]

    def _any_on(self, kept: Kept) -> bool:
        """Say whether there is something to say of any of them: mostly not.

        What they answer is looked at once, however many records answer the same.
        """
        sites = {site for _, site in kept.told(Case, "site")}
        if not sites <= self._sites.keys():
            return True
        told = (kept.told(kind, "answers") for kind in (Prediction, Decision, Outcome))
        said = {answers for rows in told for _, answers in rows}
        return any(self._unlisted(json.loads(answers)) for answers in said)

    def on(self, record: AnyRecord) -> str:
        """Return what else there is to say of a record that was kept; mostly nothing."""
        if isinstance(record, CASES):
            if record.site in self._sites:
                return ""
            return f"{record.site} is no site of the policy: kept, never evidence"
        return "" if isinstance(record, Action) else "; ".join(self._unlisted(record.answers))

    def _unlisted(self, answers: Mapping[str, str | None]) -> list[str]:
        notes = []
        for lever, said in answers.items():
            labels = self._labels.get(lever, ())
            if labels == ():
                notes.append(f"the policy has no lever {lever}: kept, not counted")
            elif labels is not None and said not in labels:
                notes.append(f"{said} is no label of {lever}: kept, counts as a disagreement")
        return notes
