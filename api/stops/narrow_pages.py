"""Narrow pages: form, confirmation and result."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Annotated, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response

from api.priority_threads import prioritize, run_with_priority
from api.problems import STATUS_BY_CODE
from api.proposals.proposal_text import format_refusal
from api.stops.pages import render_first_step, render_second_step
from api.stops.schemas import MAX_REASON_LENGTH, StopRequest
from api.web_kit.page import redirect_to, render_page
from api.web_kit.page_context import CurrentVisitor, Form, SignedForm, Visitor
from api.web_kit.stop_target import parse_target
from api.web_kit.text import encode_segment
from rollout.features.stops import stops
from rollout.features.stops.stop_options import load_own_narrowings
from rollout.features.stops.stops import latch_narrowing
from rollout.kernel.calendar.sites import SHADOW
from rollout.kernel.errors import NotNarrowerError, RefusalError
from rollout.kernel.policy.policy import Policy

router = APIRouter()
QueryText = Annotated[str, Query(max_length=2_000)]
NumberQuery = Annotated[int, Query(ge=0, le=2**53)]
MAX_NARROWINGS: Final = 10_000  # maximum cells that one command narrows
FIELDS: Final = ("target", "reason", "to")
UNPROCESSABLE: Final = 422


@router.get("/rollouts/{rollout}/narrow")
@prioritize
def show_narrow_form(
    request: Request, rollout: str, visitor: CurrentVisitor,
    target: QueryText = "", reason: QueryText = "", to: QueryText = "",
) -> Response:  # fmt: skip
    """Show the form for target and stage."""
    typed = {"target": target, "reason": reason, "to": to}
    return render_first_step(request, visitor, "narrow", rollout, typed=typed)


@router.get("/rollouts/{rollout}/narrow/confirm")
@prioritize
def show_confirmation(
    request: Request, rollout: str, visitor: CurrentVisitor,
    target: QueryText = "", reason: QueryText = "", to: QueryText = SHADOW,
) -> Response:  # fmt: skip
    """Show which grants would end, to confirm."""
    typed = {"target": target, "reason": reason[:MAX_REASON_LENGTH], "to": to}
    try:
        policy = visitor.service.state_cache.reload_rollout(rollout).state.policy
        above = policy.stage_ids[_parse_stage_level(policy, to) + 1 :]
        return render_second_step(request, visitor, "narrow_confirm", rollout, typed, above=above)
    except RefusalError as error:
        return _render_form_again(request, visitor, rollout, typed, error)


@router.post("/rollouts/{rollout}/narrow/confirm")
async def submit_narrowing(
    request: Request, rollout: str, form: SignedForm, visitor: CurrentVisitor
) -> Response:
    """Narrow and redirect to the result."""
    try:
        with _latch_narrowing(visitor, rollout, form) as write_narrowing:
            result = await run_with_priority(write_narrowing)
    except RefusalError as error:
        typed = {name: form.get_text(name) for name in FIELDS}
        render = partial(_render_form_again, request, visitor, rollout, typed, error)
        return await run_with_priority(render)
    visitor.service.state_cache.invalidate(rollout)
    count = sum(event.kind == "Narrowed" for event in result.events)
    query = urlencode({"until": result.revision, "count": count})
    return redirect_to(f"/rollouts/{encode_segment(rollout)}/narrow/done?{query}")


@router.get("/rollouts/{rollout}/narrow/done")
@prioritize
def show_result(
    request: Request,
    rollout: str,
    visitor: CurrentVisitor,
    until: NumberQuery = 0,
    count: NumberQuery = 0,
) -> Response:
    """Show the result as the ledger has it."""
    narrowings = load_own_narrowings(
        visitor.service, visitor.caller, rollout, until=until, count=min(count, MAX_NARROWINGS)
    )
    policy = visitor.service.state_cache.reload_rollout(rollout).state.policy
    return render_page(
        request,
        visitor,
        "narrow_done",
        rollout=rollout,
        narrowings=narrowings,
        zone=policy.timezone,
    )


def _latch_narrowing(
    visitor: Visitor, rollout: str, form: Form
) -> AbstractContextManager[Callable[[], stops.NarrowingResult]]:
    return latch_narrowing(
        visitor.service,
        visitor.caller,
        rollout,
        parse_target(form.get_text("target")).target,
        form.get_text("to"),
        at=visitor.at,
        reason=StopRequest(reason=form.get_text("reason")).reason,
    )


def _parse_stage_level(policy: Policy, stage: str) -> int:
    if stage not in policy.stage_ids[:-1]:
        raise NotNarrowerError(f"Choose a stage to narrow to: {', '.join(policy.stage_ids[:-1])}")
    return policy.stage_ids.index(stage)


def _render_form_again(
    request: Request, visitor: Visitor, rollout: str, typed: dict[str, str], error: RefusalError
) -> Response:
    """Show the form again with typed values and errors."""
    is_stage_error = isinstance(error, NotNarrowerError)  # the form's field for the API's name
    errors = {"to" if is_stage_error else "target": format_refusal(str(error), visitor.name)}
    status = UNPROCESSABLE if is_stage_error else STATUS_BY_CODE.get(error.code, UNPROCESSABLE)
    return render_first_step(
        request, visitor, "narrow", rollout, status, typed=typed, errors=errors
    )
