"""Events of a rollout: the kinds of its ledger's rows.

Fields hold text, whole numbers, instants, cells and tuples of these, so that each event has one
canonical form (`rollout.core.ledger.ledger`). `by` is an account's name, or `policy` for the
engine.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from rollout.core.calendar.sites import Cell
from rollout.core.scope.event_base import (
    ACCOUNT,
    FREE_TEXT,
    OMITTED_WHEN_EMPTY,
    CellEvent,
    LedgerEvent,
)
from rollout.core.scope.record_events import (
    CalendarDataSet,
    CasesErased,
    CasesPlanted,
    NameErased,
    RecordsCounted,
    RecordsImported,
    RecordsPurged,
    ReportSealed,
    TrainingCutoffSet,
)

LEDGER_ROLLED_BACK: Final = "ledger_rolled_back"
"""Incident kind: a client has seen a head that this ledger lacks."""
CLOCK_INCIDENT: Final = "clock"
"""Incident kind: clocks disagree, or the clock is behind the last entry or tick."""
EVIDENCE_CHANGED: Final = "evidence_changed"
"""Incident kind: evidence is not what was counted, or records not what the ledger says."""
UNAUTHORIZED: Final = "unauthorized"
"""Incident kind: the model acted without an authorization."""
SENDER_CLOCK: Final = "sender_clock"
"""Incident kind: an account dates actions ahead of their receipt."""
UNFAMILIAR: Final = "unfamiliar"
"""Incident kind: a version is wrong too often about cases with an attribute value."""
QUALITY_FACT: Final = "quality"
"""Fact of an incident: a guard on quality narrowed the version."""
HARM_FACT: Final = "harm"
"""Fact of an incident: a harm was reported while the version acted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutCreated(LedgerEvent):
    """A rollout began.

    Attributes:
        salt_hash: SHA-256 of its sampling salt.
        service_salt_hash: that of the salt which never leaves the service; a replay has none.
    """

    salt_hash: str
    service_salt_hash: str = field(default="", metadata={OMITTED_WHEN_EMPTY: True})


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyApplied(LedgerEvent):
    """A policy is in force.

    In cells of `restarted` attempts that have begun end, and the next ones begin; in cells of
    `cleared` all do, and grants are lost. Cell i of `renamed` was cell i of `former`: it goes on
    with the numbers of its attempts, and under its stops. `confidence_floors` are those of a policy
    with several: a program that knows no floors of cells can't read the entry, so humans decide
    there.
    """

    number: int
    policy_hash: str
    loosens: tuple[str, ...] = ()
    restarted: tuple[Cell, ...] = ()
    cleared: tuple[Cell, ...] = ()
    proposal: str = ""
    renamed: tuple[Cell, ...] = field(default=(), metadata={OMITTED_WHEN_EMPTY: True})
    former: tuple[Cell, ...] = field(default=(), metadata={OMITTED_WHEN_EMPTY: True})
    confidence_floors: tuple[str, ...] = field(default=(), metadata={OMITTED_WHEN_EMPTY: True})


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionFirstUsed(LedgerEvent):
    """A model version is new: its first prediction or question arrived, or it was declared.

    `content` is the SHA-256 of its weights and pre-processing, if it was declared by then.
    """

    version: str
    content: str = field(default="", metadata={OMITTED_WHEN_EMPTY: True})


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionRenamed(LedgerEvent):
    """The first prediction or question arrived under a new name of a known version.

    Its declared `content` is that of the version `continues`, which goes on with its evidence,
    attempts, grants and detectors under both names.
    """

    version: str
    continues: str
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionRetired(LedgerEvent):
    """A version is no longer served and lost its grants."""

    version: str
    reason: str = field(default="", metadata={FREE_TEXT: True})


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalRaised(LedgerEvent):
    """A proposal was raised; `evidence_hash` covers `readings`, one per line.

    Attributes:
        kind: what is proposed: `widening`, `renewal`, `takeover`, `resume` or `policy`.
        needs: the groups whose approvals are needed, one for each entry.
        gate_hash: SHA-256 of the gate as the policy had it; another one makes the proposal void.
        about: hash of the policy, or id of the stop, that the proposal is about; "" otherwise.
        readings: the gate's conditions with their figures, as approvers read them.
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
            days before: `evidence_hash` covers their ids after the readings.
    """

    proposal: str
    kind: str
    expires_at: datetime
    needs: tuple[str, ...]
    evidence_hash: str
    cell: Cell | None = None
    version: str = ""
    to_stage: str = ""
    gate_hash: str = ""
    about: str = ""
    readings: tuple[str, ...] = ()
    records_digest: str = field(default="", metadata={OMITTED_WHEN_EMPTY: True})
    attempt: int = field(default=0, metadata={OMITTED_WHEN_EMPTY: True})
    risk_weight: str = field(default="", metadata={OMITTED_WHEN_EMPTY: True})
    confidence_floor: str = field(default="", metadata={OMITTED_WHEN_EMPTY: True})
    sources: tuple[str, ...] = field(default=(), metadata={OMITTED_WHEN_EMPTY: True})
    outcome_sources: tuple[str, ...] = field(default=(), metadata={OMITTED_WHEN_EMPTY: True})
    vouched: tuple[str, ...] = field(default=(), metadata={OMITTED_WHEN_EMPTY: True})
    registered: tuple[str, ...] = field(default=(), metadata={OMITTED_WHEN_EMPTY: True})
    stricter_floors: tuple[str, ...] = field(default=(), metadata={OMITTED_WHEN_EMPTY: True})
    incidents: tuple[str, ...] = field(default=(), metadata={OMITTED_WHEN_EMPTY: True})

    @property
    def floors(self) -> tuple[str, ...]:
        """Return the confidence floors that it opens, ascending; () without several."""
        return (self.confidence_floor, *self.stricter_floors) if self.confidence_floor else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Approved(LedgerEvent):
    """A user approved a proposal."""

    proposal: str
    groups: tuple[str, ...]
    evidence_hash: str
    reason: str = field(default="", metadata={OMITTED_WHEN_EMPTY: True, FREE_TEXT: True})


