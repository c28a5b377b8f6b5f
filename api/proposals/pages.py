"""The page of one proposal (evidence, approval, rejection), and options for those made by hand.

Operators propose renewals and takeovers by hand.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from difflib import unified_diff
from hashlib import sha256
from itertools import takewhile
from typing import Any, Final
from urllib.parse import unquote

from fastapi import APIRouter, Request, Response

from api.priority_threads import prioritize
from api.problems import find_status
from api.proposals.path_chart import build_path_charts
from api.proposals.proposal_text import (
    APPROVED,
    OPEN,
    build_condition_rows,
    build_meaning,
    build_question,
    build_requirement_rows,
    describe_effect,
    describe_progress,
    describe_proposal_hold,
    describe_rejection,
    describe_void_risk,
    find_grant_end,
)
from api.records.pages import build_cards
from api.web_kit.cell_view import TargetChoice, build_stage_markers, load_timeline_view
from api.web_kit.figures import list_brief_grounds
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
from rollout.engine.decide.proposals import compute_renewal_start, list_takeover_levels
from rollout.engine.decide.scope import compute_held_level
from rollout.engine.words.approver_warnings import format_needs
from rollout.engine.words.evidence_text import (
    describe_fresh_counts,
    describe_fresh_fact,
    describe_losses,
    describe_outcome_sources,
    describe_registered_units,
    describe_sources,
    describe_track_counts,
    describe_vouched_units,
)
from rollout.engine.words.formatting import (
    join_words,
)
from rollout.features.cells.cell_table import CellValuesSummary, load_cell_values
from rollout.features.cells.cells import load_cell
from rollout.features.divergences.case_explanation import (
    CostliestDivergences,
    load_costliest_divergences,
)
from rollout.features.divergences.closed_units import load_action_changes
from rollout.features.policies.policies import (
    RESTART_TITLE,
    load_proposed_policy,
    load_restart_prices,
)
from rollout.features.proposals import proposals
from rollout.features.proposals.proposal_details import (
    Proposal,
    list_facts_against,
    list_grounds,
    load_proposal,
)
from rollout.features.proposals.proposal_evidence import (
    ProposalEvidence,
    find_proposal_by_evidence,
    load_counter_evidence,
    load_proposal_evidence,
)
from rollout.features.proposals.proposals import (
    RENEWAL,
    TAKEOVER,
    ManualProposal,
    describe_missing_approvers,
    find_proposal_sites,
    load_eligible_approvers,
)
from rollout.features.reports.pages.timeline_chart import TimelineView
from rollout.features.stops.stop_options import CellGrant, list_cell_grants
from rollout.features.stops.stops import ActiveStop, load_stops
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.calendar.opening_hours import list_open_spans
from rollout.kernel.errors import EvidenceChangedError, RefusalError
from rollout.kernel.policy.policy import Policy
from rollout.kernel.units import describe_objective
from rollout.live.rollout_state import RolloutState

TimeSpan = tuple[datetime, datetime]
LOOK_BACK, LOOK_AHEAD = timedelta(days=2), timedelta(days=9)
AROUND_THE_CLOCK: Final = "Around the clock"
NOT_SOON: Final = "Not within the next week"


@dataclass(frozen=True, slots=True)
class WindowTimes:
    """Current or next occurrence of a window at a site.

    Attributes:
        start, end: of the current or next occurrence, or None.
        text: a text instead of it.
        now: whether it is open.
        hours: as in the policy, or "".
        condition_text: required case attributes, in words, or "".
    """

    start: datetime | None
    end: datetime | None
    text: str
    now: bool
    hours: str
    condition_text: str


def compute_window_times(policy: Policy, cell: Cell, at: datetime) -> WindowTimes:
    """Return the occurrence of a cell's window around an instant.

    Hours of earlier windows are subtracted, unless those also require attributes of a case.
    """
    site, first, last = policy.sites_by_id[cell.site], at - LOOK_BACK, at + LOOK_AHEAD
    window = next(item for item in policy.windows if item.id == cell.window)
    earlier = takewhile(lambda item: item.id != cell.window, policy.windows)
    excluded = [
        span_item
        for other_window in earlier
        if not other_window.when
        for span_item in list_open_spans(other_window.hours, site, first, last)
    ]
    remaining = subtract_spans(list_open_spans(window.hours, site, first, last), excluded)
    condition_text = join_words(
        [f"{name} is {' or '.join(values)}" for name, values in window.when.items()]
    )
    span = next((item for item in remaining if item[1] > at), None)
    if span is None:
        return WindowTimes(
            None, None, NOT_SOON, now=False, hours=window.hours, condition_text=condition_text
        )
    if span[0] <= first and span[1] >= last:
        return WindowTimes(
            None, None, AROUND_THE_CLOCK, now=True, hours="", condition_text=condition_text
        )
    is_now = span[0] <= at
    return WindowTimes(
        *span,
        "Now" if is_now else "Next",
        now=is_now,
        hours=window.hours,
        condition_text=condition_text,
    )


def subtract_spans(spans: Iterable[TimeSpan], excluded: Iterable[TimeSpan]) -> list[TimeSpan]:
    """Subtract time spans from time spans.

    >>> noon = datetime(2027, 6, 1, 12)
    >>> hour = timedelta(hours=1)
    >>> left = subtract_spans([(noon, noon + 5 * hour)], [(noon + hour, noon + 2 * hour)])
    >>> [((a - noon) // hour, (b - noon) // hour) for a, b in left]
    [(0, 1), (2, 5)]
    """
    remaining = list(spans)
    for since, until in excluded:
        pieces = (piece for a, b in remaining for piece in ((a, min(b, since)), (max(a, until), b)))
        remaining = [(a, b) for a, b in pieces if a < b]
    return remaining


router = APIRouter()


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
    status = find_status(error.code)
    errors = {"": say_refusal(error)}
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
    status: int = 422,
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
    by = (approval.by for approval in details.approvals)
    parts = (details.evidence_hash, details.state, *by, *details.against)
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
        and progress.closed.losses
        and describe_losses(progress.closed.closed, progress.closed.losses),
        "lede": describe_progress(details, is_met=bool(rows) and all(row.met for row in rows)),
        "plain_readings": tuple(
            reading.text for reading in evidence.readings if reading.frozen is None
        ),
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


MAX_OPTIONS: Final = 200  # maximum number of options on a page
VALUE_PARTS: Final = 5


def format_manual_proposal(manual_proposal: ManualProposal) -> str:
    """Return the form value of a manual proposal; names are percent-encoded."""
    parts = (
        manual_proposal.kind,
        manual_proposal.cell.site,
        manual_proposal.cell.window,
        manual_proposal.version,
        manual_proposal.to,
    )
    return "/".join(map(encode_segment, parts))


def parse_manual_proposal(value: str) -> ManualProposal:
    """Parse the form value of a manual proposal.

    Raises:
        RefusalError: unknown option.

    >>> parse_manual_proposal("renewal/north%2Fgate/day/v1/supervised").cell
    Cell(site='north/gate', window='day')
    """
    parts = [unquote(part) for part in value.split("/")]
    if len(parts) != VALUE_PARTS or parts[0] not in {RENEWAL, TAKEOVER}:
        raise RefusalError("choose what to propose")
    kind, site, window, version, to = parts
    return ManualProposal(kind, Cell(site, window), version, to)


def list_options(
    state: RolloutState, sites: frozenset[str], at: datetime
) -> tuple[TargetChoice, ...]:
    """Return the possible proposals at some sites; evidence is judged on submission."""
    options: list[TargetChoice] = []
    for cell in state.policy.cells:
        if cell.site in sites:
            options += (
                TargetChoice(format_manual_proposal(manual_proposal), text)
                for manual_proposal, text in _list_cell_options(state, cell, at)
            )
        if len(options) >= MAX_OPTIONS:
            break
    return tuple(options[:MAX_OPTIONS])


def _list_cell_options(
    state: RolloutState, cell: Cell, at: datetime
) -> Iterator[tuple[ManualProposal, str]]:
    scope, policy, acting_version = state.scope, state.policy, state.scope.get_holder(cell)
    if acting_version is None or scope.is_stopped(cell):
        return
    at = at if scope.at is None else max(at, scope.at)
    cell_state = scope.get_cell_state(cell, acting_version)
    for stage_level in range(1, compute_held_level(policy, cell_state, at) + 1):
        stage = policy.stage_ids[stage_level]
        if cell_state.proposal is None and at >= compute_renewal_start(
            policy, cell_state, stage_level
        ):
            yield (
                ManualProposal(RENEWAL, cell, acting_version, stage),
                f"{cell}: renew {stage} of {acting_version}",
            )
    for version, version_state in scope.versions.items():
        if (
            version == acting_version
            or version_state.retired
            or scope.get_cell_state(cell, version).proposal is not None
        ):
            continue
        for stage_level in list_takeover_levels(policy, cell_state, at):
            stage = policy.stage_ids[stage_level]
            text = f"{cell}: {version} takes the place of {acting_version} at {stage}"
            yield ManualProposal(TAKEOVER, cell, version, stage), text
