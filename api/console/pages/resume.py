"""The stops that hold, and the way back: a resume is asked for, and other people approve it."""

from collections.abc import Callable
from functools import partial

from fastapi import APIRouter, Request, Response

from api.console.page import page, to
from api.console.pages.proposal import path_of
from api.console.posted import Signed
from api.console.question import needs_text, told
from api.console.revision import live
from api.console.visitor import Visiting, Visitor
from api.problems import STATUS
from rollout.core.errors import Refusal
from rollout.core.rights import Act
from rollout.services import stopping

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
        asked = stopping.ask_resume(service.database, visitor.caller, rollout, stop, at=visitor.at)
    except Refusal as refused:
        says = {"": told(str(refused), visitor.name)}
        return _shown(request, visitor, rollout, STATUS.get(refused.code, 422), errors=says)
    return to(path_of(rollout, asked.proposal))


def may_resume(visitor: Visitor, rollout: str, held: stopping.Held) -> bool:
    """Say whether the visitor may ask for a stop's end: they operate all that it holds."""
    return all(visitor.may(Act.OPERATE, rollout, cell.site) for cell in held.cells)


def holding_words(visitor: Visitor, rollout: str) -> dict[str, Callable[..., object]]:
    """Return what the templates ask of a stop that holds."""
    return {"may_resume": partial(may_resume, visitor, rollout), "needs_text": needs_text}


def _shown(
    request: Request,
    visitor: Visitor,
    rollout: str,
    status: int = 200,
    errors: dict[str, str] | None = None,
) -> Response:
    heard = live(request, visitor, rollout)
    found = stopping.stops_of(visitor.service, visitor.caller, rollout, at=visitor.at)
    policy = visitor.service.watch.confirmed(rollout).standing.policy
    return page(
        request,
        visitor,
        "stops",
        status,
        rollout=rollout,
        live=heard,
        held=found.items,
        zone=policy.timezone,
        errors=errors or {},
        operates_here=bool(visitor.sites(Act.OPERATE, rollout, policy)),
        version_hash="-".join(f"{one.id}{one.resume}" for one in found.items),
        **holding_words(visitor, rollout),
    )
