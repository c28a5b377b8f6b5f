"""Proposals as whoever decides about them is shown them, each on its frozen evidence."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from rollout.core.errors import Refusal, UnknownProposal
from rollout.core.ledger.ledger import event_of
from rollout.core.policy.policy import Stage
from rollout.core.scope.commands import Approve
from rollout.core.scope.decider import decide
from rollout.core.scope.events import (
    Approved,
    Event,
    ProposalRaised,
    ProposalRejected,
    ProposalVoided,
)
from rollout.core.scope.permissions import Act, Caller, require
from rollout.core.scope.scope import Approval as CountedApproval
from rollout.core.scope.scope import Scope, filled
from rollout.reports.text.formatting import local
from rollout.services.engine.rollout_state import Standing
from rollout.services.engine.service import Service
from rollout.store.database.session import Transaction
from rollout.store.ledger.ledger import Ledger
from rollout.store.ledger.projections import OPEN
from rollout.store.ledger.proposals import ListedProposal, Proposals

STATES: Final = ("open", "approved", "applied", "rejected", "void", "expired")


@dataclass(frozen=True, slots=True)
class Approval:
    """One person's yes, and why; "" where nothing was said."""

    by: str
    groups: tuple[str, ...]
    at: datetime
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A proposal as whoever decides about it is shown it.

    Attributes:
        id, kind: its name; widening, renewal, takeover, resume, policy or clock.
        state: open; approved, waiting for its time; applied, rejected, void or expired.
        site, window, version, to: what would be allowed; "" where it is about no cell.
        about: the stop of a resume, the new policy's hash, or the time of a clock's correction.
        allows: what becomes of it, in a sentence.
        readings: the frozen evidence, one reading a line; of a policy, what it loosens.
        evidence_hash: the hash of that: an approval cites it.
        required_approvals: the groups that are asked, one different person for each.
        approvals_missing: how many approvals are missing.
        groups_missing: the groups of which one more approval would help.
        closed_reason: why it was rejected or voided, "" where nothing was said.
        can_approve: whether the caller may approve it now; else `cannot_approve_reason` says why.
    """

    id: str
    kind: str
    state: str
    site: str
    window: str
    version: str
    to: str
    about: str
    allows: str
    readings: tuple[str, ...]
    evidence_hash: str
    required_approvals: tuple[str, ...]
    approvals: tuple[Approval, ...]
    approvals_missing: int
    groups_missing: tuple[str, ...]
    raised_at: datetime
    raised_by: str
    expires_at: datetime
    closed_at: datetime | None
    closed_by: str
    closed_reason: str
    can_approve: bool
    cannot_approve_reason: str


@dataclass(frozen=True, slots=True)
class Listing:
    """Some proposals, the newest first; `before` is where the next page goes on, None at the end.

    `before` is a revision.
    """

    items: tuple[Proposal, ...]
    before: int | None


def listing(
    service: Service,
    caller: Caller,
    name: str,
    *,
    at: datetime,
    states: Sequence[str] = ("open", "approved"),
    before: int | None = None,
    limit: int = 50,
) -> Listing:
    """Return proposals about what the caller may read, the newest first.

    Raises:
        Refusal: a state is none.
    """
    require(caller, Act.READ, name)
    if unknown_states := sorted(set(states) - set(STATES)):
        raise Refusal(f"{unknown_states[0]} is no state of a proposal; use {', '.join(STATES)}")
    state = service.watch.confirmed(name).standing
    stored_states = {
        OPEN if proposal_state == "approved" else proposal_state for proposal_state in states
    }
    with service.database.reading() as transaction:
        rows = Proposals(transaction, state.rollout).page(
            states=sorted(stored_states), before=before, limit=limit
        )
        readable_rows = [
            row for row in rows if not row.site or caller.may(Act.READ, name, row.site)
        ]
        proposals = [_shown(transaction, state, caller, row, at) for row in readable_rows]
    items = tuple(proposal for proposal in proposals if proposal.state in states)
    return Listing(items, rows[-1].raised_in if len(rows) == limit else None)


def one(service: Service, caller: Caller, name: str, proposal: str, *, at: datetime) -> Proposal:
    """Return one proposal, open or closed.

    Raises:
        UnknownProposal: there never was one of that id.
        NotAllowed: it is about a site that the caller may not read.
    """
    require(caller, Act.READ, name)
    state = service.watch.confirmed(name).standing
    with service.database.reading() as transaction:
        row = Proposals(transaction, state.rollout).find(proposal)
        if row is None:
            raise _unknown(state.scope, proposal)
        if row.site:
            require(caller, Act.READ, name, (row.site,))
        return _shown(transaction, state, caller, row, at)


def sites_of(stood: Standing, proposal: str) -> tuple[str, ...]:
    """Return the sites that an open proposal is about; () where none of that id is open.

    A policy is about all sites, of the old and of the new one.
    """
    found = stood.scope.proposals.get(proposal)
    if found is None:
        return ()
    if found.cell is not None:
        return (found.cell.site,)
    stop = stood.scope.stops.get(found.about)
    if found.kind == "resume" and stop is not None:
        return tuple(sorted({cell.site for cell in stop.cells}))
    new_policy = stood.pending.get(found.about)
    return tuple(dict.fromkeys((*stood.policy.site, *(new_policy.site if new_policy else ()))))


def _shown(
    transaction: Transaction, stood: Standing, caller: Caller, row: ListedProposal, at: datetime
) -> Proposal:
    proposal_raised, approval_events, closing_event = _history(transaction, stood, row)
    cell, approvals = (
        proposal_raised.cell,
        tuple(CountedApproval(e.by, e.groups, e.at) for e in approval_events),
    )
    is_rejected_by_user = closing_event is not None and isinstance(closing_event, ProposalRejected)
    counted_approvals = filled(proposal_raised.needs, approvals)
    refusal_text = _why_not(stood, caller, row, proposal_raised, at)
    return Proposal(
        id=row.id,
        kind=row.kind,
        state="approved"
        if row.state == OPEN and counted_approvals == len(proposal_raised.needs)
        else row.state,
        site="" if cell is None else cell.site,
        window="" if cell is None else cell.window,
        version=proposal_raised.version,
        to=proposal_raised.to_stage,
        about=proposal_raised.about,
        allows=allows(stood, proposal_raised, at if row.closed_at is None else row.closed_at),
        readings=proposal_raised.readings,
        evidence_hash=proposal_raised.evidence_hash,
        required_approvals=proposal_raised.needs,
        approvals=tuple(
            Approval(
                approval_event.by, approval_event.groups, approval_event.at, approval_event.reason
            )
            for approval_event in approval_events
        ),
        approvals_missing=len(proposal_raised.needs) - counted_approvals,
        groups_missing=tuple(
            group
            for group in dict.fromkeys(proposal_raised.needs)
            if _helps(proposal_raised.needs, approvals, group)
        ),
        raised_at=proposal_raised.at,
        raised_by=proposal_raised.by,
        expires_at=proposal_raised.expires_at,
        closed_at=row.closed_at,
        closed_by=closing_event.by if closing_event is not None and is_rejected_by_user else "",
        closed_reason=_because(closing_event),
        can_approve=not refusal_text,
        cannot_approve_reason=refusal_text,
    )


def _history(
    transaction: Transaction, stood: Standing, row: ListedProposal
) -> tuple[ProposalRaised, tuple[Approved, ...], Event | None]:
    """Return how a proposal was raised, who said yes to it and why, and what closed it."""
    ledger = Ledger(transaction, stood.rollout)
    (first_row,) = ledger.rows(after=row.raised_in - 1, until=row.raised_in)
    proposal_raised = event_of(first_row)
    assert isinstance(proposal_raised, ProposalRaised)  # noqa: S101 - the table says so
    open_proposal = stood.scope.proposals.get(row.id)
    if row.closed_in is None and open_proposal is not None and not open_proposal.approvals:
        return proposal_raised, (), None  # no need to read on to the ledger's end
    kinds = ("Approved",) if row.closed_in is None else ()
    rows = ledger.rows(after=row.raised_in, until=row.closed_in, kinds=kinds)
    later_events = [event_of(r) for r in rows if r.fields.get("proposal") == row.id]
    approval_events = tuple(event for event in later_events if isinstance(event, Approved))
    return proposal_raised, approval_events, later_events[-1] if row.closed_in is not None else None


def _helps(needs: tuple[str, ...], yes: tuple[CountedApproval, ...], group: str) -> bool:
    """Say whether a yes of one more person of a group would count."""
    more_approvals = (*yes, CountedApproval("", (group,), datetime.min))  # noqa: DTZ901 - no time of a real yes
    return filled(needs, more_approvals) > filled(needs, yes)


def _because(closing: Event | None) -> str:
    match closing:
        case ProposalRejected():
            return closing.reason
        case ProposalVoided():
            return closing.reason
    return ""


def _why_not(
    stood: Standing, caller: Caller, row: ListedProposal, raised: ProposalRaised, at: datetime
) -> str:
    """Say why the caller can't approve a proposal now, "" where they can: the core decides."""
    if row.state != OPEN:
        return f"{row.id} is {row.state}"
    rollout_name, sites = stood.rollout.name, sites_of(stood, row.id)
    by = caller.person(rollout_name, sites)
    command = Approve(at=at, by=by, proposal=row.id, evidence=raised.evidence_hash)
    try:
        require(caller, Act.APPROVE, rollout_name, sites)
        events = decide(command, stood.scope, stood.policy)
    except Refusal as refusal:
        return str(refusal)
    return "" if events else f"{caller.name} has approved {row.id} already"


