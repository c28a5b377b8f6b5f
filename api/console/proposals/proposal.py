"""One proposal: what it asks, on which evidence, and the yes or no of whoever may decide."""

from difflib import unified_diff
from hashlib import sha256
from typing import Any

from fastapi import APIRouter, Request, Response

from api.console.page.form import Form, Signed, fault
from api.console.page.page import page, to
from api.console.page.page_context import Visiting, Visitor
from api.console.page.revision import live
from api.console.page.stages import marks_of
from api.console.page.text import segment
from api.console.proposals.effective_time import takes_effect
from api.console.proposals.evidence_table import beside_rows, brief, plain_lines, rows_of
from api.console.proposals.path_chart import path_charts
from api.console.proposals.proposal_text import (
    APPROVED,
    OPEN,
    lede,
    meaning,
    question,
    rejecting,
    told,
)
from api.console.proposals.window_times import Falls, falls
from api.console.reviews.pictures import cards_of
from api.priority_threads import narrowing
from api.problems import STATUS
from rollout.core.calendar.sites import Cell
from rollout.core.errors import EvidenceMoved, Refusal
from rollout.core.scope.permissions import Act
from rollout.services.cells.cells import cell_of
from rollout.services.divergences.action_change import action_changes_of
from rollout.services.divergences.costliest_cases import WorstCases, worst_cases
from rollout.services.engine.rollout_state import Standing
from rollout.services.policies.policies import proposed_policy
from rollout.services.proposals import proposals
from rollout.services.proposals.approval_permissions import too_few, who_can
from rollout.services.proposals.eligible_approvers import needs_text
from rollout.services.proposals.proposal_details import Proposal, one, sites_of
from rollout.services.proposals.proposal_evidence import evidence_of, raised_on
from rollout.services.stops.stop_targets import Holding, holdings
from rollout.services.stops.stops import ActiveStop, stops_of

router = APIRouter()
LIVE = "This page looks for changes every second; what you type stays."
CONFLICT, UNPROCESSABLE = 409, 422


def path_of(rollout: str, proposal: str) -> str:
    """Return where a proposal is shown."""
    return f"/rollouts/{segment(rollout)}/proposals/{segment(proposal)}"


@router.get("/rollouts/{rollout}/proposals/{proposal}")
def read(request: Request, rollout: str, proposal: str, visitor: Visiting) -> Response:
    """Show a proposal, open or closed."""
    return _shown(request, visitor, rollout, proposal)


@router.get("/rollouts/{rollout}/proposals/{proposal}/policy")
def policy_text(request: Request, rollout: str, proposal: str, visitor: Visiting) -> Response:
    """Show the policy that a proposal would put in force, against the one that is."""
    policy = proposed_policy(visitor.service, visitor.caller, rollout, proposal)
    before, after = policy.in_force.splitlines(), policy.text.splitlines()
    diff_text = "\n".join(unified_diff(before, after, "in force", "proposed", lineterm="", n=3))
    return page(
        request, visitor, "proposed_policy", rollout=rollout, policy=policy, changes=diff_text
    )


@router.post("/rollouts/{rollout}/proposals/{proposal}/approvals")
def approve(
    request: Request, rollout: str, proposal: str, form: Signed, visitor: Visiting
) -> Response:
    """Say yes to the evidence that was shown."""
    reason, evidence_hash = form.one("reason"), form.one("evidence")
    if reason_fault := fault(reason, "approve"):
        return _again(request, visitor, rollout, proposal, form, {"reason": reason_fault})
    try:
        proposals.approve(
            visitor.service.database, visitor.caller, rollout, proposal, evidence_hash,
            at=visitor.at, reason=reason,
        )  # fmt: skip
    except Refusal as error:
        return _refused(request, visitor, rollout, proposal, form, error)
    return to(path_of(rollout, proposal))


@router.post("/rollouts/{rollout}/proposals/{proposal}/rejection")
@narrowing
def reject(
    request: Request, rollout: str, proposal: str, form: Signed, visitor: Visiting
) -> Response:
    """Say no, on a thread that is kept for what narrows."""
    reason = form.one("reason")
    if reason_fault := fault(reason, "reject"):
        return _again(request, visitor, rollout, proposal, form, {"reason": reason_fault})
    try:
        proposals.reject(
            visitor.service.database, visitor.caller, rollout, proposal,
            at=visitor.at, reason=reason,
        )  # fmt: skip
    except Refusal as error:
        return _refused(request, visitor, rollout, proposal, form, error)
    return to(path_of(rollout, proposal))


def _refused(
    request: Request, visitor: Visitor, rollout: str, proposal: str, form: Form, refused: Refusal
) -> Response:
    """Show the proposal as it is now, with the reason kept; what moved stands beside it."""
    earlier_readings: tuple[str, ...] | None = None
    if isinstance(refused, EvidenceMoved):
        readings = raised_on(visitor.service, visitor.caller, rollout, form.one("evidence"))
        earlier_readings = tuple(brief((reading,)) for reading in readings)
    status = STATUS.get(refused.code, UNPROCESSABLE)
    errors = {"": told(str(refused), visitor.name)}
    return _again(
        request, visitor, rollout, proposal, form, errors, status=status, before=earlier_readings
    )


def _again(  # noqa: PLR0913 - a form, what is wrong with it, what moved
    request: Request,
    visitor: Visitor,
    rollout: str,
    proposal: str,
    form: Form,
    errors: dict[str, str],
    *,
    status: int = UNPROCESSABLE,
    before: tuple[str, ...] | None = None,
) -> Response:
    typed = {"reason": form.one("reason")}
    context = {"errors": errors, "typed": typed, "before": before}
    return _shown(request, visitor, rollout, proposal, status, **context)


