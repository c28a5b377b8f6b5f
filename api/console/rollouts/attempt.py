"""Begin a version's next attempt in a cell: its price, and the confirmation."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from api.console.page.form import SignedForm
from api.console.page.page import redirect_to, render_page
from api.console.page.page_context import CurrentVisitor, Visitor
from api.console.page.text import encode_segment
from api.console.proposals.proposal_text import format_refusal
from api.schemas.stops import StopRequest
from rollout.core.calendar.sites import Cell
from rollout.core.errors import NotEligibleError, RefusalError, UnknownCellError
from rollout.core.policy.risk_shares import compute_yearly_share, describe_restart
from rollout.core.scope.attempts import foresee_year
from rollout.core.scope.permissions import Permission, require_permission
from rollout.core.scope.stop_targets import StopTarget
from rollout.services.engine.rollout_state import RolloutState
from rollout.services.stops import stops

router = APIRouter()
NameQuery = Annotated[str, Query(max_length=200)]


@router.get("/rollouts/{rollout}/attempt")
def show_next_attempt(
    request: Request, rollout: str, visitor: CurrentVisitor,
    site: NameQuery = "", window: NameQuery = "", version: NameQuery = "",
) -> Response:  # fmt: skip
    """Show what the next attempt of a version in a cell costs, to confirm."""
    return _render_price(request, visitor, rollout, Cell(site, window), version)


@router.post("/rollouts/{rollout}/attempt")
def submit_next_attempt(
    request: Request, rollout: str, form: SignedForm, visitor: CurrentVisitor
) -> Response:
    """Begin the attempt and redirect to the cell."""
    cell, version = Cell(form.get_text("site"), form.get_text("window")), form.get_text("version")
    reason = StopRequest(reason=form.get_text("reason")).reason
    try:
        stops.begin_next_attempt(
            visitor.service.database, visitor.caller, rollout, StopTarget(cells=(cell,)), version,
            at=visitor.at, reason=reason,
        )  # fmt: skip
    except NotEligibleError as error:
        errors = {"reason": format_refusal(str(error), visitor.name)}
        return _render_price(request, visitor, rollout, cell, version, 422, errors=errors)
    visitor.service.state_cache.invalidate(rollout)
    path = "/".join(map(encode_segment, (rollout, "cells", cell.site, cell.window)))
    return redirect_to(f"/rollouts/{path}")


def describe_price(state: RolloutState, cell: Cell, version: str, visitor: Visitor) -> str:
    """Return what the next attempt of a version in a cell costs."""
    year = foresee_year(state.scope, state.policy, cell, visitor.at)
    share = compute_yearly_share(year.count, year.releases)
    return describe_restart(str(cell), [version], year.count, share)


def _render_price(
    request: Request, visitor: Visitor, rollout: str, cell: Cell, version: str, status: int = 200,
    errors: dict[str, str] | None = None,
) -> Response:  # fmt: skip
    require_permission(visitor.caller, Permission.READ, rollout)
    require_permission(visitor.caller, Permission.OPERATE, rollout, (cell.site,))
    state = visitor.service.state_cache.reload_rollout(rollout).state
    if cell not in state.policy.cell_set:
        raise UnknownCellError(f"the policy has no {cell}")
    if version not in state.scope.versions:
        raise RefusalError(f"{version} is no version of {rollout}")
    return render_page(
        request, visitor, "attempt", status,
        rollout=rollout, cell=cell, version=version, errors=errors or {},
        has_begun=state.scope.has_begun(cell, version),
        price=describe_price(state, cell, version, visitor),
    )  # fmt: skip
