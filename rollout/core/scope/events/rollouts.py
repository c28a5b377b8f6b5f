"""Events of a rollout as a whole: policies, versions, stops, incidents and its clock."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from rollout.core.calendar.sites import Cell
from rollout.core.scope.events.base import (
    ACCOUNT,
    FREE_TEXT,
    OMITTED_WHEN_EMPTY,
    LedgerEvent,
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
class EraBegan(LedgerEvent):
    """A restored database began an era; nothing issued before it is valid."""

    era: int
    reason: str = field(default="", metadata={FREE_TEXT: True})


@dataclass(frozen=True, slots=True, kw_only=True)
class DamageCleared(LedgerEvent):
    """An admin checked rows that could not be read; the model may decide again."""

    reason: str = field(default="", metadata={FREE_TEXT: True})
