"""The base of all events, and the marks of their fields."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, ClassVar, Final, Literal, NamedTuple, TypeVar

from rollout.engine.decide.scope_builder import ScopeBuilder
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.facts import StoredAlarm
from rollout.kernel.policy.evidence_sources import (
    CountedOutcomeSource,
    CountedSource,
    FrozenVouching,
    RegisteredUnits,
)

ENGINE: Final = "policy"
"""Name of the engine as an actor in the ledger."""
OMITTED_WHEN_EMPTY: Final = "omitted when empty"
"""Marks a field that rows omit while it is empty, as they do with every field to come."""
FREE_TEXT: Final = "free text"
"""Marks a field with typed text or a case's key: a row holds its salted hash, not the text.

Its value is True, or the only incident `kind` in which it does.
"""
ACCOUNT: Final = "account"
"""Marks a field that holds an account: True, or each `kind` of the event in which it does."""


QUALITY_FACT: Final = "quality"
"""Fact of an incident: a guard on quality narrowed the version."""
HARM_FACT: Final = "harm"
"""Fact of an incident: a harm was reported while the version acted."""
SUSPENSION_FACT: Final = "suspended"
AGAINST: Final = (HARM_FACT, QUALITY_FACT)
"""Facts that enter the hash of a proposal's evidence, in the order in which they are shown."""


@dataclass(frozen=True, slots=True)
class TrackFact:
    """What happened to a version in a cell.

    Attributes:
        kind: `quality` (narrowed for quality), `harm`, `unauthorized` or `suspended`.
        incident: its id; "" for a suspension.
        guard: the guard in alarm, "" for an action without an authorization.
        acknowledged_at: when a user acknowledged the incident, None before.
    """

    kind: str
    version: str
    at: datetime
    cell: Cell | None
    incident: str = ""
    guard: str = ""
    acknowledged_at: datetime | None = None

    @property
    def speaks_against(self) -> bool:
        """Return whether it voids or holds the version's open proposals."""
        return self.kind in AGAINST


class Reach(Enum):
    """The cells that an event can change: none, those that it names, or all."""

    NONE = "none"
    OWN = "own"
    ALL = "all"


class Alarm(NamedTuple):
    """A guard's alarm about a version in a cell, and what an event says that it read."""

    key: tuple[Cell, str]
    guard: str
    readings: tuple[StoredAlarm, ...]


class ProposalSources(NamedTuple):
    """Where counted decisions and outcomes came from, as `ProposalRaised` has them."""

    sources: tuple[CountedSource, ...]
    outcome_sources: tuple[CountedOutcomeSource, ...]
    vouched: tuple[FrozenVouching, ...]
    registered: tuple[RegisteredUnits, ...]


NO_SOURCES: Final = ProposalSources((), (), (), ())


