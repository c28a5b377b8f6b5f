"""Stop: two steps on threads that nothing else takes, then what holds, and how to come back."""

from datetime import datetime, timedelta
from typing import Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response

from api.console.page.form import Form, Signed
from api.console.page.page import page, to
from api.console.page.page_context import Visiting, Visitor
from api.console.page.revision import live
from api.console.page.stop_target import (
    Far,
    cells_of,
    everything,
    far_of,
    reach_text,
    sites_of,
    span_text,
    until_then,
)
from api.console.page.text import segment
from api.console.proposals.proposal_text import told
from api.console.rollouts.resume import holding_words
from api.priority_threads import narrowing
from api.problems import STATUS
from api.schemas.stops import MOST_SAID, StopRequest
from rollout.core.calendar.sites import SHADOW
from rollout.core.errors import Refusal
from rollout.core.scope.permissions import Act
from rollout.services.stops import stops
from rollout.services.stops.stop_targets import Stoppable, meant, rollouts_to_stop, stoppable

router = APIRouter()
Word = Annotated[str, Query(max_length=2_000)]
Ids = Annotated[list[str] | None, Query(max_length=100)]
SOON: Final = timedelta(minutes=5)
"""A reach that takes longer is told by the clock too."""


@router.get("/stop")
@narrowing
def which(request: Request, visitor: Visiting) -> Response:
    """Ask which rollout; of one alone it goes on at once."""
    names = rollouts_to_stop(visitor.service.database, visitor.caller)
    if len(names) == 1:
        return to(f"/rollouts/{segment(names[0])}/stop")
    return page(request, visitor, "stop_which", names=names)


@router.get("/rollouts/{rollout}/stop")
@narrowing
def ask(
    request: Request, rollout: str, visitor: Visiting,
    reach: Word = "", reason: Word = "", drill: Word = "",
) -> Response:  # fmt: skip
    """Ask how far; what was chosen before stands there again."""
    return first_step(
        request, visitor, "stop", rollout, typed={"reach": reach, "reason": reason, "drill": drill}
    )


@router.get("/rollouts/{rollout}/stop/confirm")
@narrowing
def confirm(
    request: Request, rollout: str, visitor: Visiting,
    reach: Word = "", reason: Word = "", drill: Word = "",
) -> Response:  # fmt: skip
    """Say what would be stopped, and ask for the second yes."""
    typed = {"reach": reach, "reason": reason[:MOST_SAID], "drill": drill}
    try:
        return second_step(request, visitor, "stop_confirm", rollout, typed)
    except Refusal as error:
        return _again(request, visitor, rollout, typed, error)


@router.post("/rollouts/{rollout}/stop/confirm")
@narrowing
def stop(request: Request, rollout: str, form: Signed, visitor: Visiting) -> Response:
    """Stop, and go on to what holds."""
    typed = {name: form.one(name) for name in ("reach", "reason", "drill")}
    try:
        result = _stopped(visitor, rollout, form)
    except Refusal as error:
        return _again(request, visitor, rollout, typed, error)
    visitor.service.watch.doubt(rollout)
    query = urlencode([("stop", active_stop.id) for active_stop in result.active_stops[:100]])
    return to(f"/rollouts/{segment(rollout)}/stop/done?{query}")


@router.get("/rollouts/{rollout}/stop/done")
@narrowing
def done(request: Request, rollout: str, visitor: Visiting, stop: Ids = None) -> Response:
    """Say what holds: read from the ledger, the address only names it."""
    live_region = live(request, visitor, rollout)
    stop_list = stops.stops_of(visitor.service, visitor.caller, rollout, at=visitor.at)
    active_stops = [
        active_stop for active_stop in stop_list.items if active_stop.id in set(stop or ())
    ]
    other_stops = [
        active_stop for active_stop in stop_list.items if active_stop not in active_stops
    ]
    policy = visitor.service.watch.confirmed(rollout).standing.policy
    sites = {cell.site for active_stop in active_stops for cell in active_stop.cells}
    other_sites = [site for site in policy.site if not visitor.may(Act.OPERATE, rollout, site)]
    context: dict[str, Any] = {
        "rollout": rollout,
        "live": live_region,
        "held": active_stops,
        "others": other_stops,
        "reach": reach_text(
            [active_stop for active_stop in stop_list.stop_latency if active_stop.site in sites]
        ),
        "left": other_sites,
        "zone": policy.timezone,
        **holding_words(visitor, rollout, active_stops),
    }
    return page(request, visitor, "stop_done", **context)


