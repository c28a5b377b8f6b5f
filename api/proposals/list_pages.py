"""The list of a rollout's proposals, with approval of several at once."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response

from api.problems import find_status
from api.proposals.pages import (
    build_proposal_path,
    compute_page_version,
    list_options,
    parse_manual_proposal,
)
from api.proposals.proposal_text import ProposalQuestion, build_question
from api.web_kit.figures import format_brief
from api.web_kit.page import encode_segment, redirect_to, render_page, say_refusal
from api.web_kit.page_context import (
    CurrentVisitor,
    Form,
    SignedForm,
    Visitor,
    build_live_region,
    find_reason_fault,
)
from rollout.engine.decide.permissions import Permission
from rollout.engine.words.state_text import CLOSED_PROPOSALS
from rollout.features.proposals import proposals
from rollout.features.proposals.proposal_details import Proposal, load_proposal, load_proposals
from rollout.features.proposals.proposals import MAX_APPROVALS_PER_CALL
from rollout.kernel.errors import RefusalError, UnknownProposalError

router = APIRouter()
PAGE_SIZE: Final = 25
CLOSED_STATES: Final = tuple(CLOSED_PROPOSALS)
APPROVAL_PATTERN: Final = re.compile(r"(P-[0-9]{1,12})\.([0-9a-f]{0,64})")
StateQuery = Annotated[str, Query(max_length=20)]
NumberQuery = Annotated[int | None, Query(ge=1, le=2**53)]
ApprovalIds = Annotated[list[str] | None, Query(max_length=MAX_APPROVALS_PER_CALL)]
NONE_SELECTED_TEXT = "Tick at least one proposal; nothing was approved"


@dataclass(frozen=True, slots=True)
class ProposalLine:
    """A listed proposal, whether its box is ticked."""

    details: Proposal
    question: ProposalQuestion
    value: str
    ticked: bool
    brief: str


@dataclass(frozen=True, slots=True)
class ApprovalNotice:
    """Result for one of several approvals: tag kind, tag text, refusal reason."""

    details: Proposal
    kind: str
    tag: str
    reason: str


def build_list_path(rollout: str) -> str:
    """Return the path of a rollout's proposal list."""
    return f"/rollouts/{encode_segment(rollout)}/proposals"


@router.get("/rollouts/{rollout}/proposals")
def show_proposals(
    request: Request,
    rollout: str,
    visitor: CurrentVisitor,
    state: StateQuery = "",
    after: NumberQuery = None,
) -> Response:
    """Show open proposals, then pages of closed ones."""
    return _render_proposals(request, visitor, rollout, state=state, after=after)


@router.post("/rollouts/{rollout}/approvals")
def submit_approvals(
    request: Request, rollout: str, form: SignedForm, visitor: CurrentVisitor
) -> Response:
    """Approve the ticked proposals, each with the evidence hash that was shown."""
    reason = form.get_text("reason")
    matches = [
        match for match in map(APPROVAL_PATTERN.fullmatch, form.get_values("approve")) if match
    ]
    errors = {"approve": NONE_SELECTED_TEXT} if not matches else {}
    if reason_fault := find_reason_fault(reason, "approve"):
        errors["reason"] = reason_fault
    if errors:
        return _render_proposals(request, visitor, rollout, 422, errors=errors, form=form)
    approvals = [(match[1], match[2], reason) for match in matches[:MAX_APPROVALS_PER_CALL]]
    proposals.approve_proposals(
        visitor.service.database, visitor.caller, rollout, approvals, at=visitor.at
    )
    query = urlencode(
        [("p", f"{proposal}.{evidence_hash}") for proposal, evidence_hash, _ in approvals]
    )
    return redirect_to(f"/rollouts/{encode_segment(rollout)}/approvals?{query}")


@router.get("/rollouts/{rollout}/approvals")
def show_approvals(
    request: Request, rollout: str, visitor: CurrentVisitor, p: ApprovalIds = None
) -> Response:
    """Show the results of several approvals, as the ledger has them."""
    if not p:
        return redirect_to(build_list_path(rollout))
    matches = [candidates for candidates in map(APPROVAL_PATTERN.fullmatch, p or ()) if candidates]
    candidates = [_build_approval_result(visitor, rollout, item[1], item[2]) for item in matches]
    outcomes = [item for item in candidates if item is not None]
    approved_count = sum(item.kind == "good" for item in outcomes)
    changed_count = sum(item.tag == EVIDENCE_CHANGED_TAG for item in outcomes)
    counts = {
        "approved_count": approved_count,
        "changed_count": changed_count,
        "other_count": len(outcomes) - approved_count - changed_count,
    }
    return render_page(request, visitor, "approvals", rollout=rollout, outcomes=outcomes, **counts)


