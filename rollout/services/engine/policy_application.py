"""Apply a policy: the first makes the rollout, a later one holds at once or waits for people."""

import secrets
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from rollout import faults
from rollout.core.scope.commands import ApplyPolicy, Person
from rollout.core.scope.decider import decide
from rollout.core.scope.events import Event, PolicyApplied, ProposalRaised, RolloutCreated
from rollout.core.scope.projection import fold
from rollout.core.scope.scope import ENGINE
from rollout.formats.policy.reader import load_policy
from rollout.services.engine.command_handler import carry_out
from rollout.store.database.rollouts import Rollouts
from rollout.store.database.session import Database
from rollout.store.ledger.ledger import Ledger
from rollout.store.ledger.policies import Policies


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of a policy: it made the rollout, holds, or was raised as `proposal`."""

    rollout: str
    events: tuple[Event, ...]
    created: bool = False

    @property
    def says(self) -> str:
        """Return it as a sentence."""
        if self.created:
            return f"{self.rollout} is created with policy 1; every cell is in shadow"
        for event in self.events:
            if isinstance(event, ProposalRaised):
                return (
                    f"looser ({'; '.join(event.readings[1:])}): proposed as {event.proposal}, "
                    f"needs {', '.join(event.needs)}; --evidence-hash {event.evidence_hash}"
                )
            if isinstance(event, PolicyApplied):
                return f"policy {event.number} of {self.rollout} is in force"
        return "nothing changed: the policy is in force or proposed already"


def apply(
    database: Database,
    text: str,
    by: Person,
    at: datetime,
    salt: bytes | None = None,
    house: int | None = None,
) -> Applied:
    """Put a policy in force or raise it; the rollout is made if there is none of its name.

    Args:
        database: where the rollout is, or will be.
        text: the policy file's text.
        by: who applies it.
        at: now.
        salt: what a new rollout's draws are made with; by default from the system's chance.
        house: the revision of the house chain that the applier's rights were judged by.

    Raises:
        PolicyFaults: the text is no policy.
        Refusal: the rollout refuses it.
    """
    policy = load_policy(text)
    command = ApplyPolicy(at=at, by=by, policy=policy)
    creation_events = _create(database, text, command, salt, house)
    if creation_events:
        return Applied(policy.rollout, creation_events, created=True)
    with database.writing() as transaction:
        rollout = Rollouts(transaction).create(policy.rollout, salt=b"", at=at)  # it is there
        Policies(transaction, rollout).keep(text, by=by.name, at=at)
        faults.point("policy.kept")
    return Applied(policy.rollout, carry_out(database, policy.rollout, lambda _: command, house))


def _create(
    database: Database, text: str, command: ApplyPolicy, salt: bytes | None, house: int | None
) -> tuple[Event, ...]:
    """Make the rollout with its first policy, all or nothing; () where it is there already."""
    policy = command.policy
    with database.writing() as transaction:
        new_salt = secrets.token_bytes(32) if salt is None else salt
        rollout = Rollouts(transaction).create(policy.rollout, salt=new_salt, at=command.at)
        ledger = Ledger(transaction, rollout)
        if ledger.head().revision:
            return ()
        faults.point("policy.created")
        Policies(transaction, rollout).keep(text, by=command.by.name, at=command.at)
        salt_hash = sha256(rollout.salt).hexdigest()
        creation_events = (RolloutCreated(at=command.at, by=ENGINE, salt_hash=salt_hash),)
        events = (*creation_events, *decide(command, fold(creation_events), policy))
        ledger.append(events, after=0, access_head=house)
        return events
