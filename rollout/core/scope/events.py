"""Events of a rollout: the kinds of its ledger's rows in form 2.

Fields hold text, whole numbers, instants, cells and tuples of these, so that each event has one
canonical form (`rollout.core.ledger.ledger`). `by` is an account's name, or `policy` for the
engine.

No code writes these fields of form 2 yet: `attempt`, `risk_weight` and `confidence_floor` of
`ProposalRaised`. They don't change the scope.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from rollout.core.calendar.sites import Cell

ADDED_LATER: Final = "came later"
"""Marks a field that earlier rows lack: rows omit it while it is empty."""
FREE_TEXT: Final = "free text"
"""Marks a field with typed text or a case's key: a row holds its salted hash, not the text.

Its value is True, or the only incident `kind` in which it does.
"""
ACCOUNT: Final = "account"
"""Marks a field that holds an account: True, or the only `kind` of the event in which it does."""
LEDGER_ROLLED_BACK: Final = "ledger_rolled_back"
"""Incident kind: a client has seen a head that this ledger lacks."""
EVIDENCE_CHANGED: Final = "evidence_changed"
"""Incident kind: stored evidence is not what the ledger's digests say."""
UNAUTHORIZED: Final = "unauthorized"
"""Incident kind: the model acted without an authorization."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEvent:
    """An event; `slot` is the slot of a tick's evidence."""

    at: datetime
    by: str
    slot: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CellEvent(LedgerEvent):
    """An event of one version in one cell."""

    cell: Cell
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutCreated(LedgerEvent):
    """A rollout began; `salt_hash` is the SHA-256 of its sampling salt.

    `rules` is the number of its counting rules; ledgers from before numbers lack it.
    """

    salt_hash: str
    rules: int = field(default=0, metadata={ADDED_LATER: True})


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyApplied(LedgerEvent):
    """A policy is in force.

    Cells in `restarted` begin a new attempt; cells in `cleared` also lose their grants. `withdrawn`
    names the stages to which some cell has lost its gate, by this edit or an earlier one, and
    `risks` the risk of each such gate as decimal text. Versions in `counted` were watched: they
    begin a new attempt in every cell. Cell i of `renamed` was cell i of `former`: it goes on with
    the numbers of its attempts, and under its stops.
    """

    number: int
    policy_hash: str
    loosens: tuple[str, ...] = ()
    restarted: tuple[Cell, ...] = ()
    cleared: tuple[Cell, ...] = ()
    proposal: str = ""
    withdrawn: tuple[str, ...] = ()
    risks: tuple[str, ...] = ()
    counted: tuple[str, ...] = field(default=(), metadata={ADDED_LATER: True})
    renamed: tuple[Cell, ...] = field(default=(), metadata={ADDED_LATER: True})
    former: tuple[Cell, ...] = field(default=(), metadata={ADDED_LATER: True})


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionFirstUsed(LedgerEvent):
    """The first prediction or question of a model version arrived.

    `content` is the SHA-256 of its weights and pre-processing, if it was declared by then.
    """

    version: str
    content: str = field(default="", metadata={ADDED_LATER: True})


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionRetired(LedgerEvent):
    """A version is no longer served and lost its grants."""

    version: str
    reason: str = field(default="", metadata={FREE_TEXT: True})


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalRaised(LedgerEvent):
    """A proposal was raised; `evidence_hash` covers `readings`, one per line.

    Attributes:
        records_digest: over the version's evidence in the cell, with the hashes of its records,
            up to the last `RecordsCounted` before.
        attempt: number of the attempt in the cell's year, from 1.
        risk_weight: the attempt's share of the gate's risk, as decimal text.
        confidence_floor: lowest confidence of cases that count, as decimal text.
        sources: of the records that counted; () if sources are not distinguished.
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
    records_digest: str = field(default="", metadata={ADDED_LATER: True})
    attempt: int = field(default=0, metadata={ADDED_LATER: True})
    risk_weight: str = field(default="", metadata={ADDED_LATER: True})
    confidence_floor: str = field(default="", metadata={ADDED_LATER: True})
    sources: tuple[str, ...] = field(default=(), metadata={ADDED_LATER: True})


@dataclass(frozen=True, slots=True, kw_only=True)
class Approved(LedgerEvent):
    """A user approved a proposal."""

    proposal: str
    groups: tuple[str, ...]
    evidence_hash: str
    reason: str = field(default="", metadata={ADDED_LATER: True, FREE_TEXT: True})


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalRejected(LedgerEvent):
    """A user rejected a proposal."""

    proposal: str
    quiet_until: datetime
    reason: str = field(default="", metadata={FREE_TEXT: True})


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalVoided(LedgerEvent):
    """A proposal became invalid before it was applied."""

    proposal: str
    reason: str = field(metadata={FREE_TEXT: True})


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalExpired(LedgerEvent):
    """A proposal got too few approvals in time."""

    proposal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Widened(CellEvent):
    """A cell rose one stage, until the grant ends."""

    to_stage: str
    until: datetime
    proposal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewed(CellEvent):
    """A grant was extended."""

    stage: str
    until: datetime
    proposal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenOver(CellEvent):
    """A challenger replaced the acting version.

    `grant_ends` has the end of each of `stages`, lowest first.
    """

    replaced_version: str
    to_stage: str
    stages: tuple[str, ...]
    grant_ends: tuple[datetime, ...]
    proposal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Narrowed(CellEvent):
    """Grants above `to_stage` were removed; `guard` is "" for a user's command."""

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
    lacks), `evidence_changed` (records are not what the ledger's digests say), `clock` or `writes`
    (an append failed, so a replica let humans decide).
    """

    incident: str
    kind: str
    effect: str
    reason: str = field(metadata={FREE_TEXT: True})
    guard: str = ""
    cell: Cell | None = None
    version: str = ""
    about: str = field(default="", metadata={ACCOUNT: LEDGER_ROLLED_BACK, FREE_TEXT: UNAUTHORIZED})


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentAcknowledged(LedgerEvent):
    """A user acknowledged an incident."""

    incident: str
    note: str = field(default="", metadata={FREE_TEXT: True})


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockCorrected(LedgerEvent):
    """The ledger's time went back from `previous_time` to `at`."""

    previous_time: datetime
    proposal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordsPurged(LedgerEvent):
    """Records before an instant were deleted: `counts` rows of `tables`.

    `digest` covers the hashes of the deleted records, which the database keeps.
    """

    before: datetime
    tables: tuple[str, ...]
    counts: tuple[int, ...]
    digest: str = field(default="", metadata={ADDED_LATER: True})


@dataclass(frozen=True, slots=True, kw_only=True)
class CasesErased(LedgerEvent):
    """The contents of cases were erased on request; their counts stay.

    Attributes:
        keys: hashes of the keys of the cases, which need the rollout's salt.
        episode: hash of the episode's key that is erased, if one is.
        tables, counts: how many rows were deleted or changed.
        records_digest: of the hashes of the records that are gone, which are stored beside it.
        reports: numbers of the sealed reports from which rows were erased.
    """

    keys: tuple[str, ...]
    tables: tuple[str, ...]
    counts: tuple[int, ...]
    records_digest: str = ""
    reports: tuple[int, ...] = ()
    episode: str = ""
    reason: str = field(default="", metadata={FREE_TEXT: True})


@dataclass(frozen=True, slots=True, kw_only=True)
class NameErased(LedgerEvent):
    """A pseudonym replaced the name of a user or reviewer in this rollout.

    Attributes:
        pseudonym: an id that stands in no table of names.
        name_hash: hash of the name, which needs the rollout's salt.
        tables, counts: how many rows were deleted or changed.
        records_digest: of the hashes of the changed decisions, which are stored beside it.
    """

    pseudonym: str
    name_hash: str
    tables: tuple[str, ...]
    counts: tuple[int, ...]
    records_digest: str = ""
    reason: str = field(default="", metadata={FREE_TEXT: True})


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordsImported(LedgerEvent):
    """`by` imported recorded files and vouches for the times of receipt in them.

    `at` is the time of the ledger entry before, so that the imported records, which are older than
    the import, keep their order.

    Attributes:
        imported_at: the time of the import.
        files, digests: the files' names and the SHA-256 of each.
        cases: all cases of the files that have a time.
        stated_receipts: how many of them state when they were received; the others count as
            received when they occurred.
        received_since, received_until: the first and the last time of receipt.
        cells, cell_cases: the cells of the policy that have cases, and how many.
    """

    imported_at: datetime
    files: tuple[str, ...]
    digests: tuple[str, ...]
    cases: int
    stated_receipts: int
    received_since: datetime
    received_until: datetime
    cells: tuple[Cell, ...]
    cell_cases: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportSealed(LedgerEvent):
    """A version of a report on the cases in [since, until) was stored.

    `number` counts the versions of the same span. `sha256` is its seal; `state` is `provisional`
    while decisions are due, then `final`.
    """

    report: str
    since: datetime
    until: datetime
    number: int
    state: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordsCounted(LedgerEvent):
    """A tick counted units: `digest` covers them and the hashes of the `records` behind them.

    It covers every unit, action and outcome that was counted after the event of this kind before
    it. Ticks of older programs counted units only.
    """

    records: int
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptsBegan(LedgerEvent):
    """A tick counted the first units of attempts; entry i of each field belongs to attempt i.

    Attributes:
        cells, versions: of the attempts.
        years: calendar year at the site of the slot in which the first unit counted, or the
            cell's last one if that is later.
        numbers: number of the attempt in its cell's year, over all versions, from 1.
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
class RulesApplied(LedgerEvent):
    """Evidence is counted by the rules of this number from now on; `proposal` was approved.

    `cells` and `versions` name the attempts that have evidence: each keeps its share of the risk.
    """

    number: int
    proposal: str = field(default="", metadata={ADDED_LATER: True})
    cells: tuple[Cell, ...] = field(default=(), metadata={ADDED_LATER: True})
    versions: tuple[str, ...] = field(default=(), metadata={ADDED_LATER: True})


@dataclass(frozen=True, slots=True, kw_only=True)
class EraBegan(LedgerEvent):
    """A restored database began an era; nothing issued before it is valid."""

    era: int
    reason: str = field(default="", metadata={FREE_TEXT: True})


@dataclass(frozen=True, slots=True, kw_only=True)
class DamageCleared(LedgerEvent):
    """An admin checked rows that could not be read; the model may decide again."""

    reason: str = field(default="", metadata={FREE_TEXT: True})


@dataclass(frozen=True, slots=True, kw_only=True)
class FormChanged(LedgerEvent):
    """The last row of form 1; `head` is the hash of `revision`."""

    form: int
    revision: int
    head: str


EVENT_TYPES: dict[str, type[LedgerEvent]] = {
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
        CasesErased,
        NameErased,
        RecordsImported,
        ReportSealed,
        RecordsCounted,
        AttemptsBegan,
        RulesApplied,
        EraBegan,
        DamageCleared,
        FormChanged,
    )
}
