"""Preview, apply and read the policies of a rollout."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

from rollout.data.access.users import Users
from rollout.data.database.rollouts import PolicyTexts, Rollouts
from rollout.data.database.session import Database, Transaction
from rollout.data.ledger.ledger import Accounts, Ledger
from rollout.data.ledger.projections import ProposalStore
from rollout.engine.decide.approvals import GroupMembership, find_group_memberships
from rollout.engine.decide.commands import Actor, ApplyPolicy
from rollout.engine.decide.decider import decide
from rollout.engine.decide.permissions import (
    ROLES_BY_PERMISSION,
    Caller,
    Permission,
    require_permission,
)
from rollout.engine.decide.policy_changes import Restart, foresee_restarts
from rollout.engine.events import (
    LedgerEvent,
    Narrowed,
    PolicyApplied,
    ProposalRaised,
    ProposalVoided,
    select_events,
)
from rollout.engine.words.approver_warnings import (
    NO_SENDERS,
    RecordSenders,
    list_approver_warnings,
    list_source_warnings,
)
from rollout.features.proposals.proposals import load_present_approvers
from rollout.kernel.channels import list_channel_warnings
from rollout.kernel.errors import NotAllowedError, RefusalError, UnknownProposalError
from rollout.kernel.facts import LooserRule
from rollout.kernel.policy.gates import compute_yearly_share, describe_restart
from rollout.kernel.policy.policy import Policy
from rollout.kernel.policy.policy_warnings import PolicyWarning
from rollout.kernel.policy_files.reader import parse_policy
from rollout.kernel.words import say_looser
from rollout.live.evidence.unit_counting import find_answered_units
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import CommandResult, RolloutState, build_command_result
from rollout.live.service import Service
from rollout.live.work.user_runs import StepCallback


@dataclass(frozen=True, slots=True)
class PolicyRecord:
    """A policy with its number, hash, start and author.

    `loosens` lists what `proposal` had approved; both are empty if no approval was needed.
    """

    number: int
    hash: str
    since: datetime
    applied_by: str
    loosens: tuple[str, ...]
    proposal: str


def load_policies(service: Service, caller: Caller, rollout_name: str) -> tuple[PolicyRecord, ...]:
    """Return the policies of a rollout, newest first, starting with the current.

    Raises:
        UnknownRolloutError: the caller may not see such a rollout.
        NotAllowedError: the caller may not read it.
    """
    require_permission(caller, Permission.READ, rollout_name)
    return _load_policy_records(service, service.state_cache.reload_rollout(rollout_name).state)


def load_policy_by_number(
    service: Service, caller: Caller, rollout_name: str, number: int
) -> tuple[PolicyRecord, str]:
    """Return a policy with its original text.

    Raises:
        RefusalError: no policy has this number.
        NotAllowedError: the caller may not read the rollout.
    """
    require_permission(caller, Permission.READ, rollout_name)
    state = service.state_cache.reload_rollout(rollout_name).state
    matches = [
        policy_record
        for policy_record in _load_policy_records(service, state)
        if policy_record.number == number
    ]
    if not matches:
        raise RefusalError(
            f"{rollout_name} has no policy {number}; they are 1 to {state.scope.policy_number}"
        )
    with service.database.begin_read() as transaction:
        texts = PolicyTexts(transaction, state.rollout).load_texts({matches[0].hash})
    return matches[0], texts[matches[0].hash]


def _load_policy_records(service: Service, state: RolloutState) -> tuple[PolicyRecord, ...]:
    with service.database.begin_read() as transaction:
        events = list(
            Ledger(transaction, state.rollout).list_of(PolicyApplied, until=state.scope.revision)
        )
    return tuple(
        PolicyRecord(
            event.number,
            event.policy_hash,
            event.at,
            event.by,
            tuple(map(say_looser, event.loosens)),
            event.proposal,
        )
        for event in reversed(events)
    )


@dataclass(frozen=True, slots=True)
class ProposedPolicy:
    """Original texts of a proposed policy and of the current one."""

    proposal_id: str
    hash: str
    proposed_text: str
    current_text: str
    current_number: int


def load_proposed_policy(
    service: Service, caller: Caller, rollout_name: str, proposal_id: str
) -> ProposedPolicy:
    """Return the texts of a policy proposal.

    Raises:
        NotAllowedError: the caller may not read the rollout.
        UnknownProposalError: no policy proposal has this id.
    """
    require_permission(caller, Permission.READ, rollout_name)
    state = service.state_cache.reload_rollout(rollout_name).state
    with service.database.begin_read() as transaction:
        row = ProposalStore(transaction, state.rollout).find(proposal_id)
        if row is None or not row.rules.changes_policy:
            raise UnknownProposalError(f"no proposal {proposal_id} is about a policy")
        (raised_row,) = Ledger(transaction, state.rollout).list_rows(
            after=row.raised_in - 1, until=row.raised_in
        )
        proposed_hash = str(raised_row.fields["about"])
        texts = PolicyTexts(transaction, state.rollout).load_texts(
            {proposed_hash, state.scope.policy_hash}
        )
    return ProposedPolicy(
        proposal_id,
        proposed_hash,
        texts[proposed_hash],
        texts[state.scope.policy_hash],
        state.scope.policy_number,
    )


def load_restart_prices(
    service: Service, caller: Caller, rollout_name: str, proposal_id: str, at: datetime
) -> tuple[str, ...]:
    """Return which conditions a proposed policy starts anew in the caller's cells, at what price.

    Raises:
        UnknownProposalError: no policy proposal has this id.
    """
    proposed = load_proposed_policy(service, caller, rollout_name, proposal_id)
    state = service.state_cache.reload_rollout(rollout_name).state
    with service.database.begin_read() as transaction:
        command = ApplyPolicy(
            at=at,
            by=Actor(caller.name),
            policy=parse_policy(proposed.proposed_text),
            find_answered=partial(find_answered_units, transaction, state, at),
        )
        restarts = foresee_restarts(command, state.scope, state.policy)
    return tuple(
        _describe_restart(restart)
        for restart in restarts
        if caller.has_permission(Permission.READ, rollout_name, restart.cell.site)
    )


SALT_BYTES = 32  # bytes
RESTART_TITLE = "Evidence starts anew, at a smaller risk"
"""What pages call the restarts of an edit."""
MAX_PLANNED_CELLS = 500  # cells; planning takes a second and blocks the service
TOO_MANY_CELLS = (
    f"no figures of more than {MAX_PLANNED_CELLS} cells here; `rollout plan FILE` gives them"
)


@dataclass(frozen=True, slots=True)
class PolicyChanges:
    """Effects of applying a policy now.

    Attributes:
        outcome: create, unchanged, apply or propose.
        loosens, looser_texts: each change that is looser than the current policy, as facts and in
            words.
        required_approvals: groups that would have to approve it.
        narrowed, cleared: cells that would go down, and that would lose grants and evidence.
        restarted: by cell what would start anew, with the attempt and its share of the risk.
        voided: open proposals that would be voided.
        unfamiliar: by version, how many recent units another rule of familiar cases would have sent
            to humans.
    """

    outcome: str
    loosens: tuple[LooserRule, ...]
    required_approvals: tuple[str, ...]
    narrowed: tuple[str, ...]
    restarted: tuple[str, ...]
    cleared: tuple[str, ...]
    voided: tuple[str, ...]
    looser_texts: tuple[str, ...] = ()
    unfamiliar: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PolicyPlan:
    """The plan of a policy, in decisions and days, and its effects."""

    rollout: str
    policy: str
    cells: int
    stages: tuple[str, ...]
    changes: PolicyChanges
    warnings: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyResult(CommandResult):
    """Outcome of a policy: created, applied, proposed or unchanged.

    `warnings` lists report channels that are not configured, and missing approvers.
    """

    outcome: str
    policy: int
    proposal: str
    required_approvals: tuple[str, ...]
    evidence_hash: str
    text: str
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PolicyInForce:
    """A policy with its number, hash, start and original text."""

    rollout: str
    number: int
    hash: str
    since: datetime
    by: str
    text: str


def preview_policy(
    service: Service,
    caller: Caller,
    text: str,
    *,
    at: datetime,
    channels: Collection[str] | None = None,
    on_step: StepCallback | None = None,
) -> PolicyPlan:
    """Plan a policy and its changes without writing anything.

    Policies with very many cells get only the changes; `TOO_MANY_CELLS` explains it. If the caller
    may
    not read the rollout, the policy is planned as a new one.

    Args:
        text: the policy.
        channels: configured channels; None if unknown.
        on_step: called before each part that takes time.

    Raises:
        NotAllowedError: the caller may not read any rollout.
        PolicyFaults: the policy is not valid.
    """
    from rollout.features.policies.planning import build_policy_plan, format_plan

    if not any(
        caller.has_permission_somewhere(Permission.READ, role_assignment.rollout)
        for role_assignment in caller.role_assignments
    ):
        raise NotAllowedError(f"{caller.name} may read no rollout; it takes a viewer: ask an admin")
    policy = parse_policy(text)
    has_plan = len(policy.cells) <= MAX_PLANNED_CELLS
    is_readable = caller.has_permission_somewhere(Permission.READ, policy.rollout)
    with service.database.begin_read() as transaction:
        site_approvers = _load_approvers(
            transaction, policy, policy.rollout if is_readable else "", at
        )
        senders = NO_SENDERS
        if is_readable:
            senders = load_record_senders(transaction, policy.rollout)
    policy_plan = (
        build_policy_plan(
            policy,
            channels=channels,
            site_approvers=site_approvers,
            senders=senders,
            on_step=on_step,
        )
        if has_plan
        else None
    )
    warnings = (
        _list_surrounding_warnings(policy, channels, site_approvers, senders)
        if policy_plan is None
        else policy_plan.warnings
    )
    return PolicyPlan(
        rollout=policy.rollout,
        policy=policy.hash,
        cells=len(policy.cells),
        stages=policy.stage_ids,
        changes=_compute_effect(service, caller, policy, at),
        warnings=tuple(map(str, warnings)),
        text=TOO_MANY_CELLS if policy_plan is None else format_plan(policy_plan),
    )


def _load_approvers(
    transaction: Transaction, policy: Policy, rollout_name: str, at: datetime
) -> GroupMembership | None:
    """Return the group members at a policy's sites, None without users.

    For rollout "" only permissions in all rollouts count.
    """
    approvers = load_present_approvers(transaction, at=at)
    return (
        None
        if approvers is None
        else find_group_memberships(approvers, rollout_name, tuple(policy.sites_by_id))
    )


def _list_surrounding_warnings(
    policy: Policy,
    channels: Collection[str] | None,
    site_approvers: GroupMembership | None,
    senders: RecordSenders,
) -> tuple[PolicyWarning, ...]:
    """Return warnings about channels, approvers and senders of records."""
    return (
        *list_channel_warnings(policy, channels),
        *list_approver_warnings(policy, site_approvers),
        *list_source_warnings(policy, senders),
    )


def _compute_effect(
    service: Service, caller: Caller, policy: Policy, at: datetime
) -> PolicyChanges:
    from rollout.features.policies.familiar_preview import describe_unfamiliar_effect

    rollout_name = policy.rollout
    with service.database.begin_read() as transaction:
        exists = Rollouts(transaction).find(rollout_name) is not None
    if not (exists and caller.has_permission_somewhere(Permission.READ, rollout_name)):
        return PolicyChanges("create", (), (), (), (), (), ())
    state = service.state_cache.reload_rollout(rollout_name).state
    require_permission(caller, Permission.READ, rollout_name, tuple(state.policy.sites_by_id))
    with service.database.begin_read() as transaction:
        find_answered = partial(find_answered_units, transaction, state, at)
        command = ApplyPolicy(
            at=at, by=Actor(caller.name), policy=policy, find_answered=find_answered
        )
        changes = _build_effect(
            decide(command, state.scope, state.policy),
            foresee_restarts(command, state.scope, state.policy),
        )
        unfamiliar = describe_unfamiliar_effect(transaction, state, policy, at)
    return replace(changes, unfamiliar=unfamiliar)


def _build_effect(events: tuple[LedgerEvent, ...], restarts: tuple[Restart, ...]) -> PolicyChanges:
    policy_applied = next(select_events(events, PolicyApplied), None)
    proposal_raised = next(select_events(events, ProposalRaised), None)
    outcome = "apply" if policy_applied else "propose" if proposal_raised else "unchanged"
    loosens = () if proposal_raised is None else proposal_raised.loosens
    return PolicyChanges(
        outcome=outcome,
        loosens=loosens,
        looser_texts=tuple(map(say_looser, loosens)),
        required_approvals=() if proposal_raised is None else proposal_raised.needs,
        narrowed=tuple(str(event.cell) for event in select_events(events, Narrowed)),
        restarted=tuple(map(_describe_restart, restarts)) if events else (),
        cleared=() if policy_applied is None else tuple(map(str, policy_applied.cleared)),
        voided=tuple(event.proposal for event in select_events(events, ProposalVoided)),
    )


def _describe_restart(restart: Restart) -> str:
    cell, questions, year = restart
    share = compute_yearly_share(year.count, year.releases)
    return describe_restart(str(cell), [*map(str, questions)], year.count, share)


def put_policy(
    database: Database,
    caller: Caller,
    rollout_name: str,
    text: str,
    *,
    at: datetime,
    salts: tuple[bytes | None, bytes | None] = (None, None),
    channels: Collection[str] | None = None,
) -> PolicyResult:
    """Apply a policy, or propose it if it is looser; create a missing rollout.

    Args:
        text: the policy.
        salts: of a new rollout, that of clients and the service's own; None is random.
        channels: configured channels; None if unknown.

    Raises:
        NotAllowedError: the caller is not an admin of the rollout.
        PolicyFaults: the policy is not valid.
        PolicyRefusedError: the policy can't be applied.
        RefusalError: the policy names another rollout.
    """
    require_permission(caller, Permission.ADMINISTER, rollout_name)
    policy = parse_policy(text)
    if policy.rollout != rollout_name:
        raise RefusalError(
            f"the policy is of {policy.rollout}, not of {rollout_name}: send it there"
        )
    application = apply_policy(
        database,
        text,
        caller.as_actor(rollout_name),
        at,
        salts[0],
        caller.access_head,
        salts[1],
    )
    command_result = build_command_result(database, rollout_name, application.events)
    with database.begin_read() as transaction:
        site_approvers = _load_approvers(transaction, policy, rollout_name, at)
        senders = load_record_senders(transaction, rollout_name)
    proposal_raised = next(select_events(application.events, ProposalRaised), None)
    policy_applied = next(select_events(application.events, PolicyApplied), None)
    outcome = "proposed" if proposal_raised else "applied" if policy_applied else "unchanged"
    return PolicyResult(
        rollout=rollout_name,
        revision=command_result.revision,
        hash=command_result.hash,
        events=command_result.events,
        outcome="created" if application.is_created else outcome,
        policy=0 if policy_applied is None else policy_applied.number,
        proposal="" if proposal_raised is None else proposal_raised.proposal,
        required_approvals=() if proposal_raised is None else proposal_raised.needs,
        evidence_hash="" if proposal_raised is None else proposal_raised.evidence_hash,
        text=application.text,
        warnings=tuple(
            map(str, _list_surrounding_warnings(policy, channels, site_approvers, senders))
        ),
    )


def load_policy_at(
    service: Service, caller: Caller, rollout_name: str, *, at: datetime | None = None
) -> PolicyInForce:
    """Return the current policy, or the one at a time.

    Raises:
        NotAllowedError: the caller may not read the rollout.
        RefusalError: the rollout had no policy yet.
    """
    require_permission(caller, Permission.READ, rollout_name)
    state = service.state_cache.reload_rollout(rollout_name).state
    policy_applied = _find_policy_applied(service, state, at)
    if policy_applied is None:
        raise RefusalError(f"{rollout_name} had no policy yet at that time; name a later time")
    with service.database.begin_read() as transaction:
        text = PolicyTexts(transaction, state.rollout).load_texts({policy_applied.policy_hash})[
            policy_applied.policy_hash
        ]
    return PolicyInForce(
        rollout_name,
        policy_applied.number,
        policy_applied.policy_hash,
        policy_applied.at,
        policy_applied.by,
        text,
    )


def _find_policy_applied(
    service: Service, state: RolloutState, at: datetime | None
) -> PolicyApplied | None:
    with service.database.begin_read() as transaction:
        events = Ledger(transaction, state.rollout).list_of(
            PolicyApplied, until=state.scope.revision
        )
        applied_events = [event for event in events if at is None or event.at <= at]
    return applied_events[-1] if applied_events else None


def load_record_senders(transaction: Transaction, rollout_name: str) -> RecordSenders:
    """Return the senders of a rollout; it need not exist yet."""
    # it loads what counts, which a replica's other requests don't need
    from rollout.data.counting.unit_records import load_newest_registering

    rollout = Rollouts(transaction).find(rollout_name)
    counts = () if rollout is None else load_newest_registering(transaction, rollout)
    return RecordSenders(
        _list_deciding_accounts(transaction, rollout_name),
        Accounts(transaction).name_sources(counts),
    )


def _list_deciding_accounts(transaction: Transaction, rollout_name: str) -> tuple[str, ...]:
    """Return the enabled service accounts that may send decisions of a rollout, by name."""
    users = Users(transaction)
    roles_by_user = users.list_all_role_assignments()
    decision_roles = ROLES_BY_PERMISSION[Permission.SEND_DECISIONS]
    return tuple(
        sorted(
            user.name
            for user in users.list_all()
            if user.is_service_account
            and user.disabled_at is None
            and any(
                role.role in decision_roles and role.rollout in {"", rollout_name}
                for role in roles_by_user.get(user.number, ())
            )
        )
    )
