"""Metrics in the text format of Prometheus. The API key must be able to read all rollouts.

Format: prometheus.io/docs/instrumenting/exposition_formats (version 0.0.4).
"""

from collections.abc import Iterable, Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse

from api.deps import Act, By, Caller, Now, Served
from api.problems import EVERYWHERE
from api.request_metrics import Counts
from rollout.services.engine.metrics import Gauges, gauges_of

router = APIRouter(prefix="/metrics", tags=["health"])
MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
EXAMPLE = (
    "# HELP rollout_pending_entries Queue entries that are not counted yet.\n"
    "# TYPE rollout_pending_entries gauge\n"
    'rollout_pending_entries{rollout="bear-alarm"} 12\n'
)
ANSWER: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "one sample a line",
        "content": {"text/plain": {"schema": {"type": "string"}, "example": EXAMPLE}},
    }
}
GAUGES = {
    "ledger_revision": "Revision of the ledger.",
    "open_proposals": "Open proposals.",
    "open_incidents": "Incidents that are not acknowledged.",
    "active_stops": "Stops in force.",
    "pending_entries": "Queue entries that are not counted yet.",
    "failed_deliveries": "Deliveries of reports that failed for good.",
    "slot_age_seconds": "Seconds since the start of the newest slot with a finished tick.",
}
Line = tuple[dict[str, str], float]


@router.get(
    "",
    operation_id="getMetrics",
    summary="Get metrics in Prometheus text format",
    response_class=PlainTextResponse,
    responses=EVERYWHERE | ANSWER,
)
def get_metrics(
    request: Request, service: Served, now: Now, who: Annotated[Caller, By(Act.READ)]
) -> PlainTextResponse:
    """Return what this process counted since it began, and how every rollout stands."""
    found = gauges_of(service, who, at=now)
    parts = [*_counted(request.app.state.counts), *_standing(found)]
    return PlainTextResponse("".join(parts), media_type=MEDIA_TYPE)


def _counted(counts: Counts) -> Iterator[str]:
    yield from _metric(
        "http_requests_total",
        "counter",
        "HTTP requests, by method, route and status.",
        (
            ({"method": method, "route": route, "status": str(status)}, count)
            for (method, route, status), count in counts.requests.items()
        ),
    )
    yield from _metric(
        "assignments_total",
        "counter",
        "Assignments, by who decides.",
        (
            ({"rollout": route, "decider": decider}, count)
            for (route, decider), count in counts.assignments.items()
        ),
    )
    yield from _metric(
        "records_total",
        "counter",
        "Records sent, by status.",
        (
            ({"rollout": route, "status": status_text}, count)
            for (route, status_text), count in counts.records.items()
        ),
    )


def _standing(found: Iterable[Gauges]) -> Iterator[str]:
    rollouts = tuple(found)
    for name, help_text in GAUGES.items():
        values = ((metrics.name, getattr(metrics, name)) for metrics in rollouts)
        metric_lines = (
            ({"rollout": rollout}, value) for rollout, value in values if value is not None
        )
        yield from _metric(name, "gauge", help_text, metric_lines)


def _metric(name: str, kind: str, says: str, lines: Iterable[Line]) -> Iterator[str]:
    yield f"# HELP rollout_{name} {says}\n# TYPE rollout_{name} {kind}\n"
    for labels, value in lines:
        label_text = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
        yield f"rollout_{name}{{{label_text}}} {value}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
