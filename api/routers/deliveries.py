"""Report deliveries: list them, send a report, retry a failed one."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field

from api.auth import Caller, CurrentTime, Permission, RequirePermission, ServiceDependency
from api.paging import After, Limit, decode_number, encode_number
from api.schemas.examples import LATER, NOON, build_responses
from rollout.features.delivery.outbox import (
    DeliveryStatus,
    load_deliveries,
    queue_report,
    requeue_delivery,
)

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
QUEUED_DELIVERY = DELIVERY | {"state": "waiting", "attempts": 0, "next_at": LATER}
State = Annotated[
    Literal["waiting", "sent", "failed", "all"], Query(description="state of the deliveries")
]
Number = Annotated[int, Path(ge=1, lt=2**53, description="`id` of the delivery")]


class DeliveryList(BaseModel):
    """A page of deliveries, newest first. `next` is null on the last page."""

    model_config = ConfigDict(json_schema_extra={"example": {"items": [DELIVERY], "next": None}})

    items: list[DeliveryStatus]
    next: str | None


@router.get("", operation_id="listDeliveries", summary="List report deliveries")
def list_deliveries(
    rollout: str,
    service: ServiceDependency,
    caller: Annotated[Caller, RequirePermission(Permission.READ)],
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


class DeliveryRequest(BaseModel):
    """The report to send and the channels to send it to."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"report": 12, "channels": ["rangers"]}}
    )

    report: Annotated[int, Field(ge=1, lt=2**53, description="`id` of the report")]
    channels: Annotated[list[str], Field(min_length=1, max_length=100)]


class QueuedDeliveryList(BaseModel):
    """The deliveries that were queued, or sent earlier."""

    model_config = ConfigDict(json_schema_extra={"example": {"items": [QUEUED_DELIVERY]}})

    items: list[DeliveryStatus]


@router.post("", operation_id="createDeliveries", summary="Send a report to channels")
def create_deliveries(
    rollout: str,
    body: DeliveryRequest,
    service: ServiceDependency,
    now: CurrentTime,
    caller: Annotated[Caller, RequirePermission(Permission.OPERATE)],
) -> QueuedDeliveryList:
    """Queue a report for delivery to channels.

    The policy must name the channels. It is safe to retry: a report is sent to a channel once.
    Fails with 404 if the report or a channel does not exist.
    """
    deliveries = queue_report(service.database, caller, rollout, body.report, body.channels, at=now)
    return QueuedDeliveryList(items=list(deliveries))


@router.post(
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
    caller: Annotated[Caller, RequirePermission(Permission.OPERATE)],
) -> DeliveryStatus:
    """Queue a failed delivery again, with a new series of attempts.

    Fails with 409 if the report was already sent.
    """
    return requeue_delivery(service.database, caller, rollout, delivery, at=now)
