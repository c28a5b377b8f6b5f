"""Approvals and rejections of proposals, and the track record that an approver must know.

An approval is bound to the evidence that the user saw.

A track record says what a version did in all cells lately. Alarms about quality and harms of its
own speak against it everywhere: they enter the hash of its proposals' evidence, and void or hold
those that are open. All else is shown beside them.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from rollout.engine.decide.commands import ApproveProposal, RejectProposal
from rollout.engine.decide.incident_kinds import UNAUTHORIZED
from rollout.engine.decide.permissions import OPERATOR, Caller
from rollout.engine.decide.projection import PendingEvents
from rollout.engine.decide.scope import GivenApproval, ProposalState, Scope, count_filled_needs
from rollout.engine.decide.stops import TWO_OPERATORS, find_return_needs
from rollout.engine.events import (
    Approved,
    FactsConfirmed,
    IncidentAcknowledged,
    LedgerEvent,
    ProposalRejected,
    TrackFact,
    select_events,
)
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.errors import (
    AlreadyApprovedError,
    EvidenceChangedError,
    NotEligibleError,
    OwnProposalError,
    ProposalClosedError,
    UnknownProposalError,
)
from rollout.kernel.policy.familiarity import MISTAKEN
from rollout.kernel.policy.policy import Policy
from rollout.kernel.units import group_pairs

GroupsByUser = Mapping[str, Collection[str]]
"""Groups by user name; `operator` is one."""

NO_STAGE = ""


@dataclass(frozen=True, slots=True)
class GroupMembership:
    """Users' groups at each site, and at all sites at once."""

    by_site: Mapping[str, GroupsByUser]
    at_all_sites: GroupsByUser


def find_group_memberships(
    callers: Iterable[Caller], rollout: str, sites: Sequence[str]
) -> GroupMembership:
    """Return users' groups; sites without own roles share one value."""
    all_callers = tuple(callers)
    callers_by_site = defaultdict(list)
    for caller in all_callers:
        for site in {assignment.site for assignment in caller.role_assignments if assignment.site}:
            callers_by_site[site].append(caller)
    global_groups = find_groups(all_callers, rollout)
    groups_by_site = {
        s: {**global_groups, **find_groups(callers_by_site[s], rollout, (s,))}
        if s in callers_by_site
        else global_groups
        for s in sites
    }
    all_sites = set(sites)
    callers_at_all_sites = [
        c
        for c in all_callers
        if all_sites <= {assignment.site for assignment in c.role_assignments}
    ]
    return GroupMembership(
        groups_by_site,
        {**global_groups, **find_groups(callers_at_all_sites, rollout, tuple(sites))},
    )


def find_groups(
    callers: Iterable[Caller], rollout: str, sites: tuple[str, ...] = ()
) -> GroupsByUser:
    """Return users' groups at all of `sites`, without users in none.

    () means all sites that exist.
    """
    groups_by_user = {caller.name: caller.as_actor(rollout, sites).groups for caller in callers}
    return {name: groups for name, groups in groups_by_user.items() if groups}


def find_unfilled_needs(needs: Sequence[str], groups_by_user: GroupsByUser) -> tuple[str, ...]:
    """Return the needs that stay open, with one need per user.

    Needs of operators are filled last, so that the missing one is an operator if possible.

    >>> find_unfilled_needs(
    ...     ("operator", "operator", "safety"), {"ana": ("operator", "safety"), "bo": ()}
    ... )
    ('operator', 'operator')
    """
    needed_groups = sorted(needs, key=lambda group: group == OPERATOR)
    need_by_user: dict[str, int] = {}
    is_filled_list = [
        _assign_user(index, needed_groups, groups_by_user, need_by_user, set())
        for index in range(len(needed_groups))
    ]
    return tuple(
        group for group, filled in zip(needed_groups, is_filled_list, strict=True) if not filled
    )


def _assign_user(
    index: int,
    needed_groups: Sequence[str],
    groups_by_user: GroupsByUser,
    need_by_user: dict[str, int],
    tried_users: set[str],
) -> bool:
    """Fill a need, moving other users if necessary; return whether it worked."""
    for name, groups in groups_by_user.items():
        if needed_groups[index] in groups and name not in tried_users:
            tried_users.add(name)
            if name not in need_by_user or _assign_user(
                need_by_user[name], needed_groups, groups_by_user, need_by_user, tried_users
            ):
                need_by_user[name] = index
                return True
    return False


def find_missing_for_resume(needs: Sequence[str], groups_by_user: GroupsByUser) -> tuple[str, ...]:
    """Return the groups that a resume lacks, with an operator to propose it.

    >>> find_missing_for_resume(
    ...     ("operator", "operator"), {"ana": ("operator",), "bo": ("operator",)}
    ... )
    ('operator',)
    """
    return find_unfilled_needs((OPERATOR, *needs), groups_by_user)


