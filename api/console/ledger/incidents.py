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
    live_parts = live(request, visitor)
    waiting = all_incidents(
        database, caller, acknowledged=False, before=_place(older), limit=OPEN_AT_ONCE
    )
    known = all_incidents(
        database, caller, acknowledged=True, before=_place(seen), limit=SEEN_AT_ONCE
    )
    zones = _zones(visitor, (*waiting.items, *known.items))
    return page(
        request,
        visitor,
        "incidents",
        live=live_parts,
        waiting=waiting.items,
        known=known.items,
        zones=zones,
        heading=heading,
        tag_of=tag_of,
        first=not (older or seen),
        older=_href("older", waiting.before),
        earlier=_href("seen", known.before),
    )


def _zones(visitor: Visitor, rows: tuple[IncidentRow, ...]) -> dict[tuple[str, str], str]:
    """Return the zone of each incident's site, the rollout's where it is of none."""
    found: dict[tuple[str, str], str] = {}
    for row in rows:
        policy = visitor.service.watch.rollout(row.rollout).standing.policy
        found[row.rollout, row.site] = policy.zone_of(row.site)
    return found


def _href(name: str, place: Place | None) -> str:
    if place is None:
        return ""
    told = f"{micros(place.at)}.{place.rollout}.{place.revision}"
    return f"{HOME}/incidents?{name}={cursor(told)}"


def _place(given: str) -> Place | None:
    told = place_of(given or None)
    if told is None:
        return None
    parts = told.split(".")
    if len(parts) != PARTS or not all(p.isascii() and p.isdigit() for p in parts):
        raise Refusal("this address leads nowhere; begin anew at Incidents")
    at, rollout, revision = (min(int(part), MOST) for part in parts)
    return Place(EPOCH + at * MICROSECOND, rollout, min(revision, 2**31 - 1))
