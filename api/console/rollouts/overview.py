"""The overview: what waits for me, how each rollout stands, what happened since I was here."""

from fastapi import APIRouter, Request, Response

from api.console.page.last_visit import COOKIE, visits
from api.console.page.own_settings import YEAR
from api.console.page.page import page
from api.console.page.page_context import Visiting, Visitor
from api.console.page.revision import live
from api.console.page.stages import SHOWN_STAGES
from api.console.page.waiting import MOST, things
from api.console.rollouts.rollout_summary import glance, lede
from rollout.core.scope.permissions import Act
from rollout.services.cells.overview import Line, board
from rollout.services.ledger.activity import lately
from rollout.services.reviews.review_queue import review_counts

router = APIRouter()
FROM_SCRIPT = "x-live"


@router.get("/")
def overview(request: Request, visitor: Visiting) -> Response:
    """Show what waits for the visitor and every rollout that they may read."""
    live_parts = live(request, visitor)
    lines = board(visitor.service, visitor.caller, visitor.at)
    glances = [glance(line, visitor.at, _sites(visitor, line)) for line in lines]
    waits, many = things(lines, visitor)
    reviews = review_counts(visitor.service, visitor.caller, visitor.at)
    here = visits(request.cookies.get(COOKIE, ""), visitor.at)
    made = page(
        request,
        visitor,
        "overview",
        live=live_parts,
        heading=_heading(many, sum(reviews.values())),
        lede=lede(glances) if lines else "",
        waits=waits,
        more=max(0, many - len(waits)),
        most=MOST,
        reviews=reviews,
        glances=glances,
        stages=SHOWN_STAGES,
        news=lately(visitor.service, visitor.caller, here.before) if lines else (),
        before=here.before,
        administers=visitor.may_somewhere(Act.ADMINISTER),
    )
    if FROM_SCRIPT not in request.headers:  # a page that looks by itself is nobody's visit
        made.set_cookie(COOKIE, here.written(), max_age=YEAR, httponly=True, samesite="lax")
    return made


def _sites(visitor: Visitor, line: Line) -> tuple[str, ...] | None:
    """Return the sites that a visitor may read, None for all of them."""
    if visitor.may(Act.READ, line.name):
        return None
    return visitor.sites(Act.READ, line.name, line.stood.policy)


def _heading(things: int, reviews: int) -> str:
    """Say how much waits.

    >>> _heading(0, 0), _heading(1, 0), _heading(2, 7)
    ('Nothing waits for you', 'One thing waits for you', 'Nine things wait for you')
    """
    number = things + reviews
    words = ("nothing", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    if number < 2:
        return f"{words[number].capitalize()}{' thing' * number} waits for you"
    said = words[number].capitalize() if number < len(words) else str(number)
    return f"{said} things wait for you"
