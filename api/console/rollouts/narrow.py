"""Narrow: the two steps of a stop with the stage to go down to, then what is gone."""

from typing import Annotated, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response

from api.console.page.form import Form, Signed
from api.console.page.page import page, to
from api.console.page.page_context import Visiting, Visitor
from api.console.page.stop_target import far_of
from api.console.page.text import segment
from api.console.proposals.proposal_text import told
from api.console.rollouts.stop import first_step, second_step
from api.priority_threads import narrowing
from api.problems import STATUS
from api.schemas.stops import MOST_SAID, StopRequest
from rollout.core.calendar.sites import SHADOW
from rollout.core.errors import NotNarrower, Refusal
from rollout.core.policy.policy import Policy
from rollout.services.stops import stops
from rollout.services.stops.stop_targets import narrowed_by

router = APIRouter()
Word = Annotated[str, Query(max_length=2_000)]
Number = Annotated[int, Query(ge=0, le=2**53)]
MOST: Final = 10_000  # narrowings that one command makes
FIELDS: Final = ("reach", "reason", "to")
UNPROCESSABLE: Final = 422


@router.get("/rollouts/{rollout}/narrow")
@narrowing
def ask(
    request: Request, rollout: str, visitor: Visiting,
    reach: Word = "", reason: Word = "", to: Word = "",
) -> Response:  # fmt: skip
    """Ask how far and down to which stage."""
    typed = {"reach": reach, "reason": reason, "to": to}
    return first_step(request, visitor, "narrow", rollout, typed=typed)


@router.get("/rollouts/{rollout}/narrow/confirm")
@narrowing
def confirm(
    request: Request, rollout: str, visitor: Visiting,
    reach: Word = "", reason: Word = "", to: Word = SHADOW,
) -> Response:  # fmt: skip
    """Say which grants would end, and ask for the second yes."""
    typed = {"reach": reach, "reason": reason[:MOST_SAID], "to": to}
    try:
        policy = visitor.service.watch.confirmed(rollout).standing.policy
        above = policy.rungs[_rung(policy, to) + 1 :]
        return second_step(request, visitor, "narrow_confirm", rollout, typed, above=above)
    except Refusal as error:
        return _again(request, visitor, rollout, typed, error)


@router.post("/rollouts/{rollout}/narrow/confirm")
@narrowing
def narrow(request: Request, rollout: str, form: Signed, visitor: Visiting) -> Response:
    """Narrow, and go on to what is gone."""
    try:
        result = _narrowed(visitor, rollout, form)
    except Refusal as error:
        typed = {name: form.one(name) for name in FIELDS}
        return _again(request, visitor, rollout, typed, error)
    visitor.service.watch.doubt(rollout)
    count = sum(event.kind == "Narrowed" for event in result.events)
    query = urlencode({"until": result.revision, "count": count})
    return to(f"/rollouts/{segment(rollout)}/narrow/done?{query}")


@router.get("/rollouts/{rollout}/narrow/done")
@narrowing
def done(
    request: Request, rollout: str, visitor: Visiting, until: Number = 0, count: Number = 0
) -> Response:
    """Say what is gone: read from the ledger, the address only says where."""
    narrowings = narrowed_by(
        visitor.service, visitor.caller, rollout, until=until, count=min(count, MOST)
    )
    policy = visitor.service.watch.confirmed(rollout).standing.policy
    return page(
        request, visitor, "narrow_done", rollout=rollout, gone=narrowings, zone=policy.timezone
    )


def _narrowed(visitor: Visitor, rollout: str, form: Form) -> stops.NarrowingResult:
    return stops.narrow(
        visitor.service.database,
        visitor.caller,
        rollout,
        far_of(form.one("reach")).named,
        form.one("to"),
        at=visitor.at,
        reason=StopRequest(reason=form.one("reason")).reason,
    )


def _rung(policy: Policy, to: str) -> int:
    if to not in policy.rungs[:-1]:
        raise NotNarrower(f"Choose a stage to go down to: {', '.join(policy.rungs[:-1])}")
    return policy.rungs.index(to)


def _again(
    request: Request, visitor: Visitor, rollout: str, typed: dict[str, str], refused: Refusal
) -> Response:
    """Show step 1 again with what was typed and what is wrong."""
    is_stage_error = isinstance(
        refused, NotNarrower
    )  # a choice of the form, whatever the API calls it
    errors = {"to" if is_stage_error else "reach": told(str(refused), visitor.name)}
    status = UNPROCESSABLE if is_stage_error else STATUS.get(refused.code, UNPROCESSABLE)
    return first_step(request, visitor, "narrow", rollout, status, typed=typed, errors=errors)
