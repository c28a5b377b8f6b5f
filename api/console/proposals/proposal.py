"""The page of one proposal, its approval and its rejection."""

from difflib import unified_diff
from hashlib import sha256
from typing import Any

from fastapi import APIRouter, Request, Response

from api.console.page.figures import list_brief_grounds
from api.console.page.form import Form, SignedForm, find_reason_fault
from api.console.page.page import redirect_to, render_page
from api.console.page.page_context import CurrentVisitor, Visitor
from api.console.page.revision import build_live_region
from api.console.page.stages import build_stage_markers
from api.console.page.text import encode_segment
from api.console.page.timeline_view import load_timeline_view
from api.console.proposals.effective_time import (
    describe_effect,
    describe_proposal_hold,
    find_grant_end,
)
from api.console.proposals.evidence_table import (
    WindowTimes,
    build_condition_rows,
    build_requirement_rows,
    compute_window_times,
    describe_void_risk,
    list_plain_readings,
)
from api.console.proposals.path_chart import build_path_charts
from api.console.proposals.proposal_text import (
    APPROVED,
    OPEN,
    build_meaning,
    build_question,
    describe_progress,
    describe_rejection,
    format_refusal,
)
from api.console.reviews.pictures import build_cards
from api.priority_threads import prioritize
from api.problems import STATUS_BY_CODE
from rollout.core.calendar.sites import Cell
from rollout.core.errors import EvidenceChangedError, RefusalError
from rollout.core.scope.permissions import Permission
from rollout.kernel.outcomes import describe_objective
from rollout.reports.pages.timeline_page import TimelineView
from rollout.reports.text.fact_text import (
    describe_fresh_counts,
    describe_fresh_fact,
    describe_losses,
    describe_track_counts,
)
from rollout.reports.text.source_text import (
    describe_outcome_sources,
    describe_registered_units,
    describe_sources,
    describe_vouched_units,
)
from rollout.services.cells.cell_values import CellValuesSummary, load_cell_values
from rollout.services.cells.cells import load_cell
from rollout.services.divergences.matrices import load_action_changes
from rollout.services.divergences.top_losses import (
    CostliestDivergences,
    load_costliest_divergences,
)
from rollout.services.engine.rollout_state import RolloutState
from rollout.services.policies.policies import (
    RESTART_TITLE,
    load_proposed_policy,
    load_restart_prices,
)
from rollout.services.proposals import proposals
from rollout.services.proposals.approval_permissions import (
    describe_missing_approvers,
    load_eligible_approvers,
)
from rollout.services.proposals.counter_evidence import list_facts_against, load_counter_evidence
from rollout.services.proposals.eligible_approvers import find_proposal_sites, format_needs
from rollout.services.proposals.proposal_details import Proposal, list_grounds, load_proposal
from rollout.services.proposals.proposal_evidence import (
    ProposalEvidence,
    find_proposal_by_evidence,
    load_proposal_evidence,
)
from rollout.services.stops.stop_options import CellGrant, list_cell_grants
from rollout.services.stops.stops import ActiveStop, load_stops

router = APIRouter()
CONFLICT, UNPROCESSABLE = 409, 422


def build_proposal_path(rollout: str, proposal: str) -> str:
    """Return the path of a proposal's page."""
    return f"/rollouts/{encode_segment(rollout)}/proposals/{encode_segment(proposal)}"


@router.get("/rollouts/{rollout}/proposals/{proposal}")
def show_proposal(
    request: Request, rollout: str, proposal: str, visitor: CurrentVisitor
) -> Response:
    """Show a proposal, open or closed."""
    return _render_proposal(request, visitor, rollout, proposal)


@router.get("/rollouts/{rollout}/proposals/{proposal}/policy")
def show_proposed_policy(
    request: Request, rollout: str, proposal: str, visitor: CurrentVisitor
) -> Response:
    """Show the proposed policy against the one in force."""
    policy = load_proposed_policy(visitor.service, visitor.caller, rollout, proposal)
    before, after = policy.current_text.splitlines(), policy.proposed_text.splitlines()
    diff_text = "\n".join(unified_diff(before, after, "in force", "proposed", lineterm="", n=3))
    return render_page(
        request, visitor, "proposed_policy", rollout=rollout, policy=policy, changes=diff_text
    )


