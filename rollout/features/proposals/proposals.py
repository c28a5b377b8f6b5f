"""Approving, rejecting and raising proposals."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from rollout.data.database.errors import StoreError
from rollout.data.database.session import Database
from rollout.data.ledger.ledger import Ledger
from rollout.data.ledger.projections import ProposalStore
from rollout.engine.decide.commands import (
    ApproveProposal,
    Command,
    ProposeRenewal,
    ProposeTakeover,
    RejectProposal,
)
from rollout.engine.decide.permissions import Caller, Permission, require_permission
from rollout.engine.decide.proposal_kinds import PROPOSAL_KINDS
from rollout.engine.decide.scope import GivenApproval, ProposalState, count_filled_needs
from rollout.engine.events import LedgerEvent, ProposalRaised, Stopped
from rollout.engine.ledger.ledger import CanonicalRow, parse_event
from rollout.features.proposals.eligible_approvers import find_proposal_sites
from rollout.kernel.calendar.sites import Cell
from rollout.kernel.errors import ProposalClosedError, RefusalError, UnknownCellError
from rollout.live.command_handler import Appended, CommandResult, append_command, run_command
from rollout.live.rollout_state import RolloutState, load_rollout_state, read_rollout


def load_closed_proposal_sites(
    database: Database, state: RolloutState, proposal_id: str
) -> tuple[str, ...]:
    """Return the sites that a closed proposal concerned; () for an unknown id.

    A resume concerns the sites of its stop, every other one without a cell all sites.
    """
    with database.begin_read() as transaction:
        row = ProposalStore(transaction, state.rollout).find(proposal_id)
        if row is None:
            return ()
        if row.site:
            return (row.site,)
        ledger = Ledger(transaction, state.rollout)
        (raised,) = ledger.list_of(ProposalRaised, after=row.raised_in - 1, until=row.raised_in)
        stop_sites = {
            cell.site
            for stop in ledger.list_of(Stopped, until=row.raised_in)
            if row.rules.ends_stop and stop.stop == raised.about
            for cell in stop.cells
        }
    return tuple(sorted(stop_sites)) or tuple(state.policy.sites_by_id)


TAKEOVER, RENEWAL = "takeover", "renewal"
MAX_APPROVALS_PER_CALL = 100


@dataclass(frozen=True, slots=True)
class ApprovalReceipt:
    """Receipt of a counted approval; repeated requests return the same one.

    `revision` and `hash` belong to the approval's ledger entry.
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
    """Result of one approval of several; `code` and `detail` explain a refusal."""

    proposal: str
    approved: bool
    approval: ApprovalReceipt | None
    code: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalResult(CommandResult):
    """The raised proposal, or the open one of the same kind and subject."""

    proposal: str
    required_approvals: tuple[str, ...]
    evidence_hash: str


def approve_proposal(
    database: Database,
    caller: Caller,
    rollout_name: str,
    proposal_id: str,
    evidence_hash: str,
    *,
    at: datetime,
    reason: str = "",
) -> ApprovalReceipt:
    """Store the caller's approval of a proposal on the cited evidence.

    A repeated approval returns the first receipt, also after the proposal was closed.

    Raises:
        NotAllowedError: the caller may not approve at each of its sites.
        UserRequiredError: the caller is a service account.
        EvidenceChangedError: the hash is not the proposal's.
        OwnProposalError, AlreadyApprovedError, NotEligibleError: another user must approve.
        ProposalClosedError: the proposal is no longer open.
        UnknownProposalError: no proposal has this id.
    """
    require_permission(caller, Permission.APPROVE, rollout_name)

    def build_command(state: RolloutState) -> Command:
        sites = _require_permission_at_sites(
            database, caller, state, proposal_id, Permission.APPROVE
        )
        by = caller.as_actor(rollout_name, sites)
        return ApproveProposal(
            at=at,
            by=by,
            proposal=proposal_id,
            evidence_hash=evidence_hash,
            reason=reason,
        )

    try:
        appended = append_command(database, rollout_name, build_command, caller.access_head)
    except ProposalClosedError:
        earlier_approval = _find_counted_approval(
            database, caller, rollout_name, proposal_id, evidence_hash
        )
        if earlier_approval is None:
            _raise_how_closed(database, rollout_name, proposal_id)
            raise
        return earlier_approval
    counted_approval = _build_receipt(appended, proposal_id) or _find_counted_approval(
        database, caller, rollout_name, proposal_id, evidence_hash
    )
    assert counted_approval is not None  # noqa: S101 - it was counted just now, or before
    return counted_approval


