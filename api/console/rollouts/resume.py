"""The stops that hold, and the way back: a resume is asked for, and other people approve it."""

from collections.abc import Sequence
from hashlib import sha256

from fastapi import APIRouter, Request, Response

from api.console.page.form import Signed
from api.console.page.page import page, to
from api.console.page.page_context import Visiting, Visitor
from api.console.page.revision import live
from api.console.proposals.proposal import path_of
from api.console.proposals.proposal_text import told
from api.console.rollouts.resume_status import way_back
from api.problems import STATUS
from rollout.core.errors import Refusal
from rollout.core.scope.permissions import Act
from rollout.services.proposals.eligible_approvers import needs_text
from rollout.services.stops import stops as stopping

router = APIRouter()


@router.get("/rollouts/{rollout}/stops")
def stops(request: Request, rollout: str, visitor: Visiting) -> Response:
    """Show the stops that hold."""
    return _shown(request, visitor, rollout)


@router.post("/rollouts/{rollout}/stops/{stop}/resume")
def resume(
    request: Request, rollout: str, stop: str, form: Signed, visitor: Visiting  # noqa: ARG001 - its token is checked
) -> Response:  # fmt: skip
    """Ask for a stop's end, and go on to the proposal that others approve."""
    service = visitor.service
    try:
        resume_result = stopping.ask_resume(
            service.database, visitor.caller, rollout, stop, at=visitor.at
        )
    except Refusal as error:
        errors = {"": told(str(error), visitor.name)}
        return _shown(request, visitor, rollout, STATUS.get(error.code, 422), errors=errors)
    return to(path_of(rollout, resume_result.proposal))


def holding_words(
    visitor: Visitor, rollout: str, held: Sequence[stopping.ActiveStop]
) -> dict[str, object]:
    """Return what the templates ask of stops that hold."""
    statuses_by_stop = {stop.id: way_back(visitor, rollout, stop) for stop in held}
    return {"ways_back": statuses_by_stop, "needs_text": needs_text}


def _version_of(words: dict[str, object]) -> str:
    """Return a text that is another when the page says something else of what holds."""
    return sha256(repr(words["ways_back"]).encode()).hexdigest()[:16]


def _shown(
    request: Request,
    visitor: Visitor,
    rollout: str,
    status: int = 200,
    errors: dict[str, str] | None = None,
) -> Response:
    live_region = live(request, visitor, rollout)
    stop_list = stopping.stops_of(visitor.service, visitor.caller, rollout, at=visitor.at)
    policy = visitor.service.watch.confirmed(rollout).standing.policy
    stop_context = holding_words(visitor, rollout, stop_list.items)
    return page(
        request,
        visitor,
        "stops",
        status,
        rollout=rollout,
        live=live_region,
        held=stop_list.items,
        zone=policy.timezone,
        errors=errors or {},
        operates_here=bool(visitor.sites(Act.OPERATE, rollout, policy)),
        version_hash=_version_of(stop_context),
        **stop_context,
    )
