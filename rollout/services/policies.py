"""Policies: what one would ask for and change, putting one in force, reading one of any time."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from rollout.core.commands import ApplyPolicy, Person
from rollout.core.decider import decide
from rollout.core.errors import NotAllowed, Refusal
from rollout.core.events import Event, Narrowed, PolicyApplied, ProposalRaised, ProposalVoided
from rollout.core.policy import Policy
from rollout.core.quorum import Staff, staff_of
from rollout.core.rights import Act, Caller, require
from rollout.formats.policy_yaml import load_policy
from rollout.services.acting import CommandResult, written
from rollout.services.applying import apply
from rollout.services.channels import channel_warnings
from rollout.services.people_warnings import people_warnings
from rollout.services.planning import plan, plan_text
from rollout.services.policy_warnings import PolicyWarning
from rollout.services.service import Service
from rollout.services.staffing import people_here
from rollout.services.standing import Standing
from rollout.store.ledger import Ledger
from rollout.store.policies import Policies
from rollout.store.rollouts import Rollouts
from rollout.store.session import Database, Transaction

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
    if not any(caller.may_somewhere(Act.READ, right.rollout) for right in caller.rights):
        raise NotAllowed(f"{caller.name} may read no rollout; it takes a viewer: ask an admin")
    policy = load_policy(text)
    small = len(policy.cells) <= MOST_FIGURES
    seen = caller.may_somewhere(Act.READ, policy.rollout)
    with service.database.reading() as transaction:
        staff = _staff(transaction, policy, policy.rollout if seen else "")
    said = plan(policy, channels=channels, staff=staff) if small else None
    warnings = _warned(policy, channels, staff) if said is None else said.warnings
    return PolicyPlan(
        rollout=policy.rollout,
        policy=policy.hash,
        cells=len(policy.cells),
        stages=policy.rungs,
        changes=_changes(service, caller, policy, at),
        warnings=tuple(map(str, warnings)),
        text=TOO_MANY if said is None else plan_text(said),
    )


def _staff(transaction: Transaction, policy: Policy, rollout: str) -> Staff | None:
    """Return who stands where at a policy's sites, None while nobody is here.

    With "" for the rollout only rights in all rollouts count: of others nothing is told.
    """
    people = people_here(transaction)
    return None if people is None else staff_of(people, rollout, tuple(policy.site))


def _warned(
    policy: Policy, channels: Collection[str] | None, staff: Staff | None
) -> tuple[PolicyWarning, ...]:
    """Return what is wrong around a policy, not in it: channels and people."""
    return (*channel_warnings(policy, channels), *people_warnings(policy, staff))


def _changes(service: Service, caller: Caller, policy: Policy, at: datetime) -> PolicyChanges:
    name = policy.rollout
    with service.database.reading() as transaction:
        there = Rollouts(transaction).find(name) is not None
    if not (there and caller.may_somewhere(Act.READ, name)):
        return PolicyChanges("create", (), (), (), (), (), ())
    stood = service.watch.confirmed(name).standing
    require(caller, Act.READ, name, tuple(stood.policy.site))
    command = ApplyPolicy(at=at, by=Person(caller.name), policy=policy)
    return _told(decide(command, stood.scope, stood.policy))


def _told(events: tuple[Event, ...]) -> PolicyChanges:
    applied = next((e for e in events if isinstance(e, PolicyApplied)), None)
    raised = next((e for e in events if isinstance(e, ProposalRaised)), None)
    outcome = "apply" if applied else "propose" if raised else "unchanged"
    return PolicyChanges(
        outcome=outcome,
        loosens=() if raised is None else raised.readings[1:],
        required_approvals=() if raised is None else raised.needs,
        narrowed=tuple(str(e.cell) for e in events if isinstance(e, Narrowed)),
        restarted=() if applied is None else tuple(map(str, applied.restarted)),
        cleared=() if applied is None else tuple(map(str, applied.cleared)),
        voided=tuple(e.proposal for e in events if isinstance(e, ProposalVoided)),
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
    done = apply(database, text, caller.person(name), at, salt, caller.house)
    kept = written(database, name, done.events)
    with database.reading() as transaction:
        staff = _staff(transaction, policy, name)
    raised = next((e for e in done.events if isinstance(e, ProposalRaised)), None)
    applied = next((e for e in done.events if isinstance(e, PolicyApplied)), None)
    outcome = "proposed" if raised else "applied" if applied else "unchanged"
    return PolicyResult(
        rollout=name,
        revision=kept.revision,
        hash=kept.hash,
        events=kept.events,
        outcome="created" if done.created else outcome,
        policy=0 if applied is None else applied.number,
        proposal="" if raised is None else raised.proposal,
        required_approvals=() if raised is None else raised.needs,
        evidence_hash="" if raised is None else raised.evidence_hash,
        text=done.says,
        warnings=tuple(map(str, _warned(policy, channels, staff))),
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
    stood = service.watch.confirmed(name).standing
    applied = _applied(service, stood, at)
    if applied is None:
        raise Refusal(f"{name} had no policy yet at that time; ask for a later one")
    with service.database.reading() as transaction:
        text = Policies(transaction, stood.rollout).texts({applied.policy_hash})[
            applied.policy_hash
        ]
    return PolicyInForce(name, applied.number, applied.policy_hash, applied.at, applied.by, text)


def _applied(service: Service, stood: Standing, at: datetime | None) -> PolicyApplied | None:
    with service.database.reading() as transaction:
        events = Ledger(transaction, stood.rollout).events(until=stood.scope.revision)
        found = [e for e in events if isinstance(e, PolicyApplied) and (at is None or e.at <= at)]
    return found[-1] if found else None
