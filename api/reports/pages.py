"""Report pages: list, new report, sealed report, its details, and deliveries to channels."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query, Request, Response

from api.divergences.pages import parse_divergence_search
from api.reports.routes import MAX_NUMBER, ReportFormat, View
from api.reports.routes import Form as FileForm
from api.reports.routes import get_report as as_api
from api.schema_forms import decode_number, encode_cursor
from api.web_kit.page import (
    CLOSED_POLICY,
    RUN_STARTED,
    build_content_policy,
    encode_segment,
    redirect_to,
    render_page,
    say_refusal,
)
from api.web_kit.page_context import HOME, CurrentVisitor, Form, SignedForm, Visitor
from rollout.engine.decide.permissions import Permission, require_permission
from rollout.features.delivery.delivery import load_deliveries, requeue_delivery
from rollout.features.reports import archive
from rollout.features.reports.builder import (
    ON_DEMAND,
    NothingToReportError,
    ReportCallbacks,
    ReportOptions,
)
from rollout.features.reports.builder import VIEWS as KNOWN
from rollout.features.reports.report_work import ReportWork
from rollout.kernel.errors import NotAllowedError, RefusalError, UnknownRolloutError
from rollout.live.work.user_runs import UserRun, UserRuns

router = APIRouter()
PAGE_SIZE: Final = 25
VIEW_TEXTS: Final = {
    "operator": "Operator: what it may do now, what decides next",
    "engineer": "Engineer: every figure with its interval",
    "auditor": "Auditor: who decided what, by which evidence",
}
FILE_TEXTS: Final = {
    "json": "JSON, what was sealed",
    "csv": "CSV of all divergences",
}
PATIENCE: Final = 3.0
"""Seconds for which a request waits for its report; a longer one goes on without it."""
RELOAD_SECONDS: Final = 3
FIELDS: Final = ("rollout", "name", "since", "until", "view")
CursorQuery = Annotated[str | None, Query(max_length=500)]
ReportRun = UserRun[str, str]
"""A run that makes a report; its result is the path of its page."""


@router.get("/reports")
def show_reports(request: Request, visitor: CurrentVisitor, after: CursorQuery = None) -> Response:
    """Show the reports of all readable rollouts, newest first."""
    return _render_reports(request, visitor, after)


@router.post("/reports")
def submit_report_request(request: Request, form: SignedForm, visitor: CurrentVisitor) -> Response:
    """Build a report; show the form again with errors if that fails."""
    typed = {field: form.get_text(field) for field in FIELDS}
    rollout_name = typed["rollout"]
    try:
        options, errors = _parse_request(visitor, rollout_name, form)
        if errors:
            return _render_reports(request, visitor, None, typed, errors)
        run = _start_run(request, visitor, rollout_name, typed["name"] or ON_DEMAND, options)
        if not run.wait(PATIENCE):
            return redirect_to(
                f"/reports?{RUN_STARTED}=1"
            )  # it goes on, and the page tells how far it is
        _get_runs(request).forget(run)
        if run.failure is not None:
            raise run.failure
    except RefusalError as error:
        return _render_reports(
            request, visitor, None, typed, {_get_error_field(error): _describe_error(error)}
        )
    return redirect_to(run.result or "/reports")


def _start_run(
    request: Request, visitor: Visitor, rollout: str, name: str, options: ReportOptions
) -> ReportRun:
    """Start making a report."""
    database, caller, at = visitor.service.database, visitor.caller, visitor.at
    draft_report = _get_work(request).draft_report

    def make_report(run: ReportRun) -> str:
        callbacks = ReportCallbacks(on_step=run.record_step, draft_report=draft_report)
        made = archive.request_report(
            database, caller, rollout, name, options, at, callbacks=callbacks
        )
        return f"/rollouts/{encode_segment(rollout)}/reports/{made.number}/about"

    return _get_runs(request).start(visitor.caller, f"{name} of {rollout}", make_report, at=at)


def _get_work(request: Request) -> ReportWork:
    work: ReportWork = request.app.state.report_work
    return work


def _get_runs(request: Request) -> UserRuns[str, str]:
    runs: UserRuns[str, str] = request.app.state.report_runs
    return runs


@router.get("/rollouts/{rollout}/reports")
def redirect_to_reports(rollout: str, visitor: CurrentVisitor) -> Response:
    """Redirect to the list of all rollouts' reports."""
    require_permission(visitor.caller, Permission.READ, rollout)
    return redirect_to("/reports")


@router.get("/rollouts/{rollout}/reports/{report}")
def show_report(
    request: Request,
    rollout: str,
    report: int,
    visitor: CurrentVisitor,
    view: View | None = None,
) -> Response:
    """Show a report exactly as sealed, under its own content policy."""
    response = _get_api_response(request, visitor, rollout, report, ReportFormat("html", view))
    response.headers["Content-Security-Policy"] = build_content_policy(
        bytes(response.body).decode()
    )
    return response


@router.get("/rollouts/{rollout}/reports/{report}/file")
def send_report_file(
    request: Request,
    rollout: str,
    report: int,
    visitor: CurrentVisitor,
    form: FileForm = "json",
) -> Response:
    """Send a report as a file, with the same bytes as the API."""
    response = _get_api_response(request, visitor, rollout, report, ReportFormat(form, None))
    response.headers["Content-Security-Policy"] = CLOSED_POLICY
    disposition = response.headers["Content-Disposition"]
    response.headers["Content-Disposition"] = disposition.replace("inline", "attachment", 1)
    return response


