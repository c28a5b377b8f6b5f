"""What was sent to whom: each report on its way to a channel, and one more try of what failed."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Final

from fastapi import APIRouter, Path, Query, Request, Response

from api.console.page.form import Signed
from api.console.page.page import page, to
from api.console.page.page_context import HOME, Visiting
from api.console.page.text import segment
from rollout.core.scope.permissions import Act
from rollout.services.delivery.outbox import deliveries_of, retry

router = APIRouter()
AT_ONCE: Final = 25
STATES: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {"waiting": ("note", "Waiting"), "sent": ("good", "Sent"), "failed": ("bad", "Given up")}
)
Number = Annotated[int, Path(ge=1, lt=2**53)]
Before = Annotated[int | None, Query(ge=1, lt=2**53)]
State = Annotated[str, Query(max_length=20)]


@router.get("/rollouts/{rollout}/settings/deliveries")
def deliveries(
    request: Request, visitor: Visiting, rollout: str, state: State = "", before: Before = None
) -> Response:
    """Show deliveries, the newest first."""
    state_filter = state if state in STATES else None
    delivery_page = deliveries_of(
        visitor.service.database,
        visitor.caller,
        rollout,
        state=state_filter,
        before=before,
        limit=AT_ONCE,
    )
    page_path = f"{HOME}/rollouts/{segment(rollout)}/settings/deliveries"
    state_query = f"state={state_filter}&" if state_filter else ""
    return page(
        request,
        visitor,
        "deliveries",
        rollout=rollout,
        items=delivery_page.items,
        states=STATES,
        state=state_filter or "",
        further=""
        if delivery_page.before is None
        else f"{page_path}?{state_query}before={delivery_page.before}",
        may_retry=visitor.caller.may_somewhere(Act.OPERATE, rollout),
    )


@router.post("/rollouts/{rollout}/settings/deliveries/{delivery}")
def again(visitor: Visiting, rollout: str, delivery: Number, _form: Signed) -> Response:
    """Have one that was given up tried again."""
    retry(visitor.service.database, visitor.caller, rollout, delivery, at=visitor.at)
    return to(f"/rollouts/{segment(rollout)}/settings/deliveries")
