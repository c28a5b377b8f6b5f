"""Events of versions in cells: grants, suspensions, attempts and attribute values."""

from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType

from rollout.engine.decide.scope import NO_STARTS, NO_VALUES, AttemptYear, Grant
from rollout.engine.decide.scope_builder import ScopeBuilder, add_entry
from rollout.engine.decide.widening_steps import add_grant, raise_floors
from rollout.engine.events import SUSPENSION_FACT, Alarm, TrackFact
from rollout.engine.events.base import (
    FREE_TEXT,
    OMITTED_WHEN_EMPTY,
    CellEvent,
    ManyCellsEvent,
    OfProposal,
    Reach,
)
from rollout.kernel.calendar.instants import SHADOW, Cell
from rollout.kernel.facts import StoredAlarm
from rollout.kernel.policy.familiarity import FAMILIAR


class OpeningEvent(OfProposal, CellEvent):
    """An event after which a version acts in a cell, or in more of its cases."""

    __slots__ = ()
    closing_state = "applied"
    is_approved = True
    confidence_floors: tuple[str, ...]

    @property
    def opened_key(self) -> tuple[Cell, str]:
        """Return its cell and version."""
        return self.cell, self.version

    @property
    def acting_floor(self) -> str:
        """Return the lowest confidence of cases that it opens; "" without several floors."""
        return self.confidence_floors[0] if self.confidence_floors else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Widened(OpeningEvent):
    """A cell rose one stage, or opened a lower confidence floor, until the grant ends.

    Of `confidence_floors` the first acts; an alarm may raise it to one of the others.
    """

    to_stage: str
    until: datetime
    proposal: str
    confidence_floors: tuple[str, ...] = field(default=(), metadata={OMITTED_WHEN_EMPTY: True})

    def apply(self, builder: ScopeBuilder) -> None:
        """Add the grant, which ends the proposal."""
        builder.close_proposal(self.proposal)
        state = builder.get_cell_state(self.cell, self.version)
        at, since = self.at, builder.get_effective_time()
        floors = self.confidence_floors
        grant = Grant(self.to_stage, at, self.until, self.proposal, at, since, since, floors)
        _set_grants(builder, self, add_grant(state.grants, grant))


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantEvent(CellEvent):
    """An event of a grant, with its end."""

    stage: str
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewed(OfProposal, GrantEvent):
    """A grant was extended."""

    closing_state = "applied"
    is_approved = True

    proposal: str

    def apply(self, builder: ScopeBuilder) -> None:
        """Extend the grant, which ends the proposal."""
        builder.close_proposal(self.proposal)
        state = builder.get_cell_state(self.cell, self.version)
        at, until, since = self.at, self.until, builder.get_effective_time()
        grants = tuple(
            replace(g, since=at, until=until, proposal=self.proposal, counts_since=since)
            if g.stage == self.stage
            else g
            for g in state.grants
        )
        builder.change_cell_state(self.cell, self.version, grants=grants)


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenOver(OpeningEvent):
    """A challenger replaced the acting version.

    `grant_ends` has the end of each of `stages`, lowest first; `confidence_floors` as in `Widened`.
    """

    replaced_version: str
    to_stage: str
    stages: tuple[str, ...]
    grant_ends: tuple[datetime, ...]
    proposal: str
    confidence_floors: tuple[str, ...] = field(default=(), metadata={OMITTED_WHEN_EMPTY: True})

    def apply(self, builder: ScopeBuilder) -> None:
        """Give the grants to the challenger, which ends the proposal."""
        replaced = builder.get_cell_state(self.cell, self.replaced_version).grants
        held_times = {
            grant.stage: (grant.held_since, grant.held_evidence_start) for grant in replaced
        }
        at, since = self.at, builder.get_effective_time()
        builder.close_proposal(self.proposal)
        builder.cut_grants(self.cell, self.replaced_version, 0, since)
        grants = []
        for stage, until in zip(self.stages, self.grant_ends, strict=True):
            held_at, counts_held = held_times.get(stage, (at, since))
            parts = (stage, at, until, self.proposal, held_at, since, counts_held)
            grants.append(Grant(*parts, self.confidence_floors))
        _set_grants(builder, self, tuple(grants))