@router.post("/rollouts/{rollout}/proposals/{proposal}/approvals")
def submit_approval(
    request: Request, rollout: str, proposal: str, form: SignedForm, visitor: CurrentVisitor
) -> Response:
    """Approve the proposal on the evidence that was shown."""
    reason, evidence_hash = form.get_text("reason"), form.get_text("evidence")
    if reason_fault := find_reason_fault(reason, "approve"):
        return _render_proposal_again(
            request, visitor, rollout, proposal, form, {"reason": reason_fault}
        )
    try:
        proposals.approve_proposal(
            visitor.service.database, visitor.caller, rollout, proposal, evidence_hash,
            at=visitor.at, reason=reason,
        )  # fmt: skip
    except RefusalError as error:
        return _render_refusal(request, visitor, rollout, proposal, form, error)
    return redirect_to(build_proposal_path(rollout, proposal))


@router.post("/rollouts/{rollout}/proposals/{proposal}/rejection")
@prioritize
def submit_rejection(
    request: Request, rollout: str, proposal: str, form: SignedForm, visitor: CurrentVisitor
) -> Response:
    """Reject the proposal, on the threads reserved for narrowing."""
    reason = form.get_text("reason")
    if reason_fault := find_reason_fault(reason, "reject"):
        return _render_proposal_again(
            request, visitor, rollout, proposal, form, {"reason": reason_fault}
        )
    try:
        proposals.reject_proposal(
            visitor.service.database, visitor.caller, rollout, proposal,
            at=visitor.at, reason=reason,
        )  # fmt: skip
    except RefusalError as error:
        return _render_refusal(request, visitor, rollout, proposal, form, error)
    return redirect_to(build_proposal_path(rollout, proposal))


def _render_refusal(
    request: Request, visitor: Visitor, rollout: str, proposal: str, form: Form, error: RefusalError
) -> Response:
    """Show the current proposal with the typed reason and the changed evidence."""
    earlier_readings: tuple[str, ...] | None = None
    if isinstance(error, EvidenceChangedError):
        raised = find_proposal_by_evidence(
            visitor.service, visitor.caller, rollout, form.get_text("evidence")
        )
        policy = visitor.service.state_cache.reload_rollout(rollout).state.policy
        earlier_readings = (
            ()
            if raised is None
            else tuple(list_brief_grounds(raised.readings, list_grounds(raised, policy), policy))
        )
    status = STATUS_BY_CODE.get(error.code, UNPROCESSABLE)
    errors = {"": format_refusal(str(error), visitor.name)}
    return _render_proposal_again(
        request,
        visitor,
        rollout,
        proposal,
        form,
        errors,
        status=status,
        earlier_readings=earlier_readings,
    )


def _render_proposal_again(  # noqa: PLR0913 - a form, what is wrong with it, what moved
    request: Request,
    visitor: Visitor,
    rollout: str,
    proposal: str,
    form: Form,
    errors: dict[str, str],
    *,
    status: int = UNPROCESSABLE,
    earlier_readings: tuple[str, ...] | None = None,
) -> Response:
    typed = {"reason": form.get_text("reason")}
    context = {"errors": errors, "typed": typed, "earlier_readings": earlier_readings}
    return _render_proposal(request, visitor, rollout, proposal, status, **context)


