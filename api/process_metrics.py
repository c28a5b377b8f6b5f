"""Durations, connections and build of one process, with the names that dashboards expect.

Requests and connections have the names of OpenTelemetry's semantic conventions in Prometheus' form;
`process_…` and `python_info` are those of every Prometheus client.
"""

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

from rollout.store.database.session import Database

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
