"""What could not be used: conflicts and rejects, as they came."""

from typing import Annotated

from fastapi import APIRouter

from api.deps import Act, By, Caller, Now, Served
from api.paging import After, Limit, Page, cursor, number_of
from api.schemas.examples import answers
from api.schemas.records import SET_ASIDE, RejectedRecord, RejectedRecordList
from rollout.services.divergences.case_explanation import aside_of

router = APIRouter(prefix="/v1/rollouts/{rollout}/rejected-records", tags=["records"])
ITEMS = answers({"items": [SET_ASIDE], "next": None})


@router.get(
    "",
    operation_id="listRejectedRecords",
    summary="List rejected records",
    response_model=RejectedRecordList,
    responses=ITEMS,
)
def list_rejected_records(
    rollout: str,
    service: Served,
    who: Annotated[Caller, By(Act.READ)],
    now: Now,
    after: After = None,
    limit: Limit = 100,
) -> Page[RejectedRecord]:
    """Return each item that was rejected or contradicts what is kept, once, with the reason."""
    place = number_of(after) or 0
    found = aside_of(service.database, who, rollout, now, after=place, limit=limit)
    items = [RejectedRecord.model_validate(one) for one in found]
    return Page(items=items, next=cursor(str(items[-1].number)) if len(items) == limit else None)
