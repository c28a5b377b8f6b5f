"""A rollout: what is allowed where and when, on which evidence, what comes next, what happened."""

from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response
from markupsafe import Markup

from api.console.page.cell_view import cell_named
from api.console.page.page import page
from api.console.page.page_context import Visiting, Visitor
from api.console.page.revision import live
from api.console.page.stages import grants_of, marks_of, withheld
from api.console.page.stop_target import cell_value, reach_text
from api.console.page.text import first_large, full_stop
from api.console.page.time_format import site_time
from api.console.proposals.path_chart import path_charts
from api.console.rollouts.as_of import AsOf, as_of, link_of
from api.console.rollouts.cell_table import measured_of, rivals_of, table_row, table_rows
from api.console.rollouts.history import entries
from api.console.rollouts.rollout_text import caption, lede, limits, next_of, side_by_side
from api.console.rollouts.week_map import courses_of, turns_of, week_map
from rollout.core.scope.permissions import Act, require
from rollout.services.cells.cell_table import Cells, cell_rows, cells_with
from rollout.services.cells.cells import cell_of
from rollout.services.divergences.action_change import action_changes_of
from rollout.services.engine.rollout_state import Standing
from rollout.services.ledger.activity import around, happened
from rollout.services.proposals.eligible_approvers import waiting_for
from rollout.services.stops.stops import stops_of

router = APIRouter()
PAGE: Final = 25
GUARDS: Final = {
    "one-stage": "One stage down",
    "shadow": "Back to shadow",
    "suspend": "People decide until it is good again",
    "report": "Somebody is told",
}
At = Annotated[str, Query(max_length=100)]
From = Annotated[int, Query(ge=0, le=1_000_000)]
Before = Annotated[int | None, Query(ge=1, le=10**12)]


@router.get("/rollouts/{rollout}")
def rollout(
    request: Request, rollout: str, visitor: Visiting, at: At = "",
    cells_from: Annotated[int, Query(alias="from", ge=0, le=1_000_000)] = 0, before: Before = None,
) -> Response:  # fmt: skip
    """Show a rollout as it stands, or as it stood at an instant."""
    require(visitor.caller, Act.READ, rollout)  # first: whoever sees it not learns no name
    live_region = live(request, visitor, rollout)
    timezone = _zone(visitor, rollout)
    requested_time = as_of(at, timezone, visitor.at)
    cell_page = cell_rows(
        visitor.service, visitor.caller, rollout,
        at=visitor.at, when=requested_time.when, first=cells_from, limit=PAGE,
    )  # fmt: skip
    if cell_page is None:
        return _before_all(request, visitor, rollout, requested_time, timezone)
    context = _shown(visitor, rollout, cell_page, timezone)
    context |= _history(visitor, rollout, cell_page, before)
    context |= _past(visitor, rollout) if cell_page.past else _now(visitor, rollout, cell_page)
    return page(
        request, visitor, "rollout", 422 if requested_time.wrong else 200,
        rollout=rollout, live=None if cell_page.past else live_region,
        asked=requested_time, zone=timezone,
        errors={"at": requested_time.wrong} if requested_time.wrong else {}, **context,
    )  # fmt: skip


@router.get("/rollouts/{rollout}/cells/{cell:path}")
def one_cell(
    request: Request, rollout: str, cell: str, visitor: Visiting, before: From = 0
) -> Response:
    """Show one cell: every version's evidence, its guards, its own history."""
    require(visitor.caller, Act.READ, rollout)
    live_region = live(request, visitor, rollout)
    selected_cell = cell_named(request, cell)
    detail = cell_of(visitor.service, visitor.caller, rollout, selected_cell, at=visitor.at)
    cell_page = cells_with(visitor.service, visitor.caller, rollout, selected_cell, at=visitor.at)
    policy = cell_page.stood.policy
    schedules = courses_of(cell_page.stood.scope, policy, cell_page.at)
    timezone = policy.site[selected_cell.site].timezone
    history = tuple(reversed(detail.history))
    return page(
        request, visitor, "rollout_cell",
        rollout=rollout, live=live_region, cell=selected_cell, zone=timezone,
        marks=marks_of(policy),
        row=table_row(cell_page, cell_page.rows[0], schedules, _clock(visitor, timezone)),
        detail=detail, charts=path_charts(detail.evidence, timezone),
        measured=[
            measured_of(facts, cell_page.rows[0].held if facts.acting else ())
            for facts in detail.evidence
        ],
        decides=[first_large(full_stop(facts.decides_next)) for facts in detail.evidence],
        guards=GUARDS,
        value=cell_value(selected_cell),
        may_stop=visitor.may(Act.OPERATE, rollout, selected_cell.site),
        grants=grants_of(cell_page, (selected_cell,)),
        history=entries(history[before : before + PAGE], policy),
        older=before + PAGE if len(history) > before + PAGE else None,
    )  # fmt: skip


