"""Events of proposals, from the tick or command that raises one to its end."""

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from rollout.engine.decide.scope import NOTHING_AGAINST, GivenApproval, OfKind, ProposalState
from rollout.engine.decide.scope_builder import ScopeBuilder
from rollout.engine.events import ProposalSources
from rollout.engine.events.base import (
    FREE_TEXT,
    OMITTED_WHEN_EMPTY,
    LedgerEvent,
    ListChange,
    OfCell,
    OfProposal,
    Reach,
)
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.facts import FreshFact, LooserRule, StoredAlarm, StoredReading
from rollout.kernel.policy.evidence_sources import (
    CountedOutcomeSource,
    CountedSource,
    FrozenVouching,
    RegisteredUnits,
)
from rollout.kernel.words import say_void

VOID_STATE: Final = "void"
"""State of a proposal that became invalid."""
OPEN_STATE: Final = "open"
"""State of a proposal in the list until it ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalEvent(OfProposal, LedgerEvent):
    """An event of a proposal before, or without, its effect."""

    stage_reach = Reach.NONE
    agenda_reach = Reach.OWN

    proposal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalRaised(OfKind, OfCell, ProposalEvent):
    """A proposal was raised; `evidence_hash` covers what it rests on, one fact per line.

    Attributes:
        kind: what is proposed: `widening`, `renewal`, `takeover`, `resume` or `policy`.
        needs: the groups whose approvals are needed, one for each entry.
        gate_hash: SHA-256 of the gate as the policy had it; another one makes the proposal void.
        about: hash of the policy, or id of the stop, that the proposal is about; "" otherwise.
        readings: the gate's conditions with their figures.
        loosens: what a policy loosens.
        cells: where a resume gives grants back.
        records_digest: digest of the version's evidence in the cells that its gate counts, with
            the hashes of its records, up to the last `RecordsCounted` before.
        attempt: the attempt's number in the cell's year, from 1.
        risk_weight: the attempt's share of the gate's risk, as decimal text.
        confidence_floor: lowest confidence of cases that count, as decimal text; "" without
            several floors.
        stricter_floors: confidence floors above it whose gates are met too, ascending.
        sources: where the decisions that counted came from; () if sources are not distinguished.
        outcome_sources: where the outcomes that gates on gain counted came from, likewise.
        vouched: units that count because their sender is vouched for, by account.
        registered: units that count by who registered their cases; and how many it predicted, too.
        incidents: those that speak against the version, and the one that it replaces, in the 30
            days before.
    """

    keeps_scope = raises_proposal = True

    kind: str
    expires_at: datetime
    needs: tuple[str, ...]
    evidence_hash: str
    cell: Cell | None = None
    version: str = ""
    to_stage: str = ""
    gate_hash: str = ""
    about: str = ""
    readings: tuple[StoredReading, ...] = ()
    loosens: tuple[LooserRule, ...] = field(default=(), metadata={OMITTED_WHEN_EMPTY: True})
    cells: tuple[Cell, ...] = field(default=(), metadata={OMITTED_WHEN_EMPTY: True})
    records_digest: str = field(default="", metadata={OMITTED_WHEN_EMPTY: True})
    attempt: int = field(default=0, metadata={OMITTED_WHEN_EMPTY: True})
    risk_weight: str = field(default="", metadata={OMITTED_WHEN_EMPTY: True})
    confidence_floor: str = field(default="", metadata={OMITTED_WHEN_EMPTY: True})
    sources: tuple[CountedSource, ...] = field(default=(), metadata={OMITTED_WHEN_EMPTY: True})
    outcome_sources: tuple[CountedOutcomeSource, ...] = field(
        default=(), metadata={OMITTED_WHEN_EMPTY: True}
    )
    vouched: tuple[FrozenVouching, ...] = field(default=(), metadata={OMITTED_WHEN_EMPTY: True})
    registered: tuple[RegisteredUnits, ...] = field(default=(), metadata={OMITTED_WHEN_EMPTY: True})
    stricter_floors: tuple[str, ...] = field(default=(), metadata={OMITTED_WHEN_EMPTY: True})
    incidents: tuple[str, ...] = field(default=(), metadata={OMITTED_WHEN_EMPTY: True})

    @property
    def gated_key(self) -> tuple[Cell, str] | None:
        """Return its cell and version; None without a cell."""
        return None if self.cell is None else (self.cell, self.version)

    def add_digest(self, find_digest: Callable[[Cell, str], str]) -> "ProposalRaised":
        """Return the proposal with the digest of its evidence, if of a cell."""
        if self.cell is None:
            return self
        return replace(self, records_digest=find_digest(self.cell, self.version))

    def change_list(self, revision: int) -> ListChange:
        """Add the proposal."""
        values = {
            "kind": self.kind,
            "state": OPEN_STATE,
            "raised_at": self.at,
            "raised_by": self.by,
            "expires_at": self.expires_at,
            "closed_at": None,
            "evidence_hash": self.evidence_hash,
            "site": None if self.cell is None else self.cell.site,
            "window": None if self.cell is None else self.cell.window,
            "version": self.version,
            "to_stage": self.to_stage,
            "raised_revision": revision,
            "closed_revision": None,
        }
        return ListChange("proposals", self.proposal, values, is_new=True)

    @property
    def floors(self) -> tuple[str, ...]:
        """Return the confidence floors that it opens, ascending; () without several."""
        return tuple(filter(None, (self.confidence_floor, *self.stricter_floors)))

    @property
    def needed_groups(self) -> tuple[str, ...]:
        """Return its groups."""
        return self.needs

    def add_sources(
        self, load_sources: Callable[[Cell, str, str], ProposalSources]
    ) -> "ProposalRaised":
        """Return the proposal with its sources, if of a cell."""
        if self.cell is None:
            return self
        sources = load_sources(self.cell, self.version, self.to_stage)
        return replace(self, **sources._asdict())

    def apply(self, builder: ScopeBuilder) -> None:
        """Open the proposal."""
        builder.proposals[self.proposal] = ProposalState(
            id=self.proposal,
            kind=self.kind,
            raised_at=self.at,
            raised_by=self.by,
            expires_at=self.expires_at,
            evidence_hash=self.evidence_hash,
            needs=self.needs,
            cell=self.cell,
            version=self.version,
            to=self.to_stage,
            gate=self.gate_hash,
            about=self.about,
            floors=self.floors,
        )
        builder.proposal_count += 1
        if self.cell is not None:
            builder.change_cell_state(self.cell, self.version, proposal=self.proposal)


@dataclass(frozen=True, slots=True, kw_only=True)
class UserApproval(ProposalEvent):
    """An event by which a user says yes to evidence."""

    groups: tuple[str, ...]
    evidence_hash: str

    @property
    def given_groups(self) -> tuple[str, ...]:
        """Return its groups."""
        return self.groups

    @property
    def cited_hash(self) -> str:
        """Return its hash."""
        return self.evidence_hash


@dataclass(frozen=True, slots=True, kw_only=True)
class Approved(UserApproval):
    """A user approved a proposal."""

    keeps_scope = is_approved = is_reason_apart = True

    reason: str = field(default="", metadata={OMITTED_WHEN_EMPTY: True, FREE_TEXT: True})

    def concerns(self, cell: Cell, opened: AbstractSet[str]) -> bool:
        """Return whether its proposal is of the cell."""
        return self.proposal in opened

    def apply(self, builder: ScopeBuilder) -> None:
        """Add the approval."""
        previous = builder.proposals[self.proposal]
        approval = GivenApproval(by=self.by, groups=self.groups, at=self.at)
        builder.proposals[self.proposal] = replace(
            previous, approvals=(*previous.approvals, approval)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FactsConfirmed(UserApproval):
    """An approver wants a proposal in spite of incidents that came after it was raised.

    `evidence_hash` covers them; without this entry they hold the proposal.
    """

    is_reason_apart = True

    incidents: tuple[str, ...]
    reason: str = field(default="", metadata={OMITTED_WHEN_EMPTY: True, FREE_TEXT: True})

    def apply(self, builder: ScopeBuilder) -> None:
        """Confirm what held the proposal."""
        previous = builder.proposals[self.proposal]
        builder.proposals[self.proposal] = replace(
            previous, unconfirmed=(), confirmed_by=(*previous.confirmed_by, self.by)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalHeld(ProposalEvent):
    """A tick would have applied a proposal, and answers that don't count yet speak against it.

    The first tick says so; the proposal waits until they don't, or expires.

    Attributes:
        fresh_facts: what holds it, with its `kind`: `turned` (E of the condition is below 1 with
            these answers), `newest` (the newest answers agree too seldom), `alarm` (the guard would
            trip) or `unplaced` (too many decisions have neither a case nor a site).
    """

    agenda_reach = Reach.NONE
    keeps_scope = True

    fresh_facts: tuple[FreshFact, ...]

    def apply(self, builder: ScopeBuilder) -> None:
        """Mark the proposal as held."""
        previous = builder.proposals[self.proposal]
        builder.proposals[self.proposal] = replace(previous, is_held=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalRejected(ProposalEvent):
    """A user rejected a proposal."""

    closing_state = "rejected"
    is_reason_apart = True

    quiet_until: datetime
    reason: str = field(default="", metadata={FREE_TEXT: True})

    def describe_closing(self, cell: Cell | None) -> str:
        """Return its reason."""
        return self.reason

    def apply(self, builder: ScopeBuilder) -> None:
        """Close the proposal; its cell is quiet for a time."""
        proposal = builder.proposals[self.proposal]
        builder.close_proposal(self.proposal)
        if proposal.cell is not None:
            builder.change_cell_state(proposal.cell, proposal.version, quiet_until=self.quiet_until)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalVoided(ProposalEvent):
    """A proposal became invalid before it was applied.

    `cause` is why, and `about` the version, stage, proposal, era or tick in its words.
    `incidents` spoke against its version; it is raised again once they are acknowledged. `alarms`
    is what the guard read that narrowed its cell.
    """

    closing_state = VOID_STATE

    cause: str
    about: str = field(default="", metadata={OMITTED_WHEN_EMPTY: True})
    incidents: tuple[str, ...] = field(default=(), metadata={OMITTED_WHEN_EMPTY: True})
    alarms: tuple[StoredAlarm, ...] = field(default=(), metadata={OMITTED_WHEN_EMPTY: True})

    def describe_closing(self, cell: Cell | None) -> str:
        """Return its cause in words."""
        return say_void(self.cause, self.about, self.by, cell, self.incidents, self.alarms)

    def apply(self, builder: ScopeBuilder) -> None:
        """Close the proposal; its cell awaits the acknowledgements."""
        proposal = builder.proposals.get(self.proposal)
        builder.close_proposal(self.proposal)
        if self.incidents and proposal is not None and proposal.cell is not None:
            builder.change_cell_state(proposal.cell, proposal.version, awaits=self.incidents)
            spoken = builder.spoken_against.get(proposal.version, NOTHING_AGAINST)
            builder.spoken_against[proposal.version] = replace(spoken, voided_at=self.at)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalExpired(ProposalEvent):
    """A proposal was not applied in time: it had too few approvals, or was held."""

    closing_state = "expired"

    def apply(self, builder: ScopeBuilder) -> None:
        """Close the proposal."""
        builder.close_proposal(self.proposal)