def exclude_user(groups_by_user: GroupsByUser, name: str) -> GroupsByUser:
    """Return the users without one, as proposers can't approve."""
    return {user: groups for user, groups in groups_by_user.items() if user != name}


def find_eligible_requesters(needs: Sequence[str], groups_by_user: GroupsByUser) -> tuple[str, ...]:
    """Return the operators who leave enough others to approve, sorted."""
    operators = (name for name, groups in groups_by_user.items() if OPERATOR in groups)
    return tuple(
        sorted(
            name
            for name in operators
            if not find_unfilled_needs(needs, exclude_user(groups_by_user, name))
        )
    )


def list_resume_needs(
    policy: Policy, cells: Collection[Cell]
) -> Mapping[tuple[str, ...], tuple[str, ...]]:
    """Return the possible approvals of a resume and their stages.

    The needs are those of the highest gate that comes back; two operators while nothing is granted.
    """
    stages_by_needs = group_pairs(
        (tuple(sorted(needs)), stage) for needs, stage in _list_needs_by_stage(policy, cells)
    )
    return {needs: tuple(stages) for needs, stages in stages_by_needs.items()}


def _list_needs_by_stage(
    policy: Policy, cells: Collection[Cell]
) -> Iterator[tuple[tuple[str, ...], str]]:
    yield TWO_OPERATORS, NO_STAGE
    for stage_level, stage in enumerate(policy.stage_ids[1:], start=1):
        yield find_return_needs(policy, stage_level, cells), stage


def approve(command: ApproveProposal, pending: PendingEvents) -> None:
    """Record an approval; a repeat has no effect. A tick applies what has all of them."""
    proposal = _get_open_proposal(pending.scope, command.proposal)
    is_repeated = _is_already_approved(command, proposal, pending.at)
    if proposal.unconfirmed:
        _confirm_facts(command, proposal, pending)
    if is_repeated or (proposal.unconfirmed and not _fills_need(command, proposal, pending.at)):
        return
    _check_can_approve(command, proposal, pending)
    pending.emit(
        Approved(
            at=pending.at,
            by=command.by.name,
            proposal=proposal.id,
            groups=command.by.groups,
            evidence_hash=proposal.evidence_hash,
            reason=command.reason,
        )
    )


def _confirm_facts(
    command: ApproveProposal, proposal: ProposalState, pending: PendingEvents
) -> None:
    """Record that an approver wants a proposal in spite of incidents since it was raised.

    One of those who have approved may do so, and anybody else of a group that was asked.
    """
    _check_is_able(command, proposal, pending)
    if not set(command.by.groups) & set(proposal.needs):
        raise NotEligibleError(
            f"{proposal.id} asks for {', '.join(proposal.needs)}; {command.by.name} is in none of"
            " these groups"
        )
    pending.emit(
        FactsConfirmed(
            at=pending.at,
            by=command.by.name,
            proposal=proposal.id,
            groups=command.by.groups,
            evidence_hash=proposal.evidence_hash,
            incidents=proposal.unconfirmed,
            reason=command.reason,
        )
    )


def _is_already_approved(command: ApproveProposal, proposal: ProposalState, at: datetime) -> bool:
    """Return whether this approval is a repeat.

    Raises:
        EvidenceChangedError: the cited hash is not the proposal's.
        AlreadyApprovedError: it would count one user twice.
    """
    name = command.by.name
    if command.evidence_hash != proposal.evidence_hash:
        raise EvidenceChangedError(
            f"{proposal.id} rests on other evidence than was shown; read it again"
        )
    previous = next((approval for approval in proposal.approvals if approval.by == name), None)
    if previous is None:
        return name in proposal.confirmed_by and not _fills_need(command, proposal, at)
    if not set(command.by.groups) <= set(previous.groups) and _fills_need(command, proposal, at):
        raise AlreadyApprovedError(
            f"{name} has approved {proposal.id} as {', '.join(previous.groups)}; another user"
            " has to approve"
        )
    return True


def _fills_need(command: ApproveProposal, proposal: ProposalState, at: datetime) -> bool:
    """Return whether one more approval would fill an open need."""
    needs, approvals = proposal.needs, proposal.approvals
    new_approval = GivenApproval(by=command.by.name, groups=command.by.groups, at=at)
    return count_filled_needs(needs, (*approvals, new_approval)) > count_filled_needs(
        needs, approvals
    )


def _check_can_approve(
    command: ApproveProposal, proposal: ProposalState, pending: PendingEvents
) -> None:
    _check_not_expired(proposal, pending)
    if proposal.is_approved:
        raise NotEligibleError(
            f"{proposal.id} has all its approvals, of"
            f" {' and '.join(approval.by for approval in proposal.approvals)}: it needs no other"
            " and waits to be applied"
        )
    _check_is_able(command, proposal, pending)
    if not _fills_need(command, proposal, pending.at):
        raise _build_no_need_error(command, proposal)


