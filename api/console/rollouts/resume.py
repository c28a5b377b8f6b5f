"""The page of active stops, and resume requests."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from fastapi import APIRouter, Request, Response

from api.console.page.form import SignedForm
from api.console.page.page import redirect_to, render_page
from api.console.page.page_context import CurrentVisitor, Visitor
from api.console.page.revision import build_live_region
from api.console.page.waiting import READ_TEXT
from api.console.proposals.effective_time import describe_effect
from api.console.proposals.proposal import build_proposal_path
from api.console.proposals.proposal_text import APPROVED, format_refusal
from api.problems import STATUS_BY_CODE
from rollout.core.errors import RefusalError
from rollout.core.scope.permissions import Permission
from rollout.reports.text.formatting import to_sentence
from rollout.services.proposals.approval_permissions import (
    describe_missing_approvers,
    load_eligible_approvers,
    load_resume_askers,
)
from rollout.services.proposals.eligible_approvers import format_names, format_needs
from rollout.services.proposals.proposal_details import Proposal, load_proposal
from rollout.services.stops import stops as stopping
from rollout.services.stops.stops import ActiveStop

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
    text = f"A resume was requested. {to_sentence(wait_reason) if wait_reason else ''}".rstrip()
    return ResumeStatus(text, _format_link_text(details), may_ask=False, stuck=bool(shortage))


def _format_link_text(details: Proposal) -> str:
    return READ_TEXT if details.can_approve else "Read it"


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
        "" if may_ask else f"An operator of all its sites can request a resume{askers_text}. "
    )
    warning = to_sentence(askers.warning) if askers.warning else ""
    return ResumeStatus(f"{others_text}{warning}".rstrip(), "", may_ask, stuck=bool(warning))


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
        errors = {"": format_refusal(str(error), visitor.name)}
        return _render_stops(
            request, visitor, rollout, STATUS_BY_CODE.get(error.code, 422), errors=errors
        )
    return redirect_to(build_proposal_path(rollout, resume_result.proposal))


def build_stop_context(
    visitor: Visitor, rollout: str, active_stops: Sequence[stopping.ActiveStop]
) -> dict[str, object]:
    """Return the template context of active stops."""
    statuses_by_stop = {
        stop.id: build_resume_status(visitor, rollout, stop) for stop in active_stops
    }
    return {"ways_back": statuses_by_stop, "needs_text": format_needs}


def _compute_page_version(stop_context: dict[str, object]) -> str:
    """Return a text that changes with the content of the page."""
    return sha256(repr(stop_context["ways_back"]).encode()).hexdigest()[:16]


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
        version_hash=_compute_page_version(stop_context),
        **stop_context,
    )
