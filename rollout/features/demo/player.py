"""An example's model, humans and operators, simulated as clients of the HTTP API."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import cycle
from typing import Any, Final

import httpx2

from rollout.data.database.session import Database
from rollout.data.ledger.ledger import Ledger
from rollout.engine.ledger.ledger import CanonicalRow, parse_event
from rollout.engine.words.event_describer import CitedProposals, EventDescriber
from rollout.engine.words.event_kinds import COUNTING_KINDS
from rollout.engine.words.event_text import describe_event
from rollout.engine.words.formatting import format_zoned_time
from rollout.features.demo.simulated_cases import ExampleCase, JsonObject, get_prediction_time
from rollout.features.demo.traffic import (
    AccountRequest,
    BusyServiceError,
    CaseTraffic,
    request_with_retries,
)
from rollout.kernel.calendar.sites import SHADOW, Cell
from rollout.kernel.policy.policy import Policy
from rollout.live.clock import ManualClock
from rollout.live.rollout_state import load_rollout_state

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
            self._approve_due(now)

    def _approve_due(self, now: datetime) -> None:
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
            self._keep_something_to_approve()

    def _keep_something_to_approve(self) -> None:
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
        stops = self._request("GET", "stops")["items"]
        return next((stop["id"] for stop in stops if stop["id"] not in self._handled_stops), None)

    def _stop_next_cell(self) -> str:
        """Stop the next cell above shadow, or the next one if there is none."""
        rows = self._request("GET", "cells")["items"]
        acting = {(row["site"], row["window"]) for row in rows if row["stage"] != SHADOW}
        candidates = [next(self._cells) for _ in self.policy.cells]
        cell = next((c for c in candidates if (c.site, c.window) in acting), candidates[0])
        while next(self._cells) != cell:
            pass  # the next turn begins after this cell
        body = {
            "cells": [{"site": cell.site, "window": cell.window}],
            "reason": next(self._reasons),
        }
        return str(self._request("POST", "stops", body)["stop"])

    def _propose_resume(self, stop: str) -> None:
        """Ask for a resume; a user may have done so first, which is no error."""
        path = f"/v1/rollouts/{self.policy.rollout}/stops/{stop}/resume"
        request_with_retries(self.client, "POST", path)
        self._handled_stops.add(stop)

    def _request(self, method: str, resource: str, body: Any = None) -> Any:
        path = f"/v1/rollouts/{self.policy.rollout}/{resource}"
        response = request_with_retries(self.client, method, path, body)
        response.raise_for_status()
        return response.json()


@dataclass(slots=True)
class WeeklyReporter:
    """An operator who asks for the week's report soon after the demo has opened.

    Attributes:
        client: an HTTP client with the operator's key.
        rollout: its name.
        until: the report's end: the last midnight.
        read_seconds: the wall clock: a paused story also gets its report.
    """

    client: httpx2.Client
    rollout: str
    until: datetime
    read_seconds: Callable[[], float] = time.monotonic
    is_done: bool = False
    _opened_at: float = field(init=False)

    def __post_init__(self) -> None:
        """Begin to wait."""
        self._opened_at = self.read_seconds()

    def request_due_report(self) -> None:
        """Ask for the report once, a while after the demo has opened.

        If the service is busy, the next call does it.
        """
        if self.is_done or self.read_seconds() - self._opened_at < REPORT_SECONDS:
            return
        span = {"since": (self.until - REPORT_SPAN).isoformat(), "until": self.until.isoformat()}
        path = f"/v1/rollouts/{self.rollout}/reports"
        with suppress(BusyServiceError):
            body = {"name": "week", **span}
            request_with_retries(self.client, "POST", path, body).raise_for_status()
            self.is_done = True


def list_open_proposals(client: httpx2.Client, rollout: str) -> list[dict[str, Any]]:
    """Return the open proposals of a rollout.

    Raises:
        BusyServiceError: the service stayed busy.
    """
    response = request_with_retries(client, "GET", f"/v1/rollouts/{rollout}/proposals")
    response.raise_for_status()
    proposals: list[dict[str, Any]] = response.json()["items"]
    return proposals


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
        path = f"/v1/rollouts/{rollout}/{resource}"
        response = request_with_retries(clients[account], method, path, body)
        response.raise_for_status()
        content: JsonObject = response.json()
        return content

    return request
