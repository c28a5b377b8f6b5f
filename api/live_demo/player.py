"""An example's model and humans, simulated as clients of the HTTP API.

The player moves the story's clock, so a slow machine slows the simulation but does not change it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from heapq import heappop, heappush
from itertools import count
from typing import Any

import httpx

from api.live_demo.case_records import CaseRecords, JsonObject, get_prediction_time
from api.live_demo.retries import BusyServiceError, request_with_retries
from rollout.core.ledger.ledger import CanonicalRow, parse_event
from rollout.core.policy.policy import Policy
from rollout.reports.text.event_describer import CitedProposals, EventDescriber
from rollout.reports.text.event_kinds import COUNTING_KINDS
from rollout.reports.text.event_text import describe_event
from rollout.reports.text.formatting import format_zoned_time
from rollout.services.engine.rollout_state import load_rollout_state
from rollout.services.examples.recorded_cases import ExampleCase
from rollout.services.support.clock import ManualClock
from rollout.store.database.session import Database
from rollout.store.ledger.ledger import Ledger

HIDDEN_KINDS = frozenset({"RolloutCreated", *COUNTING_KINDS})


@dataclass(slots=True)
class LedgerNarrator:
    """A reader that describes new ledger events."""

    database: Database
    policy: Policy
    reference_date: datetime
    _revision: int = 0
    _cited: CitedProposals = field(default_factory=CitedProposals)

    def describe_news(self) -> Iterator[str]:
        """Yield a line for each event since the last call."""
        with self.database.begin_read() as transaction:
            rollout = load_rollout_state(transaction, self.policy.rollout).rollout
            rows = tuple(Ledger(transaction, rollout).list_rows(after=self._revision))
        for row in rows:
            yield from self._describe_row(row)

    def _describe_row(self, row: CanonicalRow) -> Iterator[str]:
        event = parse_event(row)
        self._revision = row.revision
        self._cited.add_event(event)
        describer = EventDescriber(self.policy, self._cited, reference_date=self.reference_date)
        description = describe_event(row.revision, event, describer)
        if description.kind not in HIDDEN_KINDS:
            location = f"{description.site} {description.window}: " if description.site else ""
            zone = describer.find_zone(describer.find_cell(event))
            local_time = format_zoned_time(event.at, zone, self.reference_date)
            yield f"{local_time:>21}  {location}{description.brief}"


STEP = timedelta(minutes=2)  # below the five minutes for which live requests are accepted
BATCH_SIZE = 100  # items in one request
HUMAN_ANSWER = {"decider": "human", "exposure": "blind"}  # a client's answer without an assignment


@dataclass(slots=True)
class DemoPlayer:
    """The client that requests assignments, and the humans who decide.

    Attributes:
        client: an HTTP client with the key of the model's client.
        decisions_client: an HTTP client with the key of the system in which humans decide.
        clock: the story's clock; only the player moves it.
        records: builds the requests.
        cases: in order of arrival; those that are still to come.
        training_cutoffs: by version, the time up to which its training cases reach.
        scheduled: items to send later, by time and number.
    """

    client: httpx.Client
    decisions_client: httpx.Client
    clock: ManualClock
    records: CaseRecords
    cases: Sequence[ExampleCase]
    training_cutoffs: Mapping[str, datetime]
    scheduled: list[tuple[datetime, int, JsonObject]] = field(default_factory=list)
    _reported_versions: set[str] = field(default_factory=set)
    _next_case: int = 0
    _numbers: Iterator[int] = field(init=False, default_factory=count)

    def __post_init__(self) -> None:
        """Number new items after those that are scheduled."""
        self._numbers = count(1 + max((number for _, number, _ in self.scheduled), default=-1))

    @property
    def is_over(self) -> bool:
        """Return whether all cases were predicted and all records sent."""
        return self._next_case == len(self.cases) and not self.scheduled

    def step(self) -> None:
        """Simulate one step."""
        self.clock.advance(STEP)
        now = self.clock.now()
        for batch in _split_batches(self._take_predicted(now)):
            for case, answers in zip(batch, self._ask_deciders(batch), strict=True):
                for at, item in self.records.list_effects(case, answers):
                    heappush(self.scheduled, (at, next(self._numbers), item))
        due = self._take_due(now)
        self._send_records(self.client, [item for item in due if item.get("by") == "model"])
        self._send_records(self.decisions_client, [i for i in due if i.get("by") != "model"])

    def _take_predicted(self, now: datetime) -> list[ExampleCase]:
        """Return the cases that were predicted by now."""
        first = self._next_case
        while (
            self._next_case < len(self.cases)
            and get_prediction_time(self.cases[self._next_case]) <= now
        ):
            self._next_case += 1
        return list(self.cases[first : self._next_case])

    def _ask_deciders(self, cases: Sequence[ExampleCase]) -> list[list[JsonObject]]:
        """Request assignments, one for each case and version; humans decide without one."""
        try:
            return self._request_assignments(cases)
        except BusyServiceError:
            return [[HUMAN_ANSWER for _ in case.predictions] for case in cases]

    def _request_assignments(self, cases: Sequence[ExampleCase]) -> list[list[JsonObject]]:
        self._report_versions(
            {prediction.version for case in cases for prediction in case.predictions}
        )
        questions = [question for case in cases for question in self.records.build_questions(case)]
        body = {"questions": questions}
        answers = iter(self._request(self.client, "POST", "assignments", body)["answers"])
        return [[next(answers) for _ in case.predictions] for case in cases]

    def _report_versions(self, versions: set[str]) -> None:
        """Report the training cutoff of versions before their first use."""
        for version in sorted(versions - self._reported_versions):
            facts = {"trained_until": self.training_cutoffs[version].isoformat()}
            self._request(self.client, "PUT", f"versions/{version}", facts)
        self._reported_versions |= versions

    def _take_due(self, now: datetime) -> list[JsonObject]:
        due = []
        while self.scheduled and self.scheduled[0][0] <= now:
            due.append(heappop(self.scheduled)[2])
        return due

    def _send_records(self, client: httpx.Client, items: Sequence[JsonObject]) -> None:
        for batch in _split_batches(items):
            body = {"items": list(batch)}
            try:
                answers = self._request(client, "POST", "records", body)["items"]
            except BusyServiceError:
                self._send_later(batch)
                continue
            refused = [answer for answer in answers if answer["status"] in {"conflict", "rejected"}]
            if refused:
                raise RuntimeError(f"the service rejected a record of the demo: {refused[0]}")

    def _send_later(self, items: Sequence[JsonObject]) -> None:
        """Schedule items for the next step; records are safe to repeat."""
        for item in items:
            heappush(self.scheduled, (self.clock.now(), next(self._numbers), item))

    def _request(
        self, client: httpx.Client, method: str, resource: str, body: JsonObject
    ) -> JsonObject:
        path = f"/v1/rollouts/{self.records.policy.rollout}/{resource}"
        response = request_with_retries(client, method, path, body)
        response.raise_for_status()
        content: JsonObject = response.json()
        return content


def _split_batches(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), BATCH_SIZE):
        yield items[start : start + BATCH_SIZE]
