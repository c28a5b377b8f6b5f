"""The mail room's scanners and clerks, played through the HTTP API as any client would be.

The player moves the clock that server, clients and leases share: a step of the story, what comes
in within it, and only then the next step. On a slow machine the story is slower, never different.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from heapq import heappop, heappush
from itertools import count
from typing import Any

import httpx

from rollout.core.policy.policy import Policy
from rollout.services.replay.demo_traffic import Letter, Reading, Verdict
from rollout.services.support.clock import SetClock

STEP = timedelta(minutes=2)  # live questions may be about the last five minutes
AT_ONCE = 100  # questions, or records, in one request
BY_HAND = timedelta(seconds=20)  # from a clerk's verdict to the bin
Item = dict[str, Any]


@dataclass(slots=True)
class Player:
    """Scanners that ask who decides, clerks who say what they read, bins that are filled.

    Attributes:
        client: speaks to the service with the mail room's key.
        clock: is moved here, by nobody else.
        policy: of the rollout: which action a label leads to.
        letters: in the order in which they come in.
        trained_until: by version, up to when its training cases reach; told before it is used.
    """

    client: httpx.Client
    clock: SetClock
    policy: Policy
    letters: Sequence[Letter]
    trained_until: Mapping[str, str]
    _told: set[str] = field(default_factory=set)
    _next: int = 0
    _later: list[tuple[datetime, int, Item]] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=count)

    @property
    def over(self) -> bool:
        """Say whether every letter has come in and all that is said of it was sent."""
        return self._next == len(self.letters) and not self._later

    def step(self) -> None:
        """Let one step of the story happen."""
        self.clock.move(STEP)
        now = self.clock.now()
        scanned = self._came(now)
        for batch in _some(scanned):
            for letter, answers in zip(batch, self._ask(batch), strict=True):
                self._follow(letter, answers)
        self._send(self._due(now))

    def _came(self, now: datetime) -> list[Letter]:
        """Return the letters that were scanned by now, each with all its readings at hand."""
        first = self._next
        while self._next < len(self.letters) and _scanned(self.letters[self._next]) <= now:
            self._next += 1
        return list(self.letters[first : self._next])

    def _ask(self, letters: Sequence[Letter]) -> list[list[Item]]:
        """Ask who decides each letter, once for each version that has read it."""
        self._tell({reading.version for letter in letters for reading in letter.readings})
        questions = [
            _question(letter, reading) for letter in letters for reading in letter.readings
        ]
        answers = iter(self._post("assignments", {"questions": questions})["answers"])
        return [[next(answers) for _ in letter.readings] for letter in letters]

    def _tell(self, versions: set[str]) -> None:
        """Say of versions that were not used before what they were trained on."""
        for version in sorted(versions - self._told):
            facts = {"trained_until": self.trained_until[version]}
            self._send_to("PUT", f"versions/{version}", facts)
        self._told |= versions

    def _follow(self, letter: Letter, answers: Sequence[Item]) -> None:
        """Do what the answers say: the model acts, or clerks do; and note what comes later."""
        pairs = zip(letter.readings, answers, strict=True)
        acting_answer = next(((r, a) for r, a in pairs if a["decider"] == "model"), None)
        is_assisted = any(a["exposure"] == "assisted" for a in answers)
        if acting_answer is not None:
            self._act(letter, *acting_answer)
        if acting_answer is None or acting_answer[1]["audited"]:
            for decision in letter.verdicts:
                self._plan(decision.at, _decision(letter, decision, assisted=is_assisted))
        if acting_answer is None and letter.verdicts and not letter.verdicts[0].unsure:
            self._put_in_bin(letter, letter.verdicts[0])
        if letter.known_at is not None:
            outcome = {"kind": "outcome", "key": letter.key, "answers": {"digit": letter.truth}}
            self._plan(letter.known_at, {**outcome, "at": letter.known_at.isoformat()})

    def _act(self, letter: Letter, reading: Reading, answer: Item) -> None:
        details = {"by": "model", "version": reading.version, "permit": answer["permit"]}
        at = _scanned(letter)
        self._plan(at, self._action(letter, reading.label, at) | details)

    def _put_in_bin(self, letter: Letter, verdict: Verdict) -> None:
        at = verdict.at + BY_HAND
        self._plan(at, self._action(letter, verdict.label, at) | {"by": "person"})

    def _action(self, letter: Letter, label: str, at: datetime) -> Item:
        (lever,) = self.policy.levers
        action = lever.action(label)
        item = {"kind": "action", "key": letter.key, "lever": lever.id, "action": action}
        return {**item, "at": at.isoformat()}

    def _plan(self, at: datetime, item: Item) -> None:
        heappush(self._later, (at, next(self._numbers), item))

    def _due(self, now: datetime) -> list[Item]:
        due = []
        while self._later and self._later[0][0] <= now:
            due.append(heappop(self._later)[2])
        return due

    def _send(self, items: Sequence[Item]) -> None:
        for batch in _some(items):
            answers = self._post("records", {"items": list(batch)})["items"]
            refused = [answer for answer in answers if answer["status"] in {"conflict", "rejected"}]
            if refused:
                raise RuntimeError(f"the service would not take what the demo sent: {refused[0]}")

    def _post(self, what: str, body: Item) -> Item:
        return self._send_to("POST", what, body)

    def _send_to(self, method: str, what: str, body: Item) -> Item:
        path = f"/v1/rollouts/{self.policy.rollout}/{what}"
        response = self.client.request(method, path, json=body)
        response.raise_for_status()
        content: Item = response.json()
        return content


def _scanned(letter: Letter) -> datetime:
    return max((letter.at, *(reading.at for reading in letter.readings)))


def _question(letter: Letter, reading: Reading) -> Item:
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


def _decision(letter: Letter, verdict: Verdict, *, assisted: bool) -> Item:
    return {
        "kind": "decision",
        "key": letter.key,
        "reviewer": verdict.reviewer,
        "answers": {"digit": None if verdict.unsure else verdict.label},
        "unsure": verdict.unsure,
        "exposure": "assisted" if assisted else "blind",
        "submitted_at": verdict.at.isoformat(),
    }


def _some(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), AT_ONCE):
        yield items[start : start + AT_ONCE]
