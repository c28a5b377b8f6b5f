"""Policies: what one would ask for and change, putting one in force, reading one of any time."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from rollout.core.errors import NotAllowed, Refusal, UnknownProposal
from rollout.core.ledger.ledger import event_of
from rollout.core.policy.policy import Policy
from rollout.core.policy.policy_warnings import PolicyWarning
from rollout.core.scope.commands import ApplyPolicy, Person
from rollout.core.scope.decider import decide
from rollout.core.scope.events import Event, Narrowed, PolicyApplied, ProposalRaised, ProposalVoided
from rollout.core.scope.permissions import Act, Caller, require
from rollout.core.scope.quorum import Staff, staff_of
from rollout.formats.policy.reader import load_policy
from rollout.services.engine.command_results import CommandResult, written
from rollout.services.engine.policy_application import apply
from rollout.services.engine.rollout_state import Standing
from rollout.services.engine.service import Service
from rollout.services.policies.approver_warnings import people_warnings
from rollout.services.policies.planning import plan, plan_text
from rollout.services.proposals.eligible_approvers import people_here
from rollout.services.support.channels import channel_warnings
from rollout.store.database.rollouts import Rollouts
from rollout.store.database.session import Database, Transaction
from rollout.store.ledger.ledger import Ledger
from rollout.store.ledger.policies import Policies
from rollout.store.ledger.proposals import Proposals


@dataclass(frozen=True, slots=True)
class Held:
    """One policy: its number and hash, since when it held, and who applied it.

    `loosens` says what people approved by `proposal`; both are empty where it held at once.
    """

    number: int
    hash: str
    since: datetime
    by: str
    loosens: tuple[str, ...]
    proposal: str


def policies_of(service: Service, caller: Caller, name: str) -> tuple[Held, ...]:
    """Return the policies of a rollout, the newest first: the first of them is in force.

    Raises:
        UnknownRollout: there is none that the caller may see.
        NotAllowed: the caller may not read it.
    """
    require(caller, Act.READ, name)
    return _held(service, service.watch.confirmed(name).standing)


def policy_numbered(service: Service, caller: Caller, name: str, number: int) -> tuple[Held, str]:
    """Return a policy with its text as it was given.

    Raises:
        Refusal: there never was one of that number.
        NotAllowed: the caller may not read the rollout.
    """
    require(caller, Act.READ, name)
    state = service.watch.confirmed(name).standing
    matches = [
        policy_record for policy_record in _held(service, state) if policy_record.number == number
    ]
    if not matches:
        raise Refusal(f"{name} has no policy {number}; they are 1 to {state.scope.policy_number}")
    with service.database.reading() as transaction:
        texts = Policies(transaction, state.rollout).texts({matches[0].hash})
    return matches[0], texts[matches[0].hash]


def _held(service: Service, stood: Standing) -> tuple[Held, ...]:
    kinds = (PolicyApplied.__name__,)
    with service.database.reading() as transaction:
        ledger = Ledger(transaction, stood.rollout)
        events = [event_of(row) for row in ledger.rows(until=stood.scope.revision, kinds=kinds)]
    return tuple(
        Held(event.number, event.policy_hash, event.at, event.by, event.loosens, event.proposal)
        for event in reversed(events)
        if isinstance(event, PolicyApplied)
    )


POLICY = "policy"


@dataclass(frozen=True, slots=True)
class ProposedPolicy:
    """What a proposal would put in force, and what is in force now, as they were given."""

    proposal: str
    hash: str
    text: str
    in_force: str
    number: int


def proposed_policy(service: Service, caller: Caller, name: str, proposal: str) -> ProposedPolicy:
    """Return the texts that a policy proposal is about.

    Raises:
        NotAllowed: the caller may not read the rollout.
        UnknownProposal: none of that id is about a policy.
    """
    require(caller, Act.READ, name)
    state = service.watch.confirmed(name).standing
    with service.database.reading() as transaction:
        row = Proposals(transaction, state.rollout).find(proposal)
        if row is None or row.kind != POLICY:
            raise UnknownProposal(f"no proposal {proposal} is about a policy")
        ledger = Ledger(transaction, state.rollout)
        (raised_row,) = ledger.rows(after=row.raised_in - 1, until=row.raised_in)
        proposed_hash = str(raised_row.fields["about"])
        texts = Policies(transaction, state.rollout).texts({proposed_hash, state.scope.policy_hash})
    return ProposedPolicy(
        proposal,
        proposed_hash,
        texts[proposed_hash],
        texts[state.scope.policy_hash],
        state.scope.policy_number,
    )


SALT = 32  # bytes
MOST_FIGURES = 500  # cells: their figures take a second, in which a service answers nobody else
TOO_MANY = f"no figures of more than {MOST_FIGURES} cells here; `rollout plan FILE` gives them"


@dataclass(frozen=True, slots=True)
class PolicyChanges:
    """What a policy would change, were it applied now.

    Attributes:
        outcome: create, unchanged, apply or propose.
        loosens: what it loosens against the policy in force, one sentence each.
        required_approvals: the groups that would have to approve it.
        narrowed, restarted, cleared: cells that would go down; whose evidence would start a new
            attempt at a smaller risk; that would lose grants and evidence.
        voided: open proposals that would lose their ground.
    """

    outcome: str
    loosens: tuple[str, ...]
    required_approvals: tuple[str, ...]
    narrowed: tuple[str, ...]
    restarted: tuple[str, ...]
    cleared: tuple[str, ...]
    voided: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PolicyPlan:
    """What a policy asks for, in decisions and days, and what it would change."""

    rollout: str
    policy: str
    cells: int
    stages: tuple[str, ...]
    changes: PolicyChanges
    warnings: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyResult(CommandResult):
    """What became of a policy: `outcome` is created, applied, proposed or unchanged.

    `warnings` names channels of its reports that nobody configured, and what it asks of people
    that those who are here can't do.
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
    """A policy, its number and hash, since when it is in force, and its text as it was given."""

    rollout: str
    number: int
    hash: str
    since: datetime
    by: str
    text: str


