"""What was sent to whom, and one more try of what was given up."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field

from api.deps import Act, By, Caller, Now, Served
from api.paging import After, Limit, cursor, number_of
from api.schemas.examples import LATER, NOON, answers
from rollout.services.delivery.outbox import DeliveryStatus, deliveries_of, retry, send_report

router = APIRouter(prefix="/v1/rollouts/{rollout}/deliveries", tags=["reports"])
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
AGAIN = DELIVERY | {"state": "waiting", "attempts": 0, "next_at": LATER}
State = Annotated[Literal["waiting", "sent", "failed", "all"], Query(description="which of them")]
Number = Annotated[int, Path(ge=1, lt=2**53, description="number of a delivery")]


class DeliveryList(BaseModel):
    """Some deliveries, the newest first; `next` is null at the end."""

    model_config = ConfigDict(json_schema_extra={"example": {"items": [DELIVERY], "next": None}})

    items: list[DeliveryStatus]
    next: str | None


@router.get("", operation_id="listDeliveries", summary="List report deliveries")
def list_deliveries(
    rollout: str,
    service: Served,
    who: Annotated[Caller, By(Act.READ)],
    state: State = "all",
    after: After = None,
    limit: Limit = 50,
) -> DeliveryList:
    """Return each report on its way to a channel: sent, waiting, or given up, with the reason."""
    found = deliveries_of(
        service.database,
        who,
        rollout,
        state=None if state == "all" else state,
        before=number_of(after),
        limit=limit,
    )
    further = None if found.before is None else cursor(str(found.before))
    return DeliveryList(items=list(found.items), next=further)


class DeliveryRequest(BaseModel):
    """Which report goes to which channels of the policy."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"report": 12, "channels": ["rangers"]}}
    )

    report: Annotated[int, Field(ge=1, lt=2**53, description="number of a report")]
    channels: Annotated[list[str], Field(min_length=1, max_length=100)]


class QueuedDeliveryList(BaseModel):
    """What is on its way, or was sent before."""

    model_config = ConfigDict(json_schema_extra={"example": {"items": [AGAIN]}})

    items: list[DeliveryStatus]


@router.post("", operation_id="createDeliveries", summary="Send a report to channels")
def create_deliveries(
    rollout: str,
    body: DeliveryRequest,
    service: Served,
    now: Now,
    who: Annotated[Caller, By(Act.OPERATE)],
) -> QueuedDeliveryList:
    """Queue a report for channels that the policy names. What was sent there once stays so."""
    found = send_report(service.database, who, rollout, body.report, body.channels, at=now)
    return QueuedDeliveryList(items=list(found))


@router.post(
    "/{delivery}/retry",
    operation_id="retryDelivery",
    summary="Retry a failed delivery",
    responses=answers(AGAIN),
)
def retry_delivery(
    rollout: str,
    delivery: Number,
    service: Served,
    now: Now,
    who: Annotated[Caller, By(Act.OPERATE)],
) -> DeliveryStatus:
    """Have a delivery that was given up tried again, from the first try on."""
    return retry(service.database, who, rollout, delivery, at=now)
