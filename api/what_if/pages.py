"""The page of a what-if: a draft against the policy in force, run in a process of its own.

A run and its result are the user's own. While it runs the page reloads itself; it can be left.

Its maps, as SVG, show each cell's stages over the recorded days, once for each policy.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response
from markupsafe import Markup

from api.policies.pages import build_error_context, parse_typed_policy
from api.web_kit.page import encode_segment, redirect_to, render_page
from api.web_kit.page_context import CurrentVisitor, SignedForm, Visitor
from rollout.engine.decide.permissions import Permission, may_be_asked_blind, require_permission
from rollout.features.policies.policies import load_policy_at, load_proposed_policy
from rollout.features.reports.pages.number_charts import format_pixels
from rollout.features.reports.pages.timeline_layout import HATCHED, StageMarker, build_markers
from rollout.features.what_if.comparison import (
    EFFECT_WORDS,
    CellPair,
    WhatIfResult,
    describe_coverage,
    describe_ranges,
    describe_result,
    list_cells,
    list_changes,
    list_figures,
)
from rollout.features.what_if.replayed_policy import CellReplay
from rollout.features.what_if.runs import SPANS, WhatIfRequest, WhatIfRuns, check_request
from rollout.kernel.errors import RefusalError

MAX_ROWS: Final = 40  # cells on a map; the table has all
# Sizes in px.
WIDE: Final = (580, 200, 5)  # width, the most for names of cells, the most dates
NARROW: Final = (326, 120, 3)
ROW, BAR, AXIS_HEIGHT = 26, 18, 22
LETTER_WIDTH: Final = 8  # per character of a bold name
DATE_WIDTH: Final = 44
CODE_MARGIN: Final = 8
UNKNOWN_TEXT: Final = "unknown"
UNKNOWN_WIDTH: Final = 58


@dataclass(frozen=True, slots=True)
class _DaysFrame:
    """Coordinates: bars lie between `left` and `width`, for the span of the result."""

    width: int
    left: int
    max_dates: int
    since: datetime
    until: datetime

    def x(self, at: datetime) -> float:
        """Return the x coordinate of an instant, clipped to the bars."""
        share = (at - self.since) / (self.until - self.since)
        return self.left + (self.width - self.left - 1) * min(1.0, max(0.0, share))


def list_mapped_cells(result: WhatIfResult) -> tuple[CellPair, ...]:
    """Return the cells of the maps in their order; of too many those that the draft changes."""
    if len(result.cells) <= MAX_ROWS:
        return result.cells
    return tuple(sorted(result.cells, key=lambda pair: pair.effect == "same")[:MAX_ROWS])


def list_markers(result: WhatIfResult) -> tuple[StageMarker, ...]:
    """Return how each stage is drawn."""
    return tuple(build_markers(result.stages, result.deciding_stages).values())


def draw_map(result: WhatIfResult, side: str, name: str) -> tuple[Markup, Markup]:
    """Return a map of `current` or `draft` for wide and for narrow screens.

    The table of cells says the same in words.
    """
    wide, narrow = (_draw_map(result, side, name, size) for size in (WIDE, NARROW))
    return wide, narrow


def _draw_map(result: WhatIfResult, side: str, name: str, size: tuple[int, int, int]) -> Markup:
    width, max_name_width, max_dates = size
    cells = list_mapped_cells(result)
    names = [pair.cell_name for pair in cells]
    name_width = min(max(map(len, names), default=0) * LETTER_WIDTH, max_name_width)
    frame = _DaysFrame(width, name_width + 8, max_dates, result.since, result.until)
    markers = {marker.name: marker for marker in list_markers(result)}
    rows = [
        part
        for row, (pair, text) in enumerate(zip(cells, names, strict=True))
        for part in _draw_row(row * ROW, text, getattr(pair, side), markers, frame)
    ]
    return Markup(
        '<svg class="chart map" role="img" aria-label="{0}" width="{1}" height="{2}"'
        ' viewBox="0 0 {1} {2}">{3}</svg>'
    ).format(
        f"Stages under {name}; the table cell by cell has the times", width,
        len(cells) * ROW + AXIS_HEIGHT,
        Markup("").join([*_draw_dates(len(cells) * ROW, frame), *rows]),
    )  # fmt: skip


def _draw_dates(bottom: int, frame: _DaysFrame) -> Iterator[Markup]:
    """Draw a line and a date for some of the days, as far apart as they need."""
    start = frame.since.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    days = (frame.until - start).days
    step = max(1, -(-days // frame.max_dates))
    for number in range(1, days + 1, step):
        x = frame.x(start + timedelta(days=number))
        yield Markup('<line class="g-line" x1="{0}" x2="{0}" y1="0" y2="{1}"/>').format(
            format_pixels(x), bottom
        )
        anchor = "end" if x + DATE_WIDTH / 2 > frame.width else "middle"
        day = start + timedelta(days=number)
        yield Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>').format(
            format_pixels(x), bottom + 14, anchor, f"{day.day} {day:%b}"
        )


def _draw_row(
    top: int,
    name: str,
    cell: CellReplay | None,
    markers: Mapping[str, StageMarker],
    frame: _DaysFrame,
) -> Iterator[Markup]:
    max_letters = (frame.left - 8) // LETTER_WIDTH
    short_name = name if len(name) <= max_letters else f"{name[: max_letters - 1]}…"
    yield Markup('<text class="t-strong" x="0" y="{}">{}</text>').format(top + 14, short_name)
    if cell is None:
        yield Markup('<text x="{}" y="{}">no such cell</text>').format(frame.left, top + 14)
        return
    for interval in cell.intervals:
        until = min(interval.until, cell.unknown.at if cell.unknown else interval.until)
        left, right = frame.x(interval.since), frame.x(until)
        if right > left:
            yield from _draw_stage(top, left, right, markers[interval.stage])
    if cell.unknown is not None:
        left, right = frame.x(cell.unknown.at), frame.x(frame.until)
        yield _draw_bar("p-0 g-track", "", top, left, right)
        if right - left >= UNKNOWN_WIDTH:
            yield _draw_text("", top, (left + right) / 2, UNKNOWN_TEXT)


def _draw_stage(top: int, left: float, right: float, marker: StageMarker) -> Sequence[Markup]:
    is_hatched = marker.pattern == HATCHED
    fill = Markup(' fill="url(#p-{})"').format(marker.pattern) if is_hatched else ""
    parts = [_draw_bar(f"p-{marker.pattern}", fill, top, left, right)]
    width = LETTER_WIDTH * len(marker.code) + 4
    if right - left >= width + CODE_MARGIN:
        middle = (left + right) / 2
        if is_hatched:
            parts.append(
                Markup(
                    '<rect class="code-ground" x="{}" y="{}" width="{}" height="14" rx="2"/>'
                ).format(format_pixels(middle - width / 2), top + 2, width)
            )
        parts.append(_draw_text(f"t-code on-{marker.pattern}", top, middle, marker.code))
    return parts


def _draw_bar(css_class: str, fill: str, top: int, left: float, right: float) -> Markup:
    return Markup('<rect class="{}"{} x="{}" y="{}" width="{}" height="{}"/>').format(
        css_class, fill, format_pixels(left + 0.5), top + 0.5, format_pixels(right - left), BAR - 1
    )


def _draw_text(css_class: str, top: int, x: float, text: str) -> Markup:
    attribute = Markup(' class="{}"').format(css_class) if css_class else ""
    return Markup('<text{} x="{}" y="{}" text-anchor="middle">{}</text>').format(
        attribute, format_pixels(x), top + 13, text
    )


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
    runs.compare(visitor.caller, what_if_request, at=visitor.at)


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
    state = service.load_permitted_state(caller, Permission.READ, rollout)
    require_permission(caller, Permission.READ, rollout, tuple(state.policy.sites_by_id))
    run = _get_runs(request).find_comparison(visitor.name, rollout, at=visitor.at)
    result = None if run is None else run.result
    is_hidden = result is not None and may_be_asked_blind(caller, rollout, ())
    policy_text = load_policy_at(service, caller, rollout).text
    typed = text or (run.subject.draft_text if run is not None else "")
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
        days=SPANS[0] if run is None else run.subject.days,
        **build_error_context(error, typed, policy_text),
    )
    if run is not None and run.is_running and error is None:
        response.headers["Refresh"] = str(RELOAD_SECONDS)
    return response


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
