"""Rejected records: items that conflict or could not be used."""

from typing import Annotated

from fastapi import APIRouter

from api.auth import Caller, CurrentTime, Permission, RequirePermission, ServiceDependency
from api.paging import After, Limit, Page, decode_number, encode_number
from api.schemas.examples import build_responses
from api.schemas.records import REJECTED_RECORD, RejectedRecord, RejectedRecordList
from rollout.features.divergences.cases import load_rejected_records

router = APIRouter(prefix="/v1/rollouts/{rollout}/rejected-records", tags=["records"])
REJECTED_RECORDS_RESPONSES = build_responses({"items": [REJECTED_RECORD], "next": None})


@router.get(
    "",
    operation_id="listRejectedRecords",
    summary="List rejected records",
    response_model=RejectedRecordList,
    responses=REJECTED_RECORDS_RESPONSES,
)
def list_rejected_records(
    rollout: str,
    service: ServiceDependency,
    caller: Annotated[Caller, RequirePermission(Permission.READ)],
    now: CurrentTime,
    after: After = None,
    limit: Limit = 100,
) -> Page[RejectedRecord]:
    """Return rejected and conflicting items with the reason, oldest first.

    Each item is listed once, as it was sent.
    """
    position = decode_number(after) or 0
    rejected_records = load_rejected_records(
        service.database, caller, rollout, now, after=position, limit=limit
    )
    items = [RejectedRecord.model_validate(record) for record in rejected_records]
    return Page(items=items, next=encode_number(items[-1].number) if len(items) == limit else None)
