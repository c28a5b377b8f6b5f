"""Metrics of requests and of the process; request ids and logs.

Each request has an id: the one that a proxy sent as `X-Request-ID`, or a new one. The response
returns it, and log lines in JSON hold it. The access log has routes instead of paths, and neither
addresses nor callers: paths hold keys of cases and names of users.
"""

import json
import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from platform import python_version
from typing import Any, Final
from uuid import uuid4

from msgspec.json import encode
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

from rollout.data.database.session import Database
from rollout.live.work.user_runs import ProcessFailedError, list_frames

REQUEST_ID_HEADER: Final = b"x-request-id"
VALID_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,64}")
ROUTE_KEY: Final = "route"
"""Key of the matched route in a request's state, set by `RequestMetricsMiddleware`."""
UNMATCHED_ROUTE: Final = "unmatched"
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER_METHOD: Final = "_OTHER"
"""OpenTelemetry's name for methods that a client made up: each would be a label of its own."""
request_id: ContextVar[str] = ContextVar("request_id", default="")
log = logging.getLogger("rollout.access")


@dataclass(frozen=True, slots=True)
class RequestLogMiddleware:
    """Middleware that gives each request an id and logs its status and duration."""

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle the request; its log line is written when its status is sent."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        number, started_at = _choose_id(scope), time.perf_counter()
        request_id.set(number)
        scope.setdefault("state", {})  # shared by all middleware, which may copy the scope

        async def send_and_log(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message["headers"], (REQUEST_ID_HEADER, number.encode())]
                message = {**message, "headers": headers}
                _log_request(scope, message["status"], time.perf_counter() - started_at)
            await send(message)

        await self.app(scope, receive, send_and_log)


def name_method(scope: Scope) -> str:
    """Return the method of a request for logs and metrics."""
    method = str(scope["method"])
    return method if method in METHODS else OTHER_METHOD


def _choose_id(scope: Scope) -> str:
    """Return the id that a proxy sent, if it can't break a log line, or a new one."""
    sent = next((value for name, value in scope["headers"] if name == REQUEST_ID_HEADER), b"")
    return str(sent.decode()) if VALID_ID.fullmatch(sent) else uuid4().hex


def _log_request(scope: Scope, status: int, seconds: float) -> None:
    if not log.isEnabledFor(logging.INFO):
        return
    route = scope["state"].get(ROUTE_KEY, UNMATCHED_ROUTE)
    fields = {
        "method": name_method(scope),
        "route": route,
        "status": status,
        "duration_ms": round(seconds * 1_000, 2),
    }
    for handler in logging.root.handlers:
        if isinstance(handler, logging.StreamHandler) and isinstance(
            handler.formatter, JsonFormatter
        ):
            _write_line(handler, fields)
        else:
            handler.handle(_build_record(fields))


def _write_line(handler: "logging.StreamHandler[Any]", fields: dict[str, Any]) -> None:
    """Write a request's line as the handler would, in a third of the time.

    `logging` would look up the calling code, thread and process of each record, which no line has.
    """
    line = _describe_line(time.time(), "info", log.name, "request")
    with handler.lock:  # type: ignore[union-attr]  # a handler in use has one
        try:
            handler.stream.write(_encode_line(line | fields | _describe_request()) + "\n")
            handler.stream.flush()
        except Exception:  # noqa: BLE001 - as `logging`: a full pipe ends no request
            handler.handleError(_build_record(fields))


def _build_record(fields: dict[str, Any]) -> logging.LogRecord:
    record = logging.LogRecord(log.name, logging.INFO, __file__, 0, "request", None, None)
    record.fields = fields
    return record


class TextFormatter(logging.Formatter):
    """Formats a record as text in which only its first line begins without spaces.

    Otherwise a line break in a message or an exception's text could forge another record.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text."""
        first, *others = super().format(record).splitlines() or [""]
        return "\n".join([first, *(f"    {line}" for line in others)])


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object.

    An exception is its type and the lines of code, without its text, which may hold names. One
    among the arguments of a message is its type.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        message = _format_message(record)
        line = _describe_line(record.created, record.levelname.lower(), record.name, message)
        line |= getattr(record, "fields", {}) | _describe_request()
        if record.exc_info and record.exc_info[1] is not None:
            line |= _describe_exception(record.exc_info[1])
        return _encode_line(line)


def _describe_line(seconds: float, level: str, logger: str, message: str) -> dict[str, Any]:
    at = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return {"time": at, "level": level, "logger": logger, "message": message}


def _describe_request() -> dict[str, str]:
    number = request_id.get()
    return {"request_id": number} if number else {}


def _encode_line(line: dict[str, Any]) -> str:
    try:
        return encode(line).decode()
    except UnicodeEncodeError:  # half of a character, which only escaped text can hold
        return json.dumps(line)


def _format_message(record: logging.LogRecord) -> str:
    """Return the message with the types of exceptions instead of their texts."""
    if not isinstance(record.args, tuple) or not record.args:
        return record.getMessage()
    args = (type(a).__name__ if isinstance(a, BaseException) else a for a in record.args)
    return str(record.msg) % tuple(args)


def _describe_exception(error: BaseException) -> dict[str, Any]:
    if isinstance(error, ProcessFailedError) and error.kind:
        return {"exception": error.kind, "stack": [*error.stack]}
    return {"exception": type(error).__name__, "stack": list_frames(error)}


def build_log_config(log_format: str) -> dict[str, Any]:
    """Return the configuration of `logging`: warnings as text, or JSON with an access log."""
    is_json = log_format == "json"
    text_formatter = {"()": TextFormatter, "format": "%(levelname)s: %(message)s"}
    formatter = {"()": JsonFormatter} if is_json else text_formatter
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": formatter},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "root": {"handlers": ["stderr"], "level": "WARNING"},
        "loggers": {"rollout.access": {"level": "INFO" if is_json else "WARNING"}},
    }


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
