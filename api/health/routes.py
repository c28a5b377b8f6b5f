"""Health checks (is the process alive, can it take requests?), and metrics for Prometheus.

Metrics have the text format, version 0.0.4: prometheus.io/docs/instrumenting/exposition_formats.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel

from api.auth import CurrentTime, Reader, ServiceDependency
from api.metrics import RequestCounts
from api.problems import COMMON_RESPONSES, build_problem, build_problem_responses
from rollout.features.access.keys import measure_key_expiry
from rollout.features.cells.overview import RolloutMetrics, load_all_metrics
from rollout.live.autonomy import list_readiness_faults

router = APIRouter(prefix="/health", tags=["health"])


class Liveness(BaseModel, json_schema_extra={"example": {"live": True}}):
    """The process is running."""

    live: bool


class Readiness(
    BaseModel, json_schema_extra={"example": {"ready": True, "last_write_age": 0.6, "overdue": []}}
):
    """The process can take requests: schema, clocks and writes are as they should be.

    `last_write_age` is in seconds; null if this process writes no heartbeats. `overdue` are the
    rollouts whose ticks have not done what has long been due: humans decide their cases.
    """

    ready: bool
    last_write_age: float | None
    overdue: list[str]


@router.get("/live", operation_id="getLiveness", summary="Check that the process is alive")
async def get_liveness() -> Liveness:
    """Return 200 while the process is running."""
    return Liveness(live=True)


@router.get(
    "/ready",
    operation_id="getReadiness",
    summary="Check that the process can take requests",
    response_model=Readiness,
    responses=build_problem_responses(503),
)
def get_readiness(service: ServiceDependency) -> Readiness | JSONResponse:
    """Return 200 if the process can take requests, otherwise 503.

    Checks the database's schema, its clock, and that this process could write lately. Nothing is
    written. The problem's `detail` lists what failed, with the age of the last confirmed write.
    """
    faults = list_readiness_faults(service.database, service.clock, service.autonomy)
    write_age = service.autonomy.measure_write_age()
    age = None if write_age is None else round(write_age, 1)
    if not faults:
        return Readiness(ready=True, last_write_age=age, overdue=sorted(service.autonomy.overdue))
    age_text = "no confirmed write yet" if age is None else f"last confirmed write {age} s ago"
    return build_problem("not-ready", "; ".join((*faults, age_text)), 503)


metrics_router = APIRouter(prefix="/metrics", tags=["health"])
MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
EXAMPLE = (
    "# HELP rollout_pending_entries Queue entries that are not counted yet.\n"
    "# TYPE rollout_pending_entries gauge\n"
    'rollout_pending_entries{rollout="bear-alarm"} 12\n'
)
METRICS_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "one sample on each line",
        "content": {"text/plain": {"schema": {"type": "string"}, "example": EXAMPLE}},
    }
}
GAUGE_TEXTS = {
    "ledger_revision": "Revision of the ledger.",
    "open_proposals": "Open proposals.",
    "open_incidents": "Incidents that are not acknowledged.",
    "active_stops": "Stops in force.",
    "pending_entries": "Queue entries that are not counted yet.",
    "failed_deliveries": "Deliveries of reports that failed for good.",
    "slot_age_seconds": "Seconds since the start of the newest slot with a finished tick.",
    "ticks_overdue": "1 if no tick has done what has long been due, so that humans decide, else 0.",
}
KEY_EXPIRY_TEXT = "Seconds until the first service account is without a valid key; negative since."
MetricLine = tuple[dict[str, str], float]


@metrics_router.get(
    "",
    operation_id="getMetrics",
    summary="Get metrics in Prometheus text format",
    response_class=PlainTextResponse,
    responses=COMMON_RESPONSES | METRICS_RESPONSES,
)
def get_metrics(
    request: Request,
    service: ServiceDependency,
    now: CurrentTime,
    caller: Reader,
) -> PlainTextResponse:
    """Return counters and durations of this process and gauges of every rollout.

    Counters start at zero when the process starts. Requires read permission on all rollouts.
    """
    parts = [
        *_format_counters(request.app.state.counts),
        *_format_gauges(load_all_metrics(service, caller, at=now)),
        *_format_key_expiry(measure_key_expiry(service.database, caller, at=now)),
    ]
    parts.append(request.app.state.process_metrics.format())
    return PlainTextResponse("".join(parts), media_type=MEDIA_TYPE)


def _format_counters(counts: RequestCounts) -> Iterator[str]:
    yield from _format_metric(
        "http_requests_total",
        "counter",
        "HTTP requests, by method, route and status.",
        (
            ({"method": method, "route": route, "status": str(status)}, count)
            for (method, route, status), count in counts.requests.items()
        ),
    )
    yield from _format_metric(
        "assignments_total",
        "counter",
        "Assignments, by who decides.",
        (
            ({"rollout": route, "decider": decider}, count)
            for (route, decider), count in counts.assignments.items()
        ),
    )
    yield from _format_metric(
        "records_total",
        "counter",
        "Records sent, by status.",
        (
            ({"rollout": route, "status": status_text}, count)
            for (route, status_text), count in counts.records.items()
        ),
    )


def _format_gauges(rollout_metrics: Iterable[RolloutMetrics]) -> Iterator[str]:
    rollouts = tuple(rollout_metrics)
    for name, help_text in GAUGE_TEXTS.items():
        values = ((metrics.name, getattr(metrics, name)) for metrics in rollouts)
        metric_lines = (
            ({"rollout": rollout}, value) for rollout, value in values if value is not None
        )
        yield from _format_metric(name, "gauge", help_text, metric_lines)


def _format_key_expiry(seconds: float | None) -> Iterator[str]:
    metric_lines: Iterable[MetricLine] = () if seconds is None else (({}, seconds),)
    yield from _format_metric("key_expiry_seconds", "gauge", KEY_EXPIRY_TEXT, metric_lines)


def _format_metric(
    name: str, kind: str, help_text: str, metric_lines: Iterable[MetricLine]
) -> Iterator[str]:
    yield f"# HELP rollout_{name} {help_text}\n# TYPE rollout_{name} {kind}\n"
    for labels, value in metric_lines:
        label_text = ",".join(f'{label}="{_escape_label(text)}"' for label, text in labels.items())
        yield f"rollout_{name}{f'{{{label_text}}}' if label_text else ''} {value}\n"


def _escape_label(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
