"""Reports: what was made and sealed, one to be read in every form, and having one made now.

What makes and draws them is imported when the first one is asked for: at rest a service does
without.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from api.deps import Act, By, Caller, Now, Served
from api.paging import After, Limit, cursor, number_of
from api.schemas.examples import answers
from rollout.store.reports.reports import LONGEST

router = APIRouter(prefix="/v1/rollouts/{rollout}/reports", tags=["reports"])

View = Literal["operator", "engineer", "auditor"]
Form = Literal["html", "json", "csv", "markdown"]
MOST_NUMBER = 2**31 - 1
MEDIA: Final = {
    "html": "text/html; charset=utf-8",
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "markdown": "text/markdown; charset=utf-8",
}
ENDING: Final = {"html": "html", "json": "json", "csv": "csv", "markdown": "md"}
LOADS_NOTHING = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox"
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
ASKED: dict[str, Any] = {
    "name": "week",
    "since": "2027-06-07T00:00:00Z",
    "until": "2027-06-14T00:00:00Z",
    "view": "operator",
}
WRITTEN: Final[dict[str, Any]] = {
    "html": "<!doctype html>…",
    "json": {"schema": "rollout-report/1", "edition": {"name": "week", "version": 2}},
    "csv": "case_key,version,lever,site,window,…",
    "markdown": "# bear-alarm: Of 4 cells at the end: 1 supervised and 3 in shadow",
}
TEXT: Final = {"type": "string"}
SCHEMAS: Final = {"html": TEXT, "json": {"type": "object"}, "csv": TEXT, "markdown": TEXT}
FORMS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "the report; its form by `format`, else by Accept, else HTML",
        "content": {
            MEDIA[form].partition(";")[0]: {"schema": SCHEMAS[form], "example": example}
            for form, example in WRITTEN.items()
        },
    }
}


class ReportMetadata(BaseModel):
    """A report, without what it says.

    `state` is `provisional` until `due` and the tick after it, then `final`. `hash` is the SHA-256
    of its JSON form, which the ledger cites.
    """

    model_config = ConfigDict(from_attributes=True, json_schema_extra={"example": REPORT})

    id: int
    name: str
    view: str
    since: AwareDatetime
    until: AwareDatetime
    version: int
    state: str
    due: AwareDatetime | None
    hash: str
    made_at: AwareDatetime


class ReportList(BaseModel):
    """Some reports, the newest first; `next` is null at the end."""

    model_config = ConfigDict(json_schema_extra={"example": {"items": [REPORT], "next": None}})

    items: list[ReportMetadata]
    next: str | None


class ReportRequest(BaseModel):
    """What is asked for: by default of everything, up to the last slot of the tick.

    The same name and span make a further version of the same report; nothing new makes none.
    """

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": ASKED})

    name: str = Field(default="on-demand", min_length=1, max_length=LONGEST)
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None
    view: View = "operator"


@router.get("", operation_id="listReports", summary="List reports")
def list_reports(
    rollout: str,
    service: Served,
    who: Annotated[Caller, By(Act.READ)],
    name: Annotated[str | None, Query(max_length=LONGEST, description="of this name alone")] = None,
    after: After = None,
    limit: Limit = 50,
) -> ReportList:
    """Return the reports that were made, the newest first."""
    from rollout.services.reports.archive import reports_of  # noqa: PLC0415 - see above

    reports = reports_of(
        service.database, who, rollout, name=name, before=number_of(after), limit=limit
    )
    next_cursor = cursor(str(reports[-1].id)) if len(reports) == limit else None
    return ReportList(
        items=[ReportMetadata.model_validate(report) for report in reports], next=next_cursor
    )


@router.post(
    "",
    operation_id="createReport",
    summary="Create a report",
    responses=answers(REPORT, 200, 201, model=ReportMetadata),
)
def create_report(
    rollout: str,
    asked: ReportRequest,
    response: Response,
    service: Served,
    who: Annotated[Caller, By(Act.READ)],
    now: Now,
) -> ReportMetadata:
    """Make a report now, seal it and keep it; where nothing has changed, return the last version.

    It is of the cases that occurred from `since` up to `until`. Cases that somebody may still
    judge without the model's answer in sight are in none.
    """
    from rollout.services.reports.archive import ask_report, brief  # noqa: PLC0415 - see above
    from rollout.services.reports.builder import Asked  # noqa: PLC0415

    wanted = Asked(since=asked.since, until=asked.until, view=asked.view)
    made = ask_report(service.database, who, rollout, asked.name, wanted, now)
    response.status_code = 201 if made.new else 200
    return ReportMetadata.model_validate(brief(made))


@dataclass(frozen=True, slots=True)
class Look:
    """How a report is to be shown."""

    form: str
    view: str | None


async def _look(
    request: Request,
    form: Annotated[
        Form | None, Query(alias="format", description="by default what Accept asks for")
    ] = None,
    view: Annotated[View | None, Query(description="of HTML: the part for one reader")] = None,
) -> Look:
    return Look(form or form_of(request.headers.get("accept", "")), view)


@router.get(
    "/{report}",
    operation_id="getReport",
    summary="Get a report",
    response_class=Response,
    responses=FORMS,
)
def get_report(
    rollout: str,
    report: int,
    service: Served,
    who: Annotated[Caller, By(Act.READ)],
    now: Now,
    look: Annotated[Look, Depends(_look)],
) -> Response:
    """Return a report as HTML, JSON, Markdown, or its divergences as CSV.

    The JSON is the text that was sealed: its SHA-256 is `hash`. To a reviewer the rows of cases
    that were put before them since are left out, and `Rollout-Withheld-Rows` counts these. Who has
    read it is put no known case from before its end.
    """
    from rollout.services.reports.archive import report_of, written  # noqa: PLC0415 - see above

    number = report if 0 < report <= MOST_NUMBER else 0
    shown = report_of(service.database, who, rollout, number, now)
    kept = shown.report
    headers = {
        "Content-Disposition": f'inline; filename="report-{report}.{ENDING[look.form]}"',
        "Content-Security-Policy": LOADS_NOTHING,
        "Rollout-Report-Hash": kept.hash,
        "Rollout-Report-Made-At": kept.made_at.isoformat(),
        "Rollout-Report-State": kept.state,
        "Rollout-Withheld-Rows": str(shown.kept_back),
    }
    page = written(shown, look.form, look.view)
    return Response(page, media_type=MEDIA[look.form], headers=headers)


def form_of(accept: str) -> str:
    """Return the form that an Accept header asks for first; HTML where it names none of ours.

    >>> form_of("text/markdown"), form_of("application/json, text/html;q=0.5"), form_of("*/*")
    ('markdown', 'json', 'html')
    """
    formats_by_media = {media.partition(";")[0]: form for form, media in MEDIA.items()}
    parts = [part.partition(";") for part in accept.lower().split(",")]
    weighted = [
        (_weight(rest), -index, name.strip()) for index, (name, _, rest) in enumerate(parts)
    ]
    names = [name for weight, _, name in sorted(weighted, reverse=True) if weight > 0]
    return next((formats_by_media[name] for name in names if name in formats_by_media), "html")


def _weight(parameters: str) -> float:
    for parameter in parameters.split(";"):
        name, _, value = parameter.strip().partition("=")
        if name == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0