@dataclass(frozen=True, slots=True, kw_only=True)
class FactsConfirmed(LedgerEvent):
    """An approver wants a proposal in spite of incidents that came after it was raised.

    `evidence_hash` covers them; without this entry they hold the proposal.
    """

    proposal: str
    groups: tuple[str, ...]
    evidence_hash: str
    incidents: tuple[str, ...]
    reason: str = field(default="", metadata={OMITTED_WHEN_EMPTY: True, FREE_TEXT: True})


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalHeld(LedgerEvent):
    """A tick would have applied a proposal, and answers that don't count yet speak against it.

    The first tick says so; the proposal waits until they don't, or expires.

    Attributes:
        kinds, subjects: what holds it: `turned` (E of the condition is below 1 with these answers),
            `newest` (the newest answers agree too seldom) or `alarm` (the guard would trip).
        agreed, units: counts of the condition, or of the newest answers; 0 of an alarm.
    """

    proposal: str
    kinds: tuple[str, ...]
    subjects: tuple[str, ...]
    agreed: tuple[int, ...]
    units: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalRejected(LedgerEvent):
    """A user rejected a proposal."""

    proposal: str
    quiet_until: datetime
    reason: str = field(default="", metadata={FREE_TEXT: True})


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalVoided(LedgerEvent):
    """A proposal became invalid before it was applied.

    `incidents` spoke against its version; it is raised again once they are acknowledged.
    """

    proposal: str
    reason: str = field(metadata={FREE_TEXT: True})
    incidents: tuple[str, ...] = field(default=(), metadata={OMITTED_WHEN_EMPTY: True})


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalExpired(LedgerEvent):
    """A proposal was not applied in time: it had too few approvals, or was held."""

    proposal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Widened(CellEvent):
    """A cell rose one stage, or opened a lower confidence floor, until the grant ends.

    Of `confidence_floors` the first acts; an alarm may raise it to one of the others.
    """

    to_stage: str
    until: datetime
    proposal: str
    confidence_floors: tuple[str, ...] = field(default=(), metadata={OMITTED_WHEN_EMPTY: True})


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewed(CellEvent):
    """A grant was extended."""

    stage: str
    until: datetime
    proposal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenOver(CellEvent):
    """A challenger replaced the acting version.

    `grant_ends` has the end of each of `stages`, lowest first; `confidence_floors` as in `Widened`.
    """

    replaced_version: str
    to_stage: str
    stages: tuple[str, ...]
    grant_ends: tuple[datetime, ...]
    proposal: str
    confidence_floors: tuple[str, ...] = field(default=(), metadata={OMITTED_WHEN_EMPTY: True})


