"""The revision of what a page shows: a few bytes that open pages ask for every second."""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated, Final
from urllib.parse import quote

from fastapi import APIRouter, Header, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from api.auth import caller
from api.console.page.page_context import HOME, Visitor
from rollout.core.errors import Unauthenticated
from rollout.core.scope.permissions import Act, Caller
from rollout.services.engine.state_cache import Revisions

router = APIRouter()
NO_STORE: Final = "no-store"
LOOKS: Final = "This page looks for changes every second."


@dataclass(frozen=True, slots=True)
class Live:
    """What a page with live regions carries.

    Attributes:
        revision: of what it showed when it was made.
        at: where to ask for the one of now.
        says: the line at its foot.
    """

    revision: str
    at: str
    says: str


@router.get("/revision")
async def revision(
    request: Request,
    rollout: Annotated[str, Query(max_length=200)] = "",
    if_none_match: Annotated[str | None, Header(max_length=100)] = None,
) -> Response:
    """Answer 304 while nothing moved that the asker may read; 401 tells a page to load anew."""
    try:
        who = caller(request)
    except Unauthenticated:
        return Response(status_code=401)
    known = _known(request)
    found = known.at_hand()
    if found is None:
        found = await run_in_threadpool(known.all)
    tag = f'"{_of(found, who, rollout)}"'
    headers = {"ETag": tag, "Cache-Control": NO_STORE}
    return Response(status_code=304 if if_none_match == tag else 200, headers=headers)


def live(request: Request, visitor: Visitor, rollout: str = "", *, says: str = LOOKS) -> Live:
    """Return what a page carries so that it hears of changes.

    To be asked before what the page shows is read: then nothing that comes between is missed.

    Args:
        request: what was asked.
        visitor: who looks.
        rollout: whose page it is; "" for one that shows all of them.
        says: the line at the page's foot.
    """
    asked = f"?rollout={quote(rollout, safe='')}" if rollout else ""
    return Live(
        _of(_known(request).all(), visitor.caller, rollout), f"{HOME}/revision{asked}", says
    )


def _known(request: Request) -> Revisions:
    found = request.app.state.revisions
    assert isinstance(found, Revisions)  # noqa: S101 - `create_console` puts it there
    return found


def _of(found: Mapping[str, str], who: Caller, rollout: str) -> str:
    names = (rollout,) if rollout else sorted(found)
    mine = [f"{name} {found.get(name)}" for name in names if who.may_somewhere(Act.READ, name)]
    return sha256("\n".join(mine).encode()).hexdigest()[:24]
