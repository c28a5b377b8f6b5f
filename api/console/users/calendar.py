"""The visitor's calendar address: create and revoke it."""

from typing import Final

from fastapi import APIRouter, Request, Response

from api.console.page.form import SignedForm
from api.console.page.page import redirect_to, render_page
from api.console.page.page_context import CurrentVisitor, Visitor
from rollout.services.cells import calendar_feeds

router = APIRouter()
PATH: Final = "/settings/calendar"


@router.get(PATH)
def show_calendar(request: Request, visitor: CurrentVisitor) -> Response:
    """Show whether the visitor has an address."""
    return _render_calendar(request, visitor)


@router.post(PATH)
def submit_calendar(request: Request, visitor: CurrentVisitor, form: SignedForm) -> Response:
    """Create the visitor's address and show it once, or revoke it."""
    if form.get_text("do") == "revoke":
        calendar_feeds.revoke_calendar(visitor.service, visitor.caller)
        return redirect_to(PATH)
    created = calendar_feeds.create_calendar(visitor.service, visitor.caller, at=visitor.wall_time)
    return _render_calendar(request, visitor, created.address)


def _render_calendar(request: Request, visitor: Visitor, address: str = "") -> Response:
    status = calendar_feeds.load_calendar_address(visitor.service, visitor.caller)
    return render_page(
        request,
        visitor,
        "calendar",
        created_at=status.created_at,
        unreadable=status.unreadable,
        address=address,
    )
