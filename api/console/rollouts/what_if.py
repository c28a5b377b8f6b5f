"""The page of a what-if: a draft against the policy in force, run in a process of its own.

A run and its result are the user's own. While it runs the page reloads itself; it can be left.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response
from markupsafe import Markup, escape

from api.console.page.form import SignedForm
from api.console.page.page import redirect_to, render_page
from api.console.page.page_context import CurrentVisitor, Visitor
from api.console.page.text import encode_segment
from api.console.rollouts.policy import build_error_context, parse_typed_policy
from rollout.core.errors import RefusalError
from rollout.core.scope.permissions import Permission, may_be_asked_blind, require_permission
from rollout.reports.pages.stage_markers import StageMarker, build_markers
from rollout.services.policies.policies import load_policy_at, load_proposed_policy
from rollout.services.what_if.closed_cases import SPANS, WhatIfRequest, check_request
from rollout.services.what_if.comparison import CellPair, WhatIfResult
from rollout.services.what_if.comparison_text import (
    EFFECT_WORDS,
    describe_coverage,
    describe_ranges,
    describe_result,
    list_cells,
    list_changes,
    list_figures,
)
from rollout.services.what_if.replayed_policy import CellReplay
from rollout.services.what_if.runs import WhatIfRun, WhatIfRuns

MAX_ROWS: Final = 40  # cells on a map; the table has all
WIDTH, LEFT, ROW, BAR = 520, 150, 26, 18  # pixels
MIN_CODE_WIDTH: Final = 26


def list_mapped_cells(result: WhatIfResult) -> tuple[CellPair, ...]:
    """Return the cells of the maps: those that the draft changes first."""
    ordered = sorted(result.cells, key=lambda pair: pair.effect == "same")
    return tuple(ordered[:MAX_ROWS])


def list_markers(result: WhatIfResult) -> tuple[StageMarker, ...]:
    """Return how each stage is drawn."""
    return tuple(build_markers(result.stages, result.deciding_stages).values())


def draw_map(result: WhatIfResult, side: str, name: str) -> Markup:
    """Return a map of one side, `current` or `draft`; the table says the same in words."""
    cells = list_mapped_cells(result)
    markers = {marker.name: marker for marker in list_markers(result)}
    parts = [
        part
        for row, pair in enumerate(cells)
        for part in _draw_row(row * ROW, pair, getattr(pair, side), markers, result)
    ]
    label = escape(f"Stages under {name}; the table cell by cell has the times")
    height = len(cells) * ROW
    return Markup(  # noqa: S704 - names are escaped where they are put in
        f'<svg class="map" role="img" aria-label="{label}" width="{WIDTH}" height="{height}"'
        f' viewBox="0 0 {WIDTH} {height}">{"".join(parts)}</svg>'
    )


def _draw_row(
    top: int,
    pair: CellPair,
    cell: CellReplay | None,
    markers: dict[str, StageMarker],
    result: WhatIfResult,
) -> Iterator[str]:
    title = escape(f"{pair.site} · {pair.window}")
    yield f'<text class="t-strong" x="0" y="{top + 14}">{title}</text>'
    if cell is None:
        yield f'<text x="{LEFT}" y="{top + 14}">no such cell</text>'
        return
    for interval in cell.intervals:
        until = min(interval.until, cell.unknown_since or interval.until)
        left, right = _find_x(interval.since, result), _find_x(until, result)
        if right > left:
            yield from _draw_bar(top, left, right, markers[interval.stage])
    if cell.unknown_since is not None:
        left = _find_x(cell.unknown_since, result)
        yield (
            f'<rect class="p-0" x="{left:.1f}" y="{top}" width="{WIDTH - left:.1f}"'
            f' height="{BAR}" fill="none"/>'
        )
        yield f'<text x="{min(left + 4, WIDTH - 56):.1f}" y="{top + 13}">unknown</text>'


def _draw_bar(top: int, left: float, right: float, marker: StageMarker) -> Iterator[str]:
    fill = f' fill="url(#p-{marker.pattern})"' if marker.pattern == "1" else ""
    yield (
        f'<rect class="p-{marker.pattern}"{fill} x="{left:.1f}" y="{top}"'
        f' width="{right - left:.1f}" height="{BAR}"/>'
    )
    if right - left >= MIN_CODE_WIDTH:
        yield (
            f'<text class="t-code on-{marker.pattern}" x="{(left + right) / 2:.1f}"'
            f' y="{top + 13}" text-anchor="middle">{escape(marker.code)}</text>'
        )


def _find_x(at: datetime, result: WhatIfResult) -> float:
    share = (at - result.since) / (result.until - result.since)
    return LEFT + (WIDTH - LEFT) * min(1.0, max(0.0, share))


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
            ("In force", draw_map(result, "current", "the policy in force")),
            ("Draft", draw_map(result, "draft", "the draft")),
        ),
        "mapped": len(mapped),
        "markers": list_markers(result),
    }