@router.post("/rollouts/{rollout}/proposals/raise")
def submit_proposal(
    request: Request, rollout: str, form: SignedForm, visitor: CurrentVisitor
) -> Response:
    """Make a takeover or a renewal a proposal."""
    try:
        raised_proposal = proposals.raise_cell_proposal(
            visitor.service.database,
            visitor.caller,
            rollout,
            parse_manual_proposal(form.get_text("what")),
            at=visitor.at,
        )
    except RefusalError as error:
        status = find_status(error.code)
        errors = {"what": say_refusal(error)}
        return _render_proposals(request, visitor, rollout, status, errors=errors, form=form)
    return redirect_to(build_proposal_path(rollout, raised_proposal.proposal))


EVIDENCE_CHANGED_TAG = "Evidence changed"


def _build_approval_result(
    visitor: Visitor, rollout: str, proposal: str, evidence_hash: str
) -> ApprovalNotice | None:
    """Return the result of one approval, or None if the visitor gave none."""
    try:
        details = load_proposal(visitor.service, visitor.caller, rollout, proposal, at=visitor.at)
    except UnknownProposalError:
        return None
    if (
        any(approval.by == visitor.name for approval in details.approvals)
        and details.evidence_hash == evidence_hash
    ):
        return ApprovalNotice(details, "good", "Approved by you", "")
    if details.evidence_hash != evidence_hash:
        return ApprovalNotice(
            details,
            "warn",
            EVIDENCE_CHANGED_TAG,
            "Its evidence is no longer the one shown. Read it again.",
        )
    reason = details.cannot_approve_reason
    reason = f"You can't approve it: {reason}." if reason else "It still waits."
    return ApprovalNotice(details, "mute", "Not approved", reason)


def _render_proposals(  # noqa: PLR0913 - a list, its filter, and a form that comes back
    request: Request,
    visitor: Visitor,
    rollout: str,
    status: int = 200,
    *,
    state: str = "",
    after: int | None = None,
    errors: dict[str, str] | None = None,
    form: Form | None = None,
) -> Response:
    live_region = build_live_region(request, visitor, rollout)
    service, caller, at = visitor.service, visitor.caller, visitor.at
    states = (state,) if state in CLOSED_STATES else CLOSED_STATES
    closed_page = load_proposals(
        service, caller, rollout, at=at, states=states, before=after, limit=PAGE_SIZE
    )
    open_proposals = (
        ()
        if after
        else load_proposals(service, caller, rollout, at=at, limit=MAX_APPROVALS_PER_CALL).items
    )
    lines = _build_lines(
        visitor, rollout, open_proposals, () if form is None else form.get_values("approve")
    )
    next_path = (
        None if closed_page.before is None else _build_next_path(rollout, state, closed_page.before)
    )
    reason = "" if form is None else form.get_text("reason")
    context: dict[str, Any] = {
        "rollout": rollout,
        "live": live_region,
        "lines": lines,
        "closed": _build_lines(visitor, rollout, closed_page.items, ()),
        "states": CLOSED_STATES,
        "state": state if state in CLOSED_STATES else "",
        "first_page": after is None,
        "further": next_path,
        "may_approve": any(line.details.can_approve for line in lines),
        "errors": errors or {},
        "typed": {"reason": reason},
        "version_hash": "-".join(compute_page_version(line.details)[:4] for line in lines),
        **_build_manual_context(visitor, rollout),
    }
    return render_page(request, visitor, "proposals", status, **context)


def _build_lines(
    visitor: Visitor, rollout: str, items: Sequence[Proposal], ticked: Sequence[str]
) -> list[ProposalLine]:
    state = visitor.service.state_cache.reload_rollout(rollout).state
    values = [f"{details.id}.{details.evidence_hash}" for details in items]
    questions = [build_question(state, details, visitor.at) for details in items]
    return [
        ProposalLine(
            details=details,
            question=question,
            value=value,
            ticked=value in ticked,
            brief=format_brief(details, state.policy),
        )
        for details, question, value in zip(items, questions, values, strict=True)
    ]


def _build_manual_context(visitor: Visitor, rollout: str) -> dict[str, Any]:
    """Return what the visitor may propose by hand."""
    state = visitor.service.state_cache.reload_rollout(rollout).state
    sites = frozenset(visitor.list_permitted_sites(Permission.PROPOSE, rollout, state.policy))
    return {
        "operates_here": bool(sites),
        "options": list_options(state, sites, visitor.at),
    }


def _build_next_path(rollout: str, state: str, before: int) -> str:
    query = urlencode({"state": state, "after": before} if state else {"after": before})
    return f"/console{build_list_path(rollout)}?{query}"
