"""Deliveries of reports to channels, and retrying failed ones."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Final

from fastapi import APIRouter, Path, Query, Request, Response

from api.console.page.form import SignedForm
from api.console.page.page import redirect_to, render_page
from api.console.page.page_context import HOME, CurrentVisitor
from api.console.page.text import encode_segment
from rollout.core.scope.permissions import Permission
from rollout.services.delivery.outbox import load_deliveries, requeue_delivery

router = APIRouter()
PAGE_SIZE: Final = 25
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
