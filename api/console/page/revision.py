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
    cache = _known(request)
    revisions = cache.at_hand()
    if revisions is None:
        revisions = await run_in_threadpool(cache.all)
    tag = f'"{_of(revisions, who, rollout)}"'
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
    query = f"?rollout={quote(rollout, safe='')}" if rollout else ""
    return Live(
        _of(_known(request).all(), visitor.caller, rollout), f"{HOME}/revision{query}", says
    )


def _known(request: Request) -> Revisions:
    cache = request.app.state.revisions
    assert isinstance(cache, Revisions)  # noqa: S101 - `create_console` puts it there
    return cache


def _of(found: Mapping[str, str], who: Caller, rollout: str) -> str:
    names = (rollout,) if rollout else sorted(found)
    readable = [
        f"{rollout_name} {found.get(rollout_name)}"
        for rollout_name in names
        if who.may_somewhere(Act.READ, rollout_name)
    ]
    return sha256("\n".join(readable).encode()).hexdigest()[:24]