def _render_proposal(
    request: Request,
    visitor: Visitor,
    rollout: str,
    proposal: str,
    status: int = 200,
    **context: Any,
) -> Response:
    live_region = build_live_region(request, visitor, rollout)
    details = load_proposal(visitor.service, visitor.caller, rollout, proposal, at=visitor.at)
    state = visitor.service.state_cache.reload_rollout(rollout).state
    proposal_question = build_question(state, details, visitor.at)
    costliest = _load_costliest(visitor, rollout, state, details)
    evidence = load_proposal_evidence(visitor.service, visitor.caller, rollout, details)
    base_context: dict[str, Any] = {
        "earlier_readings": None,
        "rests_on": list_brief_grounds(details.readings, details.texts, state.policy),
        "rollout": rollout,
        "live": live_region,
        "p": details,
        "question": proposal_question,
        "marks": build_stage_markers(state.policy),
        "meaning": build_meaning(state, details, visitor.at, _load_values(visitor, state, details)),
        "falls": _find_window_times(state, details, visitor),
        "asks_for": format_needs(details.required_approvals),
        "why_not": format_refusal(details.cannot_approve_reason, visitor.name, details.version),
        "effect": describe_effect(state, details, visitor.at, has_turned=evidence.has_turned),
        "hold": describe_proposal_hold(state, details, visitor.at),
        "grant_end": find_grant_end(state, details),
        "rejecting": describe_rejection(details),
        "is_pending": details.state in {OPEN, APPROVED},
        "version_hash": compute_page_version(details),
        "may_reject": _can_reject(visitor, rollout, state, details),
        "others": _list_other_approvers(visitor, rollout, details),
        "too_few": describe_missing_approvers(visitor.service, visitor.caller, rollout, details.id),
        "successor": _find_successor(state, details),
        "holdings": _list_resumed_grants(state, details, visitor),
        "costliest": costliest,
        "cost_in": state.policy.charter.cost_in,
        "cards": () if costliest is None else build_cards(rollout, costliest.items),
        "stop": _find_stop(visitor, rollout, details),
        "timeline": _load_timeline(visitor, state, details),
        "stored_readings": details.texts,
        "restart_title": RESTART_TITLE,
        "restarts": load_restart_prices(
            visitor.service, visitor.caller, rollout, details.id, visitor.at
        )
        if details.rules.changes_policy and details.state in {OPEN, APPROVED}
        else (),
        **_build_evidence_context(state, details, evidence),
        **_build_counter_context(visitor, rollout, state, details),
        **_build_history_context(visitor, rollout, state, details),
    }
    return render_page(request, visitor, "proposal", status, **{**base_context, **context})


def _load_values(
    visitor: Visitor, state: RolloutState, details: Proposal
) -> CellValuesSummary | None:
    """Return the attribute values that the version of a pending proposal met in its cell."""
    if details.state not in {OPEN, APPROVED}:
        return None
    cell = Cell(details.site, details.window)
    return load_cell_values(visitor.service, state, cell, visitor.at).get(details.version)


def _load_timeline(visitor: Visitor, state: RolloutState, details: Proposal) -> TimelineView | None:
    """Return six weeks of the cell of a pending proposal."""
    cell = Cell(details.site, details.window)
    if details.state not in {OPEN, APPROVED} or cell not in state.policy.cell_set:
        return None
    return load_timeline_view(visitor, state.rollout.name, cell)


def compute_page_version(details: Proposal) -> str:
    """Return a text that changes with the content of the page."""
    parts = (details.evidence_hash, details.state, *(approval.by for approval in details.approvals))
    return sha256("\n".join(parts).encode()).hexdigest()[:16]


def _build_evidence_context(
    state: RolloutState, details: Proposal, evidence: ProposalEvidence
) -> dict[str, Any]:
    rows = build_condition_rows(evidence.readings, state.policy)
    return {
        "evidence": evidence,
        "objective": describe_objective(state.policy.charter.objective, state.policy.outcomes),
        "rows": rows,
        "void_risk": describe_void_risk(evidence),
        "losses_text": (progress := evidence.minimum_progress)
        and progress.losses
        and describe_losses(progress.closed_units, progress.losses),
        "lede": describe_progress(details, is_met=bool(rows) and all(row.met for row in rows)),
        "plain_readings": list_plain_readings(evidence.readings),
        "sources_text": describe_sources(details.sources),
        "outcome_sources_text": describe_outcome_sources(details.outcome_sources),
        "requirements": ()
        if evidence.minimum_progress is None
        else build_requirement_rows(evidence.minimum_progress),
    }


