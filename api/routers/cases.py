"""Cases: list them, filter divergences, explain one case."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path
from pydantic import AwareDatetime, BaseModel, Field

from api.auth import Caller, CurrentTime, Permission, RequirePermission, ServiceDependency
from api.paging import After, Limit, Page, decode_number, encode_number
from api.schemas.examples import build_responses
from api.schemas.records import CASE_EXAMPLE, CaseExplanation, CaseList, CaseSummary
from rollout.data.records.case_pages import CaseFilter
from rollout.features.divergences.cases import find_cases, load_case_details

router = APIRouter(prefix="/v1/rollouts/{rollout}/cases", tags=["records"])
Reader = Annotated[Caller, RequirePermission(Permission.READ_CASES)]
CASES_RESPONSES = build_responses({"items": [CASE_EXAMPLE], "next": None})
NO_NUL = "^[^\\x00]*$"
Key = Annotated[str, Path(min_length=1, max_length=200, pattern=NO_NUL, examples=["creek-0412"])]
Name = Annotated[str | None, Field(min_length=1, max_length=200, pattern=NO_NUL)]
Instant = Annotated[AwareDatetime | None, Field(examples=["2027-06-01T00:00:00Z"])]


class CaseSelection(BaseModel):
    """Cases of a cell and a time."""

    site: Name = None
    window: Name = None
    version: Name = None
    since: Instant = None
    until: Instant = None


class CaseQuery(CaseSelection):
    """Filter of cases. `since` and `until` (exclusive) refer to the time of the case."""

    differs: bool = Field(
        default=False, description="only cases where a prediction and a human decision differ"
    )

    @property
    def filter(self) -> CaseFilter:
        """Return the filter that the store applies."""
        sites = None if self.site is None else {self.site}
        return CaseFilter(sites=sites, **self.model_dump(exclude={"site"}))


@router.get(
    "",
    operation_id="listCases",
    summary="List cases, newest first",
    response_model=CaseList,
    responses=CASES_RESPONSES,
)
def list_cases(
    rollout: str,
    service: ServiceDependency,
    caller: Reader,
    now: CurrentTime,
    case_query: Annotated[CaseQuery, Depends()],
    after: After = None,
    limit: Limit = 100,
) -> Page[CaseSummary]:
    """Return the cases at sites you can read, newest first.

    For a case that you may still be asked to review, or whose decision or outcome you can still
    send, the versions' answers are hidden. If a filter would disclose an answer, the case is
    excluded. A page can hold fewer than `limit` items before
    the last page: continue until `next` is null.
    """
    position = decode_number(after)
    page = find_cases(
        service.database, caller, rollout, case_query.filter, now, before=position, limit=limit
    )
    items = [CaseSummary.model_validate(case_item) for case_item in page.items]
    return Page(items=items, next=encode_number(page.next))


@router.get("/{key:path}", operation_id="explainCase", summary="Explain a case")
def explain_case(
    rollout: str, key: Key, service: ServiceDependency, caller: Reader, now: CurrentTime
) -> CaseExplanation:
    """Return everything that is known about a case.

    This includes predictions, human decisions, actions with their authorization, outcomes, and the
    evidence in which the case was counted. Fails with 404 if there is no such case at a site you
    can read.
    """
    return CaseExplanation.model_validate(
        load_case_details(service.database, caller, rollout, key, now)
    )
