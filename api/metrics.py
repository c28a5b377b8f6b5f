"""Metrics of requests and of the process."""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from platform import python_version

from prometheus_client import (
    CollectorRegistry,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.request_log import ROUTE_KEY, UNMATCHED_ROUTE, name_method
from rollout.store.database.session import Database


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


REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
"""Seconds; the boundaries that OpenTelemetry advises for requests."""
TICK_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more for each series, which version 0.0.4 does not know


def _count_connections(database: Database, state: str) -> float:
    return database.count_connections()[state]


class ProcessMetrics:
    """The metrics of one process, in a registry of their own."""

    def __init__(self, database: Database) -> None:
        self._registry = CollectorRegistry()
        self._request_seconds = Histogram(
            "http_server_request_duration_seconds",
            "Seconds until the status of a response was sent.",
            ("http_request_method", "http_route", "http_response_status_code"),
            buckets=REQUEST_BUCKETS,
            registry=self._registry,
        )
        self._tick_seconds = Histogram(
            "rollout_tick_duration_seconds",
            "Seconds that a tick took.",
            ("rollout",),
            buckets=TICK_BUCKETS,
            registry=self._registry,
        )
        self._add_connections(database)
        build_labels = {"version": version("rollout-controller"), "python": python_version()}
        build = Gauge("rollout_build_info", "Always 1.", build_labels, registry=self._registry)
        build.labels(**build_labels).set(1)
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)

    def _add_connections(self, database: Database) -> None:
        connections = Gauge(
            "db_client_connection_count",
            "Connections of this process to its database.",
            ("db_client_connection_state",),
            registry=self._registry,
        )
        for state in ("used", "idle"):
            connections.labels(state).set_function(partial(_count_connections, database, state))

    def observe_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Add the duration of a request; `route` is its template, not its path."""
        self._request_seconds.labels(method, route, str(status)).observe(seconds)

    def observe_tick(self, rollout: str, seconds: float) -> None:
        """Add the duration of a tick."""
        self._tick_seconds.labels(rollout).observe(seconds)

    def format(self) -> str:
        """Return all metrics in the text format of Prometheus."""
        return generate_latest(self._registry).decode()