def approve_proposals(
    database: Database,
    caller: Caller,
    rollout_name: str,
    requested_approvals: Iterable[tuple[str, str, str]],
    *,
    at: datetime,
) -> tuple[ApprovalResult, ...]:
    """Approve several proposals; a refused one does not affect the others.

    Args:
        requested_approvals: proposal id, evidence hash and reason ("" without one) of each.

    Raises:
        NotAllowedError: the caller may not approve anywhere in the rollout.
    """
    require_permission(caller, Permission.APPROVE, rollout_name)
    return tuple(
        _try_approve(database, caller, rollout_name, requested_approval, at)
        for requested_approval in requested_approvals
    )


def _try_approve(
    database: Database,
    caller: Caller,
    rollout_name: str,
    requested_approval: tuple[str, str, str],
    at: datetime,
) -> ApprovalResult:
    proposal_id, evidence_hash, reason = requested_approval
    try:
        counted_approval = approve_proposal(
            database, caller, rollout_name, proposal_id, evidence_hash, at=at, reason=reason
        )
    except (RefusalError, StoreError) as error:
        return ApprovalResult(
            proposal_id, approved=False, approval=None, code=error.code, detail=str(error)
        )
    return ApprovalResult(proposal_id, approved=True, approval=counted_approval, code="", detail="")


def reject_proposal(
    database: Database,
    caller: Caller,
    rollout_name: str,
    proposal_id: str,
    *,
    at: datetime,
    reason: str = "",
) -> CommandResult:
    """Reject a proposal; nothing is written if it is closed already.

    Raises:
        NotAllowedError: the caller may not reject at each of its sites.
        UnknownProposalError: no proposal has this id.
    """
    require_permission(caller, Permission.REJECT, rollout_name)

    def build_command(state: RolloutState) -> Command:
        sites = _require_permission_at_sites(
            database, caller, state, proposal_id, Permission.REJECT
        )
        by = caller.as_actor(rollout_name, sites)
        return RejectProposal(at=at, by=by, proposal=proposal_id, reason=reason)

    return run_command(database, caller, rollout_name, build_command)


def _require_permission_at_sites(
    database: Database,
    caller: Caller,
    state: RolloutState,
    proposal_id: str,
    permission: Permission,
) -> tuple[str, ...]:
    """Return the proposal's sites, open or closed, after the check of each."""
    sites = (
        find_proposal_sites(state, proposal_id)
        if proposal_id in state.scope.proposals
        else load_closed_proposal_sites(database, state, proposal_id)
    )
    require_permission(caller, permission, state.rollout.name, sites)
    return sites


def raise_cell_proposal(  # noqa: PLR0913 - who asks for what, where, for whom
    database: Database,
    caller: Caller,
    rollout_name: str,
    kind: str,
    cell: Cell,
    version: str,
    to: str,
    *,
    at: datetime,
) -> ProposalResult:
    """Raise a takeover or renewal on the counted evidence.

    Raises:
        UnknownCellError: the policy has no such cell.
        NotAllowedError: the caller is not an operator there.
        NotEligibleError: evidence or policy does not permit it; the text names what is missing.
    """
    require_permission(caller, Permission.PROPOSE, rollout_name)
    require_permission(caller, Permission.PROPOSE, rollout_name, (cell.site,))
    names = {version}
    # what counts takes half a second to load, which no other command here needs
    from rollout.live.evidence.evidence_reader import load_cell_evidence

    def build_command(state: RolloutState) -> Command:
        if cell not in state.policy.cell_set:
            cells_text = ", ".join(str(cell_item) for cell_item in state.policy.cells)
            raise UnknownCellError(f"the policy has no {cell}; cells: {cells_text}")
        command_classes = {TAKEOVER: ProposeTakeover, RENEWAL: ProposeRenewal}
        if kind not in command_classes:
            raise RefusalError(
                f"{kind} is raised by the tick alone; ask for {' or '.join(command_classes)}"
            )
        first_name = state.scope.get_first_name(version)
        names.add(first_name)
        cell_evidence = load_cell_evidence(database, state, cell, first_name)
        by = caller.as_actor(rollout_name, (cell.site,))
        evidence_by_cell = {(cell, first_name): cell_evidence}
        return command_classes[kind](
            at=at, by=by, cell=cell, version=version, to=to, evidence=evidence_by_cell
        )

    command_result = run_command(database, caller, rollout_name, build_command)
    return find_raised_proposal(
        database,
        rollout_name,
        command_result,
        lambda proposal: (
            (proposal.kind, proposal.cell) == (kind, cell) and proposal.version in names
        ),
    )