def _build_counter_context(
    visitor: Visitor, rollout: str, state: RolloutState, details: Proposal
) -> dict[str, Any]:
    """Return what speaks against a proposal, in lines, and the charter."""
    against = load_counter_evidence(visitor.service, visitor.caller, rollout, details, visitor.at)
    records, zone = against.records, state.policy.get_timezone(details.site)
    charter = state.policy.charter
    return {
        "track_records": records,
        "track_lines": list_facts_against(visitor.caller, rollout, records, zone, visitor.at),
        "count_lines": [
            f"{record.version}: {text}"
            for record in records
            if (text := describe_track_counts(record))
        ]
        + list(filter(None, [describe_registered_units(details.registered, details.version)])),
        "vouched_lines": [describe_vouched_units(vouched) for vouched in details.vouched],
        "fresh_counts": against.fresh
        and against.fresh.fresh.closed
        and describe_fresh_counts(against.fresh.fresh),
        "fresh_lines": [describe_fresh_fact(fact) for fact in against.fresh_facts],
        "charter": (
            ("Who is affected", ", ".join(charter.affected)),
            ("Worst case", charter.worst_case),
            ("If it works very well", charter.if_it_works_very_well),
        ),
    }


def _build_history_context(
    visitor: Visitor, rollout: str, state: RolloutState, details: Proposal
) -> dict[str, Any]:
    """Return evidence paths and action changes; empty for closed proposals."""
    cell = Cell(details.site, details.window)
    if details.state not in {OPEN, APPROVED} or cell not in state.policy.cell_set:
        return {"charts": (), "changes": ()}
    service, caller = visitor.service, visitor.caller
    detail = load_cell(service, caller, rollout, cell, at=visitor.at)
    version_evidence = [facts for facts in detail.evidence if facts.version == details.version]
    timezone = state.policy.sites_by_id[cell.site].timezone
    return {
        "charts": build_path_charts(version_evidence, timezone),
        "changes": load_action_changes(service, caller, rollout, (details.version,), cell),
    }


def _find_window_times(
    state: RolloutState, details: Proposal, visitor: Visitor
) -> WindowTimes | None:
    cell = Cell(details.site, details.window)
    return (
        compute_window_times(state.policy, cell, visitor.at)
        if cell in state.policy.cell_set
        else None
    )


def _can_reject(visitor: Visitor, rollout: str, state: RolloutState, details: Proposal) -> bool:
    """Return whether the visitor can reject it, also their own or approved ones."""
    if details.state not in {OPEN, APPROVED}:
        return False
    sites = find_proposal_sites(state, details.id)
    return all(visitor.has_permission(Permission.REJECT, rollout, site) for site in sites)


def _list_other_approvers(visitor: Visitor, rollout: str, details: Proposal) -> tuple[str, ...]:
    """Return who else can decide if the visitor can't."""
    if details.can_approve or details.state != OPEN:
        return ()
    return load_eligible_approvers(visitor.service, visitor.caller, rollout, details)


def _find_successor(state: RolloutState, details: Proposal) -> str:
    """Return the open proposal with the same request after this one closed, or ""."""
    if details.state in {OPEN, APPROVED}:
        return ""
    subject = (details.kind, details.site, details.window, details.version, details.about)
    for proposal_item in state.scope.proposals.values():
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


def _list_resumed_grants(
    state: RolloutState, details: Proposal, visitor: Visitor
) -> tuple[CellGrant, ...]:
    """Return the grants that a resume restores, in the cells that the visitor may read."""
    stop = state.scope.stops.get(details.about)
    if not details.rules.ends_stop or stop is None:
        return ()
    rollout = state.policy.rollout
    readable_cells = [
        cell
        for cell in sorted(stop.cells & state.policy.cell_set)
        if visitor.has_permission(Permission.READ, rollout, cell.site)
    ]
    return tuple(list_cell_grants(state, readable_cells, visitor.at))


def _find_stop(visitor: Visitor, rollout: str, details: Proposal) -> ActiveStop | None:
    """Return the active stop that a resume is about."""
    if not details.rules.ends_stop:
        return None
    stops = load_stops(visitor.service, visitor.caller, rollout, at=visitor.at)
    return next((stop for stop in stops.items if stop.id == details.about), None)


def _load_costliest(
    visitor: Visitor, rollout: str, state: RolloutState, details: Proposal
) -> CostliestDivergences | None:
    cell = Cell(details.site, details.window)
    if cell not in state.policy.cell_set:
        return None
    return load_costliest_divergences(
        visitor.service, visitor.caller, rollout, cell, details.version, at=visitor.at
    )
