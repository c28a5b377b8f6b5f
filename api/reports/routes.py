"""Reports (list, create and get them) and their deliveries (list, send and retry them).

What builds and draws reports is imported by processes that end.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import AwareDatetime, BaseModel, Field

from api.auth import CurrentTime, Operator, Reader, ServiceDependency
from api.schema_forms import (
    LATER,
    NOON,
    After,
    AttributeForm,
    ItemList,
    Limit,
    Page,
    add_fields_of,
    build_responses,
    decode_number,
    encode_number,
)
from rollout.data.reports.reports import MAX_NAME_LENGTH, ReportSummary
from rollout.features.delivery.delivery import (
    DeliveryStatus,
    load_deliveries,
    queue_report,
    requeue_delivery,
)
from rollout.features.reports.archive import (
    format_report,
    load_report,
    load_reports,
    request_report,
    summarize_report,
)
from rollout.features.reports.builder import ON_DEMAND, ReportCallbacks, ReportOptions
from rollout.features.reports.report_work import ReportWork

router = APIRouter(prefix="/v1/rollouts/{rollout}/reports", tags=["reports"])

View = Literal["operator", "engineer", "auditor"]
Form = Literal["html", "json", "csv"]
MAX_NUMBER = 2**31 - 1
MEDIA_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
}
FILE_ENDINGS: Final = {"html": "html", "json": "json", "csv": "csv"}
CLOSED_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox"
REPORT: dict[str, Any] = {
    "id": 12,
    "name": "week",
    "view": "operator",
    "since": "2027-06-07T00:00:00Z",
    "until": "2027-06-14T00:00:00Z",
    "version": 2,
    "state": "final",
    "due": "2027-06-15T00:00:00Z",
    "hash": "9f2c…",
    "made_at": "2027-06-15T07:00:00Z",
}
REPORT_REQUEST: dict[str, Any] = {
    "name": "week",
    "since": "2027-06-07T00:00:00Z",
    "until": "2027-06-14T00:00:00Z",
    "view": "operator",
}
FORMAT_EXAMPLES: Final[dict[str, Any]] = {
    "html": "<!doctype html>…",
    "json": {"schema": "rollout-report/1", "report_version": {"name": "week", "version": 2}},
    "csv": "case_key,version,lever,site,window,…",
}
TEXT: Final = {"type": "string"}
SCHEMAS: Final = {"html": TEXT, "json": {"type": "object"}, "csv": TEXT}
FORMAT_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "the report, in the form of `format` or `Accept`; default: HTML",
        "content": {
            MEDIA_TYPES[form].partition(";")[0]: {"schema": SCHEMAS[form], "example": example}
            for form, example in FORMAT_EXAMPLES.items()
        },
    }
}


async def _get_report_work(request: Request) -> ReportWork:
    work: ReportWork = request.app.state.report_work
    return work


WorkDependency = Annotated[ReportWork, Depends(_get_report_work)]


@add_fields_of(ReportSummary)
class ReportMetadata(AttributeForm, json_schema_extra={"example": REPORT}):
    """A report without its content.

    `state` is `provisional` until the first tick after `due`, then `final`. `hash` is the SHA-256
    of the JSON form; the ledger contains it.
    """

    id: int


class ReportList(
    Page[ReportMetadata], json_schema_extra={"example": {"items": [REPORT], "next": None}}
):
    """A page of reports, newest first. `next` is null on the last page."""


class ReportRequest(BaseModel, extra="forbid", json_schema_extra={"example": REPORT_REQUEST}):
    """The report to create; by default it covers everything up to the last tick.

    The same name and time span create a new version of the same report, if there is something new.
    """

    name: str = Field(default=ON_DEMAND, min_length=1, max_length=MAX_NAME_LENGTH)
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None
    view: View = "operator"


@router.get("", operation_id="listReports", summary="List reports")
def list_reports(
    rollout: str,
    service: ServiceDependency,
    caller: Reader,
    name: Annotated[
        str | None, Query(max_length=MAX_NAME_LENGTH, description="only reports with this name")
    ] = None,
    after: After = None,
    limit: Limit = 50,
) -> ReportList:
    """Return the reports without their content, newest first."""
    reports = load_reports(
        service.database,
        caller,
        rollout,
        report_name=name,
        before=decode_number(after),
        limit=limit,
    )
    next_cursor = encode_number(reports[-1].id) if len(reports) == limit else None
    return ReportList(
        items=[ReportMetadata.model_validate(report) for report in reports], next=next_cursor
    )


@router.post(
    "",
    operation_id="createReport",
    summary="Create a report",
    responses=build_responses(REPORT, 200, 201, model=ReportMetadata),
)
def create_report(
    rollout: str,
    body: ReportRequest,
    response: Response,
    service: ServiceDependency,
    caller: Reader,
    now: CurrentTime,
    work: WorkDependency,
) -> ReportMetadata:
    """Create a report of the cases from `since` to `until` (exclusive).

    Returns 201 with a new version, or 200 with the latest version if nothing has changed. Cases
    that a reviewer may still decide blind are excluded. An account can have one report made at a
    time and six an hour, unchanged ones too.
    """
    options = ReportOptions(since=body.since, until=body.until, view=body.view)
    callbacks = ReportCallbacks(draft_report=work.draft_report)
    report = request_report(
        service.database, caller, rollout, body.name, options, now, callbacks=callbacks
    )
    response.status_code = 201 if report.is_new else 200
    return ReportMetadata.model_validate(summarize_report(report))


@dataclass(frozen=True, slots=True)
class ReportFormat:
    """The requested format and view of a report."""

    form: str
    view: str | None


async def _get_report_format(
    request: Request,
    form: Annotated[
        Form | None, Query(alias="format", description="default: as in `Accept`")
    ] = None,
    view: Annotated[View | None, Query(description="for HTML: the part for one role")] = None,
) -> ReportFormat:
    return ReportFormat(form or choose_format(request.headers.get("accept", "")), view)


@router.get(
    "/{report}",
    operation_id="getReport",
    summary="Get a report",
    response_class=Response,
    responses=FORMAT_RESPONSES,
)
def get_report(
    rollout: str,
    report: int,
    service: ServiceDependency,
    caller: Reader,
    now: CurrentTime,
    report_format: Annotated[ReportFormat, Depends(_get_report_format)],
    work: WorkDependency,
) -> Response:
    """Return a report as HTML or JSON, or its divergences as CSV.

    The SHA-256 of the JSON form is `hash`. If you are a reviewer, rows of cases that you were
    assigned later are removed; `Rollout-Withheld-Rows` has their number. After you read a report,
    you get no gold cases from before the end of its time span.
    """
    number = report if 0 < report <= MAX_NUMBER else 0
    report_view = load_report(service.database, caller, rollout, number, now)
    stored_report = report_view.report
    headers = {
        "Content-Disposition": (
            f'inline; filename="report-{report}.{FILE_ENDINGS[report_format.form]}"'
        ),
        "Content-Security-Policy": CLOSED_POLICY,
        "Rollout-Report-Hash": stored_report.hash,
        "Rollout-Report-Made-At": stored_report.made_at.isoformat(),
        "Rollout-Report-State": stored_report.state,
        "Rollout-Withheld-Rows": str(report_view.withheld_cases),
    }
    page = format_report(report_view, report_format.form, report_format.view, work.format_page)
    return Response(page, media_type=MEDIA_TYPES[report_format.form], headers=headers)


def choose_format(accept: str) -> str:
    """Return the format that an Accept header prefers; by default HTML.

    >>> (
    ...     choose_format("text/csv"),
    ...     choose_format("application/json, text/html;q=0.5"),
    ...     choose_format("*/*"),
    ... )
    ('csv', 'json', 'html')
    """
    formats_by_media = {media.partition(";")[0]: form for form, media in MEDIA_TYPES.items()}
    parts = [part.partition(";") for part in accept.lower().split(",")]
    weighted = [
        (_parse_weight(rest), -index, name.strip()) for index, (name, _, rest) in enumerate(parts)
    ]
    names = [name for weight, _, name in sorted(weighted, reverse=True) if weight > 0]
    return next((formats_by_media[name] for name in names if name in formats_by_media), "html")


def _parse_weight(parameters: str) -> float:
    for parameter in parameters.split(";"):
        name, _, value = parameter.strip().partition("=")
        if name == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0


deliveries_router = APIRouter(prefix="/v1/rollouts/{rollout}/deliveries", tags=["reports"])
DELIVERY: dict[str, Any] = {
    "id": 7,
    "report": 12,
    "channel": "rangers",
    "reason": "schedule",
    "subject": "morning report",
    "state": "failed",
    "attempts": 10,
    "queued_at": NOON,
    "next_at": None,
    "sent_at": None,
    "error": "Failed to send JSON POST notification: Internal server error., error=500.",
}
QUEUED_DELIVERY = DELIVERY | {"state": "waiting", "attempts": 0, "next_at": LATER}
State = Annotated[
    Literal["waiting", "sent", "failed", "all"], Query(description="state of the deliveries")
]
Number = Annotated[int, Path(ge=1, lt=2**53, description="`id` of the delivery")]


class DeliveryList(
    Page[DeliveryStatus], json_schema_extra={"example": {"items": [DELIVERY], "next": None}}
):
    """A page of deliveries, newest first. `next` is null on the last page."""


@deliveries_router.get("", operation_id="listDeliveries", summary="List report deliveries")
def list_deliveries(
    rollout: str,
    service: ServiceDependency,
    caller: Reader,
    state: State = "all",
    after: After = None,
    limit: Limit = 50,
) -> DeliveryList:
    """Return report deliveries with their state, newest first.

    A failed delivery has the reason of the last attempt in `error`.
    """
    deliveries = load_deliveries(
        service.database,
        caller,
        rollout,
        state=None if state == "all" else state,
        before=decode_number(after),
        limit=limit,
    )
    return DeliveryList(items=list(deliveries.items), next=encode_number(deliveries.before))


class DeliveryRequest(
    BaseModel,
    extra="forbid",
    json_schema_extra={"example": {"report": 12, "channels": ["rangers"]}},
):
    """The report to send and the channels to send it to."""

    report: Annotated[int, Field(ge=1, lt=2**53, description="`id` of the report")]
    channels: Annotated[list[str], Field(min_length=1, max_length=100)]


class QueuedDeliveryList(
    ItemList[DeliveryStatus], json_schema_extra={"example": {"items": [QUEUED_DELIVERY]}}
):
    """The deliveries that were queued, or sent earlier."""


@deliveries_router.post("", operation_id="createDeliveries", summary="Send a report to channels")
def create_deliveries(
    rollout: str,
    body: DeliveryRequest,
    service: ServiceDependency,
    now: CurrentTime,
    caller: Operator,
) -> QueuedDeliveryList:
    """Queue a report for delivery to channels.

    The policy must name the channels. It is safe to retry: a report is sent to a channel once.
    Fails with 404 if the report or a channel does not exist.
    """
    deliveries = queue_report(service.database, caller, rollout, body.report, body.channels, at=now)
    return QueuedDeliveryList(items=list(deliveries))


@deliveries_router.post(
    "/{delivery}/retry",
    operation_id="retryDelivery",
    summary="Retry a failed delivery",
    responses=build_responses(QUEUED_DELIVERY),
)
def retry_delivery(
    rollout: str,
    delivery: Number,
    service: ServiceDependency,
    now: CurrentTime,
    caller: Operator,
) -> DeliveryStatus:
    """Queue a failed delivery again, with a new series of attempts.

    Fails with 409 if the report was already sent.
    """
    return requeue_delivery(service.database, caller, rollout, delivery, at=now)
