"""The revision of a page's data and its minute, polled by open pages every second.

A page shows ages, times left and what is due now: with each minute of the service's clock open
pages are loaded again, so that they say what a reload would.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Header, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from api.auth import get_caller
from api.web_kit.page_context import HOME, Visitor, get_service
from rollout.engine.decide.permissions import Caller, Permission
from rollout.engine.words.formatting import MINUTE
from rollout.kernel.calendar.instants import EPOCH
from rollout.kernel.errors import UnauthenticatedError
from rollout.live.state_cache import RevisionCache

router = APIRouter()


@dataclass(frozen=True, slots=True)
class LiveRegion:
    """Attributes of a page with live regions.

    Attributes:
        revision: of the data at rendering.
        at: URL of the current revision.
    """

    revision: str
    at: str


@router.get("/revision")
async def check_revision(
    request: Request,
    rollout: Annotated[str, Query(max_length=200)] = "",
    if_none_match: Annotated[str | None, Header(max_length=100)] = None,
) -> Response:
    """Answer 304 if nothing readable changed in this minute; 401 makes the page reload."""
    try:
        caller = get_caller(request)
    except UnauthenticatedError:
        return Response(status_code=401)
    cache = _get_revision_cache(request)
    revisions = cache.find_cached()
    if revisions is None:
        revisions = await run_in_threadpool(cache.load)
    now = get_service(request).clock.now()
    tag = f'"{_compute_page_revision(revisions, caller, rollout, now)}"'
    return Response(
        status_code=304 if if_none_match == tag else 200,
        headers={"ETag": tag, "Cache-Control": "no-store"},
    )


def build_live_region(request: Request, visitor: Visitor, rollout: str = "") -> LiveRegion:
    """Return the live region of a page.

    Call it before loading the page's data, so that no change in between is missed.

    Args:
        request: the request.
        visitor: the visitor.
        rollout: its name; "" for a page of all rollouts.
    """
    query = f"?rollout={quote(rollout, safe='')}" if rollout else ""
    return LiveRegion(
        _compute_page_revision(
            _get_revision_cache(request).load(), visitor.caller, rollout, visitor.at
        ),
        f"{HOME}/revision{query}",
    )


def _get_revision_cache(request: Request) -> RevisionCache:
    cache = request.app.state.revisions
    assert isinstance(cache, RevisionCache)  # noqa: S101 - `create_console` puts it there
    return cache


def _compute_page_revision(
    revisions: Mapping[str, str], caller: Caller, rollout: str, at: datetime
) -> str:
    names = (rollout,) if rollout else sorted(revisions)
    readable = [
        f"{rollout_name} {revisions.get(rollout_name)}"
        for rollout_name in names
        if caller.has_permission_somewhere(Permission.READ, rollout_name)
    ]
    return sha256("\n".join([str((at - EPOCH) // MINUTE), *readable]).encode()).hexdigest()[:24]
