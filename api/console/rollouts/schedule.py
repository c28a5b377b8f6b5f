"""The page of a rollout's schedule."""

from itertools import groupby
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Request, Response

from api.console.page.page import render_page
from api.console.page.page_context import CurrentVisitor
from api.console.page.revision import build_live_region
from rollout.reports.text.formatting import format_day, format_zoned_time
from rollout.services.cells.schedule import MAX_DAYS, ScheduledEntry, load_schedule

router = APIRouter()


@router.get("/rollouts/{rollout}/schedule")
def show_schedule(request: Request, visitor: CurrentVisitor, rollout: str) -> Response:
    """Show what will happen, by day, in the visitor's timezone."""
    live_region = build_live_region(request, visitor, rollout)
    schedule = load_schedule(visitor.service, visitor.caller, rollout, at=visitor.at, days=MAX_DAYS)
    zone = visitor.zone

    def get_local_day(entry: ScheduledEntry) -> str:
        return f"{max(entry.at, visitor.at).astimezone(ZoneInfo(zone)):%Y-%m-%d}"

    ordered = sorted(schedule.items, key=get_local_day)
    days = [list(entries) for _, entries in groupby(ordered, key=get_local_day)]
    return render_page(
        request,
        visitor,
        "schedule",
        rollout=rollout,
        live=live_region,
        days=[
            (format_day(max(entries[0].at, visitor.at), zone), _list_rows(entries, zone))
            for entries in days
        ],
        until=format_day(schedule.until, zone),
        zone=zone,
    )


def _list_rows(entries: list[ScheduledEntry], zone: str) -> list[tuple[str, str]]:
    """Return the time and the text of each entry."""
    return [(_format_time(entry, zone), entry.text) for entry in entries]


def _format_time(entry: ScheduledEntry, zone: str) -> str:
    start = format_zoned_time(entry.at, zone)
    return start if entry.until is None else f"{start} to {format_zoned_time(entry.until, zone)}"