def planned(
    service: Service,
    caller: Caller,
    text: str,
    *,
    at: datetime,
    channels: Collection[str] | None = None,
) -> PolicyPlan:
    """Say what a policy would ask for and change. Nothing is written.

    Of very many cells it says only what would change; `TOO_MANY` stands for the rest. Against a
    rollout that the caller may not read it is told as a new one.

    Args:
        service: the replica that is asked.
        caller: who asks.
        text: of the policy.
        at: now.
        channels: those that are configured; None where that is not known.

    Raises:
        NotAllowed: the caller reads no rollout at all.
        PolicyFaults: the text is no policy.
    """
    if not any(
        caller.may_somewhere(Act.READ, role_assignment.rollout) for role_assignment in caller.rights
    ):
        raise NotAllowed(f"{caller.name} may read no rollout; it takes a viewer: ask an admin")
    policy = load_policy(text)
    has_plan = len(policy.cells) <= MOST_FIGURES
    is_readable = caller.may_somewhere(Act.READ, policy.rollout)
    with service.database.reading() as transaction:
        site_approvers = _staff(transaction, policy, policy.rollout if is_readable else "")
    policy_plan = plan(policy, channels=channels, staff=site_approvers) if has_plan else None
    warnings = (
        _warned(policy, channels, site_approvers) if policy_plan is None else policy_plan.warnings
    )
    return PolicyPlan(
        rollout=policy.rollout,
        policy=policy.hash,
        cells=len(policy.cells),
        stages=policy.rungs,
        changes=_changes(service, caller, policy, at),
        warnings=tuple(map(str, warnings)),
        text=TOO_MANY if policy_plan is None else plan_text(policy_plan),
    )


def _staff(transaction: Transaction, policy: Policy, rollout: str) -> Staff | None:
    """Return who stands where at a policy's sites, None while nobody is here.

    With "" for the rollout only rights in all rollouts count: of others nothing is told.
    """
    approvers = people_here(transaction)
    return None if approvers is None else staff_of(approvers, rollout, tuple(policy.site))


def _warned(
    policy: Policy, channels: Collection[str] | None, staff: Staff | None
) -> tuple[PolicyWarning, ...]:
    """Return what is wrong around a policy, not in it: channels and people."""
    return (*channel_warnings(policy, channels), *people_warnings(policy, staff))


def _changes(service: Service, caller: Caller, policy: Policy, at: datetime) -> PolicyChanges:
    rollout_name = policy.rollout
    with service.database.reading() as transaction:
        exists = Rollouts(transaction).find(rollout_name) is not None
    if not (exists and caller.may_somewhere(Act.READ, rollout_name)):
        return PolicyChanges("create", (), (), (), (), (), ())
    state = service.watch.confirmed(rollout_name).standing
    require(caller, Act.READ, rollout_name, tuple(state.policy.site))
    command = ApplyPolicy(at=at, by=Person(caller.name), policy=policy)
    return _told(decide(command, state.scope, state.policy))


