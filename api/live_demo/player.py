"""The mail room's scanners and clerks, simulated as clients of the HTTP API.

The player moves the clock that server, clients and leases share, so a slow machine slows the
simulation but does not change it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from heapq import heappop, heappush
from itertools import count
from typing import Any

import httpx

from rollout.core.policy.policy import Policy
from rollout.services.replay.demo_traffic import DemoDecision, DemoLetter, DemoPrediction
from rollout.services.support.clock import ManualClock

STEP = timedelta(minutes=2)  # below the five minutes for which live requests are accepted
BATCH_SIZE = 100  # items in one request
SORTING_TIME = timedelta(seconds=20)  # from a clerk's decision to the action
JsonObject = dict[str, Any]


@dataclass(slots=True)
class DemoPlayer:
    """The scanners that request assignments, and the clerks who decide.

    Attributes:
        client: an HTTP client with the mail room's key.
        clock: the shared clock; only the player moves it.
        policy: of the rollout; it maps labels to actions.
        letters: in order of arrival.
        trained_until: by version, the time up to which its training cases reach.
    """

    client: httpx.Client
    clock: ManualClock
    policy: Policy
    letters: Sequence[DemoLetter]
    trained_until: Mapping[str, str]
    _reported_versions: set[str] = field(default_factory=set)
    _next_letter: int = 0
    _scheduled: list[tuple[datetime, int, JsonObject]] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=count)

    @property
    def is_over(self) -> bool:
        """Return whether all letters were scanned and all records sent."""
        return self._next_letter == len(self.letters) and not self._scheduled

    def step(self) -> None:
        """Simulate one step."""
        self.clock.advance(STEP)
        now = self.clock.now()
        scanned = self._take_scanned(now)
        for batch in _split_batches(scanned):
            for letter, answers in zip(batch, self._ask_deciders(batch), strict=True):
                self._schedule_effects(letter, answers)
        self._send_records(self._take_due(now))

    def _take_scanned(self, now: datetime) -> list[DemoLetter]:
        """Return the letters that were scanned by now."""
        first = self._next_letter
        while (
            self._next_letter < len(self.letters)
            and _get_scan_time(self.letters[self._next_letter]) <= now
        ):
            self._next_letter += 1
        return list(self.letters[first : self._next_letter])

    def _ask_deciders(self, letters: Sequence[DemoLetter]) -> list[list[JsonObject]]:
        """Request assignments, one for each letter and version."""
        self._report_versions(
            {reading.version for letter in letters for reading in letter.predictions}
        )
        questions = [
            _build_question(letter, reading) for letter in letters for reading in letter.predictions
        ]
        answers = iter(self._post("assignments", {"questions": questions})["answers"])
        return [[next(answers) for _ in letter.predictions] for letter in letters]

    def _report_versions(self, versions: set[str]) -> None:
        """Report the training end of versions before their first use."""
        for version in sorted(versions - self._reported_versions):
            facts = {"trained_until": self.trained_until[version]}
            self._request("PUT", f"versions/{version}", facts)
        self._reported_versions |= versions

    def _schedule_effects(self, letter: DemoLetter, answers: Sequence[JsonObject]) -> None:
        """Schedule the records that follow from the assignments of a letter."""
        pairs = zip(letter.predictions, answers, strict=True)
        acting_answer = next(((r, a) for r, a in pairs if a["decider"] == "model"), None)
        is_assisted = any(a["exposure"] == "assisted" for a in answers)
        if acting_answer is not None:
            self._schedule_model_action(letter, *acting_answer)
        if acting_answer is None or acting_answer[1]["audited"]:
            for decision in letter.decisions:
                self._schedule(decision.at, _build_decision(letter, decision, assisted=is_assisted))
        if acting_answer is None and letter.decisions and not letter.decisions[0].unsure:
            self._schedule_human_action(letter, letter.decisions[0])
        if letter.known_at is not None:
            outcome = {
                "kind": "outcome",
                "key": letter.key,
                "answers": {"digit": letter.true_label},
            }
            self._schedule(letter.known_at, {**outcome, "at": letter.known_at.isoformat()})

    def _schedule_model_action(
        self, letter: DemoLetter, reading: DemoPrediction, answer: JsonObject
    ) -> None:
        details = {"by": "model", "version": reading.version, "permit": answer["permit"]}
        at = _get_scan_time(letter)
        self._schedule(at, self._build_action(letter, reading.label, at) | details)

    def _schedule_human_action(self, letter: DemoLetter, decision: DemoDecision) -> None:
        at = decision.at + SORTING_TIME
        self._schedule(at, self._build_action(letter, decision.label, at) | {"by": "person"})

    def _build_action(self, letter: DemoLetter, label: str, at: datetime) -> JsonObject:
        (lever,) = self.policy.levers
        action = lever.find_action(label)
        item = {"kind": "action", "key": letter.key, "lever": lever.id, "action": action}
        return {**item, "at": at.isoformat()}

    def _schedule(self, at: datetime, item: JsonObject) -> None:
        heappush(self._scheduled, (at, next(self._numbers), item))

    def _take_due(self, now: datetime) -> list[JsonObject]:
        due = []
        while self._scheduled and self._scheduled[0][0] <= now:
            due.append(heappop(self._scheduled)[2])
        return due

    def _send_records(self, items: Sequence[JsonObject]) -> None:
        for batch in _split_batches(items):
            answers = self._post("records", {"items": list(batch)})["items"]
            refused = [answer for answer in answers if answer["status"] in {"conflict", "rejected"}]
            if refused:
                raise RuntimeError(f"the service rejected a record of the demo: {refused[0]}")

    def _post(self, resource: str, body: JsonObject) -> JsonObject:
        return self._request("POST", resource, body)

    def _request(self, method: str, resource: str, body: JsonObject) -> JsonObject:
        path = f"/v1/rollouts/{self.policy.rollout}/{resource}"
        response = self.client.request(method, path, json=body)
        response.raise_for_status()
        content: JsonObject = response.json()
        return content


def _get_scan_time(letter: DemoLetter) -> datetime:
    return max((letter.at, *(reading.at for reading in letter.predictions)))


def _build_question(letter: DemoLetter, reading: DemoPrediction) -> JsonObject:
    return {
        "site": letter.site,
        "at": letter.at.isoformat(),
        "version": reading.version,
        "key": letter.key,
        "episode": letter.episode,
        "confidence": reading.confidence,
        "attributes": letter.attributes,
        "prediction": {"answers": {"digit": reading.label}, "confidence": reading.confidence},
    }


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


def _split_batches(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), BATCH_SIZE):
        yield items[start : start + BATCH_SIZE]