def _clock(visitor: Visitor, zone: str) -> Callable[[datetime], Markup]:
    return partial(site_time, zone=zone, visitor=visitor)


def _zone(visitor: Visitor, rollout: str) -> str:
    return _stood(visitor, rollout).policy.timezone


def _stood(visitor: Visitor, rollout: str) -> Standing:
    return visitor.service.watch.rollout(rollout).standing


def _shown(visitor: Visitor, rollout: str, found: Cells, zone: str) -> dict[str, Any]:
    """Return what a page of now and one of then have in common."""
    policy, scope = found.stood.policy, found.stood.scope
    schedules = courses_of(scope, policy, found.at)
    markers = marks_of(policy)
    time_formatters = {site: _clock(visitor, policy.site[site].timezone) for site in found.sites}
    now_label = "then" if found.past else "now"
    return {
        "lede": lede(policy, scope, schedules, found.sites),
        "map": week_map(policy, schedules, found.at, found.sites, word=now_label),
        "turns": turns_of(policy, found.at, found.sites),
        "legend": (*markers.values(), withheld(markers)),
        "found": found,
        "rows": table_rows(found, schedules, time_formatters),
        "caption": caption(found.first, len(found.rows), len(found.cells)),
        "rivals": rivals_of(found),
        "side_by_side": side_by_side(scope, found.cells),
        "grants": grants_of(found, [row.cell for row in found.rows]),
        "limits": limits(policy, scope, found.sites, found.at, _clock(visitor, zone)),
        "around": _around(visitor, rollout, found.at),
    }


def _around(visitor: Visitor, rollout: str, at: datetime) -> dict[str, str]:
    adjacent_changes = around(visitor.service, visitor.caller, rollout, at)
    return {
        "before": "" if adjacent_changes.before is None else link_of(adjacent_changes.before),
        "after": (
            ""
            if adjacent_changes.after is None or adjacent_changes.after > visitor.at
            else link_of(adjacent_changes.after)
        ),
    }


def _history(visitor: Visitor, rollout: str, found: Cells, before: int | None) -> dict[str, Any]:
    until = found.at if found.past else None
    activity = happened(visitor.service, visitor.caller, rollout, until=until, before=before)
    return {
        "history": entries(activity.items, found.stood.policy),
        "older": activity.before,
        "revision": found.stood.scope.revision,
        "reads_all": all(visitor.may(Act.READ, rollout, site) for site in found.stood.policy.site),
    }


def _now(visitor: Visitor, rollout: str, found: Cells) -> dict[str, Any]:
    """Return what only a page of now has: whose turn it is, actions, how far a stop reaches."""
    state, service, caller = found.stood, visitor.service, visitor.caller
    own_proposals = waiting_for(state, caller, at=visitor.at)

    def clock_of(site: str) -> Callable[[datetime], Markup]:
        return _clock(visitor, state.policy.zone_of(site))

    versions = tuple(version.id for version in state.scope.versions.values() if not version.retired)
    stops = stops_of(service, caller, rollout, at=visitor.at)
    return {
        "next": next_of(state.scope, own_proposals, found.sites, visitor.at, clock_of),
        "changes": action_changes_of(service, caller, rollout, versions[-2:]),
        "stops": stops,
        "reach": reach_text(stops.stop_latency),
        "may_stop": any(visitor.may(Act.OPERATE, rollout, site) for site in found.sites),
    }


def _past(visitor: Visitor, rollout: str) -> dict[str, Any]:
    """Return what a page of then has instead: what is allowed now, in a sentence."""
    state = visitor.service.watch.confirmed(rollout).standing
    schedules = courses_of(state.scope, state.policy, visitor.at)
    sites = visitor.sites(Act.READ, rollout, state.policy)
    return {"now_says": lede(state.policy, state.scope, schedules, sites), "next": None,
            "changes": (), "stops": None, "reach": "", "may_stop": False}  # fmt: skip


def _before_all(
    request: Request, visitor: Visitor, rollout: str, asked: AsOf, zone: str
) -> Response:
    """Say that there was no policy yet: people decided everything."""
    after = _around(visitor, rollout, asked.when or visitor.at)["after"]
    return page(
        request, visitor, "rollout_before", rollout=rollout, asked=asked, after=after, zone=zone
    )
