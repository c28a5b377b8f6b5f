"""The page of a what-if: a draft against the policy in force, run in a process of its own.

A run and its result are the user's own. While it runs the page reloads itself; it can be left.
"""

from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response

from api.console.page.form import SignedForm
from api.console.page.page import redirect_to, render_page
from api.console.page.page_context import CurrentVisitor, Visitor
from api.console.page.text import encode_segment
from api.console.rollouts.policy import build_error_context, parse_typed_policy
from api.console.rollouts.what_if_map import draw_map, list_mapped_cells, list_markers
from rollout.core.errors import RefusalError
from rollout.core.scope.permissions import Permission, may_be_asked_blind, require_permission
from rollout.services.policies.policies import load_policy_at, load_proposed_policy
from rollout.services.what_if.comparison import WhatIfResult
from rollout.services.what_if.comparison_text import (
    EFFECT_WORDS,
    describe_coverage,
    describe_ranges,
    describe_result,
    list_cells,
    list_changes,
    list_figures,
)
from rollout.services.what_if.requests import SPANS, WhatIfRequest, check_request
from rollout.services.what_if.runs import WhatIfRun, WhatIfRuns

router = APIRouter()
RELOAD_SECONDS: Final = 3
ONE_BY_ONE_TEXT: Final = (
    "You may now be given reviews here, so the result is not shown; a user without reviews can"
    " run it."
)
ProposalId = Annotated[str, Query(max_length=200)]


@router.get("/rollouts/{rollout}/settings/what-if")
def show_what_if(
    request: Request, visitor: CurrentVisitor, rollout: str, proposal: ProposalId = ""
) -> Response:
    """Show the user's run with its result, and the form; with the policy of a proposal."""
    text = ""
    if proposal:
        proposed = load_proposed_policy(visitor.service, visitor.caller, rollout, proposal)
        text = proposed.proposed_text
    return _render_what_if(request, visitor, rollout, text=text)


@router.post("/rollouts/{rollout}/settings/what-if")
def submit_what_if(
    request: Request, visitor: CurrentVisitor, rollout: str, form: SignedForm
) -> Response:
    """Start a run, or cancel the running one."""
    runs, text = _get_runs(request), form.get_raw_text("text")
    try:
        if form.has_field("cancel"):
            runs.cancel(visitor.name)
        elif not form.has_field("edit"):
            _start_run(runs, visitor, rollout, text, form.get_text("days"))
        else:
            return _render_what_if(request, visitor, rollout, text=text)
    except RefusalError as error:
        return _render_what_if(request, visitor, rollout, text=text, error=error)
    return redirect_to(f"/rollouts/{encode_segment(rollout)}/settings/what-if")


def _start_run(runs: WhatIfRuns, visitor: Visitor, rollout: str, text: str, days: str) -> None:
    parse_typed_policy(text)
    state = visitor.service.state_cache.reload_rollout(rollout).state
    span = int(days) if days.isdecimal() and len(days) < 4 else SPANS[0]
    what_if_request = WhatIfRequest(rollout, text, span)
    check_request(visitor.caller, state, what_if_request)
    runs.start(visitor.caller, what_if_request, at=visitor.at)


def _get_runs(request: Request) -> WhatIfRuns:
    runs: WhatIfRuns = request.app.state.what_if_runs
    return runs


def _render_what_if(
    request: Request,
    visitor: Visitor,
    rollout: str,
    *,
    text: str = "",
    error: RefusalError | None = None,
) -> Response:
    service, caller = visitor.service, visitor.caller
    require_permission(caller, Permission.READ, rollout)
    state = service.state_cache.reload_rollout(rollout).state
    require_permission(caller, Permission.READ, rollout, tuple(state.policy.sites_by_id))
    run = _get_runs(request).find(visitor.name, rollout, at=visitor.at)
    result = None if run is None else run.result
    is_hidden = result is not None and may_be_asked_blind(caller, rollout, ())
    policy_text = load_policy_at(service, caller, rollout).text
    typed = text or (run.request.draft_text if run is not None else "")
    response = render_page(
        request,
        visitor,
        "what_if",
        422 if error else 200,
        rollout=rollout,
        zone=state.policy.timezone,
        run=run,
        hidden_text=ONE_BY_ONE_TEXT if is_hidden else "",
        found=None if result is None or is_hidden else _build_view(result),
        spans=SPANS,
        days=SPANS[0] if run is None else run.request.days,
        **build_error_context(error, typed, policy_text),
    )
    if _is_reloaded(run, error):
        response.headers["Refresh"] = str(RELOAD_SECONDS)
    return response


def _is_reloaded(run: WhatIfRun | None, error: RefusalError | None) -> bool:
    """Return whether the page reloads itself: a typed text would be lost by it."""
    return run is not None and run.is_running and error is None


def _build_view(result: WhatIfResult) -> dict[str, object]:
    mapped = list_mapped_cells(result)
    return {
        "result": result,
        "lead": describe_result(result),
        "coverage": describe_coverage(result),
        "figures": list_figures(result),
        "ranges": describe_ranges(result),
        "changes": tuple(list_changes(result)),
        "cells": list_cells(result),
        "effects": EFFECT_WORDS,
        "maps": (
            ("In force", *draw_map(result, "current", "the policy in force")),
            ("Draft", *draw_map(result, "draft", "the draft")),
        ),
        "mapped": len(mapped),
        "markers": list_markers(result),
    }
