"""Counters of one process: requests, assignments by decider, records by status."""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.request_log import ROUTE_KEY, UNMATCHED_ROUTE, name_method


@dataclass(slots=True)
class RequestCounts:
    """Counts since the process started, by their labels.

    Attributes:
        requests: by method, route and status. Routes, because paths are unbounded.
        assignments: by rollout and decider; "" for rollouts that this process never read, whose
            names may be made up.
        records: by rollout and status.
    """

    requests: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    assignments: Counter[tuple[str, str]] = field(default_factory=Counter)
    records: Counter[tuple[str, str]] = field(default_factory=Counter)

    def count_assignments(self, rollout: str, deciders: Iterable[str]) -> None:
        """Count assignments by decider."""
        for decider, n in Counter(deciders).items():
            self.assignments[rollout, decider] += n

    def count_records(self, rollout: str, statuses: Iterable[str]) -> None:
        """Count records by status."""
        for status, n in Counter(statuses).items():
            self.records[rollout, str(status)] += n


@dataclass(frozen=True, slots=True)
class RequestMetricsMiddleware:
    """Middleware that counts and times the requests that reach a route.

    Requests that other middleware refuses, such as too large ones, are not counted.
    """

    app: ASGIApp
    counts: RequestCounts
    observe_request: Callable[[str, str, int, float], object]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count the request when its status is sent, and measure the time until then."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        started_at = time.perf_counter()

        async def send_and_count(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "")
                method, status = name_method(scope), message["status"]
                scope["state"][ROUTE_KEY] = route or UNMATCHED_ROUTE
                self.counts.requests[method, route, status] += 1
                self.observe_request(method, route, status, time.perf_counter() - started_at)
            await send(message)

        try:
            await self.app(scope, receive, send_and_count)
        except Exception:  # the handler of errors has an earlier scope, with the same state
            scope["state"][ROUTE_KEY] = getattr(scope.get("route"), "path", UNMATCHED_ROUTE)
            raise
