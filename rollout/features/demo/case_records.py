"""A case's question and the records that follow from the answer, as API items."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from rollout.core.policy.policy import Policy
from rollout.features.demo.example_cases import (
    ExampleCase,
    ExampleDecision,
    ExampleOutcome,
    ExamplePrediction,
)

ACTING_TIME: Final = timedelta(seconds=20)  # from a human decision to the action
JsonObject = dict[str, Any]
DueItem = tuple[datetime, str, JsonObject]
"""When an account sends an item of `POST records`, and the item."""


class SiteClients(NamedTuple):
    """The accounts of a site: of the model's client, and of the system in which humans decide."""

    model: str
    decisions: str


def get_prediction_time(case: ExampleCase) -> datetime:
    """Return when a case's last prediction was there."""
    return max((case.at, *(prediction.at for prediction in case.predictions)))


@dataclass(frozen=True, slots=True)
class CaseRecords:
    """What clients send about cases.

    Attributes:
        find_clients: returns the accounts of a site.
        build_media: returns the pictures of a case, by name.
        acting_time: from a human decision to the action.
    """

    policy: Policy
    find_clients: Callable[[str], SiteClients]
    build_media: Callable[[ExampleCase], dict[str, str]]
    acting_time: timedelta = ACTING_TIME

    def build_questions(self, case: ExampleCase) -> list[JsonObject]:
        """Return a question for each version's prediction."""
        return [self._build_question(case, prediction) for prediction in case.predictions]

    def _build_question(self, case: ExampleCase, prediction: ExamplePrediction) -> JsonObject:
        question = {
            "site": case.site,
            "at": case.at.isoformat(),
            "version": prediction.version,
            "key": case.key,
            "episode": case.episode,
            "confidence": prediction.confidence,
            "attributes": case.attributes,
            "media": self.build_media(case),
        }
        facts = {"answers": prediction.answers, "confidence": prediction.confidence}
        return question | {"prediction": facts}

    def list_effects(
        self, case: ExampleCase, answers: Sequence[JsonObject], is_audited: bool
    ) -> Iterator[DueItem]:
        """Yield decisions, actions and outcomes that follow from a case's assignments.

        `answers` are in the order of the case's predictions. Of what the model decides, humans
        decide what is audited.
        """
        pairs = zip(case.predictions, answers, strict=True)
        acting_answer = next(((p, a) for p, a in pairs if a["decider"] == "model"), None)
        is_assisted = any(answer["exposure"] == "assisted" for answer in answers)
        clients = self.find_clients(case.site)
        if acting_answer is not None:
            for at, item in self._build_model_actions(case, *acting_answer):
                yield at, clients.model, item
        if acting_answer is None or is_audited:
            for decision in case.decisions:
                item = _build_decision(case, decision, assisted=is_assisted)
                yield decision.at, clients.decisions, item
        if acting_answer is None and case.decisions and not case.decisions[0].unsure:
            for at, item in self._build_human_actions(case, case.decisions[0]):
                yield at, clients.decisions, item
        for outcome in case.outcomes:
            yield outcome.at, clients.decisions, _build_outcome(case, outcome)

    def _build_model_actions(
        self, case: ExampleCase, prediction: ExamplePrediction, answer: JsonObject
    ) -> Iterator[tuple[datetime, JsonObject]]:
        at = get_prediction_time(case)
        details = {"by": "model", "version": prediction.version, "permit": answer["permit"]}
        for item in self._build_actions(case, prediction.answers, at):
            yield at, item | details

    def _build_human_actions(
        self, case: ExampleCase, decision: ExampleDecision
    ) -> Iterator[tuple[datetime, JsonObject]]:
        at = decision.at + self.acting_time
        for item in self._build_actions(case, decision.answers, at):
            yield at, item | {"by": "person"}

    def _build_actions(
        self, case: ExampleCase, answers: Mapping[str, str | None], at: datetime
    ) -> Iterator[JsonObject]:
        """Yield the action on each lever with an answer; a number is its own action."""
        for lever in self.policy.levers:
            answer = answers[lever.id]
            if answer is None:
                continue
            action = answer if lever.number is not None else lever.find_action(answer)
            item = {"kind": "action", "key": case.key, "lever": lever.id, "action": action}
            yield {**item, "at": at.isoformat()}


def _build_decision(case: ExampleCase, decision: ExampleDecision, *, assisted: bool) -> JsonObject:
    return {
        "kind": "decision",
        "key": case.key,
        "reviewer": decision.reviewer,
        "answers": decision.answers,
        "unsure": decision.unsure,
        "exposure": "assisted" if assisted else "blind",
        "submitted_at": decision.at.isoformat(),
    }


def _build_outcome(case: ExampleCase, outcome: ExampleOutcome) -> JsonObject:
    item: JsonObject = {"kind": "outcome", "key": case.key, "at": outcome.at.isoformat()}
    contents = {"answers": outcome.answers, "values": outcome.values, "harm": outcome.harm}
    return item | {name: value for name, value in contents.items() if value}
