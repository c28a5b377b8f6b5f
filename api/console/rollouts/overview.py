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
    live_region = live(request, visitor)
    summaries = board(visitor.service, visitor.caller, visitor.at)
    cards = [glance(summary, visitor.at, _sites(visitor, summary)) for summary in summaries]
    pending_tasks, task_count = things(summaries, visitor)
    review_totals = review_counts(visitor.service, visitor.caller, visitor.at)
    visit = visits(request.cookies.get(COOKIE, ""), visitor.at)
    response = page(
        request,
        visitor,
        "overview",
        live=live_region,
        heading=_heading(task_count, sum(review_totals.values())),
        lede=lede(cards) if summaries else "",
        waits=pending_tasks,
        more=max(0, task_count - len(pending_tasks)),
        most=MOST,
        reviews=review_totals,
        glances=cards,
        stages=SHOWN_STAGES,
        news=lately(visitor.service, visitor.caller, visit.before) if summaries else (),
        before=visit.before,
        administers=visitor.may_somewhere(Act.ADMINISTER),
    )
    if FROM_SCRIPT not in request.headers:  # a page that looks by itself is nobody's visit
        response.set_cookie(COOKIE, visit.written(), max_age=YEAR, httponly=True, samesite="lax")
    return response


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
    number_words = (
        "nothing",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
    )
    if number < 2:
        return f"{number_words[number].capitalize()}{' thing' * number} waits for you"
    number_word = number_words[number].capitalize() if number < len(number_words) else str(number)
    return f"{number_word} things wait for you"
