"""Proposals: who can approve them, and approving, rejecting and raising them.

If too few users are left who can approve a proposal, a remedy is named.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from rollout.data.access.users import SecondFactors, Users
from rollout.data.database.append_failures import StoreError
from rollout.data.database.session import Database, Transaction
from rollout.data.ledger.ledger import Ledger
from rollout.data.ledger.projections import ProposalStore
from rollout.engine.decide.approvals import (
    GroupsByUser,
    exclude_user,
    find_eligible_requesters,
    find_groups,
    find_missing_for_resume,
    find_unfilled_needs,
)
from rollout.engine.decide.commands import (
    NO_LIMITS,
    Actor,
    ApproveProposal,
    Command,
    ProposeRenewal,
    ProposeTakeover,
    RejectProposal,
)
from rollout.engine.decide.decider import decide
from rollout.engine.decide.permissions import OPERATOR, Caller, Permission, require_permission
from rollout.engine.decide.scope import (
    PROPOSAL_KINDS,
    GivenApproval,
    ProposalState,
    count_filled_needs,
)
from rollout.engine.events import LedgerEvent, ProposalRaised, Stopped
from rollout.engine.ledger.ledger import CanonicalRow, parse_event
from rollout.engine.words.approver_warnings import (
    MAX_LISTED_NAMES,
    describe_missing_roles,
    format_names,
    format_needs,
    format_sites,
)
from rollout.features.access.access_state import build_caller
from rollout.features.access.users import load_approval_limits
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.errors import ProposalClosedError, RefusalError, UnknownCellError
from rollout.live.rollout_state import (
    Appended,
    CommandResult,
    RolloutState,
    append_command,
    load_rollout_state,
    read_rollout,
    run_command,
)

if TYPE_CHECKING:
    from rollout.features.proposals.proposal_details import Proposal
    from rollout.live.service import Service


def find_proposal_sites(state: RolloutState, proposal_id: str) -> tuple[str, ...]:
    """Return the sites of an open proposal; () for any other id.

    A policy proposal concerns all sites of the old and the new policy.
    """
    proposal = state.scope.proposals.get(proposal_id)
    if proposal is None:
        return ()
    if proposal.cell is not None:
        return (proposal.cell.site,)
    stop = state.scope.stops.get(proposal.about)
    if proposal.rules.ends_stop and stop is not None:
        return tuple(sorted({cell.site for cell in stop.cells}))
    new_policy = state.pending.get(proposal.about)
    return tuple(
        dict.fromkeys((*state.policy.sites_by_id, *(new_policy.sites_by_id if new_policy else ())))
    )


def list_pending_approvals(
    state: RolloutState, caller: Caller, *, at: datetime
) -> tuple[ProposalState, ...]:
    """Return the proposals that the caller can approve, by closing time.

    The core checks each approval as it does on submission; only memory is read.
    """
    pending_proposals = [
        proposal
        for proposal in state.scope.proposals.values()
        if _is_approvable(state, caller, proposal, at)
    ]
    return tuple(sorted(pending_proposals, key=lambda proposal: (proposal.expires_at, proposal.id)))


def _is_approvable(
    state: RolloutState, caller: Caller, proposal: ProposalState, at: datetime
) -> bool:
    rollout_name, sites = state.rollout.name, find_proposal_sites(state, proposal.id)
    needs_nobody = proposal.is_approved and not proposal.unconfirmed
    if needs_nobody or not all(
        caller.has_permission(Permission.APPROVE, rollout_name, site) for site in sites or ("",)
    ):
        return False
    by = caller.as_actor(rollout_name, sites)
    command = ApproveProposal(
        at=at, by=by, proposal=proposal.id, evidence_hash=proposal.evidence_hash
    )
    try:
        return bool(decide(command, state.scope, state.policy))
    except RefusalError:
        return False


def load_present_approvers(
    transaction: Transaction, *, at: datetime, requires_second_factor: bool = False
) -> tuple[Caller, ...] | None:
    """Return the users whose approvals count at a time, with their permissions.

    Excluded are service accounts, disabled users and those whose approvals pause after a reset;
    with `requires_second_factor` also users who have none and no identity provider that may ask for
    one. Returns None before the first user is added.
    """
    users, limits = Users(transaction), load_approval_limits(transaction)
    all_users, roles_by_user = users.list_all(), users.list_all_role_assignments()
    if not all_users:
        return None
    able_users: Collection[int] = {user.number for user in all_users}
    if requires_second_factor:
        able_users = {*SecondFactors(transaction).list_confirmed(), *users.list_linked()}
    return tuple(
        build_caller(user, tuple(roles_by_user.get(user.number, ())), None)
        for user in all_users
        if not user.is_service_account
        and user.disabled_at is None
        and user.number in able_users
        and not limits.get(user.number, NO_LIMITS).is_paused(at)
    )


@dataclass(frozen=True, slots=True)
class ResumeAskers:
    """Users who can request the end of a stop.

    Attributes:
        asker_names: users whose request leaves enough other approvers, by name.
        warning: what is missing and what to do, for the caller or for all; "" if nothing is.
    """

    asker_names: tuple[str, ...]
    warning: str


def load_eligible_approvers(
    service: "Service", caller: Caller, rollout_name: str, proposal: "Proposal"
) -> tuple[str, ...]:
    """Return the users whose approval would count, by name.

    Excluded are the proposer, users who approved already and disabled users. Returns () for a
    closed
    proposal.

    Raises:
        NotAllowedError: the caller may not read the rollout.
    """
    state = service.load_permitted_state(caller, Permission.READ, rollout_name)
    if proposal.id not in state.scope.proposals:
        return ()
    excluded_names = {proposal.raised_by, *(approval.by for approval in proposal.approvals)}
    with service.database.begin_read() as transaction:
        approvers = _load_approvers(service, transaction) or ()
    groups_by_user = find_groups(
        (approver for approver in approvers if approver.name not in excluded_names),
        rollout_name,
        find_proposal_sites(state, proposal.id),
    )
    return tuple(
        sorted(
            user_name
            for user_name, user_groups in groups_by_user.items()
            if set(user_groups) & set(proposal.groups_missing)
        )
    )


def describe_missing_approvers(
    service: "Service", caller: Caller, rollout_name: str, proposal_id: str
) -> str:
    """Describe the missing approvers of an open proposal; "" if enough are left.

    Raises:
        NotAllowedError: the caller may not read the rollout.
    """
    state = service.load_permitted_state(caller, Permission.READ, rollout_name)
    proposal = state.scope.proposals.get(proposal_id)
    if proposal is None:
        return ""
    with service.database.begin_read() as transaction:
        approvers = _load_approvers(service, transaction)
    return describe_remaining_approvers(approvers, state, proposal)


def describe_remaining_approvers(
    approvers: Sequence[Caller] | None, state: RolloutState, proposal: ProposalState
) -> str:
    """Describe the missing approvers of a proposal; "" if it is approved, or without users."""
    if approvers is None:
        return ""
    sites = find_proposal_sites(state, proposal.id)
    groups_by_user = dict(find_groups(approvers, state.rollout.name, sites))
    for approval in proposal.approvals:  # it counts whatever permissions the approver has now
        groups_by_user[approval.by] = (*groups_by_user.get(approval.by, ()), *approval.groups)
    alternative = f"reject {proposal.id} and let" if proposal.rules.ends_stop else ""
    return _describe_shortage(
        proposal.needs, groups_by_user, proposal.raised_by, alternative, sites
    )


def load_resume_askers(
    service: "Service",
    caller: Caller,
    rollout_name: str,
    required_groups: Sequence[str],
    sites: Sequence[str],
) -> ResumeAskers:
    """Return who can request a resume that enough other users can approve.

    Args:
        required_groups: groups whose approval the resume needs.
        sites: sites of the stop.

    Raises:
        NotAllowedError: the caller may not read the rollout.
    """
    require_permission(caller, Permission.READ, rollout_name)
    with service.database.begin_read() as transaction:
        approvers = _load_approvers(service, transaction)
    groups_by_user = find_groups(approvers or (), rollout_name, tuple(sites))
    asker_names = find_eligible_requesters(required_groups, groups_by_user)
    if approvers is None or caller.name in asker_names:
        return ResumeAskers(asker_names, "")
    if OPERATOR in groups_by_user.get(caller.name, ()):
        return ResumeAskers(
            asker_names,
            "If you ask,"
            f" {_describe_shortage(required_groups, groups_by_user, caller.name, 'let', sites)}.",
        )
    remedy = describe_missing_roles(
        find_missing_for_resume(required_groups, groups_by_user)
    ) + format_sites(sites)
    return ResumeAskers(
        asker_names, "" if asker_names else f"No user can end this stop at present; {remedy}."
    )


def _load_approvers(service: "Service", transaction: Transaction) -> tuple[Caller, ...] | None:
    return load_present_approvers(
        transaction,
        at=service.clock.now(),
        requires_second_factor=service.requires_second_factor,
    )


def _describe_shortage(
    required_groups: Sequence[str],
    groups_by_user: GroupsByUser,
    asker_name: str,
    alternative: str,
    sites: Sequence[str],
) -> str:
    """Describe whose approval is missing; `alternative` names another way, or ""."""
    remaining_groups = exclude_user(groups_by_user, asker_name)
    missing_groups = find_unfilled_needs(required_groups, remaining_groups)
    if not missing_groups:
        return ""
    able_names = sorted(
        user_name
        for user_name, groups in remaining_groups.items()
        if set(groups) & set(required_groups)
    )
    other_askers = find_eligible_requesters(required_groups, groups_by_user) if alternative else ()
    remedies = (
        [f"{alternative} {' or '.join(other_askers[:MAX_LISTED_NAMES])} ask"]
        if other_askers
        else []
    )
    remedies.append(describe_missing_roles(missing_groups) + format_sites(sites))
    exception_text = f" other than {asker_name}" if asker_name in groups_by_user else ""
    return (
        f"{_describe_able(able_names)} it needs {format_needs(required_groups)}{exception_text};"
        f" {', or '.join(remedies)}"
    )


def _describe_able(able_names: list[str]) -> str:
    if not able_names:
        return "no user is left who can approve it:"
    return (
        f"{format_names(able_names)}{' alone' if len(able_names) == 1 else ''} can approve it, but"
    )


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
        by = _require_actor(database, caller, state, proposal_id, Permission.APPROVE)
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
        by = _require_actor(database, caller, state, proposal_id, Permission.REJECT)
        return RejectProposal(at=at, by=by, proposal=proposal_id, reason=reason)

    return run_command(database, caller, rollout_name, build_command)


def _require_actor(
    database: Database,
    caller: Caller,
    state: RolloutState,
    proposal_id: str,
    permission: Permission,
) -> Actor:
    """Return the caller as actor at the sites of a proposal, open or closed, after their check."""
    sites = (
        find_proposal_sites(state, proposal_id)
        if proposal_id in state.scope.proposals
        else load_closed_proposal_sites(database, state, proposal_id)
    )
    require_permission(caller, permission, state.rollout.name, sites)
    return caller.as_actor(state.rollout.name, sites)


@dataclass(frozen=True, slots=True)
class ManualProposal:
    """A takeover or a renewal that a user asks for."""

    kind: str
    cell: Cell
    version: str
    to: str


def raise_cell_proposal(
    database: Database,
    caller: Caller,
    rollout_name: str,
    manual_proposal: ManualProposal,
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
    kind, cell, version = manual_proposal.kind, manual_proposal.cell, manual_proposal.version
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
            at=at,
            by=by,
            cell=cell,
            version=version,
            to=manual_proposal.to,
            evidence=evidence_by_cell,
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
