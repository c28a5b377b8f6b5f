"""An example's model, humans and operators, simulated as clients of the HTTP API.

The clients ask who decides, and send what follows. They repeat requests while the service is busy,
as real clients would do.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from heapq import heappop, heappush
from itertools import count, cycle
from threading import Thread
from time import sleep
from typing import Any, Final
from urllib.parse import quote

import httpx2

from rollout.data.database.session import Database
from rollout.data.ledger.ledger import Ledger
from rollout.engine.ledger.ledger import parse_event
from rollout.engine.words.event_kinds import COUNTING_KINDS
from rollout.engine.words.event_text import CitedProposals, EventDescriber, describe_event
from rollout.engine.words.formatting import format_zoned_time
from rollout.features.demo.simulated_cases import (
    CaseRecords,
    ExampleCase,
    JsonObject,
    get_prediction_time,
)
from rollout.kernel.calendar.instants import SHADOW, Cell
from rollout.kernel.errors import RefusalError
from rollout.kernel.policy.policy import Policy
from rollout.live.clock import ManualClock
from rollout.live.rollout_state import read_rollout

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


def call_rollout(
    client: httpx2.Client, rollout: str, method: str, resource: str, body: Any = None
) -> Any:
    """Return the answer of a resource of a rollout; an error answer is raised.

    Raises:
        BusyServiceError: the service stayed busy.
    """
    path = f"/v1/rollouts/{rollout}/{resource}"
    response = request_with_retries(client, method, path, body)
    response.raise_for_status()
    return response.json()


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


QUIET_SECONDS: Final = 10.0
"""Wall seconds without a proposal after which the colleague makes one."""
REPORT_SECONDS: Final = 5.0
"""Wall seconds after which the week's report is made: the first pages come before it."""
REPORT_SPAN: Final = timedelta(days=7)
RESUME: Final = "resume"
REASONS: Final = (
    "The equipment is being cleaned.",
    "The network is being repaired.",
    "A new colleague starts today.",
    "Fire drill at the site.",
)


@dataclass(slots=True)
class DemoApprover:
    """An operator who approves proposals by their evidence hash.

    Attributes:
        client: an HTTP client with the operator's key.
        rollout: its name.
        delay: the age of a proposal before it is approved.
        kinds: the kinds to approve; empty means all.
        leaves_last: whether the last approval is left to users, except of resumes.
    """

    client: httpx2.Client
    rollout: str
    delay: timedelta
    kinds: frozenset[str] = frozenset()
    leaves_last: bool = False
    _approved: set[str] = field(default_factory=set)

    def approve_due(self, now: datetime) -> None:
        """Approve the open proposals that are old enough; a busy service gets them next time."""
        with suppress(BusyServiceError):
            for proposal in list_open_proposals(self.client, self.rollout):
                if proposal["id"] not in self._approved and self._is_due(proposal, now):
                    self._approve(proposal["id"], proposal["evidence_hash"])

    def _is_due(self, proposal: Mapping[str, Any], now: datetime) -> bool:
        if self.kinds and proposal["kind"] not in self.kinds:
            return False
        if self.leaves_last and proposal["kind"] != RESUME and proposal["approvals_missing"] < 2:
            return False
        return datetime.fromisoformat(proposal["raised_at"]) + self.delay <= now

    def _approve(self, proposal: str, evidence: str) -> None:
        path = f"/v1/rollouts/{self.rollout}/proposals/{proposal}/approvals"
        request_with_retries(self.client, "POST", path, {"evidence_hash": evidence})
        self._approved.add(proposal)


@dataclass(slots=True)
class DemoColleague:
    """An operator who stops a cell and asks for its resume when nothing else needs approval.

    Attributes:
        client: an HTTP client with the operator's key.
        policy: of the rollout.
        read_seconds: the wall clock: a paused story also gets something to approve.
    """

    client: httpx2.Client
    policy: Policy
    read_seconds: Callable[[], float] = time.monotonic
    _quiet_since: float | None = None
    _handled_stops: set[str] = field(default_factory=set)
    _cells: Iterator[Cell] = field(init=False)
    _reasons: Iterator[str] = field(init=False)

    def __post_init__(self) -> None:
        """Take cells and reasons in turns."""
        self._cells, self._reasons = cycle(self.policy.cells), cycle(REASONS)

    def keep_something_to_approve(self) -> None:
        """Ask for a resume if no proposal has needed an approval for a while.

        If the service is busy, the next call does it.
        """
        with suppress(BusyServiceError):
            proposals = list_open_proposals(self.client, self.policy.rollout)
            if any(proposal["approvals_missing"] for proposal in proposals):
                self._quiet_since = None
                return
            now = self.read_seconds()
            self._quiet_since = now if self._quiet_since is None else self._quiet_since
            if now - self._quiet_since >= QUIET_SECONDS:
                self._propose_resume(self._find_stop() or self._stop_next_cell())
                self._quiet_since = None

    def _find_stop(self) -> str | None:
        """Return an active stop for which nobody was asked yet."""
        stops = call_rollout(self.client, self.policy.rollout, "GET", "stops")["items"]
        return next((stop["id"] for stop in stops if stop["id"] not in self._handled_stops), None)

    def _stop_next_cell(self) -> str:
        """Stop the next cell above shadow, or the next one if there is none."""
        rows = call_rollout(self.client, self.policy.rollout, "GET", "cells")["items"]
        acting = {(row["site"], row["window"]) for row in rows if row["stage"] != SHADOW}
        candidates = [next(self._cells) for _ in self.policy.cells]
        cell = next((c for c in candidates if (c.site, c.window) in acting), candidates[0])
        while next(self._cells) != cell:
            pass  # the next turn begins after this cell
        body = {
            "cells": [{"site": cell.site, "window": cell.window}],
            "reason": next(self._reasons),
        }
        return str(call_rollout(self.client, self.policy.rollout, "POST", "stops", body)["stop"])

    def _propose_resume(self, stop: str) -> None:
        """Ask for a resume; a user may have done so first, which is no error."""
        path = f"/v1/rollouts/{self.policy.rollout}/stops/{stop}/resume"
        request_with_retries(self.client, "POST", path)
        self._handled_stops.add(stop)