def find_raised_proposal(
    database: Database,
    rollout_name: str,
    command_result: CommandResult,
    is_match: Callable[[ProposalState], bool],
) -> ProposalResult:
    """Return the open proposal that a command raised or found.

    Raises:
        ProposalClosedError: there is none.
    """
    with database.begin_read() as transaction:
        scope = load_rollout_state(transaction, rollout_name).scope
    proposal = next(
        (candidate for candidate in scope.proposals.values() if is_match(candidate)), None
    )
    if proposal is None:
        raise ProposalClosedError(
            "no proposal was raised: the requested state already holds, or it was decided meanwhile"
        )
    return ProposalResult(
        rollout=command_result.rollout,
        revision=command_result.revision,
        hash=command_result.hash,
        events=command_result.events,
        proposal=proposal.id,
        required_approvals=proposal.needs,
        evidence_hash=proposal.evidence_hash,
    )


def _build_receipt(appended: Appended, proposal_id: str) -> ApprovalReceipt | None:
    """Return the receipt of the approval that was just appended, or None."""
    proposal = appended.scope.proposals.get(proposal_id)
    for row, event in zip(reversed(appended.rows), reversed(appended.events), strict=True):
        if proposal is not None and event.cited_hash:
            return _describe_approval(row, event, proposal.needs, proposal.approvals, proposal.kind)
    return None


def _describe_approval(
    row: CanonicalRow,
    event: LedgerEvent,
    required_groups: tuple[str, ...],
    approvals: tuple[GivenApproval, ...],
    kind: str,
) -> ApprovalReceipt:
    missing_approvals = len(required_groups) - count_filled_needs(required_groups, approvals)
    return ApprovalReceipt(
        rollout=row.rollout,
        revision=row.revision,
        hash=row.hash,
        proposal=event.about_proposal,
        evidence_hash=event.cited_hash,
        by=event.by,
        groups=event.given_groups,
        at=event.at,
        approvals_missing=missing_approvals,
        text=_describe_missing(missing_approvals, required_groups, kind),
    )


def _raise_how_closed(database: Database, rollout_name: str, proposal_id: str) -> None:
    """Raise how a proposal was closed; return if it is open, as one that just expired."""
    with read_rollout(database, rollout_name) as (transaction, state):
        row = ProposalStore(transaction, state.rollout).find(proposal_id)
    if row is not None and row.closed_at is not None:
        raise ProposalClosedError(
            f"{proposal_id} is closed: {row.state} since {row.closed_at:%Y-%m-%d %H:%M} UTC"
        )


def _find_counted_approval(
    database: Database, caller: Caller, rollout_name: str, proposal_id: str, evidence_hash: str
) -> ApprovalReceipt | None:
    """Return the receipt of the caller's approval on this evidence, or None."""
    with read_rollout(database, rollout_name) as (transaction, state):
        proposal_row = ProposalStore(transaction, state.rollout).find(proposal_id)
        if proposal_row is None:
            return None
        ledger, approvals = Ledger(transaction, state.rollout), list[GivenApproval]()
        required_groups: tuple[str, ...] = ()
        receipt: ApprovalReceipt | None = None
        for row in ledger.list_rows(after=proposal_row.raised_in - 1, until=proposal_row.closed_in):
            if row.fields.get("proposal") != proposal_id:
                continue
            event = parse_event(row)
            required_groups = event.needed_groups or required_groups
            if event.is_approved and event.given_groups:
                approvals.append(GivenApproval(event.by, event.given_groups, event.at))
            if (event.by, event.cited_hash) == (caller.name, evidence_hash):
                receipt = _describe_approval(
                    row, event, required_groups, tuple(approvals), proposal_row.kind
                )
    return receipt


def _describe_missing(missing_approvals: int, required_groups: tuple[str, ...], kind: str) -> str:
    count = len(required_groups)
    if missing_approvals:
        return f"{count - missing_approvals} of {count} approvals; needs {missing_approvals} more"
    if not PROPOSAL_KINDS[kind].reads_gate:
        return "the last approval: the next tick applies it"
    return "the last approval: the next tick applies it unless the evidence has turned by then"