def _stopped(visitor: Visitor, rollout: str, form: Form) -> stops.StopResult:
    stop_request = StopRequest(reason=form.one("reason"), drill=form.one("drill") != "")
    return stops.stop(
        visitor.service.database,
        visitor.caller,
        rollout,
        far_of(form.one("reach")).named,
        at=visitor.at,
        reason=stop_request.reason,
        drill=stop_request.drill,
    )


def _again(
    request: Request, visitor: Visitor, rollout: str, typed: dict[str, str], refused: Refusal
) -> Response:
    """Show step 1 again with what was typed and what is wrong."""
    status = STATUS.get(refused.code, 422)
    errors = {"reach": told(str(refused), visitor.name)}
    return first_step(request, visitor, "stop", rollout, status, typed=typed, errors=errors)


def first_step(
    request: Request,
    visitor: Visitor,
    template: str,
    rollout: str,
    status: int = 200,
    **shown: Any,
) -> Response:
    """Show the form that asks how far, beside how soon it would hold."""
    live_region = live(request, visitor, rollout)
    options = stoppable(visitor.service, visitor.caller, rollout, at=visitor.at)
    base_context = {
        "rollout": rollout,
        "live": live_region,
        "found": options,
        "whole": everything(options),
        "sites": sites_of(options),
        "cells": cells_of(options),
        "rows": rows_of(options, visitor.at),
        "stages": options.policy.rungs[:-1],
        "acting": [cell_grant for cell_grant in options.cells if cell_grant.stage != SHADOW],
        "zone": options.policy.timezone,
    }
    return page(request, visitor, template, status, **{**base_context, **shown})


def second_step(
    request: Request, visitor: Visitor, template: str, rollout: str, typed: dict[str, str],
    **shown: Any,
) -> Response:  # fmt: skip
    """Show what would be done, and the button that does it.

    Raises:
        Refusal: nothing was chosen, nothing of it exists, or none of it is the visitor's.
    """
    selection: Far = far_of(typed["reach"])
    live_region = live(request, visitor, rollout)
    options = stoppable(visitor.service, visitor.caller, rollout, at=visitor.at)
    resolved_target = meant(visitor.service, visitor.caller, rollout, selection.named)
    cells = set(resolved_target.cells)
    base_context = {
        "rollout": rollout,
        "live": live_region,
        "far": selection,
        "typed": typed,
        "choice": resolved_target,
        "held": [item for item in options.cells if item.cell in cells],
        "acting": [item for item in options.cells if item.cell in cells and item.stage != SHADOW],
        "reach": reach_text([item for item in options.reach if item.site in resolved_target.sites]),
        "back": urlencode({name: value for name, value in typed.items() if value}),
    }
    return page(request, visitor, template, **{**base_context, **shown})


def rows_of(found: Stoppable, at: datetime) -> list[dict[str, Any]]:
    """Return for each site how soon a stop holds, by the clock too where it takes long."""
    rows = []
    for latency in found.reach:
        time_span = timedelta(seconds=latency.within_seconds)
        rows.append({
            "site": latency.site,
            "span": span_text(latency.within_seconds),
            "by": at + time_span if time_span > SOON else None,
            "zone": found.policy.site[latency.site].timezone,
            "until_then": until_then(found.cells, latency.site),
        })  # fmt: skip
    return rows