@dataclass(slots=True)
class WeeklyReporter:
    """An operator who asks for the week's report soon after the demo has opened.

    The story goes on meanwhile: on a busy machine the report takes a minute.

    Attributes:
        client: an HTTP client with the operator's key, which waits longer for answers from now on.
        rollout: its name.
        until: the report's end: the last midnight.
        read_seconds: the wall clock: a paused story also gets its report.
        request: the thread that waits for the report; None if it is still to be asked for.
    """

    client: httpx2.Client
    rollout: str
    until: datetime
    read_seconds: Callable[[], float] = time.monotonic
    request: Thread | None = None
    _opened_at: float = field(init=False)

    def __post_init__(self) -> None:
        """Begin to wait."""
        self._opened_at = self.read_seconds()
        self.client.timeout = 300.0  # seconds until the request is repeated

    def request_due_report(self) -> None:
        """Ask for the report once, a while after the demo has opened.

        If the service stayed busy, the next call asks again.
        """
        if self.request is None and self.read_seconds() - self._opened_at >= REPORT_SECONDS:
            self.request = Thread(target=self._request_report, name="report", daemon=True)
            self.request.start()

    def _request_report(self) -> None:
        span = {"since": (self.until - REPORT_SPAN).isoformat(), "until": self.until.isoformat()}
        try:
            call_rollout(self.client, self.rollout, "POST", "reports", {"name": "week", **span})
        except (BusyServiceError, RuntimeError):  # or the demo has ended and closed the client
            self.request = None


def list_open_proposals(client: httpx2.Client, rollout: str) -> list[dict[str, Any]]:
    """Return the open proposals of a rollout.

    Raises:
        BusyServiceError: the service stayed busy.
    """
    return list(call_rollout(client, rollout, "GET", "proposals")["items"])


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
        with read_rollout(self.database, self.policy.rollout) as (transaction, state):
            rows = tuple(Ledger(transaction, state.rollout).list_rows(after=self._revision))
        for row in rows:
            event = parse_event(row)
            self._revision = row.revision
            self._cited.add_event(event)
            describer = EventDescriber(self.policy, self._cited, reference_date=self.reference_date)
            description = describe_event(row.revision, event, describer)
            if description.kind not in HIDDEN_KINDS:
                location = f"{description.site} {description.window}: " if description.site else ""
                zone = describer.find_zone(describer.find_cell(event))
                local_time = format_zoned_time(event.at, zone, self.reference_date)
                yield f"{local_time:>21}  {location}{description.short_text}"


STEP = timedelta(minutes=2)  # below the five minutes for which live requests are accepted


@dataclass(slots=True)
class DemoPlayer:
    """The story's clock and the cases that come as it moves on.

    Attributes:
        traffic: the clients that ask who decides, and send what follows.
        clock: the story's clock; only the player moves it.
        cases: in order of arrival; those that are still to come.
    """

    traffic: CaseTraffic
    clock: ManualClock
    cases: Sequence[ExampleCase]
    _next_case: int = 0

    @property
    def is_over(self) -> bool:
        """Return whether all cases were predicted and all records sent."""
        return self._next_case == len(self.cases) and not self.traffic.scheduled

    def step(self) -> None:
        """Simulate one step."""
        self.clock.advance(STEP)
        now = self.clock.now()
        self.traffic.ask(self._take_predicted(now))
        self.traffic.send_due(now)

    def _take_predicted(self, now: datetime) -> list[ExampleCase]:
        """Return the cases that were predicted by now."""
        first = self._next_case
        while (
            self._next_case < len(self.cases)
            and get_prediction_time(self.cases[self._next_case]) <= now
        ):
            self._next_case += 1
        return list(self.cases[first : self._next_case])


def build_account_request(clients: Mapping[str, httpx2.Client], rollout: str) -> AccountRequest:
    """Return what sends requests with the client of an account; an error answer is raised."""

    def request(account: str, method: str, resource: str, body: JsonObject) -> JsonObject:
        return dict(call_rollout(clients[account], rollout, method, resource, body))

    return request
