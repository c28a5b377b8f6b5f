"""The clients of a simulated service: they ask who decides, and send what follows.

Requests that are repeated while the service is busy, as a real client would do.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from heapq import heappop, heappush
from itertools import count
from time import sleep
from typing import Any, Final
from urllib.parse import quote

import httpx2

from rollout.features.demo.simulated_cases import CaseRecords, ExampleCase, JsonObject
from rollout.kernel.errors import RefusalError

BUSY_STATUSES: Final = frozenset({429, 503})
MAX_TRIES: Final = 6
DEFAULT_SECONDS: Final = 1.0  # without a Retry-After
MAX_SECONDS: Final = 5.0  # longer waits than these would hold the story


class BusyServiceError(Exception):
    """The service stayed busy or out of reach during all tries."""


def request_with_retries(
    client: httpx2.Client, method: str, path: str, body: Any = None, **options: Any
) -> httpx2.Response:
    """Send a request, again while the service is busy or out of reach.

    Other errors are returned, not raised. Use it for requests that are safe to repeat. `options`
    are the client's own.

    Raises:
        BusyServiceError: no try got an answer.
    """
    failure = ""
    for tries_left in reversed(range(MAX_TRIES)):
        seconds = DEFAULT_SECONDS
        try:
            response = client.request(method, path, json=body, **options)
        except httpx2.TransportError as error:
            failure = f"{type(error).__name__}: {error}"
        else:
            if response.status_code not in BUSY_STATUSES:
                return response
            failure = f"status {response.status_code}"
            seconds = _read_retry_after(response)
        if tries_left:
            sleep(seconds)
    raise BusyServiceError(f"{method} {path} failed {MAX_TRIES} times, at last with {failure}")


def _read_retry_after(response: httpx2.Response) -> float:
    text = response.headers.get("Retry-After", "")
    return min(float(text), MAX_SECONDS) if text.isdecimal() else DEFAULT_SECONDS


BATCH_SIZE: Final = 100  # items in one request
HUMAN_ANSWER: Final = {"decider": "human", "exposure": "blind"}
"""A client's answer without an assignment."""
NOT_STORED: Final = frozenset({"conflict", "rejected"})
ScheduledItem = tuple[datetime, int, str, JsonObject]
"""When an account sends an item; the number orders those of one time."""
AccountRequest = Callable[[str, str, str, JsonObject], JsonObject]
"""Sends a body as an account, by method, to a resource of the rollout; returns the answer.

It raises `BusyServiceError` if the service stayed busy.
"""


@dataclass(slots=True)
class CaseTraffic:
    """Questions and records of cases, over HTTP.

    Attributes:
        records: builds the requests.
        request: sends them.
        training_cutoffs: by version, the time up to which its training cases reach, if stated.
        scheduled: items to send later.
        counts: cases by who decided them.
        stages: by site the stage in the last answer.
    """

    records: CaseRecords
    request: AccountRequest
    training_cutoffs: Mapping[str, datetime] = field(default_factory=dict)
    scheduled: list[ScheduledItem] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    stages: dict[str, str] = field(default_factory=dict)
    _reported_versions: set[str] = field(default_factory=set)
    _numbers: Iterator[int] = field(init=False, default_factory=count)

    def __post_init__(self) -> None:
        """Number new items after those that are scheduled."""
        self._numbers = count(1 + max((number for _, number, *_ in self.scheduled), default=-1))

    def ask(self, cases: Sequence[ExampleCase]) -> None:
        """Ask who decides cases, and schedule what follows; humans decide without an answer."""
        by_client = defaultdict[str, list[ExampleCase]](list)
        for case in cases:
            by_client[self.records.find_clients(case.site).model].append(case)
        for client, own_cases in by_client.items():
            for batch in _split_batches(own_cases):
                for case, answers in zip(batch, self._ask_deciders(client, batch), strict=True):
                    self._schedule_effects(case, answers)

    def send_due(self, now: datetime) -> None:
        """Send the items that are due; a busy service gets them next time.

        Raises:
            RefusalError: the service did not store one.
        """
        due = defaultdict[str, list[JsonObject]](list)
        while self.scheduled and self.scheduled[0][0] <= now:
            _, _, account, item = heappop(self.scheduled)
            due[account].append(item)
        for account, items in due.items():
            for batch in _split_batches(items):
                self._send_records(account, batch, now)

    def _schedule_effects(self, case: ExampleCase, answers: Sequence[JsonObject]) -> None:
        deciders = {answer["decider"] for answer in answers}
        self.counts["model" if "model" in deciders else "human"] += 1
        if "stage" in answers[-1]:
            self.stages[case.site] = answers[-1]["stage"]
        is_audited = "model" in deciders and self._is_asked(case)
        for at, account, item in self.records.list_effects(case, answers, is_audited):
            heappush(self.scheduled, (at, next(self._numbers), account, item))

    def _is_asked(self, case: ExampleCase) -> bool:
        """Return whether humans are asked about a case, as those see who decide."""
        decisions = self.records.find_clients(case.site).decisions
        try:
            details = self.request(decisions, "GET", f"cases/{quote(case.key, safe='')}", {})
        except BusyServiceError:
            return False
        return bool(details["asked"])

    def _ask_deciders(self, client: str, cases: Sequence[ExampleCase]) -> list[list[JsonObject]]:
        """Request assignments, one for each case and version; humans decide without one."""
        try:
            return self._request_assignments(client, cases)
        except BusyServiceError:
            return [[HUMAN_ANSWER for _ in case.predictions] for case in cases]

    def _request_assignments(
        self, client: str, cases: Sequence[ExampleCase]
    ) -> list[list[JsonObject]]:
        self._report_versions(
            client, {prediction.version for case in cases for prediction in case.predictions}
        )
        questions = [question for case in cases for question in self.records.build_questions(case)]
        body = {"questions": questions}
        answers = iter(self.request(client, "POST", "assignments", body)["answers"])
        return [[next(answers) for _ in case.predictions] for case in cases]

    def _report_versions(self, client: str, versions: set[str]) -> None:
        """Report the training cutoff of versions before their first use."""
        for version in sorted(versions & self.training_cutoffs.keys() - self._reported_versions):
            facts = {"trained_until": self.training_cutoffs[version].isoformat()}
            self.request(client, "PUT", f"versions/{version}", facts)
            self._reported_versions.add(version)

    def _send_records(self, account: str, items: Sequence[JsonObject], now: datetime) -> None:
        try:
            answers = self.request(account, "POST", "records", {"items": list(items)})["items"]
        except BusyServiceError:  # records are safe to repeat
            for item in items:
                heappush(self.scheduled, (now, next(self._numbers), account, item))
            return
        refused = [answer for answer in answers if answer["status"] in NOT_STORED]
        if refused:
            raise RefusalError(f"a record of {account} was not stored: {refused[0]['reason']}")


def _split_batches(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), BATCH_SIZE):
        yield items[start : start + BATCH_SIZE]
