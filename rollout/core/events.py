"""Events of a rollout: the kinds of its ledger's rows in form 2.

Fields hold text, whole numbers, instants, cells and tuples of these, so that each event has one
canonical form (`rollout.core.ledger`). `by` is an account's name, or `policy` for the engine.

Form 2 is complete, though nothing writes these yet: `RecordsCounted`, `RulesApplied`, `EraBegan`,
and of `ProposalRaised` the fields `records_digest`, `attempt`, `risk_weight`, `confidence_floor`
and `sources`. They change no scope.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from rollout.core.places import Cell

CAME_LATER: Final = "came later"
"""Marks a field that earlier rows lack: while it is empty, it stands in no row."""
FREE_TEXT: Final = "free text"
"""Marks a field that somebody may have typed: a row holds its salted hash, not the text."""
ACCOUNT: Final = "account"
"""Marks a field that holds an account: True, or the only `kind` of the event in which it does."""
LEDGER_ROLLED_BACK: Final = "ledger_rolled_back"
"""The kind of an incident: a client has seen a head that this ledger lacks."""
UNAUTHORIZED: Final = "unauthorized"
"""The kind of an incident: the model acted without an authorization."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened at an instant, by somebody; `slot` is that which a tick judged."""

    at: datetime
    by: str
    slot: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CellEvent(Event):
    """Something that happened to one version in one cell."""

    cell: Cell
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutCreated(Event):
    """A rollout began; `salt_hash` is the SHA-256 of the salt that its draws are made with."""

    salt_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyApplied(Event):
    """A policy is in force. Cells in `restarted` begin a new attempt, in `cleared` lose grants.

    `withdrawn` names the stages to which some cell has lost its gate, by this edit or an earlier
    one, and `risks` the risk of each such gate as decimal text.
    """

    number: int
    policy_hash: str
    loosens: tuple[str, ...] = ()
    restarted: tuple[Cell, ...] = ()
    cleared: tuple[Cell, ...] = ()
    proposal: str = ""
    withdrawn: tuple[str, ...] = ()
    risks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionFirstUsed(Event):
    """The first prediction or question of a model version came in."""

    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionRetired(Event):
    """A version is no longer served: it holds nothing anywhere."""

    version: str
    reason: str = field(default="", metadata={FREE_TEXT: True})


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalRaised(Event):
    """A change waits for approvals. `evidence_hash` is of `readings`, one a line.

    Attributes:
        records_digest: over the hashes of the records that the readings rest on.
        attempt: the attempt's number in the cell's year, from 1.
        risk_weight: the attempt's share of the gate's risk, as decimal text.
        confidence_floor: only cases of which the model is so sure count, as decimal text.
        sources: of the records that counted; () where no source was told apart.
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
    records_digest: str = field(default="", metadata={CAME_LATER: True})
    attempt: int = field(default=0, metadata={CAME_LATER: True})
    risk_weight: str = field(default="", metadata={CAME_LATER: True})
    confidence_floor: str = field(default="", metadata={CAME_LATER: True})
    sources: tuple[str, ...] = field(default=(), metadata={CAME_LATER: True})


@dataclass(frozen=True, slots=True, kw_only=True)
class Approved(Event):
    """One person said yes to a proposal."""

    proposal: str
    groups: tuple[str, ...]
    evidence_hash: str
    reason: str = field(default="", metadata={CAME_LATER: True, FREE_TEXT: True})


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalRejected(Event):
    """One person said no."""

    proposal: str
    quiet_until: datetime
    reason: str = field(default="", metadata={FREE_TEXT: True})


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalVoided(Event):
    """A proposal lost its ground before it was applied."""

    proposal: str
    reason: str = field(metadata={FREE_TEXT: True})


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalExpired(Event):
    """Nobody finished approving in time; the same may be raised again."""

    proposal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Widened(CellEvent):
    """One rung up, until the grant ends."""

    to_stage: str
    until: datetime
    proposal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewed(CellEvent):
    """A grant lasts longer."""

    stage: str
    until: datetime
    proposal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenOver(CellEvent):
    """A challenger replaces the acting version; `grant_ends` has each stage's end, lowest first."""

    replaced_version: str
    to_stage: str
    stages: tuple[str, ...]
    grant_ends: tuple[datetime, ...]
    proposal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Narrowed(CellEvent):
    """Grants above `to_stage` are gone. `guard` is empty where a person did it."""

    from_stage: str
    to_stage: str
    guard: str = ""
    restart: bool = False
    reason: str = field(default="", metadata={FREE_TEXT: True})


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
    """A note for readers: the grant ended at `until`, and what stood on it."""

    stage: str
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped(Event):
    """A person withholds the grants of `cells`."""

    stop: str
    cells: tuple[Cell, ...]
    reason: str = field(default="", metadata={FREE_TEXT: True})
    drill: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed(Event):
    """A stop was taken back by an approved proposal."""

    stop: str
    proposal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentOpened(Event):
    """Something that a person has to look at, with what it did.

    `kind` is `alarm` (of a guard), `unauthorized` (the model acted without an authorization),
    `ledger_rolled_back` (the client `about` has seen a head that this ledger lacks) or `clock`.
    """

    incident: str
    kind: str
    effect: str
    reason: str = field(metadata={FREE_TEXT: True})
    guard: str = ""
    cell: Cell | None = None
    version: str = ""
    about: str = field(default="", metadata={ACCOUNT: LEDGER_ROLLED_BACK})


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentAcknowledged(Event):
    """A person has seen an incident."""

    incident: str
    note: str = field(default="", metadata={FREE_TEXT: True})


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockCorrected(Event):
    """The ledger's time goes back from `previous_time` to `at`; what lapsed stays lapsed."""

    previous_time: datetime
    proposal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordsPurged(Event):
    """Records from before an instant were deleted: `counts` rows of each of `tables`."""

    before: datetime
    tables: tuple[str, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportSealed(Event):
    """A version of a report on the cases from `since` up to `until` was made and kept.

    `number` counts the versions of the same span. `sha256` is of the text; `state` is `provisional`
    while verdicts are still due, then `final`.
    """

    report: str
    since: datetime
    until: datetime
    number: int
    state: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordsCounted(Event):
    """A tick counted records: how many, and a digest over their hashes."""

    records: int
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RulesApplied(Event):
    """Evidence is counted and judged by the rules of this number from now on."""

    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EraBegan(Event):
    """A restored database begins an era: nothing issued in the one before is valid."""

    era: int
    reason: str = field(default="", metadata={FREE_TEXT: True})


@dataclass(frozen=True, slots=True, kw_only=True)
class FormChanged(Event):
    """The last row of form 1: the ledger goes on in `form`; `head` is of `revision`, before it."""

    form: int
    revision: int
    head: str


KINDS: dict[str, type[Event]] = {
    kind.__name__: kind
    for kind in (
        RolloutCreated,
        PolicyApplied,
        VersionFirstUsed,
        VersionRetired,
        ProposalRaised,
        Approved,
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
        ReportSealed,
        RecordsCounted,
        RulesApplied,
        EraBegan,
        FormChanged,
    )
}
