"""Commands to a rollout; `rollout.engine.decide.decider` turns them into events."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime  # noqa: TC003 - callers are read from JSON by their annotations
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:  # accounts and ledgers need commands, without what evidence imports
    from collections.abc import Callable, Collection, Mapping

    from rollout.kernel.calendar.instants import Cell
    from rollout.kernel.facts import Trigger
    from rollout.kernel.policy.cell_evidence import VersionEvidence
    from rollout.kernel.policy.gates import FreshEvidence
    from rollout.kernel.policy.policy import Policy

EvidenceByCell: TypeAlias = "Mapping[tuple[Cell, str], VersionEvidence]"
FreshByCell: TypeAlias = "Mapping[tuple[Cell, str], FreshEvidence]"
AnsweredByCell: TypeAlias = "Mapping[tuple[Cell, str], datetime]"
"""When the last unit occurred that was predicted before it was decided, and is decided."""
FindAnswered: TypeAlias = "Callable[[Collection[Cell]], AnsweredByCell]"


def find_none_answered(cells: Collection[Cell]) -> AnsweredByCell:  # noqa: ARG001 - none has any
    """Return no answered unit in any of the cells."""
    return {}


@dataclass(frozen=True, slots=True)
class ApprovalLimits:
    """What resets of passwords and second factors mean for an account's approvals.

    Attributes:
        resume_at: end of the pause after a reset.
        reset_partners: accounts that reset it or were reset by it; their approvals don't count
            together.
    """

    resume_at: datetime | None = None
    reset_partners: frozenset[str] = frozenset()

    def is_paused(self, at: datetime) -> bool:
        """Return whether the account's approvals don't count yet."""
        return self.resume_at is not None and at < self.resume_at


NO_LIMITS: Final = ApprovalLimits()


@dataclass(frozen=True, slots=True)
class Actor:
    """Name and groups of the account that sends a command.

    Attributes:
        name: the account.
        groups: groups for which it approves.
        is_service_account: whether it is a program's.
        limits: of its approvals.
    """

    name: str
    groups: tuple[str, ...] = ("operator",)
    is_service_account: bool = False
    limits: ApprovalLimits = NO_LIMITS


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command at an instant."""

    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick(Command):
    """One evaluation by the engine.

    `pending_policies` holds policies with an open proposal, by hash. `evidence` holds the changed
    evidence by cell and version; for the others only time matters. `slot` is the instant of the
    slot of the evidence, which the events cite. `fresh` is the evidence with answers that don't
    count yet, looked up only where something may be raised or applied. `find_answered` is asked
    where an edit makes gates ask anew. With `narrow_only` no
    approval counts and nothing is proposed.
    """

    evidence: EvidenceByCell = field(default_factory=dict)
    pending_policies: Mapping[str, Policy] = field(default_factory=dict)
    slot: datetime | None = None
    fresh: FreshByCell = field(default_factory=dict)
    narrow_only: bool = False
    find_answered: FindAnswered = find_none_answered


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorCommand(Command):
    """A command of a user or service account."""

    by: Actor


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasonedCommand(ActorCommand):
    """A command for which its user may give a reason."""

    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyPolicy(ActorCommand):
    """Apply `policy`, or propose it if it is looser than the current one."""

    policy: Policy
    find_answered: FindAnswered = find_none_answered


@dataclass(frozen=True, slots=True, kw_only=True)
class AddVersion(Command):
    """Register a version at its first prediction or question.

    Attributes:
        content: the hash of its weights and pre-processing, or "".
        later_contents: by version of the ledger the content that it declared after its first use.
    """

    version: str
    content: str = ""
    later_contents: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetireVersion(ReasonedCommand):
    """Retire a version that is no longer served."""

    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposeByHand(ActorCommand):
    """Propose a stage for a version, on evidence of now."""

    cell: Cell
    version: str
    to: str
    evidence: EvidenceByCell


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposeTakeover(ProposeByHand):
    """Propose that `version` replaces the acting version at stage `to`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposeRenewal(ProposeByHand):
    """Propose to renew the grant of stage `to`, in its last fifth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApproveProposal(ReasonedCommand):
    """Approve the proposal with the evidence hash that the user saw."""

    proposal: str
    evidence_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectProposal(ReasonedCommand):
    """Reject a proposal."""

    proposal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CellsCommand(ReasonedCommand):
    """A command about cells."""

    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NarrowCells(CellsCommand):
    """Remove the grants above stage `to`, of any version."""

    to: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BeginNextAttempt(CellsCommand):
    """Begin the next attempt of a version in `cells`, whose evidence had a bad start."""

    version: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StopCells(CellsCommand):
    """Withhold every grant in `cells` until an approved resume; may be a drill."""

    drill: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposeResume(ActorCommand):
    """Propose to end a stop."""

    stop: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AcknowledgeIncident(ActorCommand):
    """Acknowledge an incident; repeating it has no effect."""

    incident: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenIncident(Command):
    """Open an incident of a kind that commands open.

    Nothing is opened while an equal incident is open. Equal are incidents of the same kind about
    the same case or account; without any all `clock` incidents are equal. All `evidence_changed`
    ones are. `about` is stored in the ledger for ever, `reason` is a text that others wrote.
    """

    kind: str
    reason: str = ""
    trigger: Trigger | None = None
    cell: Cell | None = None
    version: str = ""
    about: str = ""
    by_later_records: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StopAfterRollback(Command):
    """Begin an era with every cell stopped: the ledger lacks a head of era `era`.

    Nothing happens if a later era has begun since. `about` names the client that knows the head.
    """

    era: int
    trigger: Trigger
    about: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StopChangedCells(Command):
    """Stop cells because the evidence of `cell`, which counts in them, was not what was counted."""

    cells: tuple[Cell, ...]
    cell: Cell
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptRestore(ActorCommand):
    """Declare a wanted restore: begin an era with every cell stopped.

    `known_era` is an era that clients may know although this ledger lacks it.
    """

    reason: str
    known_era: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckClock(Command):
    """Check that the clock isn't behind the last entry and `last_slot`, the last tick's.

    If it is, an incident is opened; once that is acknowledged the rollout's time goes back to `at`.
    """

    last_slot: datetime | None = None
