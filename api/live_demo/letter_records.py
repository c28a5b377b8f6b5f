"""A letter's question and the records that follow from the answer, as API items."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from rollout.core.policy.policy import Policy
from rollout.services.replay.demo_pictures import DigitPictures
from rollout.services.replay.demo_traffic import DemoDecision, DemoLetter, DemoPrediction

SORTING_TIME: Final = timedelta(seconds=20)  # from a clerk's decision to the action
JsonObject = dict[str, Any]
DueItem = tuple[datetime, JsonObject]
"""An item of `POST records`, and when its client sends it."""


def get_scan_time(letter: DemoLetter) -> datetime:
    """Return when a letter's last prediction was there."""
    return max((letter.at, *(prediction.at for prediction in letter.predictions)))


@dataclass(frozen=True, slots=True)
class LetterRecords:
    """What scanners and clerks send about letters."""

    policy: Policy
    pictures: DigitPictures

    def build_media(self, letter: DemoLetter) -> dict[str, str]:
        """Return the picture of a letter's digit, by its name."""
        return {"digit": self.pictures.find_picture(letter.attributes, letter.at)}

    def build_questions(self, letter: DemoLetter) -> list[JsonObject]:
        """Return a question for each version's prediction."""
        return [self._build_question(letter, prediction) for prediction in letter.predictions]

    def _build_question(self, letter: DemoLetter, prediction: DemoPrediction) -> JsonObject:
        return {
            "site": letter.site,
            "at": letter.at.isoformat(),
            "version": prediction.version,
            "key": letter.key,
            "episode": letter.episode,
            "confidence": prediction.confidence,
            "attributes": letter.attributes,
            "media": self.build_media(letter),
            "prediction": {
                "answers": {"digit": prediction.label},
                "confidence": prediction.confidence,
            },
        }

    def list_effects(self, letter: DemoLetter, answers: Sequence[JsonObject]) -> Iterator[DueItem]:
        """Yield decisions, actions and the outcome that follow from a letter's assignments.

        `answers` are in the order of the letter's predictions.
        """
        pairs = zip(letter.predictions, answers, strict=True)
        acting_answer = next(((p, a) for p, a in pairs if a["decider"] == "model"), None)
        is_assisted = any(answer["exposure"] == "assisted" for answer in answers)
        if acting_answer is not None:
            yield self._build_model_action(letter, *acting_answer)
        if acting_answer is None or acting_answer[1]["audited"]:
            for decision in letter.decisions:
                yield decision.at, _build_decision(letter, decision, assisted=is_assisted)
        if acting_answer is None and letter.decisions and not letter.decisions[0].unsure:
            yield self._build_human_action(letter, letter.decisions[0])
        if letter.known_at is not None:
            yield letter.known_at, _build_outcome(letter, letter.known_at)

    def _build_model_action(
        self, letter: DemoLetter, prediction: DemoPrediction, answer: JsonObject
    ) -> DueItem:
        at = get_scan_time(letter)
        details = {"by": "model", "version": prediction.version, "permit": answer["permit"]}
        return at, self._build_action(letter, prediction.label, at) | details

    def _build_human_action(self, letter: DemoLetter, decision: DemoDecision) -> DueItem:
        at = decision.at + SORTING_TIME
        return at, self._build_action(letter, decision.label, at) | {"by": "person"}

    def _build_action(self, letter: DemoLetter, label: str, at: datetime) -> JsonObject:
        (lever,) = self.policy.levers
        action = lever.find_action(label)
        item = {"kind": "action", "key": letter.key, "lever": lever.id, "action": action}
        return {**item, "at": at.isoformat()}


def _build_decision(letter: DemoLetter, decision: DemoDecision, *, assisted: bool) -> JsonObject:
    return {
        "kind": "decision",
        "key": letter.key,
        "reviewer": decision.reviewer,
        "answers": {"digit": None if decision.unsure else decision.label},
        "unsure": decision.unsure,
        "exposure": "assisted" if assisted else "blind",
        "submitted_at": decision.at.isoformat(),
    }


def _build_outcome(letter: DemoLetter, known_at: datetime) -> JsonObject:
    outcome = {"kind": "outcome", "key": letter.key, "answers": {"digit": letter.true_label}}
    return {**outcome, "at": known_at.isoformat()}
