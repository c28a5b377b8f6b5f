"""What people say to proposals, and what they raise by hand: judged, counted, written."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from rollout.core.calendar.sites import Cell
from rollout.core.errors import ProposalClosed, Refusal, UnknownCell
from rollout.core.ledger.ledger import event_of
from rollout.core.scope.commands import (
    Approve,
    AskRenewal,
    Command,
    CorrectClock,
    RaiseTakeover,
    Reject,
)
from rollout.core.scope.events import Approved, ProposalRaised
from rollout.core.scope.permissions import Act, Caller, require
from rollout.core.scope.scope import Approval, Proposal, filled
from rollout.services.engine.command_results import CommandResult, act
from rollout.services.engine.evidence_reader import known_of
from rollout.services.engine.rollout_state import Standing, standing
from rollout.services.proposals.proposal_details import sites_of
from rollout.store.database.errors import StoreError
from rollout.store.database.session import Database
from rollout.store.ledger.ledger import Ledger
from rollout.store.ledger.proposals import Proposals

TAKEOVER, RENEWAL, CLOCK = "takeover", "renewal", "clock"
MOST_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class ApprovalReceipt:
    """A yes as it was counted; asking again gives the same answer.

    `revision` and `hash` are those of its own row in the ledger.
    """

    rollout: str
    revision: int
    hash: str
    proposal: str
    evidence_hash: str
    by: str
    groups: tuple[str, ...]
    at: datetime
    approvals_missing: int
    text: str


@dataclass(frozen=True, slots=True)
class ApprovalResult:
    """What became of one of several approvals; `code` and `detail` are of what was refused."""

    proposal: str
    approved: bool
    approval: ApprovalReceipt | None
    code: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalResult(CommandResult):
    """What came of asking for a proposal: it, or the one like it that is open already."""

    proposal: str
    required_approvals: tuple[str, ...]
    evidence_hash: str


def approve(
    database: Database,
    caller: Caller,
    name: str,
    proposal: str,
    evidence: str,
    *,
    at: datetime,
    reason: str = "",
) -> ApprovalReceipt:
    """Count the caller's yes to a proposal, bound to the evidence that they were shown.

    The same yes once more gets the first answer again, also when the proposal is closed by then.

    Raises:
        NotAllowed: the caller may not approve at each of its sites.
        MachineKey: no person asks.
        EvidenceMoved: the hash is another than the proposal's.
        OwnProposal, AlreadyApproved, NotEligible: another person has to.
        ProposalClosed: it is no longer open.
        UnknownProposal: there never was one of that id.
    """
    require(caller, Act.APPROVE, name)

    def asked(stood: Standing) -> Command:
        sites = sites_of(stood, proposal)
        require(caller, Act.APPROVE, name, sites)
        by = caller.person(name, sites)
        return Approve(at=at, by=by, proposal=proposal, evidence=evidence, reason=reason)

    try:
        act(database, caller, name, asked)
    except ProposalClosed:
        earlier_approval = _said(database, caller, name, proposal, evidence)
        if earlier_approval is None:
            raise
        return earlier_approval
    counted_approval = _said(database, caller, name, proposal, evidence)
    assert counted_approval is not None  # noqa: S101 - it was counted just now, or before
    return counted_approval


def approve_each(
    database: Database,
    caller: Caller,
    name: str,
    wanted: Iterable[tuple[str, str, str]],
    *,
    at: datetime,
) -> tuple[ApprovalResult, ...]:
    """Approve several proposals; one that is refused fails no other.

    Args:
        database: where the rollout is.
        caller: who says yes.
        name: of the rollout.
        wanted: each proposal with the hash of its evidence and the reason, "" without one.
        at: now.

    Raises:
        NotAllowed: the caller may approve nowhere in the rollout.
    """
    require(caller, Act.APPROVE, name)
    return tuple(
        _answer(database, caller, name, requested_approval, at) for requested_approval in wanted
    )


def _answer(
    database: Database, caller: Caller, name: str, said: tuple[str, str, str], at: datetime
) -> ApprovalResult:
    proposal_id, evidence_hash, reason = said
    try:
        counted_approval = approve(
            database, caller, name, proposal_id, evidence_hash, at=at, reason=reason
        )
    except (Refusal, StoreError) as error:
        return ApprovalResult(
            proposal_id, approved=False, approval=None, code=error.code, detail=str(error)
        )
    return ApprovalResult(proposal_id, approved=True, approval=counted_approval, code="", detail="")


def reject(
    database: Database,
    caller: Caller,
    name: str,
    proposal: str,
    *,
    at: datetime,
    reason: str = "",
) -> CommandResult:
    """Say no; a proposal that is closed already stays so, and nothing is written.

    Raises:
        NotAllowed: the caller may not reject at each of its sites.
        UnknownProposal: there never was one of that id.
    """
    require(caller, Act.APPROVE, name)

    def asked(stood: Standing) -> Command:
        sites = sites_of(stood, proposal)
        require(caller, Act.APPROVE, name, sites)
        by = caller.person(name, sites)
        return Reject(at=at, by=by, proposal=proposal, reason=reason)

    return act(database, caller, name, asked)


def raise_for_cell(  # noqa: PLR0913 - who asks for what, where, for whom
    database: Database,
    caller: Caller,
    name: str,
    kind: str,
    cell: Cell,
    version: str,
    to: str,
    *,
    at: datetime,
) -> ProposalResult:
    """Raise a takeover or a renewal on the evidence that was counted; others approve it.

    Raises:
        UnknownCell: the policy has no such cell.
        NotAllowed: the caller is no operator there.
        NotEligible: the evidence or the policy does not allow it; says what is missing.
    """
    require(caller, Act.OPERATE, name)
    require(caller, Act.OPERATE, name, (cell.site,))

    def asked(stood: Standing) -> Command:
        if cell not in stood.policy.known:
            cells_text = ", ".join(str(cell_item) for cell_item in stood.policy.cells)
            raise UnknownCell(f"the policy has no {cell}; cells: {cells_text}")
        command_classes = {TAKEOVER: RaiseTakeover, RENEWAL: AskRenewal}
        if kind not in command_classes:
            raise Refusal(
                f"{kind} is raised by the tick alone; ask for {' or '.join(command_classes)}"
            )
        cell_evidence = known_of(database, stood, cell, version)
        by = caller.person(name, (cell.site,))
        evidence_by_cell = {(cell, version): cell_evidence}
        return command_classes[kind](
            at=at, by=by, cell=cell, version=version, to=to, evidence=evidence_by_cell
        )

    command_result = act(database, caller, name, asked)
    return _raised(
        database,
        name,
        command_result,
        lambda proposal: (proposal.kind, proposal.cell, proposal.version) == (kind, cell, version),
    )


def correct_clock(database: Database, caller: Caller, name: str, *, at: datetime) -> ProposalResult:
    """Propose that the ledger's time goes back to the clock's.

    Raises:
        NotAllowed: the caller is no operator of the whole rollout.
        Refusal: the ledger's time is right.
    """
    require(caller, Act.OPERATE, name)

    def asked(stood: Standing) -> Command:
        sites = tuple(stood.policy.site)
        require(caller, Act.OPERATE, name, sites)
        return CorrectClock(at=at, by=caller.person(name, sites))

    command_result = act(database, caller, name, asked)
    return _raised(database, name, command_result, lambda proposal: proposal.kind == CLOCK)


def _raised(
    database: Database, name: str, done: CommandResult, wanted: Callable[[Proposal], bool]
) -> ProposalResult:
    with database.reading() as transaction:
        scope = standing(transaction, name).scope
    proposal = next(
        (candidate for candidate in scope.proposals.values() if wanted(candidate)), None
    )
    if proposal is None:
        raise ProposalClosed(
            "nothing is raised: what was asked for holds, or was decided meanwhile"
        )
    return ProposalResult(
        rollout=done.rollout,
        revision=done.revision,
        hash=done.hash,
        events=done.events,
        proposal=proposal.id,
        required_approvals=proposal.needs,
        evidence_hash=proposal.evidence,
    )


def _said(
    database: Database, caller: Caller, name: str, proposal: str, evidence: str
) -> ApprovalReceipt | None:
    """Return the caller's yes as it was counted, None where there is none of that evidence."""
    with database.reading() as transaction:
        rollout = standing(transaction, name).rollout
        proposal_row = Proposals(transaction, rollout).find(proposal)
        if proposal_row is None:
            return None
        ledger, approvals = Ledger(transaction, rollout), list[Approval]()
        required_groups: tuple[str, ...] = ()
        for row in ledger.rows(after=proposal_row.raised_in - 1, until=proposal_row.closed_in):
            event = event_of(row) if row.fields.get("proposal") == proposal else None
            if isinstance(event, ProposalRaised):
                required_groups = event.needs
            if isinstance(event, Approved):
                approvals.append(Approval(event.by, event.groups, event.at))
                if (event.by, event.evidence_hash) == (caller.name, evidence):
                    missing_approvals = len(required_groups) - filled(
                        required_groups, tuple(approvals)
                    )
                    return ApprovalReceipt(
                        rollout=name,
                        revision=row.revision,
                        hash=row.hash,
                        proposal=proposal,
                        evidence_hash=evidence,
                        by=event.by,
                        groups=event.groups,
                        at=event.at,
                        approvals_missing=missing_approvals,
                        text=_counted_text(missing_approvals, required_groups),
                    )
    return None


def _counted_text(missing: int, needs: tuple[str, ...]) -> str:
    if missing:
        return f"{len(needs) - missing} of {len(needs)} approvals; it waits for the others"
    return "the last approval: a later tick applies it, if the evidence has not turned"
