"""What has happened to a rollout's scope: the kinds of the ledger's rows.

Fields hold text, whole numbers, instants, cells and tuples of these, so that each event has one
canonical form (`rollout.core.ledger`). `by` is a person, or `policy` for the engine itself.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from rollout.core.places import Cell

CAME_LATER: Final = "came later"
"""Marks a field that rows of before lack: empty it stands in no row, so those stay as they were."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened at an instant, by somebody."""

    at: datetime
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OfCell(Event):
    """Something that happened to one version in one cell."""

    cell: Cell
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutCreated(Event):
    """A rollout began; `salt` is the SHA-256 of the salt that its draws are made with."""

    salt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyApplied(Event):
    """A policy is in force. Cells in `restarted` begin a new attempt, in `cleared` lose grants.

    `withdrawn` names the stages to which some cell has lost its gate, by this edit or an earlier
    one, and `risks` the risk of each such gate as decimal text.
    """

    number: int
    policy: str
    loosens: tuple[str, ...] = ()
    restarted: tuple[Cell, ...] = ()
    cleared: tuple[Cell, ...] = ()
    proposal: str = ""
    withdrawn: tuple[str, ...] = ()
    risks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionSeen(Event):
    """The first prediction or question of a model version came in."""

    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionRetired(Event):
    """A version is no longer served: it holds nothing anywhere."""

    version: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalRaised(Event):
    """A change waits for people. `evidence` is the hash of `because`, one reading a line."""

    proposal: str
    kind: str
    expires_at: datetime
    needs: tuple[str, ...]
    evidence: str
    cell: Cell | None = None
    version: str = ""
    to: str = ""
    gate: str = ""
    about: str = ""
    because: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Approved(Event):
    """One person said yes to a proposal."""

    proposal: str
    groups: tuple[str, ...]
    evidence: str
    reason: str = field(default="", metadata={CAME_LATER: True})


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalRejected(Event):
    """One person said no."""

    proposal: str
    quiet_until: datetime
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalVoided(Event):
    """A proposal lost its ground before it was applied."""

    proposal: str
    because: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalExpired(Event):
    """Nobody finished approving in time; the same may be raised again."""

    proposal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Widened(OfCell):
    """One rung up, until the grant ends."""

    to: str
    until: datetime
    proposal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewed(OfCell):
    """A grant lasts longer."""

    stage: str
    until: datetime
    proposal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenOver(OfCell):
    """A challenger has the acting version's place; `untils` gives each rung's end, lowest first."""

    replaced: str
    to: str
    stages: tuple[str, ...]
    untils: tuple[datetime, ...]
    proposal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Narrowed(OfCell):
    """Grants above `to` are gone. `guard` is empty where a person did it."""

    came_from: str
    to: str
    guard: str = ""
    restart: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspended(OfCell):
    """An operational guard withholds the grants until its measure is good again."""

    guard: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleared(OfCell):
    """The guard's measure was good for its whole span."""

    guard: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lapsed(OfCell):
    """A note for readers: the grant ended at `until`, and what stood on it."""

    stage: str
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped(Event):
    """A person withholds the grants of `cells`."""

    stop: str
    cells: tuple[Cell, ...]
    reason: str = ""
    drill: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed(Event):
    """A stop was taken back by an approved proposal."""

    stop: str
    proposal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentOpened(Event):
    """Something that a person has to look at, with what it did.

    `kind` is `alarm` (of a guard), `unpermitted` (the model acted without permission), `rewound`
    (a client has seen a head that this chain lacks) or `clock`.
    """

    incident: str
    kind: str
    did: str
    reason: str
    guard: str = ""
    cell: Cell | None = None
    version: str = ""
    about: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentAcknowledged(Event):
    """A person has seen an incident."""

    incident: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockCorrected(Event):
    """The ledger's time was ahead and goes back from `was` to `at`; what lapsed stays lapsed."""

    was: datetime
    proposal: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Purged(Event):
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


KINDS: dict[str, type[Event]] = {
    kind.__name__: kind
    for kind in (
        RolloutCreated,
        PolicyApplied,
        VersionSeen,
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
        Cleared,
        Lapsed,
        Stopped,
        Resumed,
        IncidentOpened,
        IncidentAcknowledged,
        ClockCorrected,
        Purged,
        ReportSealed,
    )
}
