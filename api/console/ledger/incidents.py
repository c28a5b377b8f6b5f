"""The incidents that the visitor may read, open ones first."""

from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response

from api.console.page.page import render_page
from api.console.page.page_context import HOME, CurrentVisitor, Visitor
from api.console.page.revision import build_live_region
from api.paging import decode_cursor, encode_cursor
from rollout.core.calendar.instants import EPOCH, MICROSECOND, to_micros
from rollout.core.errors import RefusalError
from rollout.core.scope.permissions import Permission, require_permission
from rollout.reports.text.state_text import (
    describe_unopened_incidents,
    format_incident_heading,
    get_incident_text,
)
from rollout.services.incidents.incidents import (
    IncidentCursor,
    IncidentRow,
    load_all_incidents,
    load_unopened_numbers,
)

router = APIRouter()
MAX_OPEN_INCIDENTS: Final = 100
PAGE_SIZE: Final = 25
CURSOR_PARTS: Final = 3  # parts of a cursor: instant, rollout, revision
MAX_NUMBER: Final = 2**53
CursorQuery = Annotated[str, Query(max_length=200)]


@router.get("/incidents")
def show_incidents(
    request: Request,
    visitor: CurrentVisitor,
    older: CursorQuery = "",
    acknowledged_cursor: CursorQuery = "",
) -> Response:
    """Show open incidents, then pages of acknowledged ones."""
    if not visitor.has_permission_somewhere(Permission.READ):
        require_permission(visitor.caller, Permission.READ, "")
    database, caller = visitor.service.database, visitor.caller
    live_region = build_live_region(request, visitor)
    open_page = load_all_incidents(
        database,
        caller,
        acknowledged=False,
        before=_parse_position(older),
        limit=MAX_OPEN_INCIDENTS,
    )
    acknowledged_page = load_all_incidents(
        database,
        caller,
        acknowledged=True,
        before=_parse_position(acknowledged_cursor),
        limit=PAGE_SIZE,
    )
    return render_page(
        request,
        visitor,
        "incidents",
        live=live_region,
        waiting=open_page.items,
        known=acknowledged_page.items,
        unopened=_describe_unopened(visitor, open_page.items),
        zones=_load_timezones(visitor, (*open_page.items, *acknowledged_page.items)),
        heading_of=format_incident_heading,
        tag_of=get_incident_text,
        first=not (older or acknowledged_cursor),
        older=_build_page_path("older", open_page.before),
        earlier=_build_page_path("seen", acknowledged_page.before),
    )


def _describe_unopened(visitor: Visitor, rows: tuple[IncidentRow, ...]) -> list[str]:
    """Return a sentence for each kind and cell of which incidents were counted, not opened."""
    return [
        f"{n.rollout}: {describe_unopened_incidents(n.kind, n.site, n.window, n.number)}"
        for n in load_unopened_numbers(visitor.service, rows)
    ]


def _load_timezones(visitor: Visitor, rows: tuple[IncidentRow, ...]) -> dict[tuple[str, str], str]:
    """Return the timezone of each incident's site, or the rollout's."""
    timezones: dict[tuple[str, str], str] = {}
    for row in rows:
        policy = visitor.service.state_cache.load_rollout(row.rollout).state.policy
        timezones[row.rollout, row.site] = policy.get_timezone(row.site)
    return timezones


def _build_page_path(name: str, position: IncidentCursor | None) -> str:
    if position is None:
        return ""
    cursor_text = f"{to_micros(position.at)}.{position.rollout}.{position.revision}"
    return f"{HOME}/incidents?{name}={encode_cursor(cursor_text)}"


def _parse_position(cursor_text: str) -> IncidentCursor | None:
    decoded = decode_cursor(cursor_text or None)
    if decoded is None:
        return None
    parts = decoded.split(".")
    if len(parts) != CURSOR_PARTS or not all(
        part_text.isascii() and part_text.isdigit() for part_text in parts
    ):
        raise RefusalError("this address leads nowhere; begin anew at Incidents")
    at, rollout, revision = (min(int(part), MAX_NUMBER) for part in parts)
    return IncidentCursor(EPOCH + at * MICROSECOND, rollout, min(revision, 2**31 - 1))
