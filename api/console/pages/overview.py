"""The overview: what waits for me, how each rollout stands, whether anything is wrong."""

from fastapi import APIRouter, Request, Response

from api.console.page import page
from api.console.revision import live
from api.console.visitor import Visiting
from rollout.services.overview import rollouts_of

router = APIRouter()


@router.get("/")
def overview(request: Request, visitor: Visiting) -> Response:
    """Show every rollout that the visitor may read."""
    live_parts = live(request, visitor, "This page looks for changes every 2 s.")
    found = rollouts_of(visitor.service.database, visitor.caller)
    return page(request, visitor, "overview", live=live_parts, rollouts=found)
