"""Pages to stop and to narrow, on reserved threads, and of active stops with requests to resume.

Stopping and narrowing each have a form, a confirmation and a result.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha256
from typing import Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response

from api.priority_threads import prioritize, run_with_priority
from api.problems import find_status
from api.proposals.pages import build_proposal_path
from api.proposals.proposal_text import APPROVED, describe_effect
from api.stops.routes import MAX_REASON_LENGTH, StopRequest
from api.web_kit.cell_view import (
    TargetSelection,
    build_cell_choices,
    build_site_choices,
    build_widest_choice,
    describe_interim,
    describe_stop_latency,
    parse_target,
)
from api.web_kit.page import encode_segment, redirect_to, render_page, say_refusal
from api.web_kit.page_context import CurrentVisitor, Form, SignedForm, Visitor, build_live_region
from api.web_kit.waiting import READ_TEXT
from rollout.engine.decide.permissions import Permission
from rollout.engine.words.approver_warnings import format_names, format_needs
from rollout.features.proposals.proposal_details import load_proposal
from rollout.features.proposals.proposals import (
    describe_missing_approvers,
    load_eligible_approvers,
    load_resume_askers,
)
from rollout.features.stops import stops
from rollout.features.stops import stops as stopping
from rollout.features.stops.stop_options import (
    CellGrant,
    StopOptions,
    format_stop_latency,
    load_own_narrowings,
    load_stop_options,
    load_stoppable_rollouts,
    resolve_stop_target,
)
from rollout.features.stops.stops import ActiveStop, latch_narrowing, latch_stop
from rollout.kernel.calendar.instants import SHADOW
from rollout.kernel.calendar.opening_hours import find_next_change, is_open
from rollout.kernel.errors import NotNarrowerError, RefusalError
from rollout.kernel.policy.policy import Policy

router = APIRouter()


@dataclass(frozen=True, slots=True)
class ResumeStatus:
    """How a stop can end, for one visitor.

    Attributes:
        text: what it waits for, "" if the visitor may request a resume.
        link_text: text of the link to the resume, or "".
        may_ask: whether the visitor may request a resume now.
        stuck: whether there are too few eligible approvers.
    """

    text: str
    link_text: str
    may_ask: bool
    stuck: bool


def build_resume_status(visitor: Visitor, rollout: str, stop: ActiveStop) -> ResumeStatus:
    """Return how a stop can end."""
    return (
        _build_requested_status(visitor, rollout, stop)
        if stop.resume_proposal
        else _build_unrequested_status(visitor, rollout, stop)
    )


def _build_requested_status(visitor: Visitor, rollout: str, stop: ActiveStop) -> ResumeStatus:
    service, caller = visitor.service, visitor.caller
    details = load_proposal(service, caller, rollout, stop.resume_proposal, at=visitor.at)
    if details.state == APPROVED:
        state = service.state_cache.reload_rollout(rollout).state
        effect_text = describe_effect(state, details, visitor.at)
        return ResumeStatus(
            f"The resume is approved. {effect_text}", "Read it", may_ask=False, stuck=False
        )
    shortage = describe_missing_approvers(service, caller, rollout, stop.resume_proposal)
    wait_reason = shortage or (
        ""
        if details.can_approve
        else _describe_other_approvers(load_eligible_approvers(service, caller, rollout, details))
    )
    text = "; ".join(filter(None, ("A resume was requested", wait_reason))) + "."
    link_text = READ_TEXT if details.can_approve else "Read it"
    return ResumeStatus(text, link_text, may_ask=False, stuck=bool(shortage))


def _describe_other_approvers(others: tuple[str, ...]) -> str:
    return f"others must approve it: {format_names(others)} can" if others else ""


def _build_unrequested_status(visitor: Visitor, rollout: str, stop: ActiveStop) -> ResumeStatus:
    sites = sorted({cell.site for cell in stop.cells})
    may_ask = all(visitor.has_permission(Permission.PROPOSE, rollout, site) for site in sites)
    askers = load_resume_askers(
        visitor.service, visitor.caller, rollout, stop.resume_required_approvals, sites
    )
    askers_text = f": {format_names(askers.asker_names)}" if askers.asker_names else ""
    others_text = (
        "" if may_ask else f"An operator of all its sites can request a resume{askers_text}."
    )
    text = " ".join(filter(None, (others_text, askers.warning)))
    return ResumeStatus(text, "", may_ask, stuck=bool(askers.warning))


@router.get("/rollouts/{rollout}/stops")
def show_stops(request: Request, rollout: str, visitor: CurrentVisitor) -> Response:
    """Show the active stops."""
    return _render_stops(request, visitor, rollout)


@router.post("/rollouts/{rollout}/stops/{stop}/resume")
def submit_resume_request(
    request: Request, rollout: str, stop: str, form: SignedForm, visitor: CurrentVisitor  # noqa: ARG001 - its token is checked
) -> Response:  # fmt: skip
    """Request a resume and redirect to its proposal."""
    service = visitor.service
    try:
        resume_result = stopping.propose_resume(
            service.database, visitor.caller, rollout, stop, at=visitor.at
        )
    except RefusalError as error:
        errors = {"": say_refusal(error)}
        return _render_stops(request, visitor, rollout, find_status(error.code), errors=errors)
    return redirect_to(build_proposal_path(rollout, resume_result.proposal))


def build_stop_context(
    visitor: Visitor, rollout: str, active_stops: Sequence[stopping.ActiveStop]
) -> dict[str, object]:
    """Return the template context of active stops."""
    statuses_by_stop = {
        stop.id: build_resume_status(visitor, rollout, stop) for stop in active_stops
    }
    return {"ways_back": statuses_by_stop, "needs_text": format_needs}


def _render_stops(
    request: Request,
    visitor: Visitor,
    rollout: str,
    status: int = 200,
    errors: dict[str, str] | None = None,
) -> Response:
    live_region = build_live_region(request, visitor, rollout)
    stop_list = stopping.load_stops(visitor.service, visitor.caller, rollout, at=visitor.at)
    policy = visitor.service.state_cache.reload_rollout(rollout).state.policy
    stop_context = build_stop_context(visitor, rollout, stop_list.items)
    return render_page(
        request,
        visitor,
        "stops",
        status,
        rollout=rollout,
        live=live_region,
        active_stops=stop_list.items,
        zone=policy.timezone,
        errors=errors or {},
        operates_here=bool(visitor.list_permitted_sites(Permission.OPERATE, rollout, policy)),
        version_hash=sha256(repr(stop_context["ways_back"]).encode()).hexdigest()[:16],
        **stop_context,
    )


QueryText = Annotated[str, Query(max_length=2_000)]
StopIds = Annotated[list[str] | None, Query(max_length=100)]
CLOCK_TIME_THRESHOLD: Final = timedelta(minutes=5)
"""A longer latency is also given as a clock time."""


@router.get("/stop")
@prioritize
def show_rollout_choice(request: Request, visitor: CurrentVisitor) -> Response:
    """Redirect to the stop form of the only rollout, or show a choice."""
    names = load_stoppable_rollouts(visitor.service.database, visitor.caller)
    if len(names) == 1:
        return redirect_to(f"/rollouts/{encode_segment(names[0])}/stop")
    return render_page(request, visitor, "stop_which", names=names)


@router.get("/rollouts/{rollout}/stop")
@prioritize
def show_stop_form(
    request: Request, rollout: str, visitor: CurrentVisitor,
    target: QueryText = "", reason: QueryText = "", drill: QueryText = "",
) -> Response:  # fmt: skip
    """Show the form for the target, with earlier choices."""
    return render_first_step(
        request,
        visitor,
        "stop",
        rollout,
        typed={"target": target, "reason": reason, "drill": drill},
    )


@router.get("/rollouts/{rollout}/stop/confirm")
@prioritize
def show_confirmation(
    request: Request, rollout: str, visitor: CurrentVisitor,
    target: QueryText = "", reason: QueryText = "", drill: QueryText = "",
) -> Response:  # fmt: skip
    """Show what would be stopped, to confirm."""
    typed = {"target": target, "reason": reason[:MAX_REASON_LENGTH], "drill": drill}
    try:
        return render_second_step(request, visitor, "stop_confirm", rollout, typed)
    except RefusalError as error:
        return _render_form_again(request, visitor, rollout, typed, error)


@router.post("/rollouts/{rollout}/stop/confirm")
async def submit_stop(
    request: Request, rollout: str, form: SignedForm, visitor: CurrentVisitor
) -> Response:
    """Stop and redirect to the result."""
    typed = {name: form.get_text(name) for name in ("target", "reason", "drill")}
    try:
        with _latch_stop(visitor, rollout, form) as write_stop:
            result = await run_with_priority(write_stop)
    except RefusalError as error:
        render = partial(_render_form_again, request, visitor, rollout, typed, error)
        return await run_with_priority(render)
    visitor.service.state_cache.invalidate(rollout)
    query = urlencode([("stop", active_stop.id) for active_stop in result.active_stops[:100]])
    return redirect_to(f"/rollouts/{encode_segment(rollout)}/stop/done?{query}")


@router.get("/rollouts/{rollout}/stop/done")
@prioritize
def show_result(
    request: Request, rollout: str, visitor: CurrentVisitor, stop: StopIds = None
) -> Response:
    """Show the active stops as the ledger has them."""
    live_region = build_live_region(request, visitor, rollout)
    stop_list = stops.load_stops(visitor.service, visitor.caller, rollout, at=visitor.at)
    active_stops = [
        active_stop for active_stop in stop_list.items if active_stop.id in set(stop or ())
    ]
    other_stops = [
        active_stop for active_stop in stop_list.items if active_stop not in active_stops
    ]
    policy = visitor.service.state_cache.reload_rollout(rollout).state.policy
    sites = {cell.site for active_stop in active_stops for cell in active_stop.cells}
    other_sites = [
        site
        for site in policy.sites_by_id
        if not visitor.has_permission(Permission.OPERATE, rollout, site)
    ]
    context: dict[str, Any] = {
        "rollout": rollout,
        "live": live_region,
        "active_stops": active_stops,
        "other_stops": other_stops,
        "latency": describe_stop_latency(
            [active_stop for active_stop in stop_list.stop_latency if active_stop.site in sites]
        ),
        "other_sites": other_sites,
        "zone": policy.timezone,
        **build_stop_context(visitor, rollout, active_stops),
    }
    return render_page(request, visitor, "stop_done", **context)


def _latch_stop(
    visitor: Visitor, rollout: str, form: Form
) -> AbstractContextManager[Callable[[], stops.StopResult]]:
    stop_request = StopRequest(reason=form.get_text("reason"), drill=form.get_text("drill") != "")
    return latch_stop(
        visitor.service,
        visitor.caller,
        rollout,
        parse_target(form.get_text("target")).target,
        at=visitor.at,
        reason=stop_request.reason,
        is_drill=stop_request.drill,
    )


def _render_form_again(
    request: Request, visitor: Visitor, rollout: str, typed: dict[str, str], error: RefusalError
) -> Response:
    """Show the form again with typed values and errors."""
    status = find_status(error.code)
    errors = {"target": say_refusal(error)}
    return render_first_step(request, visitor, "stop", rollout, status, typed=typed, errors=errors)


def render_first_step(
    request: Request,
    visitor: Visitor,
    template: str,
    rollout: str,
    status: int = 200,
    **context: Any,
) -> Response:
    """Show the form for the target and the stop latency of each site."""
    live_region = build_live_region(request, visitor, rollout)
    options = load_stop_options(visitor.service, visitor.caller, rollout, at=visitor.at)
    base_context = {
        "rollout": rollout,
        "live": live_region,
        "options": options,
        "widest_choice": build_widest_choice(options),
        "sites": build_site_choices(options),
        "cells": build_cell_choices(options),
        "rows": build_latency_rows(options, visitor.at),
        "stages": options.policy.stage_ids[:-1],
        "acting": [cell_grant for cell_grant in options.cells if cell_grant.stage != SHADOW],
        "zone": options.policy.timezone,
    }
    return render_page(request, visitor, template, status, **{**base_context, **context})


def render_second_step(
    request: Request, visitor: Visitor, template: str, rollout: str, typed: dict[str, str],
    **context: Any,
) -> Response:  # fmt: skip
    """Show what would be stopped, with the button that stops it.

    Raises:
        RefusalError: nothing was chosen, nothing matches, or the visitor may stop none of it.
    """
    selection: TargetSelection = parse_target(typed["target"])
    live_region = build_live_region(request, visitor, rollout)
    options = load_stop_options(visitor.service, visitor.caller, rollout, at=visitor.at)
    resolved_target = resolve_stop_target(
        visitor.service, visitor.caller, rollout, selection.target
    )
    cells = set(resolved_target.cells)
    base_context = {
        "rollout": rollout,
        "live": live_region,
        "selection": selection,
        "typed": typed,
        "choice": resolved_target,
        "grants": [item for item in options.cells if item.cell in cells],
        "acting": [item for item in options.cells if item.cell in cells and item.stage != SHADOW],
        "latency": describe_stop_latency(
            [item for item in options.stop_latencies if item.site in resolved_target.sites]
        ),
        "back": urlencode({name: value for name, value in typed.items() if value}),
    }
    return render_page(request, visitor, template, **{**base_context, **context})


def build_latency_rows(options: StopOptions, at: datetime) -> list[dict[str, Any]]:
    """Return the stop latency of each site, with clock times if long."""
    rows = []
    for latency in options.stop_latencies:
        time_span = timedelta(seconds=latency.within_seconds)
        rows.append({
            "site": latency.site,
            "span": format_stop_latency(latency.within_seconds),
            "by": _round_up(at + time_span) if time_span > CLOCK_TIME_THRESHOLD else None,
            "zone": options.policy.sites_by_id[latency.site].timezone,
            "until_then": describe_interim(
                _select_open_cells(options, latency.site, at, time_span), latency.site
            ),
        })  # fmt: skip
    return rows


def _round_up(at: datetime) -> datetime:
    """Return the first whole minute that is not before an instant: pages show no seconds."""
    past_minute = timedelta(seconds=at.second, microseconds=at.microsecond)
    return at - past_minute + timedelta(minutes=1) if past_minute else at


def _select_open_cells(
    options: StopOptions, site_id: str, at: datetime, time_span: timedelta
) -> list[CellGrant]:
    """Return the cells of a site whose window is open now, or opens within a time span."""
    site, open_windows = options.policy.sites_by_id[site_id], set()
    is_covered = False  # by an earlier window that fits every case
    for window in options.policy.windows:
        if is_open(window.hours, site, at):
            if not is_covered:
                open_windows.add(window.id)
            is_covered = is_covered or not window.when
        else:
            change = find_next_change(window.hours, site, at)
            if change is not None and change <= at + time_span:
                open_windows.add(window.id)
    return [item for item in options.cells if item.cell.window in open_windows]


NumberQuery = Annotated[int, Query(ge=0, le=2**53)]
MAX_NARROWINGS: Final = 10_000  # maximum cells that one command narrows
FIELDS: Final = ("target", "reason", "to")


@router.get("/rollouts/{rollout}/narrow")
@prioritize
def show_narrow_form(
    request: Request, rollout: str, visitor: CurrentVisitor,
    target: QueryText = "", reason: QueryText = "", to: QueryText = "",
) -> Response:  # fmt: skip
    """Show the form for target and stage."""
    typed = {"target": target, "reason": reason, "to": to}
    return render_first_step(request, visitor, "narrow", rollout, typed=typed)


@router.get("/rollouts/{rollout}/narrow/confirm")
@prioritize
def show_narrowing(
    request: Request, rollout: str, visitor: CurrentVisitor,
    target: QueryText = "", reason: QueryText = "", to: QueryText = SHADOW,
) -> Response:  # fmt: skip
    """Show which grants would end, to confirm."""
    typed = {"target": target, "reason": reason[:MAX_REASON_LENGTH], "to": to}
    try:
        policy = visitor.service.state_cache.reload_rollout(rollout).state.policy
        above = policy.stage_ids[_parse_stage_level(policy, to) + 1 :]
        return render_second_step(request, visitor, "narrow_confirm", rollout, typed, above=above)
    except RefusalError as error:
        return _render_narrow_form(request, visitor, rollout, typed, error)


@router.post("/rollouts/{rollout}/narrow/confirm")
async def submit_narrowing(
    request: Request, rollout: str, form: SignedForm, visitor: CurrentVisitor
) -> Response:
    """Narrow and redirect to the result."""
    try:
        with _latch_narrowing(visitor, rollout, form) as write_narrowing:
            result = await run_with_priority(write_narrowing)
    except RefusalError as error:
        typed = {name: form.get_text(name) for name in FIELDS}
        render = partial(_render_narrow_form, request, visitor, rollout, typed, error)
        return await run_with_priority(render)
    visitor.service.state_cache.invalidate(rollout)
    count = sum(event.kind == "Narrowed" for event in result.events)
    query = urlencode({"until": result.revision, "count": count})
    return redirect_to(f"/rollouts/{encode_segment(rollout)}/narrow/done?{query}")


@router.get("/rollouts/{rollout}/narrow/done")
@prioritize
def show_narrowed(
    request: Request,
    rollout: str,
    visitor: CurrentVisitor,
    until: NumberQuery = 0,
    count: NumberQuery = 0,
) -> Response:
    """Show the result as the ledger has it."""
    narrowings = load_own_narrowings(
        visitor.service, visitor.caller, rollout, until=until, count=min(count, MAX_NARROWINGS)
    )
    policy = visitor.service.state_cache.reload_rollout(rollout).state.policy
    return render_page(
        request,
        visitor,
        "narrow_done",
        rollout=rollout,
        narrowings=narrowings,
        zone=policy.timezone,
    )


def _latch_narrowing(
    visitor: Visitor, rollout: str, form: Form
) -> AbstractContextManager[Callable[[], stops.NarrowingResult]]:
    return latch_narrowing(
        visitor.service,
        visitor.caller,
        rollout,
        parse_target(form.get_text("target")).target,
        form.get_text("to"),
        at=visitor.at,
        reason=StopRequest(reason=form.get_text("reason")).reason,
    )


def _parse_stage_level(policy: Policy, stage: str) -> int:
    if stage not in policy.stage_ids[:-1]:
        stages_text = ", ".join(policy.stage_ids[:-1])
        raise NotNarrowerError(f"choose a stage to narrow to, one of {stages_text}")
    return policy.stage_ids.index(stage)


def _render_narrow_form(
    request: Request, visitor: Visitor, rollout: str, typed: dict[str, str], error: RefusalError
) -> Response:
    """Show the form again with typed values and errors."""
    is_stage_error = isinstance(error, NotNarrowerError)  # the form's field for the API's name
    errors = {"to" if is_stage_error else "target": say_refusal(error)}
    status = 422 if is_stage_error else find_status(error.code)
    return render_first_step(
        request, visitor, "narrow", rollout, status, typed=typed, errors=errors
    )
