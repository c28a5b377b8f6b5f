"""Cases: pages of them, divergences among them, and one explained."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path
from pydantic import AwareDatetime, BaseModel, Field

from api.deps import Act, By, Caller, Now, Served
from api.paging import After, Limit, Page, cursor, number_of
from api.schemas.examples import answers
from api.schemas.records import CASE_EXAMPLE, CaseExplanation, CaseList, CaseSummary
from rollout.services.divergences.case_explanation import cases_of, explain
from rollout.store.records.case_pages import Filter

router = APIRouter(prefix="/v1/rollouts/{rollout}/cases", tags=["records"])
Reader = Annotated[Caller, By(Act.EXPLAIN)]
CASES = answers({"items": [CASE_EXAMPLE], "next": None})
NO_NUL = "^[^\\x00]*$"
Key = Annotated[str, Path(min_length=1, max_length=200, pattern=NO_NUL, examples=["creek-0412"])]
Name = Annotated[str | None, Field(min_length=1, max_length=200, pattern=NO_NUL)]
Instant = Annotated[AwareDatetime | None, Field(examples=["2027-06-01T00:00:00Z"])]


class CaseQuery(BaseModel):
    """Which cases; `since` and `until` (outside) are of when they occurred."""

    site: Name = None
    window: Name = None
    version: Name = None
    since: Instant = None
    until: Instant = None
    differs: bool = Field(default=False, description="only where a version and a person differ")

    @property
    def filter(self) -> Filter:
        """Return it as the store reads it."""
        sites = None if self.site is None else {self.site}
        return Filter(sites=sites, **self.model_dump(exclude={"site"}))


@router.get(
    "",
    operation_id="listCases",
    summary="List cases, newest first",
    response_model=CaseList,
    responses=CASES,
)
def list_cases(
    rollout: str,
    service: Served,
    who: Reader,
    now: Now,
    wanted: Annotated[CaseQuery, Depends()],
    after: After = None,
    limit: Limit = 100,
) -> Page[CaseSummary]:
    """Return cases at sites that you may read, by when they occurred, where, and who predicted.

    What you may still judge is listed without what versions said of it, and not at all where a
    filter would tell it. A page may hold fewer than `limit` and yet go on.
    """
    position = number_of(after)
    page = cases_of(
        service.database, who, rollout, wanted.filter, now, before=position, limit=limit
    )
    items = [CaseSummary.model_validate(case_item) for case_item in page.items]
    return Page(items=items, next=None if page.next is None else cursor(str(page.next)))


@router.get("/{key:path}", operation_id="explainCase", summary="Explain a case")
def explain_case(rollout: str, key: Key, service: Served, who: Reader, now: Now) -> CaseExplanation:
    """Return who decided, by what permission, what was said and done, and where it was counted."""
    return CaseExplanation.model_validate(explain(service.database, who, rollout, key, now))