@dataclass(frozen=True, slots=True, kw_only=True)
class Narrowed(CellEvent):
    """Grants above `to_stage` were removed; `guard` is "" for a user's command.

    `alarms` is what the guard read, and `cause` that an edit of the policy did it, instead of a
    user's reason. With `confidence_floor` the stage
    stays, for cases of at least that confidence.
    """

    narrows = True

    from_stage: str
    to_stage: str
    guard: str = ""
    restart: bool = False
    reason: str = field(default="", metadata={FREE_TEXT: True})
    confidence_floor: str = field(default="", metadata={OMITTED_WHEN_EMPTY: True})
    alarms: tuple[StoredAlarm, ...] = field(default=(), metadata={OMITTED_WHEN_EMPTY: True})
    cause: str = field(default="", metadata={OMITTED_WHEN_EMPTY: True})

    @property
    def acting_floor(self) -> str:
        """Return the lowest confidence of cases that stay; "" without several floors."""
        return self.confidence_floor

    @property
    def begins_attempt(self) -> bool:
        """Return whether evidence alone starts anew: the stage stays."""
        return self.restart and self.from_stage == self.to_stage and not self.confidence_floor

    def list_restarted(
        self, versions: Sequence[str], begun: AbstractSet[tuple[Cell, str]]
    ) -> Iterable[tuple[Cell, str]]:
        """Return its cell and version, if evidence starts anew."""
        return [(self.cell, self.version)] if self.restart else ()

    @property
    def alarm(self) -> Alarm | None:
        """Return the alarm that narrowed; None for a user's command."""
        return Alarm((self.cell, self.version), self.guard, self.alarms) if self.guard else None

    def apply(self, builder: ScopeBuilder) -> None:
        """Cut the grants, or raise their confidence floors."""
        state = builder.get_cell_state(self.cell, self.version)
        kept_count = (
            0
            if self.to_stage == SHADOW
            else 1 + [g.stage for g in state.grants].index(self.to_stage)
        )
        since = builder.get_effective_time()
        builder.cut_grants(self.cell, self.version, kept_count, since)
        state = builder.get_cell_state(self.cell, self.version)
        if self.confidence_floor:
            state = replace(state, grants=raise_floors(state.grants, self.confidence_floor))
        if self.guard:
            state = replace(state, last_alarms=add_entry(state.last_alarms, self.guard, since))
        if self.restart:
            state = state.restart_attempt(since)
        builder.set_cell_state(self.cell, self.version, state)


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspensionEvent(CellEvent):
    """An event of a suspension by a guard."""

    guard: str
    alarms: tuple[StoredAlarm, ...] = field(default=(), metadata={OMITTED_WHEN_EMPTY: True})


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspended(SuspensionEvent):
    """An operational guard withholds the grants until its measure is good again.

    `alarms` is what the guard read.
    """

    @property
    def alarm(self) -> Alarm:
        """Return the alarm."""
        return Alarm((self.cell, self.version), self.guard, self.alarms)

    def list_track_facts(self) -> Iterator[TrackFact]:
        """Yield the suspension."""
        parts = (SUSPENSION_FACT, self.version, self.at, self.cell)
        yield TrackFact(*parts, guard=self.guard)

    def apply(self, builder: ScopeBuilder) -> None:
        """Withhold the grants."""
        state, since = builder.get_cell_state(self.cell, self.version), builder.get_effective_time()
        builder.change_cell_state(
            self.cell,
            self.version,
            suspended_by=state.suspended_by | {self.guard},
            suspensions=(*state.suspensions[-9:], (self.guard, self.at)),
            detectors=state.detectors.add_alarm(self.guard, state.changed_at, since),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspensionCleared(SuspensionEvent):
    """The guard's measure was good for its whole span.

    `alarms` is the guard, without counts; nothing of a guard that the policy no longer has.
    """

    widens = True

    def apply(self, builder: ScopeBuilder) -> None:
        """Give back what the guard alone withheld."""
        state = builder.get_cell_state(self.cell, self.version)
        if self.guard in state.suspended_by:
            builder.record_returns((self.cell,), self.at)
        builder.change_cell_state(
            self.cell,
            self.version,
            suspended_by=state.suspended_by - {self.guard},
            cleared_at=add_entry(state.cleared_at, self.guard, self.at),
            reported_guards=state.reported_guards - {self.guard},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantExpired(GrantEvent):
    """A grant ended at `until`, with the grants above it; recorded for readers of the ledger."""

    def apply(self, builder: ScopeBuilder) -> None:
        """Cut the grant and those above it."""
        stages = [g.stage for g in builder.get_cell_state(self.cell, self.version).grants]
        if self.stage in stages:
            builder.cut_grants(self.cell, self.version, stages.index(self.stage), self.until)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptsBegan(ManyCellsEvent):
    """A tick counted the first units of attempts; entry i of each field belongs to attempt i.

    Attributes:
        cells, versions: cell and version of each attempt.
        years: the attempt's year: of the slot in which its first unit counted, by the site's
            clock, or the year of the cell's attempt before it if that is later.
        numbers: the attempt's number in its cell's year, over all versions, from 1.
        releases: how many attempts a year the policy planned for; 0 if it didn't say.
        shares: share of each gate's risk that the attempt may use, as decimal text.
    """

    state_reach = Reach.OWN
    keeps_scope = is_hidden = True

    years: tuple[int, ...]
    numbers: tuple[int, ...]
    releases: tuple[int, ...]
    shares: tuple[str, ...]

    def list_begun(self) -> Iterable[tuple[Cell, str]]:
        """Return its attempts."""
        return zip(self.cells, self.versions, strict=True)

    def can_change(self, cell: Cell, version: str) -> bool:
        """Return whether one of the attempts is of them."""
        return (cell, version) in self.list_begun()

    def apply(self, builder: ScopeBuilder) -> None:
        """Give each attempt its number and its share of the risk."""
        for cell, version, year, number, releases, share in zip(
            self.cells,
            self.versions,
            self.years,
            self.numbers,
            self.releases,
            self.shares,
            strict=True,
        ):
            builder.attempt_years[cell] = AttemptYear(year, number, releases)
            builder.begin_attempt(cell, version, number, float(share))


@dataclass(frozen=True, slots=True, kw_only=True)
class FamiliarityChanged(ManyCellsEvent):
    """A tick read attribute values anew; entry i of each field belongs to value i.

    Attributes:
        cells, versions: the cell where the value was met, and the version that met it.
        attributes, values: the attribute or combination of attributes, and its value.
        statuses: `familiar` (the version may decide such cases from now on), `mistaken` (judged
            often enough, but wrong too often) or `few` (judged too rarely).
        judged, agreed: number of judged units with the value, and of those that agreed: of the
            newest ones, at most twice as many as the policy asks for.
    """

    attributes: tuple[str, ...]
    values: tuple[str, ...]
    statuses: tuple[str, ...]
    judged: tuple[int, ...]
    agreed: tuple[int, ...]

    def list_statuses(self) -> Iterator[tuple[tuple[Cell, str], tuple[str, str], str, int]]:
        """Yield its values."""
        keys = zip(self.cells, self.versions, strict=True)
        values = zip(self.attributes, self.values, strict=True)
        yield from zip(keys, values, self.statuses, self.judged, strict=True)

    @property
    def widens(self) -> bool:
        """Return whether a value became familiar; unfamiliar ones have an event of their own."""
        return FAMILIAR in self.statuses

    def apply(self, builder: ScopeBuilder) -> None:
        """Replace the statuses of the values."""
        rows = zip(
            self.cells, self.versions, self.attributes, self.values, self.statuses, strict=True
        )
        statuses: dict[tuple[Cell, str], dict[tuple[str, str], str]] = {}
        for cell, version, attribute, value, status in rows:
            key = (cell, version)
            if key not in statuses:
                statuses[key] = dict(builder.cell_values.get(key, NO_VALUES).statuses)
            statuses[key][attribute, value] = status
        for key, key_statuses in statuses.items():
            previous = builder.cell_values.get(key, NO_VALUES)
            builder.cell_values[key] = replace(previous, statuses=MappingProxyType(key_statuses))


def _set_grants(builder: ScopeBuilder, event: CellEvent, grants: tuple[Grant, ...]) -> None:
    since = builder.get_effective_time()
    builder.change_cell_state(
        event.cell, event.version, grants=grants, changed_at=since, detectors=NO_STARTS
    )
    builder.widened_at[event.cell] = event.at