def _shown(
    request: Request, visitor: Visitor, rollout: str, proposal: str, status: int = 200, **more: Any
) -> Response:
    live_region = live(request, visitor, rollout, says=LIVE)
    details = one(visitor.service, visitor.caller, rollout, proposal, at=visitor.at)
    state = visitor.service.watch.confirmed(rollout).standing
    proposal_question, costliest = (
        question(state, details, visitor.at),
        _worst(visitor, rollout, state, details),
    )
    base_context: dict[str, Any] = {
        "before": None,
        "rests_on": [brief((reading,)) for reading in details.readings],
        "rollout": rollout,
        "live": live_region,
        "p": details,
        "question": proposal_question,
        "marks": marks_of(state.policy),
        "meaning": meaning(state, details, visitor.at),
        "falls": _falls(state, details, visitor),
        "asks_for": needs_text(details.required_approvals),
        "why_not": told(details.cannot_approve_reason, visitor.name, details.version),
        "effect": takes_effect(state, details, visitor.at),
        "rejecting": rejecting(details, state.policy),
        "waits": details.state in {OPEN, APPROVED},
        "version_hash": version_of(details),
        "may_reject": _may_reject(visitor, rollout, state, details),
        "others": _others(visitor, rollout, details),
        "too_few": too_few(visitor.service, visitor.caller, rollout, details.id),
        "successor": _successor(state, details),
        "holdings": _comes_back(state, details, visitor),
        "worst": costliest,
        "cards": () if costliest is None else cards_of(rollout, costliest.items),
        "stop": _stop(visitor, rollout, details),
        **_figures(visitor, rollout, state, details),
        **_went(visitor, rollout, state, details),
    }
    return page(request, visitor, "proposal", status, **{**base_context, **more})


def version_of(shown: Proposal) -> str:
    """Return a text that is another when the page of a proposal says something else."""
    parts = (shown.evidence_hash, shown.state, *(approval.by for approval in shown.approvals))
    return sha256("\n".join(parts).encode()).hexdigest()[:16]


def _figures(visitor: Visitor, rollout: str, stood: Standing, shown: Proposal) -> dict[str, Any]:
    evidence = evidence_of(visitor.service, visitor.caller, rollout, shown)
    rows = rows_of(evidence.lines, stood.policy)
    return {
        "evidence": evidence,
        "rows": rows,
        "lede": lede(shown, met=bool(rows) and all(row.met for row in rows)),
        "plain": plain_lines(evidence.lines),
        "beside": () if evidence.beside is None else beside_rows(evidence.beside),
    }


def _went(visitor: Visitor, rollout: str, stood: Standing, shown: Proposal) -> dict[str, Any]:
    """Return how the evidence went and what would be done otherwise; nothing of what is closed."""
    cell = Cell(shown.site, shown.window)
    if shown.state not in {OPEN, APPROVED} or cell not in stood.policy.known:
        return {"charts": (), "changes": ()}
    service, caller = visitor.service, visitor.caller
    detail = cell_of(service, caller, rollout, cell, at=visitor.at)
    version_evidence = [facts for facts in detail.evidence if facts.version == shown.version]
    timezone = stood.policy.site[cell.site].timezone
    return {
        "charts": path_charts(version_evidence, timezone),
        "changes": action_changes_of(service, caller, rollout, (shown.version,), cell),
    }


def _falls(stood: Standing, shown: Proposal, visitor: Visitor) -> Falls | None:
    cell = Cell(shown.site, shown.window)
    return falls(stood.policy, cell, visitor.at) if cell in stood.policy.known else None


def _may_reject(visitor: Visitor, rollout: str, stood: Standing, shown: Proposal) -> bool:
    """Say whether the visitor may say no: also to their own, and to one that is approved."""
    if shown.state not in {OPEN, APPROVED}:
        return False
    sites = sites_of(stood, shown.id)
    return all(visitor.may(Act.APPROVE, rollout, site) for site in sites)


def _others(visitor: Visitor, rollout: str, shown: Proposal) -> tuple[str, ...]:
    """Return who else can decide, where the visitor can't."""
    if shown.can_approve or shown.state != OPEN:
        return ()
    return who_can(visitor.service, visitor.caller, rollout, shown)


def _successor(stood: Standing, shown: Proposal) -> str:
    """Return the open proposal that asks the same after this one was closed, "" without one."""
    if shown.state in {OPEN, APPROVED}:
        return ""
    subject = (shown.kind, shown.site, shown.window, shown.version, shown.about)
    for proposal_item in stood.scope.proposals.values():
        cell = proposal_item.cell or Cell("", "")
        if (
            proposal_item.kind,
            cell.site,
            cell.window,
            proposal_item.version,
            proposal_item.about,
        ) == subject:
            return proposal_item.id
    return ""


def _comes_back(stood: Standing, shown: Proposal, visitor: Visitor) -> tuple[Holding, ...]:
    """Return what the cells of a resume hold, as far as the visitor may read."""
    stop = stood.scope.stops.get(shown.about)
    if shown.kind != "resume" or stop is None:
        return ()
    return tuple(holdings(stood, sorted(stop.cells & stood.policy.known), visitor.at))


def _stop(visitor: Visitor, rollout: str, shown: Proposal) -> ActiveStop | None:
    """Return the stop that a resume is about, while it holds."""
    if shown.kind != "resume":
        return None
    stops = stops_of(visitor.service, visitor.caller, rollout, at=visitor.at)
    return next((stop for stop in stops.items if stop.id == shown.about), None)


def _worst(visitor: Visitor, rollout: str, stood: Standing, shown: Proposal) -> WorstCases | None:
    cell = Cell(shown.site, shown.window)
    if cell not in stood.policy.known:
        return None
    return worst_cases(visitor.service, visitor.caller, rollout, cell, shown.version, at=visitor.at)