@router.get("/rollouts/{rollout}/reports/{report}/about")
def show_report_details(
    request: Request, rollout: str, report: int, visitor: CurrentVisitor
) -> Response:
    """Show details of a report, its formats and deliveries, without its content."""
    database, number = visitor.service.database, report if 0 < report <= MAX_NUMBER else 0
    listed_report = archive.load_listed_report(database, visitor.caller, rollout, number)
    return render_page(
        request,
        visitor,
        "report",
        rollout=rollout,
        listed=listed_report,
        report=listed_report.summary,
        here=f"/rollouts/{encode_segment(rollout)}/reports/{number}",
        views=VIEW_TEXTS,
        files=FILE_TEXTS,
        sent=archive.load_report_deliveries(database, visitor.caller, rollout, number),
    )


def _get_api_response(
    request: Request, visitor: Visitor, rollout: str, report: int, report_format: ReportFormat
) -> Response:
    """Return the API's response to the same caller."""
    require_permission(visitor.caller, Permission.READ, rollout)
    response = as_api(
        *(rollout, report, visitor.service, visitor.caller, visitor.at),
        *(report_format, _get_work(request)),
    )
    response.headers["Cache-Control"] = "no-store"
    return response


def _parse_request(
    visitor: Visitor, rollout: str, form: Form
) -> tuple[ReportOptions, Mapping[str, str]]:
    """Parse the form; days are in the policy's timezone and end by now."""
    require_permission(visitor.caller, Permission.READ, rollout)
    timezone = visitor.service.state_cache.reload_rollout(rollout).state.policy.timezone
    search = parse_divergence_search(
        {"since": form.get_text("since"), "until": form.get_text("until")}, timezone
    )
    until = search.criteria.until
    ends_at = None if until is None else min(until, visitor.at)
    view = form.get_text("view") or KNOWN[0]
    return ReportOptions(since=search.criteria.since, until=ends_at, view=view), search.errors


def _get_error_field(error: RefusalError) -> str:
    """Return the field that a refusal is about; "" for limits, of which no field is wrong."""
    if isinstance(error, NothingToReportError):
        return error.field or "since"
    return "rollout" if isinstance(error, NotAllowedError | UnknownRolloutError) else ""


def _describe_error(error: RefusalError) -> str:
    """Describe what a refusal means and what to do."""
    if isinstance(error, NotAllowedError):
        return (
            "A report is of all sites of a rollout, and you read some of them; an admin can give "
            "you the right to read all"
        )
    return say_refusal(error)


def _render_reports(
    request: Request,
    visitor: Visitor,
    after: str | None,
    typed: Mapping[str, str] | None = None,
    errors: Mapping[str, str] | None = None,
) -> Response:
    report_page = archive.load_report_page(
        visitor.service.database, visitor.caller, before=decode_number(after), limit=PAGE_SIZE
    )
    run = _get_runs(request).find(visitor.caller, at=visitor.at)
    context: dict[str, Any] = {
        "run": run,
        "shelf": report_page,
        "further": ""
        if report_page.next_before is None
        else f"/reports?after={encode_cursor(str(report_page.next_before))}",
        "start": "/reports" if after else "",
        "views": VIEW_TEXTS,
        "on_demand": ON_DEMAND,
        "typed": typed or {},
        "errors": errors or {},
    }
    response = render_page(request, visitor, "reports", 422 if errors else 200, **context)
    if run is not None and run.is_running and not errors:  # a reload would lose what was typed
        response.headers["Refresh"] = str(RELOAD_SECONDS)
    return response


STATE_TAGS: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {"waiting": ("note", "Waiting"), "sent": ("good", "Sent"), "failed": ("bad", "Given up")}
)
DeliveryNumber = Annotated[int, Path(ge=1, lt=2**53)]
BeforeQuery = Annotated[int | None, Query(ge=1, lt=2**53)]
StateQuery = Annotated[str, Query(max_length=20)]


@router.get("/rollouts/{rollout}/settings/deliveries")
def show_deliveries(
    request: Request,
    visitor: CurrentVisitor,
    rollout: str,
    state: StateQuery = "",
    before: BeforeQuery = None,
) -> Response:
    """Show deliveries, newest first."""
    state_filter = state if state in STATE_TAGS else None
    delivery_page = load_deliveries(
        visitor.service.database,
        visitor.caller,
        rollout,
        state=state_filter,
        before=before,
        limit=PAGE_SIZE,
    )
    page_path = f"{HOME}/rollouts/{encode_segment(rollout)}/settings/deliveries"
    state_query = f"state={state_filter}&" if state_filter else ""
    return render_page(
        request,
        visitor,
        "deliveries",
        rollout=rollout,
        items=delivery_page.items,
        states=STATE_TAGS,
        state=state_filter or "",
        further=""
        if delivery_page.before is None
        else f"{page_path}?{state_query}before={delivery_page.before}",
        may_retry=visitor.caller.has_permission_somewhere(Permission.OPERATE, rollout),
    )


@router.post("/rollouts/{rollout}/settings/deliveries/{delivery}")
def submit_retry(
    visitor: CurrentVisitor, rollout: str, delivery: DeliveryNumber, _form: SignedForm
) -> Response:
    """Retry a failed delivery."""
    requeue_delivery(visitor.service.database, visitor.caller, rollout, delivery, at=visitor.at)
    return redirect_to(f"/rollouts/{encode_segment(rollout)}/settings/deliveries")
