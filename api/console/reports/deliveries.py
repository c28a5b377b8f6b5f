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
    wanted = state if state in STATES else None
    found = deliveries_of(
        visitor.service.database,
        visitor.caller,
        rollout,
        state=wanted,
        before=before,
        limit=AT_ONCE,
    )
    here = f"{HOME}/rollouts/{segment(rollout)}/settings/deliveries"
    kept = f"state={wanted}&" if wanted else ""
    return page(
        request,
        visitor,
        "deliveries",
        rollout=rollout,
        items=found.items,
        states=STATES,
        state=wanted or "",
        further="" if found.before is None else f"{here}?{kept}before={found.before}",
        may_retry=visitor.caller.may_somewhere(Act.OPERATE, rollout),
    )


@router.post("/rollouts/{rollout}/settings/deliveries/{delivery}")
def again(visitor: Visiting, rollout: str, delivery: Number, _form: Signed) -> Response:
    """Have one that was given up tried again."""
    retry(visitor.service.database, visitor.caller, rollout, delivery, at=visitor.at)
    return to(f"/rollouts/{segment(rollout)}/settings/deliveries")
