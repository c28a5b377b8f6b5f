"""Events of versions in cells: grants, suspensions, attempts and attribute values."""

from dataclasses import dataclass, field
from datetime import datetime

from rollout.core.calendar.sites import Cell
from rollout.core.scope.events.base import (
    FREE_TEXT,
    OMITTED_WHEN_EMPTY,
    CellEvent,
    LedgerEvent,
)


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
