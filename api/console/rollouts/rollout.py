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
    heard = live(request, visitor, rollout)
    zone = _zone(visitor, rollout)
    asked = as_of(at, zone, visitor.at)
    found = cell_rows(
        visitor.service, visitor.caller, rollout,
        at=visitor.at, when=asked.when, first=cells_from, limit=PAGE,
    )  # fmt: skip
    if found is None:
        return _before_all(request, visitor, rollout, asked, zone)
    shown = _shown(visitor, rollout, found, zone)
    shown |= _history(visitor, rollout, found, before)
    shown |= _past(visitor, rollout) if found.past else _now(visitor, rollout, found)
    return page(
        request, visitor, "rollout", 422 if asked.wrong else 200,
        rollout=rollout, live=None if found.past else heard, asked=asked, zone=zone,
        errors={"at": asked.wrong} if asked.wrong else {}, **shown,
    )  # fmt: skip


@router.get("/rollouts/{rollout}/cells/{cell:path}")
def one_cell(
    request: Request, rollout: str, cell: str, visitor: Visiting, before: From = 0
) -> Response:
    """Show one cell: every version's evidence, its guards, its own history."""
    require(visitor.caller, Act.READ, rollout)
    heard = live(request, visitor, rollout)
    own = cell_named(request, cell)
    detail = cell_of(visitor.service, visitor.caller, rollout, own, at=visitor.at)
    found = cells_with(visitor.service, visitor.caller, rollout, own, at=visitor.at)
    policy = found.stood.policy
    courses = courses_of(found.stood.scope, policy, found.at)
    zone = policy.site[own.site].timezone
    history = tuple(reversed(detail.history))
    return page(
        request, visitor, "rollout_cell",
        rollout=rollout, live=heard, cell=own, zone=zone, marks=marks_of(policy),
        row=table_row(found, found.rows[0], courses, _clock(visitor, zone)),
        detail=detail, charts=path_charts(detail.evidence, zone),
        measured=[
            measured_of(facts, found.rows[0].held if facts.acting else ())
            for facts in detail.evidence
        ],
        decides=[first_large(full_stop(facts.decides_next)) for facts in detail.evidence],
        guards=GUARDS,
        value=cell_value(own), may_stop=visitor.may(Act.OPERATE, rollout, own.site),
        grants=grants_of(found, (own,)),
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
    courses = courses_of(scope, policy, found.at)
    marks = marks_of(policy)
    clocks = {site: _clock(visitor, policy.site[site].timezone) for site in found.sites}
    word = "then" if found.past else "now"
    return {
        "lede": lede(policy, scope, courses, found.sites),
        "map": week_map(policy, courses, found.at, found.sites, word=word),
        "turns": turns_of(policy, found.at, found.sites),
        "legend": (*marks.values(), withheld(marks)),
        "found": found,
        "rows": table_rows(found, courses, clocks),
        "caption": caption(found.first, len(found.rows), len(found.cells)),
        "rivals": rivals_of(found),
        "side_by_side": side_by_side(scope, found.cells),
        "grants": grants_of(found, [row.cell for row in found.rows]),
        "limits": limits(policy, scope, found.sites, found.at, _clock(visitor, zone)),
        "around": _around(visitor, rollout, found.at),
    }


def _around(visitor: Visitor, rollout: str, at: datetime) -> dict[str, str]:
    found = around(visitor.service, visitor.caller, rollout, at)
    return {
        "before": "" if found.before is None else link_of(found.before),
        "after": "" if found.after is None or found.after > visitor.at else link_of(found.after),
    }


def _history(visitor: Visitor, rollout: str, found: Cells, before: int | None) -> dict[str, Any]:
    until = found.at if found.past else None
    told = happened(visitor.service, visitor.caller, rollout, until=until, before=before)
    return {
        "history": entries(told.items, found.stood.policy),
        "older": told.before,
        "revision": found.stood.scope.revision,
        "reads_all": all(visitor.may(Act.READ, rollout, site) for site in found.stood.policy.site),
    }


def _now(visitor: Visitor, rollout: str, found: Cells) -> dict[str, Any]:
    """Return what only a page of now has: whose turn it is, actions, how far a stop reaches."""
    stood, service, caller = found.stood, visitor.service, visitor.caller
    mine = waiting_for(stood, caller, at=visitor.at)

    def clock_of(site: str) -> Callable[[datetime], Markup]:
        return _clock(visitor, stood.policy.zone_of(site))

    versions = tuple(v.id for v in stood.scope.versions.values() if not v.retired)
    stops = stops_of(service, caller, rollout, at=visitor.at)
    return {
        "next": next_of(stood.scope, mine, found.sites, visitor.at, clock_of),
        "changes": action_changes_of(service, caller, rollout, versions[-2:]),
        "stops": stops,
        "reach": reach_text(stops.stop_latency),
        "may_stop": any(visitor.may(Act.OPERATE, rollout, site) for site in found.sites),
    }


def _past(visitor: Visitor, rollout: str) -> dict[str, Any]:
    """Return what a page of then has instead: what is allowed now, in a sentence."""
    stood = visitor.service.watch.confirmed(rollout).standing
    courses = courses_of(stood.scope, stood.policy, visitor.at)
    sites = visitor.sites(Act.READ, rollout, stood.policy)
    return {"now_says": lede(stood.policy, stood.scope, courses, sites), "next": None,
            "changes": (), "stops": None, "reach": "", "may_stop": False}  # fmt: skip


def _before_all(
    request: Request, visitor: Visitor, rollout: str, asked: AsOf, zone: str
) -> Response:
    """Say that there was no policy yet: people decided everything."""
    after = _around(visitor, rollout, asked.when or visitor.at)["after"]
    return page(
        request, visitor, "rollout_before", rollout=rollout, asked=asked, after=after, zone=zone
    )
