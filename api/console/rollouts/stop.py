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
    except Refusal as refused:
        return _again(request, visitor, rollout, typed, refused)


@router.post("/rollouts/{rollout}/stop/confirm")
@narrowing
def stop(request: Request, rollout: str, form: Signed, visitor: Visiting) -> Response:
    """Stop, and go on to what holds."""
    typed = {name: form.one(name) for name in ("reach", "reason", "drill")}
    try:
        held = _stopped(visitor, rollout, form)
    except Refusal as refused:
        return _again(request, visitor, rollout, typed, refused)
    visitor.service.watch.doubt(rollout)
    query = urlencode([("stop", one.id) for one in held.active_stops[:100]])
    return to(f"/rollouts/{segment(rollout)}/stop/done?{query}")


@router.get("/rollouts/{rollout}/stop/done")
@narrowing
def done(request: Request, rollout: str, visitor: Visiting, stop: Ids = None) -> Response:
    """Say what holds: read from the ledger, the address only names it."""
    heard = live(request, visitor, rollout)
    found = stops.stops_of(visitor.service, visitor.caller, rollout, at=visitor.at)
    held = [one for one in found.items if one.id in set(stop or ())]
    others = [one for one in found.items if one not in held]
    policy = visitor.service.watch.confirmed(rollout).standing.policy
    sites = {cell.site for one in held for cell in one.cells}
    left = [s for s in policy.site if not visitor.may(Act.OPERATE, rollout, s)]
    shown: dict[str, Any] = {
        "rollout": rollout,
        "live": heard,
        "held": held,
        "others": others,
        "reach": reach_text([one for one in found.stop_latency if one.site in sites]),
        "left": left,
        "zone": policy.timezone,
        **holding_words(visitor, rollout, held),
    }
    return page(request, visitor, "stop_done", **shown)


def _stopped(visitor: Visitor, rollout: str, form: Form) -> stops.StopResult:
    said = StopRequest(reason=form.one("reason"), drill=form.one("drill") != "")
    return stops.stop(
        visitor.service.database,
        visitor.caller,
        rollout,
        far_of(form.one("reach")).named,
        at=visitor.at,
        reason=said.reason,
        drill=said.drill,
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
    heard = live(request, visitor, rollout)
    found = stoppable(visitor.service, visitor.caller, rollout, at=visitor.at)
    around = {
        "rollout": rollout,
        "live": heard,
        "found": found,
        "whole": everything(found),
        "sites": sites_of(found),
        "cells": cells_of(found),
        "rows": rows_of(found, visitor.at),
        "stages": found.policy.rungs[:-1],
        "acting": [one for one in found.cells if one.stage != SHADOW],
        "zone": found.policy.timezone,
    }
    return page(request, visitor, template, status, **{**around, **shown})


def second_step(
    request: Request, visitor: Visitor, template: str, rollout: str, typed: dict[str, str],
    **shown: Any,
) -> Response:  # fmt: skip
    """Show what would be done, and the button that does it.

    Raises:
        Refusal: nothing was chosen, nothing of it exists, or none of it is the visitor's.
    """
    far: Far = far_of(typed["reach"])
    heard = live(request, visitor, rollout)
    found = stoppable(visitor.service, visitor.caller, rollout, at=visitor.at)
    choice = meant(visitor.service, visitor.caller, rollout, far.named)
    cells = set(choice.cells)
    around = {
        "rollout": rollout,
        "live": heard,
        "far": far,
        "typed": typed,
        "choice": choice,
        "held": [one for one in found.cells if one.cell in cells],
        "acting": [one for one in found.cells if one.cell in cells and one.stage != SHADOW],
        "reach": reach_text([one for one in found.reach if one.site in choice.sites]),
        "back": urlencode({name: value for name, value in typed.items() if value}),
    }
    return page(request, visitor, template, **{**around, **shown})


def rows_of(found: Stoppable, at: datetime) -> list[dict[str, Any]]:
    """Return for each site how soon a stop holds, by the clock too where it takes long."""
    rows = []
    for one in found.reach:
        within = timedelta(seconds=one.within_seconds)
        rows.append({
            "site": one.site,
            "span": span_text(one.within_seconds),
            "by": at + within if within > SOON else None,
            "zone": found.policy.site[one.site].timezone,
            "until_then": until_then(found.cells, one.site),
        })  # fmt: skip
    return rows