@dataclass(frozen=True, slots=True)
class ListChange:
    """The change of an entry in the list of proposals or incidents; `is_new` adds it."""

    list_name: Literal["proposals", "incidents"]
    id: str
    values: Mapping[str, Any]
    is_new: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEvent(ABC):
    """An event; `slot` is the slot of a tick's evidence.

    What a reader asks of an event, a method or flag here answers for all kinds.
    """

    stage_reach: ClassVar[Reach] = Reach.ALL
    """Where it can change what a version may do."""
    state_reach: ClassVar[Reach] = Reach.NONE
    """Where it can change grants, attempts or the acting version."""
    agenda_reach: ClassVar[Reach] = Reach.NONE
    """Where it can change what a tick decides next; a proposal's cell is its own, too."""
    keeps_scope: ClassVar[bool] = False
    """Whether the same ones decide after it, and the same units count."""
    narrows: ClassVar[bool] = False
    """Whether a guard or user removed grants in its cell."""
    ends_stop: ClassVar[bool] = False
    raises_proposal: ClassVar[bool] = False
    closing_state: ClassVar[str] = ""
    """The state in which its proposal ends; "" if it goes on."""
    is_approved: ClassVar[bool] = False
    """Whether it is an approval or follows from approvals."""
    seals_units: ClassVar[bool] = False
    """Whether it covers what was counted up to its slot."""
    takes_back: ClassVar[bool] = False
    """Whether what was counted for slots from its time on is counted anew."""
    erases: ClassVar[bool] = False
    """Whether contents or names in earlier entries were erased."""
    removes_records: ClassVar[bool] = False
    """Whether records were deleted or changed."""
    ends_snapshots: ClassVar[bool] = False
    """Whether stored evidence from before it is no longer valid."""
    is_hidden: ClassVar[bool] = False
    """Whether lists of what happened leave it out."""
    is_reason_apart: ClassVar[bool] = False
    """Whether its text leaves out the reason that a user typed."""
    is_for_all: ClassVar[bool] = False
    """Whether readers of any site see it."""

    at: datetime
    by: str
    slot: datetime | None = None

    @property
    def about_proposal(self) -> str:
        """Return the id of its proposal, or ""."""
        return ""

    @property
    def about_stop(self) -> str:
        """Return the id of its stop, or ""."""
        return ""

    @property
    def applied_policy(self) -> str:
        """Return the hash of the policy that it put in force, or ""."""
        return ""

    @property
    def first_version(self) -> str:
        """Return the version that is new with it, or ""."""
        return ""

    @property
    def alarm(self) -> Alarm | None:
        """Return the alarm that it is an effect or incident of, or None."""
        return None

    @property
    def sealed_digest(self) -> str:
        """Return the digest of what it covers, or ""."""
        return ""

    @property
    def needed_groups(self) -> tuple[str, ...]:
        """Return the groups whose approvals the proposal needs that it raises."""
        return ()

    @property
    def given_groups(self) -> tuple[str, ...]:
        """Return the groups for which a user approved, or confirmed facts."""
        return ()

    @property
    def cited_hash(self) -> str:
        """Return the hash of the evidence on which a user approved, or confirmed facts."""
        return ""

    def describe_closing(self, cell: Cell | None) -> str:
        """Return why a proposal ended, by its cell, or ""."""
        return ""

    @property
    def widens(self) -> bool:
        """Return whether it gives the model more without an approval."""
        return False

    @property
    def speaks_against(self) -> str:
        """Return the id of the incident that speaks against its version, or ""."""
        return ""

    @property
    def repeats_effect(self) -> bool:
        """Return whether the entry before it describes the same effect."""
        return False

    @property
    def opened_key(self) -> tuple[Cell, str] | None:
        """Return the cell that rose, and the version that acts there from now on, or None."""
        return None

    @property
    def gated_key(self) -> tuple[Cell, str] | None:
        """Return the cell and version that it proposes something for, or None."""
        return None

    @property
    def begins_attempt(self) -> bool:
        """Return whether it is a narrowing after which evidence alone starts anew."""
        return False

    @property
    def discards_evidence(self) -> bool:
        """Return whether processes forget what they hold: renamed, changed or taken back."""
        return False

    @property
    def removed_digest(self) -> str:
        """Return the digest of the hashes of records that it deleted or changed, or ""."""
        return ""

    def add_digest(self, find_digest: Callable[[Cell, str], str]) -> "LedgerEvent":
        """Return the event, a proposal of a cell with the digest of its evidence."""
        return self

    def add_sources(
        self, load_sources: Callable[[Cell, str, str], ProposalSources]
    ) -> "LedgerEvent":
        """Return the event, a proposal with the sources of a cell, version and stage."""
        return self

    def list_cells(self) -> tuple[Cell, ...]:
        """Return the cells that it names."""
        return ()

    def can_change(self, cell: Cell, _version: str) -> bool:
        """Return whether it can change the state of a version in a cell, if it names cells."""
        return cell in self.list_cells()

    def list_track_facts(self) -> Iterator[TrackFact]:
        """Yield what it says about a version, if anything."""
        yield from ()

    def list_begun(self) -> Iterable[tuple[Cell, str]]:
        """Return cell and version of each attempt that began."""
        return ()

    def list_restarted(
        self, versions: Sequence[str], begun: AbstractSet[tuple[Cell, str]]
    ) -> Iterable[tuple[Cell, str]]:
        """Return cells and versions whose evidence starts anew, of all versions and `begun`."""
        return ()

    def list_statuses(self) -> Iterator[tuple[tuple[Cell, str], tuple[str, str], str, int]]:
        """Yield cell and version, attribute value, status and judged units of changed values."""
        yield from ()

    def concerns(self, cell: Cell, opened: AbstractSet[str]) -> bool:
        """Return whether it is about a cell or all, by the proposals and stops of the cell."""
        return True

    def change_list(self, revision: int) -> ListChange | None:
        """Return what it changes in the list of proposals or incidents, as entry `revision`."""
        if not self.closing_state or not self.about_proposal:
            return None
        values = {"state": self.closing_state, "closed_at": self.at, "closed_revision": revision}
        return ListChange("proposals", self.about_proposal, values)

    @abstractmethod
    def apply(self, builder: ScopeBuilder) -> None:
        """Change the scope as the event says; never refuse it."""

    def compute_effective_time(self, previous: datetime | None) -> datetime:
        """Return from when it holds for units; `previous` is that of the event before.

        A tick writes later than its slot began, but its evidence ends there: units of the slot
        belong to what it decided. Where a user acted in between, it holds from that action on. An
        event that a clock behind wrote holds no earlier than the one before.
        """
        since = self.slot or self.at
        return since if previous is None else max(previous, since)


