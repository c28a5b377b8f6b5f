"""Reports: those that were made, one made now, one read as it was sealed, where it was sent.

What makes and draws them is imported when the first one is asked for: at rest a service does
without.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response

from api.console.divergences.divergence_filter import sought
from api.console.page.form import Form, Signed
from api.console.page.page import page, to
from api.console.page.page_context import Visiting, Visitor
from api.console.page.sealed_report import CLOSED, policy_of
from api.console.page.text import first_large, segment
from api.paging import cursor, number_of
from api.routers.reports import MOST_NUMBER, Look, View
from api.routers.reports import Form as FileForm
from api.routers.reports import get_report as as_api
from rollout.core.errors import NotAllowed, Refusal, UnknownRollout
from rollout.core.scope.permissions import Act, require

if TYPE_CHECKING:
    from rollout.services.reports.builder import Asked

router = APIRouter()
PAGE: Final = 25
VIEWS: Final = {
    "operator": "Operator: what it may do now, what decides next",
    "engineer": "Engineer: every figure with its interval",
    "auditor": "Auditor: who decided what, by which evidence",
}
FILES: Final = {
    "json": "JSON, the text that was sealed",
    "csv": "CSV of all divergences",
    "markdown": "Markdown summary",
}
ON_DEMAND: Final = "on-demand"
FIELDS: Final = ("rollout", "name", "since", "until", "view")
After = Annotated[str | None, Query(max_length=500)]


@router.get("/reports")
def browse(request: Request, visitor: Visiting, after: After = None) -> Response:
    """Show the reports of every rollout that the visitor may read, newest first."""
    return _shelf(request, visitor, after)


@router.post("/reports")
def make(request: Request, form: Signed, visitor: Visiting) -> Response:
    """Have a report made now; one that can't be comes back with why, and all that was typed."""
    from rollout.services.reports.archive import ask_report  # noqa: PLC0415 - see above

    typed = {rollout_name: form.one(rollout_name) for rollout_name in FIELDS}
    rollout_name = typed["rollout"]
    try:
        report_request, errors = _asked(visitor, rollout_name, form)
        if errors:
            return _shelf(request, visitor, None, typed, errors)
        report = ask_report(
            visitor.service.database,
            visitor.caller,
            rollout_name,
            typed["name"] or ON_DEMAND,
            report_request,
            visitor.at,
        )
    except Refusal as error:
        return _shelf(request, visitor, None, typed, {_field(error): _mend(error)})
    return to(f"/rollouts/{segment(rollout_name)}/reports/{report.number}/about")


@router.get("/rollouts/{rollout}/reports")
def of_rollout(rollout: str, visitor: Visiting) -> Response:
    """Lead to the list: it is of all rollouts."""
    require(visitor.caller, Act.READ, rollout)
    return to("/reports")


@router.get("/rollouts/{rollout}/reports/{report}")
def read(rollout: str, report: int, visitor: Visiting, view: View | None = None) -> Response:
    """Show a report exactly as it was sealed, under a policy of its own."""
    response = _as_api(visitor, rollout, report, Look("html", view))
    response.headers["Content-Security-Policy"] = policy_of(bytes(response.body).decode())
    return response


@router.get("/rollouts/{rollout}/reports/{report}/file")
def file(rollout: str, report: int, visitor: Visiting, form: FileForm = "json") -> Response:
    """Send a report as a file, with the bytes that the API gives."""
    response = _as_api(visitor, rollout, report, Look(form, None))
    response.headers["Content-Security-Policy"] = CLOSED
    disposition = response.headers["Content-Disposition"]
    response.headers["Content-Disposition"] = disposition.replace("inline", "attachment", 1)
    return response


@router.get("/rollouts/{rollout}/reports/{report}/about")
def about(request: Request, rollout: str, report: int, visitor: Visiting) -> Response:
    """Show what a report is, how to read it and where it went; nothing of what it says."""
    from rollout.services.reports.archive import kept_report, sent_of  # noqa: PLC0415 - see above

    database, number = visitor.service.database, _number(report)
    listed_report = kept_report(database, visitor.caller, rollout, number)
    return page(
        request,
        visitor,
        "report",
        rollout=rollout,
        kept=listed_report,
        report=listed_report.report,
        here=f"/rollouts/{segment(rollout)}/reports/{number}",
        views=VIEWS,
        files=FILES,
        sent=sent_of(database, visitor.caller, rollout, number),
    )


def _as_api(visitor: Visitor, rollout: str, report: int, look: Look) -> Response:
    """Return what the API answers to the same person."""
    require(visitor.caller, Act.READ, rollout)
    response = as_api(rollout, report, visitor.service, visitor.caller, visitor.at, look)
    response.headers["Cache-Control"] = "no-store"
    return response


def _number(report: int) -> int:
    return report if 0 < report <= MOST_NUMBER else 0


def _asked(visitor: Visitor, rollout: str, form: Form) -> tuple["Asked", Mapping[str, str]]:
    """Return what a form asks for: days are those of the policy's zone, and end by now."""
    from rollout.services.reports.builder import VIEWS as KNOWN  # noqa: PLC0415 - see above
    from rollout.services.reports.builder import Asked  # noqa: PLC0415

    require(visitor.caller, Act.READ, rollout)
    timezone = visitor.service.watch.confirmed(rollout).standing.policy.timezone
    search = sought({"since": form.one("since"), "until": form.one("until")}, timezone)
    until = search.asked.until
    ends_at = None if until is None else min(until, visitor.at)
    view = form.one("view") or KNOWN[0]
    return Asked(since=search.asked.since, until=ends_at, view=view), search.errors


def _field(refusal: Refusal) -> str:
    if isinstance(refusal, NotAllowed | UnknownRollout):
        return "rollout"
    return "name" if str(refusal).startswith("name it") else "since"


def _mend(refusal: Refusal) -> str:
    """Say what a refusal means here, and what to do."""
    if isinstance(refusal, NotAllowed):
        return (
            "A report is of all sites of a rollout, and you read some of them; an admin can give "
            "you the right to read all"
        )
    return first_large(str(refusal))


def _shelf(
    request: Request,
    visitor: Visitor,
    after: str | None,
    typed: Mapping[str, str] | None = None,
    errors: Mapping[str, str] | None = None,
) -> Response:
    from rollout.services.reports.archive import shelf  # noqa: PLC0415 - see above

    report_page = shelf(
        visitor.service.database, visitor.caller, before=number_of(after), limit=PAGE
    )
    context: dict[str, Any] = {
        "shelf": report_page,
        "further": ""
        if report_page.before is None
        else f"/reports?after={cursor(str(report_page.before))}",
        "start": "/reports" if after else "",
        "views": VIEWS,
        "on_demand": ON_DEMAND,
        "typed": typed or {},
        "errors": errors or {},
    }
    return page(request, visitor, "reports", 422 if errors else 200, **context)