def allows(stood: Standing, raised: ProposalRaised, at: datetime) -> str:
    """Say what a proposal would allow where, when and until when, were it applied at `at`."""
    policy, cell = stood.policy, raised.cell
    if cell is None or cell not in policy.known or raised.to_stage not in policy.rungs[1:]:
        return _at_large(stood, raised)
    stage = policy.stage(policy.rungs.index(raised.to_stage))
    until = local(at + stage.lasts, policy.site[cell.site].timezone)
    location = f"at {cell.site}" if len(policy.windows) == 1 else f"at {cell.site} in {cell.window}"
    summary = f"{raised.version} {_does(raised.kind)} {raised.to_stage} {location} until {until}"
    return f"{summary}: {_who_decides(stage)}"


def _does(kind: str) -> str:
    return {"renewal": "keeps", "takeover": "takes the acting version's place at"}.get(
        kind, "goes up to"
    )


def _who_decides(stage: Stage) -> str:
    blind_text = f"; {stage.blind * 100:g} % stay with people, unseen" if stage.blind else ""
    if stage.model_decides:
        return (
            f"the model decides, {(stage.audit or 0) * 100:g} % of it judged afterwards{blind_text}"
        )
    return f"a person confirms or overrides what the model proposes{blind_text}"


def _at_large(stood: Standing, raised: ProposalRaised) -> str:
    match raised.kind:
        case "resume":
            cells = ", ".join(raised.readings[1:])
            return f"what stop {raised.about} withholds comes back, less what lapsed: {cells}"
        case "policy":
            number, loosens = stood.scope.policy_number, "; ".join(raised.readings[1:])
            return f"another policy takes the place of policy {number}; it loosens: {loosens}"
        case "clock":
            return f"the ledger's time goes back to {raised.about}; what lapsed stays lapsed"
    return f"{raised.version} at {raised.to_stage} in {raised.cell}"


def _unknown(scope: Scope, proposal: str) -> UnknownProposal:
    open_ids = ", ".join(scope.proposals) or "none"
    return UnknownProposal(f"there is no proposal {proposal}; open ones: {open_ids}")
