"""The page of a rollout's traffic: cases an hour, and what share the model decides."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from fastapi import APIRouter, Request, Response

from api.console.page.page import render_page
from api.console.page.page_context import CurrentVisitor
from rollout.reports.text.formatting import (
    format_count,
    format_day,
    format_local_time,
    format_percent,
    format_quantity,
)
from rollout.services.cells.site_traffic import (
    SHOWN_DAYS,
    MeasuredTraffic,
    SiteTraffic,
    TrafficSpan,
    load_site_traffic,
)

router = APIRouter()
UNKNOWN: Final = "–"
"""The share of a span that has no case with a known decider."""


@dataclass(frozen=True, slots=True)
class TrafficRow:
    """A span of a site, formatted."""

    name: str
    cases: str
    per_hour: str
    share: str


@dataclass(frozen=True, slots=True)
class TrafficTable:
    """The days of a site, newest first, with their sum and a note on how they are counted."""

    site: str
    total: str
    rows: tuple[TrafficRow, ...]
    note: str


@router.get("/rollouts/{rollout}/traffic")
def show_traffic(request: Request, visitor: CurrentVisitor, rollout: str) -> Response:
    """Show how many cases each site sends, in the last hour and by day."""
    traffic = load_site_traffic(visitor.service, visitor.caller, rollout, at=visitor.at)
    return render_page(
        request,
        visitor,
        "site_traffic",
        rollout=rollout,
        lede=_describe_last_hour(traffic),
        hours=[_build_row(site.site, site.last_hour) for site in traffic.sites],
        tables=[_build_table(site) for site in traffic.sites],
        batch=next((site.batch for site in traffic.sites if site.batch), None),
        notes=_list_notes(traffic),
        days=SHOWN_DAYS,
    )


def _describe_last_hour(traffic: MeasuredTraffic) -> str:
    hours = [site.last_hour for site in traffic.sites]
    cases, sending = sum(hour.cases for hour in hours), sum(hour.cases > 0 for hour in hours)
    if not cases:
        return "No case of the last hour has arrived."
    text = f"{format_quantity(cases, 'case')} of the last hour arrived, from "
    text += f"{format_count(sending)} of {format_quantity(len(hours), 'site')}."
    decided = sum(hour.decided for hour in hours)
    if not decided:
        return text
    by_model = sum(hour.decided_by_model for hour in hours)
    share = _format_share(by_model, decided)
    return f"{text} The model decided {share} of those with a known decider."


def _build_table(site: SiteTraffic) -> TrafficTable:
    note = f"Days in {site.timezone}; today up to now."
    return TrafficTable(
        site.site,
        _describe_total(site.days),
        tuple(_build_row(format_day(day.since, site.timezone), day) for day in site.days[::-1]),
        note,
    )


def _describe_total(days: Sequence[TrafficSpan]) -> str:
    """Return the cases of the days, an hour, and the share that the model decided."""
    cases, decided = sum(day.cases for day in days), sum(day.decided for day in days)
    if not cases:
        return "no cases"
    text = format_quantity(cases, "case")
    if not any(day.is_purged for day in days):
        hours = (days[-1].until - days[0].since) / timedelta(hours=1)
        text += f", {cases / hours:,.1f} an hour"
    if not decided:
        return text
    share = _format_share(sum(day.decided_by_model for day in days), decided)
    return f"{text}; the model decided {share}"


def _build_row(name: str, span: TrafficSpan) -> TrafficRow:
    if span.is_purged and not span.cases:
        return TrafficRow(name, "deleted", UNKNOWN, UNKNOWN)
    count = format_count(span.cases)
    share = _format_share(span.decided_by_model, span.decided) if span.decided else UNKNOWN
    if span.is_purged:
        return TrafficRow(name, f"{count}, others deleted", UNKNOWN, share)
    return TrafficRow(name, count, f"{span.per_hour:,.1f}", share)


def _format_share(by_model: int, decided: int) -> str:
    """Return a share with its counts: `75 % (30 of 40)`."""
    counts = f"{format_count(by_model)} of {format_count(decided)}"
    return f"{format_percent(by_model / decided)} ({counts})"


def _list_notes(traffic: MeasuredTraffic) -> list[str]:
    """Return which records are missing from the figures."""
    notes = []
    if traffic.purged_before is not None:
        time = format_local_time(traffic.purged_before, "UTC")
        notes.append(f"Records from before {time} UTC were deleted when their time was over.")
    if traffic.erased:
        cases = format_quantity(traffic.erased, "case")
        notes.append(f"{cases} erased on request in these days may be missing from the figures.")
    return notes