@dataclass(frozen=True, slots=True, kw_only=True)
class Narrowed(CellEvent):
    """Grants above `to_stage` were removed; `guard` is "" for a user's command.

    With `confidence_floor` the stage stays, for cases of at least that confidence.
    """

    from_stage: str
    to_stage: str
    guard: str = ""
    restart: bool = False
    reason: str = field(default="", metadata={FREE_TEXT: True})
    confidence_floor: str = field(default="", metadata={OMITTED_WHEN_EMPTY: True})

    @property
    def begins_attempt(self) -> bool:
        """Return whether evidence alone starts anew: the stage stays."""
        return self.restart and self.from_stage == self.to_stage and not self.confidence_floor


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspended(CellEvent):
    """An operational guard withholds the grants until its measure is good again."""

    guard: str
    reason: str = field(default="", metadata={FREE_TEXT: True})


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspensionCleared(CellEvent):
    """The guard's measure was good for its whole span."""

    guard: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantExpired(CellEvent):
    """A grant ended at `until`, with the grants above it; recorded for readers of the ledger."""

    stage: str
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped(LedgerEvent):
    """A user withholds the grants of `cells`."""

    stop: str
    cells: tuple[Cell, ...]
    reason: str = field(default="", metadata={FREE_TEXT: True})
    drill: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed(LedgerEvent):
    """An approved proposal ended a stop."""

    stop: str
    proposal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentOpened(LedgerEvent):
    """An incident that a user must acknowledge; `effect` is what it caused.

    `kind` is `alarm` (of a guard), `unauthorized` (the model acted on the case `about` without an
    authorization), `ledger_rolled_back` (the client `about` has seen a head that this ledger
    lacks), `sender_clock` (the account `about` dates actions ahead of their receipt),
    `evidence_changed` (records are not what the ledger's digests say, or evidence that a
    process held in `cell` was not what was counted), `unfamiliar` (the version is wrong too often
    about cases with the attribute value `about`), `clock` (behind the last entry or tick, which is
    of `about`) or `writes` (an append failed, so a replica let humans decide). `fact` says that it
    speaks against `version` in all cells: `quality` or `harm`. A harm holds widenings everywhere;
    if `holds` is `site`, those of `version` and at the site.
    """

    incident: str
    kind: str
    effect: str
    reason: str = field(metadata={FREE_TEXT: True})
    guard: str = ""
    cell: Cell | None = None
    version: str = ""
    about: str = field(
        default="",
        metadata={ACCOUNT: (LEDGER_ROLLED_BACK, SENDER_CLOCK), FREE_TEXT: UNAUTHORIZED},
    )
    fact: str = field(default="", metadata={OMITTED_WHEN_EMPTY: True})
    holds: str = field(default="", metadata={OMITTED_WHEN_EMPTY: True})


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentAcknowledged(LedgerEvent):
    """A user acknowledged an incident."""

    incident: str
    note: str = field(default="", metadata={FREE_TEXT: True})


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockCorrected(LedgerEvent):
    """The rollout's time went back from `previous_time`, of an entry or a tick, to `at`.

    What was counted for slots from that of `at` on was taken back, to be counted when it is due. A
    `RecordsCounted` before that has such a slot covers nothing any longer.
    """

    previous_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptsBegan(LedgerEvent):
    """A tick counted the first units of attempts; entry i of each field belongs to attempt i.

    Attributes:
        cells, versions: cell and version of each attempt.
        years: the attempt's year: of the slot in which its first unit counted, by the site's
            clock, or the year of the cell's attempt before it if that is later.
        numbers: the attempt's number in its cell's year, over all versions, from 1.
        releases: how many attempts a year the policy planned for; 0 if it didn't say.
        shares: share of each gate's risk that the attempt may use, as decimal text.
    """

    cells: tuple[Cell, ...]
    versions: tuple[str, ...]
    years: tuple[int, ...]
    numbers: tuple[int, ...]
    releases: tuple[int, ...]
    shares: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FamiliarityChanged(LedgerEvent):
    """A tick read attribute values anew; entry i of each field belongs to value i.

    Attributes:
        cells, versions: the cell where the value was met, and the version that met it.
        attributes, values: the attribute or combination of attributes, and its value.
        statuses: `familiar` (the version may decide such cases from now on), `mistaken` (judged
            often enough, but wrong too often) or `few` (judged too rarely).
        judged, agreed: number of judged units with the value, and of those that agreed: of the
            newest ones, at most twice as many as the policy asks for.
    """

    cells: tuple[Cell, ...]
    versions: tuple[str, ...]
    attributes: tuple[str, ...]
    values: tuple[str, ...]
    statuses: tuple[str, ...]
    judged: tuple[int, ...]
    agreed: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EraBegan(LedgerEvent):
    """A restored database began an era; nothing issued before it is valid."""

    era: int
    reason: str = field(default="", metadata={FREE_TEXT: True})


@dataclass(frozen=True, slots=True, kw_only=True)
class DamageCleared(LedgerEvent):
    """An admin checked rows that could not be read; the model may decide again."""

    reason: str = field(default="", metadata={FREE_TEXT: True})


NEWER_KINDS: Final[frozenset[str]] = frozenset()
"""Kinds that the program before can't read: none is written while its replicas may run."""

EVENT_TYPES: dict[str, type[LedgerEvent]] = {
    kind.__name__: kind
    for kind in (
        RolloutCreated,
        PolicyApplied,
        VersionFirstUsed,
        VersionRenamed,
        VersionRetired,
        ProposalRaised,
        Approved,
        FactsConfirmed,
        ProposalHeld,
        ProposalRejected,
        ProposalVoided,
        ProposalExpired,
        Widened,
        Renewed,
        TakenOver,
        Narrowed,
        Suspended,
        SuspensionCleared,
        GrantExpired,
        Stopped,
        Resumed,
        IncidentOpened,
        IncidentAcknowledged,
        ClockCorrected,
        RecordsPurged,
        CasesErased,
        NameErased,
        RecordsImported,
        CasesPlanted,
        TrainingCutoffSet,
        CalendarDataSet,
        ReportSealed,
        RecordsCounted,
        AttemptsBegan,
        FamiliarityChanged,
        EraBegan,
        DamageCleared,
    )
}