def _build_no_need_error(command: ApproveProposal, proposal: ProposalState) -> NotEligibleError:
    approvals = {approval.by: approval.groups for approval in proposal.approvals}
    approved_text = "; ".join(
        f"{name} has approved it as {', '.join(groups)}" for name, groups in approvals.items()
    )
    missing_text = ", ".join(find_unfilled_needs(proposal.needs, approvals))
    return NotEligibleError(
        f"{proposal.id} {'still ' if approvals else ''}needs {missing_text}, and {command.by.name}"
        f" is in no group that it lacks{'; ' if approvals else ''}{approved_text}"
    )


def _check_is_able(
    command: ApproveProposal, proposal: ProposalState, pending: PendingEvents
) -> None:
    """Raise if time, authorship or a reset of credentials forbids a user to approve."""
    name = command.by.name
    _check_not_expired(proposal, pending)
    _check_resets(command, proposal)
    if name == proposal.raised_by:
        raise OwnProposalError(f"{name} raised {proposal.id}; ask another user to approve it")


def _check_not_expired(proposal: ProposalState, pending: PendingEvents) -> None:
    if pending.at >= proposal.expires_at:
        raise ProposalClosedError(
            f"{proposal.id} has expired; it is raised again if its gate holds"
        )


def _check_resets(command: ApproveProposal, proposal: ProposalState) -> None:
    """Raise if a reset of a password or second factor puts the approval in doubt."""
    actor = command.by
    resume_at = actor.limits.resume_at
    if resume_at is not None and command.at < resume_at:
        raise NotEligibleError(
            f"the password or second factor of {actor.name} was reset; their approvals count again"
            f" from {resume_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC: ask another user to approve"
        )
    involved = {proposal.raised_by, *(approval.by for approval in proposal.approvals)}
    for partner in sorted(involved & actor.limits.reset_partners):
        raise NotEligibleError(
            f"{actor.name} and {partner} don't count together, because one of them reset the"
            " password or second factor of the other; ask another user to approve"
        )


def reject(command: RejectProposal, pending: PendingEvents) -> None:
    """Close a proposal and start the cell's quiet time.

    A repeat has no effect.
    """
    if command.proposal not in pending.scope.proposals and _was_raised(
        pending.scope, command.proposal
    ):
        return
    proposal = _get_open_proposal(pending.scope, command.proposal)
    pending.emit(
        ProposalRejected(
            at=pending.at,
            by=command.by.name,
            proposal=proposal.id,
            quiet_until=pending.at + pending.policy.after_rejection,
            reason=command.reason,
        )
    )


def _get_open_proposal(scope: Scope, proposal_id: str) -> ProposalState:
    proposal = scope.proposals.get(proposal_id)
    if proposal is not None:
        return proposal
    if _was_raised(scope, proposal_id):
        raise ProposalClosedError(f"{proposal_id} is closed: applied, rejected, voided or expired")
    open_ids = ", ".join(scope.proposals) or "none"
    raise UnknownProposalError(f"no proposal {proposal_id}; open ones: {open_ids}")


def _was_raised(scope: Scope, proposal_id: str) -> bool:
    number = proposal_id.removeprefix("P-")
    return (
        proposal_id.startswith("P-")
        and number.isascii()
        and number.isdigit()
        and len(number) <= len(str(scope.proposal_count))
        and 1 <= int(number) <= scope.proposal_count
    )


@dataclass(frozen=True, slots=True)
class TrackRecord:
    """The facts about a version over all cells, newest first, in a span.

    Attributes:
        values_met: attribute values that it has met in any cell, familiar or not.
        values_mistaken: those of them about which it is wrong too often.
    """

    version: str
    since: datetime
    until: datetime
    facts: tuple[TrackFact, ...] = ()
    values_met: int = 0
    values_mistaken: int = 0

    def list_facts(self, kind: str) -> tuple[TrackFact, ...]:
        """Return the facts of one kind, newest first."""
        return tuple(fact for fact in self.facts if fact.kind == kind)


def build_track_record(
    version: str,
    events: Iterable[LedgerEvent],
    statuses: Iterable[str],
    *,
    site: str,
    since: datetime,
    until: datetime,
) -> TrackRecord:
    """Return a version's track record in [since, until].

    Args:
        version: its first name.
        events: those of the span, in order; of other kinds and times, too.
        statuses: of each attribute value that it has met.
        site: the only one whose actions without an authorization count.
    """
    in_span = [event for event in events if since <= event.at <= until]
    acknowledged = {e.incident: e.at for e in select_events(in_span, IncidentAcknowledged)}
    facts = [
        replace(fact, acknowledged_at=acknowledged.get(fact.incident))
        for event in in_span
        for fact in event.list_track_facts()
        if fact.version == version
        and (fact.kind != UNAUTHORIZED.fact or (fact.cell is not None and fact.cell.site == site))
    ]
    answers = list(statuses)
    newest_first = tuple(reversed(facts))
    return TrackRecord(version, since, until, newest_first, len(answers), answers.count(MISTAKEN))