def _told(events: tuple[Event, ...]) -> PolicyChanges:
    policy_applied = next((event for event in events if isinstance(event, PolicyApplied)), None)
    proposal_raised = next((event for event in events if isinstance(event, ProposalRaised)), None)
    outcome = "apply" if policy_applied else "propose" if proposal_raised else "unchanged"
    return PolicyChanges(
        outcome=outcome,
        loosens=() if proposal_raised is None else proposal_raised.readings[1:],
        required_approvals=() if proposal_raised is None else proposal_raised.needs,
        narrowed=tuple(str(event.cell) for event in events if isinstance(event, Narrowed)),
        restarted=() if policy_applied is None else tuple(map(str, policy_applied.restarted)),
        cleared=() if policy_applied is None else tuple(map(str, policy_applied.cleared)),
        voided=tuple(event.proposal for event in events if isinstance(event, ProposalVoided)),
    )


def put(
    database: Database,
    caller: Caller,
    name: str,
    text: str,
    *,
    at: datetime,
    salt: bytes | None = None,
    channels: Collection[str] | None = None,
) -> PolicyResult:
    """Put a policy in force, or raise it where it loosens; the rollout is made if there is none.

    Args:
        database: where it is kept.
        caller: who asks.
        name: of the rollout.
        text: of the policy.
        at: now.
        salt: of a new rollout.
        channels: those that are configured; None where that is not known.

    Raises:
        NotAllowed: the caller is no admin of it.
        PolicyFaults: the text is no policy.
        PolicyRefused: it can't be applied.
        Refusal: the text is of another rollout.
    """
    require(caller, Act.ADMINISTER, name)
    policy = load_policy(text)
    if policy.rollout != name:
        raise Refusal(f"the policy is of {policy.rollout}, not of {name}: send it there")
    application = apply(database, text, caller.person(name), at, salt, caller.house)
    command_result = written(database, name, application.events)
    with database.reading() as transaction:
        site_approvers = _staff(transaction, policy, name)
    proposal_raised = next(
        (event for event in application.events if isinstance(event, ProposalRaised)), None
    )
    policy_applied = next(
        (event for event in application.events if isinstance(event, PolicyApplied)), None
    )
    outcome = "proposed" if proposal_raised else "applied" if policy_applied else "unchanged"
    return PolicyResult(
        rollout=name,
        revision=command_result.revision,
        hash=command_result.hash,
        events=command_result.events,
        outcome="created" if application.created else outcome,
        policy=0 if policy_applied is None else policy_applied.number,
        proposal="" if proposal_raised is None else proposal_raised.proposal,
        required_approvals=() if proposal_raised is None else proposal_raised.needs,
        evidence_hash="" if proposal_raised is None else proposal_raised.evidence_hash,
        text=application.says,
        warnings=tuple(map(str, _warned(policy, channels, site_approvers))),
    )


def policy_at(
    service: Service, caller: Caller, name: str, *, at: datetime | None = None
) -> PolicyInForce:
    """Return the policy in force now, or as it was at an instant.

    Raises:
        NotAllowed: the caller may not read the rollout.
        Refusal: there was no policy yet.
    """
    require(caller, Act.READ, name)
    state = service.watch.confirmed(name).standing
    policy_applied = _applied(service, state, at)
    if policy_applied is None:
        raise Refusal(f"{name} had no policy yet at that time; ask for a later one")
    with service.database.reading() as transaction:
        text = Policies(transaction, state.rollout).texts({policy_applied.policy_hash})[
            policy_applied.policy_hash
        ]
    return PolicyInForce(
        name,
        policy_applied.number,
        policy_applied.policy_hash,
        policy_applied.at,
        policy_applied.by,
        text,
    )


def _applied(service: Service, stood: Standing, at: datetime | None) -> PolicyApplied | None:
    with service.database.reading() as transaction:
        events = Ledger(transaction, stood.rollout).events(until=stood.scope.revision)
        applied_events = [
            event
            for event in events
            if isinstance(event, PolicyApplied) and (at is None or event.at <= at)
        ]
    return applied_events[-1] if applied_events else None
