"""The overview: pending tasks, rollout cards and recent events."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from fastapi import APIRouter, Request, Response

from api.console.page.own_settings import YEAR_SECONDS
from api.console.page.page import render_page
from api.console.page.page_context import CurrentVisitor, Visitor
from api.console.page.revision import build_live_region
from api.console.page.stages import COMMON_LEGEND
from api.console.page.waiting import list_pending_tasks
from api.console.rollouts.recent_cells import build_recent_rows
from api.console.rollouts.rollout_summary import build_rollout_card, describe_deciding_models
from rollout.core.scope.permissions import Permission
from rollout.reports.text.formatting import format_quantity
from rollout.services.cells.overview import RolloutSummary, load_rollout_summaries
from rollout.services.ledger.activity import load_recent_activity
from rollout.services.reviews.review_queue import count_pending_reviews

router = APIRouter()
VISITS_COOKIE: Final = "rollout-visits"
VISIT_GAP: Final = timedelta(minutes=30)
"""Requests further apart than this belong to two visits."""


@dataclass(frozen=True, slots=True)
class Visits:
    """End of the previous visit (None on the first) and latest request."""

    before: datetime | None
    last_look: datetime

    def to_cookie(self) -> str:
        """Return the cookie's value, in seconds."""
        before = "" if self.before is None else str(int(self.before.timestamp()))
        return f"{before}.{int(self.last_look.timestamp())}"


def update_visits(cookie: str, at: datetime) -> Visits:
    """Return the visits after a request at `at`; an invalid cookie starts anew.

    >>> at = datetime(2027, 6, 1, tzinfo=UTC)
    >>> update_visits("", at).before, update_visits("x.y", at).before
    (None, None)
    >>> first = update_visits("", at)
    >>> update_visits(first.to_cookie(), at + timedelta(minutes=5)).before
    >>> update_visits(first.to_cookie(), at + timedelta(days=1)).before == at
    True
    """
    before, _, last_text = cookie.partition(".")
    last_look = _parse_seconds(last_text)
    if last_look is None or last_look > at:
        return Visits(None, at)
    return Visits(_parse_seconds(before) if at - last_look < VISIT_GAP else last_look, at)


def _parse_seconds(seconds: str) -> datetime | None:
    is_valid = seconds.isascii() and seconds.isdigit() and len(seconds) < 12
    return datetime.fromtimestamp(int(seconds), UTC) if is_valid else None


SCRIPT_HEADER = "x-live"


@router.get("/")
def show_overview(request: Request, visitor: CurrentVisitor) -> Response:
    """Show the visitor's pending tasks and all readable rollouts."""
    live_region = build_live_region(request, visitor)
    summaries = load_rollout_summaries(visitor.service, visitor.caller, visitor.at)
    cards = [
        build_rollout_card(summary, visitor.at, _list_readable_sites(visitor, summary))
        for summary in summaries
    ]
    pending_tasks, task_count = list_pending_tasks(summaries, visitor)
    review_totals = count_pending_reviews(visitor.service, visitor.caller, visitor.at)
    visit = update_visits(request.cookies.get(VISITS_COOKIE, ""), visitor.at)
    response = render_page(
        request,
        visitor,
        "overview",
        live=live_region,
        heading=_format_heading(task_count, sum(review_totals.values())),
        lede=describe_deciding_models(cards) if summaries else "",
        tasks=pending_tasks,
        hidden_count=max(0, task_count - len(pending_tasks)),
        reviews=review_totals,
        cards=cards,
        recent_cells=build_recent_rows(visitor, summaries),
        stages=COMMON_LEGEND,
        activities=load_recent_activity(visitor.service, visitor.caller, visit.before)
        if summaries
        else (),
        before=visit.before,
        administers=visitor.has_permission_somewhere(Permission.ADMINISTER),
    )
    if SCRIPT_HEADER not in request.headers:  # automatic refreshes count as no visit
        response.set_cookie(
            VISITS_COOKIE, visit.to_cookie(), max_age=YEAR_SECONDS, httponly=True, samesite="lax"
        )
    return response


def _list_readable_sites(visitor: Visitor, summary: RolloutSummary) -> tuple[str, ...] | None:
    """Return the sites that a visitor may read, or None for all."""
    if visitor.has_permission(Permission.READ, summary.name):
        return None
    return visitor.list_permitted_sites(Permission.READ, summary.name, summary.state.policy)


def _format_heading(task_count: int, review_count: int) -> str:
    """Format the number of pending tasks.

    >>> _format_heading(0, 0), _format_heading(2, 7)
    ('No pending tasks', '9 pending tasks')
    """
    count = task_count + review_count
    return format_quantity(count, "pending task") if count else "No pending tasks"
