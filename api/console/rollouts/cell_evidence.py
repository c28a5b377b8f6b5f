"""The button of a cell's page that pauses or resumes its evidence."""

from fastapi import APIRouter, Response

from api.console.page.form import SignedForm
from api.console.page.page import redirect_to
from api.console.page.page_context import CurrentVisitor
from api.console.page.text import encode_segment
from api.schemas.stops import StopRequest
from rollout.core.calendar.sites import Cell
from rollout.services.cells.evidence_pauses import set_cell_evidence

router = APIRouter()


@router.post("/rollouts/{rollout}/evidence")
def submit_evidence(rollout: str, form: SignedForm, visitor: CurrentVisitor) -> Response:
    """Pause or resume a cell's evidence and redirect to its page."""
    cell = Cell(form.get_text("site"), form.get_text("window"))
    set_cell_evidence(
        visitor.service.database,
        visitor.caller,
        rollout,
        cell,
        "count" if form.get_text("evidence") == "count" else "watch",
        at=visitor.at,
        reason=StopRequest(reason=form.get_text("reason")).reason,
    )
    visitor.service.state_cache.invalidate(rollout)
    address = "/".join(map(encode_segment, (rollout, "cells", cell.site, cell.window)))
    return redirect_to(f"/rollouts/{address}")
