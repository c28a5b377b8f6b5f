"""Apply policies: the first creates the rollout, a later one may need approval."""

import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from hashlib import sha256

from rollout import faults
from rollout.data.database.rollouts import PolicyTexts, Rollouts
from rollout.data.database.session import Database
from rollout.data.ledger.ledger import Ledger
from rollout.engine.decide.commands import Actor, AnsweredByCell, ApplyPolicy
from rollout.engine.decide.decider import decide
from rollout.engine.decide.projection import apply_events
from rollout.engine.events import (
    ENGINE,
    LedgerEvent,
    PolicyApplied,
    ProposalRaised,
    RolloutCreated,
    select_events,
)
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.policy_files.reader import parse_policy
from rollout.kernel.words import say_loosens
from rollout.live.evidence.unit_counting import find_answered_units
from rollout.live.rollout_state import RolloutState, execute_command


@dataclass(frozen=True, slots=True)
class PolicyApplication:
    """The result of applying a policy: rollout created, in force, or proposed."""

    rollout: str
    events: tuple[LedgerEvent, ...]
    is_created: bool = False

    @property
    def text(self) -> str:
        """Return the result as a sentence."""
        if self.is_created:
            return f"{self.rollout} is created with policy 1; every cell is in shadow"
        for raised in select_events(self.events, ProposalRaised):
            return (
                f"looser ({say_loosens(raised.loosens)}): proposed as {raised.proposal}, "
                f"needs {', '.join(raised.needs)}; --evidence-hash {raised.evidence_hash}"
            )
        for applied in select_events(self.events, PolicyApplied):
            return f"policy {applied.number} of {self.rollout} is in force"
        return "nothing changed: the policy is in force or proposed already"


def apply_policy(
    database: Database,
    text: str,
    by: Actor,
    at: datetime,
    salt: bytes | None = None,
    access_head: int | None = None,
    service_salt: bytes | None = None,
) -> PolicyApplication:
    """Put a policy in force or propose it; create new rollouts.

    `salt` and `service_salt` draw samples of a new rollout, by default random. `access_head` is the
    revision of the access ledger at which the caller's permissions were checked.

    Raises:
        InvalidPolicyError: the text is no valid policy.
        RefusalError: the rollout refuses it.
    """
    policy = parse_policy(text)
    command = ApplyPolicy(at=at, by=by, policy=policy)
    salts = [secrets.token_bytes(32) if own is None else own for own in (salt, service_salt)]
    creation_events = _create_rollout(database, text, command, salts, access_head)
    if creation_events:
        return PolicyApplication(policy.rollout, creation_events, is_created=True)
    with database.begin_write() as transaction:
        rollout = Rollouts(transaction).create(policy.rollout, salt=b"", at=at)  # exists
        transaction.tally.announce(policy.rollout, PolicyApplied.__name__)
        PolicyTexts(transaction, rollout).store_text(text, by=by.name, at=at)
        faults.reach_point("policy.kept")

    def find_answered(state: RolloutState, cells: Collection[Cell]) -> AnsweredByCell:
        with database.begin_read() as transaction:
            return find_answered_units(transaction, state, at, cells)

    events = execute_command(
        database,
        policy.rollout,
        lambda state: replace(command, find_answered=partial(find_answered, state)),
        access_head,
    )
    return PolicyApplication(policy.rollout, events)


def _create_rollout(
    database: Database,
    text: str,
    command: ApplyPolicy,
    salts: Sequence[bytes],
    access_head: int | None,
) -> tuple[LedgerEvent, ...]:
    """Create the rollout with its first policy; return () if it exists."""
    policy = command.policy
    with database.begin_write() as transaction:
        salt, service_salt = salts
        rollout = Rollouts(transaction).create(
            policy.rollout, salt=salt, at=command.at, service_salt=service_salt
        )
        ledger = Ledger(transaction, rollout)
        if ledger.load_head().revision:
            return ()
        faults.reach_point("policy.created")
        PolicyTexts(transaction, rollout).store_text(text, by=command.by.name, at=command.at)
        created = RolloutCreated(
            at=command.at,
            by=ENGINE,
            salt_hash=sha256(rollout.salt).hexdigest(),
            service_salt_hash=sha256(rollout.service_salt).hexdigest(),
        )
        events = (created, *decide(command, apply_events((created,)), policy))
        ledger.append(events, after=0, access_head=access_head)
        return events