class OfCell:
    """What an event of a cell, or of none, says about it."""

    __slots__ = ()
    cell: Cell | None

    def list_cells(self) -> tuple[Cell, ...]:
        """Return its cell; () without one."""
        return () if self.cell is None else (self.cell,)

    def concerns(self, cell: Cell, _opened: AbstractSet[str]) -> bool:
        """Return whether it is its cell."""
        return cell == self.cell


@dataclass(frozen=True, slots=True, kw_only=True)
class CellEvent(OfCell, LedgerEvent):
    """An event of one version in one cell."""

    stage_reach = state_reach = agenda_reach = Reach.OWN

    cell: Cell
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ManyCellsEvent(LedgerEvent):
    """An event about versions in cells, all of one tick; entry i of each field is of the same."""

    stage_reach = Reach.NONE
    agenda_reach = Reach.OWN

    cells: tuple[Cell, ...]
    versions: tuple[str, ...]

    def list_cells(self) -> tuple[Cell, ...]:
        """Return its cells."""
        return self.cells


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionEvent(LedgerEvent):
    """An event of a version in all cells."""

    is_for_all = True

    version: str


class OfProposal:
    """What an event of a proposal, or one that ends it, says about it."""

    __slots__ = ()
    proposal: str

    @property
    def about_proposal(self) -> str:
        """Return the proposal's id."""
        return self.proposal


EventT = TypeVar("EventT", bound=LedgerEvent)


def build_registry(*kinds: type[EventT]) -> dict[str, type[EventT]]:
    """Return kinds of events by name.

    Raises:
        TypeError: a kind lacks a method that each needs.
    """
    for kind in kinds:
        if missing := kind.__abstractmethods__:
            raise TypeError(f"{kind.__name__} lacks {', '.join(sorted(missing))}")
    return {kind.__name__: kind for kind in kinds}


def find_applied_policies(events: Iterable[LedgerEvent]) -> set[str]:
    """Return the hashes of the policies that some events put in force."""
    return {event.applied_policy for event in events} - {""}


def select_events(events: Iterable[LedgerEvent], kind: type[EventT]) -> Iterator[EventT]:
    """Yield the events of a kind, for readers that need most of its fields."""
    return (event for event in events if isinstance(event, kind))
