"""The incidents of every rollout that one may read: those that nobody has seen come first."""

from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response

from api.console.ledger.incident_text import heading, tag_of
from api.console.page.page import page
from api.console.page.page_context import HOME, Visiting, Visitor
from api.console.page.revision import live
from api.paging import cursor, place_of
from rollout.core.calendar.instants import EPOCH, MICROSECOND, micros
from rollout.core.errors import Refusal
from rollout.core.scope.permissions import Act, require
from rollout.services.incidents.incidents import IncidentRow, Place, all_incidents

router = APIRouter()
OPEN_AT_ONCE: Final = 100
SEEN_AT_ONCE: Final = 25
PARTS: Final = 3  # of a cursor: instant, rollout, revision
MOST: Final = 2**53
After = Annotated[str, Query(max_length=200)]


@router.get("/incidents")
def incidents(request: Request, visitor: Visiting, older: After = "", seen: After = "") -> Response:
    """Show open incidents, then by pages those that somebody has seen."""
    if not visitor.may_somewhere(Act.READ):
        require(visitor.caller, Act.READ, "")
    database, caller = visitor.service.database, visitor.caller
    live_region = live(request, visitor)
    open_page = all_incidents(
        database, caller, acknowledged=False, before=_place(older), limit=OPEN_AT_ONCE
    )
    acknowledged_page = all_incidents(
        database, caller, acknowledged=True, before=_place(seen), limit=SEEN_AT_ONCE
    )
    timezones = _zones(visitor, (*open_page.items, *acknowledged_page.items))
    return page(
        request,
        visitor,
        "incidents",
        live=live_region,
        waiting=open_page.items,
        known=acknowledged_page.items,
        zones=timezones,
        heading=heading,
        tag_of=tag_of,
        first=not (older or seen),
        older=_href("older", open_page.before),
        earlier=_href("seen", acknowledged_page.before),
    )


def _zones(visitor: Visitor, rows: tuple[IncidentRow, ...]) -> dict[tuple[str, str], str]:
    """Return the zone of each incident's site, the rollout's where it is of none."""
    timezones: dict[tuple[str, str], str] = {}
    for row in rows:
        policy = visitor.service.watch.rollout(row.rollout).standing.policy
        timezones[row.rollout, row.site] = policy.zone_of(row.site)
    return timezones


def _href(name: str, place: Place | None) -> str:
    if place is None:
        return ""
    cursor_text = f"{micros(place.at)}.{place.rollout}.{place.revision}"
    return f"{HOME}/incidents?{name}={cursor(cursor_text)}"


def _place(given: str) -> Place | None:
    decoded = place_of(given or None)
    if decoded is None:
        return None
    parts = decoded.split(".")
    if len(parts) != PARTS or not all(
        part_text.isascii() and part_text.isdigit() for part_text in parts
    ):
        raise Refusal("this address leads nowhere; begin anew at Incidents")
    at, rollout, revision = (min(int(part), MOST) for part in parts)
    return Place(EPOCH + at * MICROSECOND, rollout, min(revision, 2**31 - 1))
