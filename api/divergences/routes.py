"""Divergences: the closed cases on which a version and humans differ."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import AwareDatetime, Field

from api.auth import CurrentTime, ServiceDependency
from api.incidents.routes import parse_attributes
from api.records.routes import CaseSelection, Instant, Name, Reader
from api.schema_forms import LATER, MAX_ITEMS, NOON, Page, decode_cursor, encode_cursor
from rollout.features.reports.inputs.divergence_columns import COLUMNS, EXAMPLE, Divergence

if TYPE_CHECKING:
    from rollout.features.divergences.divergence_list import DivergenceQuery


router = APIRouter(prefix="/v1/rollouts/{rollout}/divergences", tags=["records"])
FILE_HEADERS = {
    "Content-Disposition": 'attachment; filename="divergences.csv"',
    "Cache-Control": "no-store",
}
LIST_EXAMPLE: dict[str, Any] = {
    "items": [EXAMPLE],
    "next": None,
    "version": "v7",
    "lever": "alarm",
    "since": NOON,
    "until": LATER,
    "truncated": False,
    "compared": 412,
    "count": 1,
    "cost": 1.0,
}


class DivergenceList(Page[Divergence], json_schema_extra={"example": LIST_EXAMPLE}):
    """A page of divergences, costliest first, and figures of the whole list."""

    version: str = Field(description="empty if the rollout has no version yet")
    lever: str
    since: AwareDatetime
    until: AwareDatetime
    truncated: bool = Field(description="whether `since` is later than requested: too many cases")
    compared: int = Field(description="compared cases of the sites, windows and attributes")
    count: int = Field(description="divergences of all pages")
    cost: float = Field(description="their cost together, if the humans are right")


RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "the page, or with `format=csv` the whole list as `divergences.csv`",
        "content": {
            "application/json": {"example": LIST_EXAMPLE},
            "text/csv": {
                "schema": {"type": "string"},
                "example": ",".join([*COLUMNS, "attribute:weather"]) + "\n…",
            },
        },
    }
}


class DivergenceSelection(CaseSelection):
    """Which divergences to list, in which form; by default those of the last 30 days."""

    version: Name = Field(
        None, description="default: the one that acts in most cells, or newest with counted units"
    )
    lever: Name = Field(None, description="default: the first of the policy")
    human: Name = Field(None, description="the human answer")
    model: Name = Field(None, description="the version's answer")
    min_cost: float | None = Field(None, ge=0)
    attribute: list[str] = Field(
        [], max_length=20, description="attributes of the cases", examples=[["weather=dry"]]
    )
    until: Instant = Field(None, description="exclusive")
    has_choice: bool | None = Field(
        None, description="only cases with (or without) a training choice"
    )
    form: Literal["json", "csv"] = Field("json", alias="format")
    after: str | None = Field(
        None, max_length=500, description="cursor: `next` of the previous page"
    )
    limit: int = Field(100, ge=1, le=MAX_ITEMS, description="maximum number of items")

    def to_query(self) -> "DivergenceQuery":
        """Return the filter that the service applies."""
        from rollout.features.divergences.divergence_list import DivergenceQuery

        values = self.model_dump(exclude={"attribute", "form", "after", "limit"})
        return DivergenceQuery(**values, attributes=parse_attributes(self.attribute))


@router.get(
    "",
    operation_id="listDivergences",
    summary="List divergences, costliest first",
    response_model=DivergenceList,
    responses=RESPONSES,
)
def list_divergences(
    rollout: str,
    service: ServiceDependency,
    caller: Reader,
    now: CurrentTime,
    selection: Annotated[DivergenceSelection, Query()],
) -> DivergenceList | Response:
    """Return the cases at sites you can read on which a version and humans differ.

    The list is that of the console and of a report's `divergences.csv`. It has cases that were
    counted and on which no blind decision can count any more, at most the newest 5,000. If several
    cost the same, the version's more confident answer comes first. Listed cases count as shown to
    you.
    """
    from rollout.features.divergences.divergence_list import (
        export_divergences_csv,
        load_divergence_page,
    )

    query, database = selection.to_query(), service.database
    if selection.form == "csv":
        table = export_divergences_csv(database, caller, rollout, query, now)
        return Response(table, media_type="text/csv; charset=utf-8", headers=FILE_HEADERS)
    after = decode_cursor(selection.after)
    page = load_divergence_page(
        database, caller, rollout, query, now, after=after, limit=selection.limit
    )
    return DivergenceList(
        items=[row.divergence for row in page.rows],
        next=None if page.next_id is None else encode_cursor(page.next_id),
        version=page.version,
        lever=page.lever,
        since=page.since,
        until=page.until,
        truncated=page.is_truncated,
        compared=page.compared,
        count=page.count,
        cost=page.cost,
    )
