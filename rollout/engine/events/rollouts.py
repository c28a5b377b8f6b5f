"""Events of a rollout as a whole: policies, versions, stops, incidents, its clock, its records."""

from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import product
from types import MappingProxyType
from typing import Any

from rollout.engine.decide.incident_kinds import (
    LATE,
    get_incident_kind,
    list_kinds_about,
    name_late,
)
from rollout.engine.decide.scope import (
    NO_VALUES,
    NOTHING_AGAINST,
    SPOKEN_KEPT,
    CellState,
    Grant,
    Incident,
    Stop,
    Version,
)
from rollout.engine.decide.scope_builder import ScopeBuilder, add_entry
from rollout.engine.events import Alarm, TrackFact
from rollout.engine.events.base import (
    ACCOUNT,
    FREE_TEXT,
    OMITTED_WHEN_EMPTY,
    LedgerEvent,
    ListChange,
    OfCell,
    OfProposal,
    Reach,
    VersionEvent,
)
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.facts import LooserRule, StoredAlarm, Trigger
from rollout.kernel.words import say_cause


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutCreated(LedgerEvent):
    """A rollout began.

    Attributes:
        salt_hash: SHA-256 of its sampling salt.
        service_salt_hash: that of the salt which never leaves the service; a replay has none.
    """

    is_for_all = True

    salt_hash: str
    service_salt_hash: str = field(default="", metadata={OMITTED_WHEN_EMPTY: True})

    def apply(self, builder: ScopeBuilder) -> None:
        """Leave the scope empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyApplied(OfProposal, LedgerEvent):
    """A policy is in force.

    In cells of `restarted` attempts that have begun end, and the next ones begin; in cells of
    `cleared` all do, and grants are lost. Cell i of `renamed` was cell i of `former`: it goes on
    with the numbers of its attempts, and under its stops. `confidence_floors` are those of a policy
    with several: a program that knows no floors of cells can't read the entry, so humans decide
    there.
    """

    state_reach = agenda_reach = Reach.ALL
    closing_state = "applied"
    ends_snapshots = is_for_all = True

    number: int
    policy_hash: str
    loosens: tuple[LooserRule, ...] = ()
    restarted: tuple[Cell, ...] = ()
    cleared: tuple[Cell, ...] = ()
    proposal: str = ""
    renamed: tuple[Cell, ...] = field(default=(), metadata={OMITTED_WHEN_EMPTY: True})
    former: tuple[Cell, ...] = field(default=(), metadata={OMITTED_WHEN_EMPTY: True})
    confidence_floors: tuple[str, ...] = field(default=(), metadata={OMITTED_WHEN_EMPTY: True})

    @property
    def applied_policy(self) -> str:
        """Return the policy's hash."""
        return self.policy_hash

    def list_restarted(
        self, versions: Sequence[str], begun: AbstractSet[tuple[Cell, str]]
    ) -> Iterable[tuple[Cell, str]]:
        """Return what began in cells of `restarted`, and all versions in those of `cleared`."""
        restarted = [key for key in begun if key[0] in self.restarted]
        return {*product(self.cleared, versions), *restarted}

    def apply(self, builder: ScopeBuilder) -> None:
        """Put the policy in force; attempts end, and grants of cleared cells."""
        builder.policy_number, builder.policy_hash = self.number, self.policy_hash
        builder.close_proposal(self.proposal)
        for cell, former in zip(self.renamed, self.former, strict=True):
            _rename_cell(builder, cell, former)
        cleared, since = set(self.cleared), builder.get_effective_time()
        for cell in dict.fromkeys((*self.cleared, *self.restarted)):
            for version in builder.versions:
                state = builder.get_cell_state(cell, version)
                if cell not in cleared and not state.has_begun:
                    continue
                state = state.restart_attempt(since)
                if cell in cleared:
                    state = replace(
                        state,
                        grants=(),
                        changed_at=since,
                        suspended_by=frozenset(),
                        reported_guards=frozenset(),
                    )
                builder.set_cell_state(cell, version, state)


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionFirstUsed(VersionEvent):
    """A model version is new: its first prediction or question arrived, or it was declared.

    `content` is the SHA-256 of its weights and pre-processing, if it was declared by then.
    """

    stage_reach = Reach.NONE
    state_reach = Reach.ALL

    content: str = field(default="", metadata={OMITTED_WHEN_EMPTY: True})

    @property
    def first_version(self) -> str:
        """Return the version."""
        return self.version

    def apply(self, builder: ScopeBuilder) -> None:
        """Add the version."""
        if self.version not in builder.versions:
            version = Version(id=self.version, first_seen=self.at, content=self.content)
            builder.versions[self.version] = version


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionRenamed(VersionEvent):
    """The first prediction or question arrived under a new name of a known version.

    Its declared `content` is that of the version `continues`, which goes on with its evidence,
    attempts, grants and detectors under both names.
    """

    stage_reach = Reach.NONE

    continues: str
    content: str

    def apply(self, builder: ScopeBuilder) -> None:
        """Add the name."""
        builder.aliases[self.version] = self.continues


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionRetired(VersionEvent):
    """A version is no longer served and lost its grants."""

    state_reach = agenda_reach = Reach.ALL
    is_reason_apart = True

    reason: str = field(default="", metadata={FREE_TEXT: True})

    def apply(self, builder: ScopeBuilder) -> None:
        """Mark the version as retired, without grants."""
        version = builder.versions[self.version]
        builder.versions[self.version] = replace(version, retired_at=builder.get_effective_time())
        for cell in [cell for cell, version in builder.cells if version == self.version]:
            builder.cut_grants(cell, self.version, 0, builder.get_effective_time())


@dataclass(frozen=True, slots=True, kw_only=True)
class StopEvent(LedgerEvent):
    """An event of a stop."""

    agenda_reach = Reach.ALL

    stop: str

    @property
    def about_stop(self) -> str:
        """Return the stop's id."""
        return self.stop

    def concerns(self, cell: Cell, opened: AbstractSet[str]) -> bool:
        """Return whether the stop is of the cell."""
        return self.stop in opened


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped(StopEvent):
    """A user withholds the grants of `cells`, or the program because of `trigger` or `reason`."""

    stage_reach = Reach.OWN

    cells: tuple[Cell, ...]
    reason: str = field(default="", metadata={FREE_TEXT: True})
    drill: bool = False
    trigger: Trigger | None = field(default=None, metadata={OMITTED_WHEN_EMPTY: True})

    @property
    def cause_text(self) -> str:
        """Return why, "" if the user gave no reason."""
        return say_cause(self.reason, self.trigger)

    def list_cells(self) -> tuple[Cell, ...]:
        """Return its cells."""
        return self.cells

    def apply(self, builder: ScopeBuilder) -> None:
        """Add the stop."""
        cells = frozenset(self.cells)
        builder.stops[self.stop] = Stop(self.stop, cells, self.by, self.at, drill=self.drill)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed(OfProposal, StopEvent):
    """An approved proposal ended a stop."""

    closing_state = "applied"
    ends_stop = True

    proposal: str

    def apply(self, builder: ScopeBuilder) -> None:
        """Remove the stop, which ends the proposal."""
        builder.close_proposal(self.proposal)
        if stop := builder.stops.pop(self.stop, None):
            builder.record_returns(stop.cells, self.at)


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentOpened(OfCell, LedgerEvent):
    """An incident that a user must acknowledge; `effect` is what it caused.

    `kind` is `alarm` (of a guard), `unauthorized` (the model acted on the case `about` without an
    authorization), `ledger_rolled_back` (the client `about` has seen a head that this ledger
    lacks), `sender_clock` (the account `about` dates actions ahead of their receipt),
    `evidence_changed` (records are not what the ledger's digests say, or evidence that a
    process held in `cell` was not what was counted), `unfamiliar` (the version is wrong too often
    about cases with the attribute value `about`), `clock` (behind the last entry or tick, which is
    of `about`) or `writes` (an append failed, so a replica let humans decide). `fact` says that it
    speaks against `version` in all cells: `quality` or `harm`. A harm holds widenings everywhere;
    if `holds` is `site`, those of `version` and at the site. `alarms` is what the guard read, then
    what others did whose slices were in alarm in the cell. `by_later_records`: the case or
    prediction that shows an unauthorized action came, or was corrected, after it. `trigger` is what
    else the program saw, and `reason` a text that others wrote: a database's, or what a check of
    evidence found.
    """

    stage_reach = Reach.NONE
    keeps_scope = True

    incident: str
    kind: str
    effect: str
    reason: str = field(default="", metadata={FREE_TEXT: True})
    guard: str = ""
    cell: Cell | None = None
    version: str = ""
    about: str = field(
        default="",
        metadata={
            ACCOUNT: list_kinds_about("account"),
            FREE_TEXT: list_kinds_about("text"),
        },
    )
    fact: str = field(default="", metadata={OMITTED_WHEN_EMPTY: True})
    holds: str = field(default="", metadata={OMITTED_WHEN_EMPTY: True})
    by_later_records: bool = field(default=False, metadata={OMITTED_WHEN_EMPTY: True})
    alarms: tuple[StoredAlarm, ...] = field(default=(), metadata={OMITTED_WHEN_EMPTY: True})
    trigger: Trigger | None = field(default=None, metadata={OMITTED_WHEN_EMPTY: True})

    @property
    def cause_text(self) -> str:
        """Return why it opened."""
        return say_cause(self.reason, self.trigger, self.alarms, self.about, self.version)

    @property
    def discards_evidence(self) -> bool:
        """Return whether evidence is not what was counted."""
        return get_incident_kind(self.kind).discards_evidence

    @property
    def speaks_against(self) -> str:
        """Return its id, if it has a fact."""
        return self.incident if self.fact else ""

    @property
    def repeats_effect(self) -> bool:
        """Return whether the guard's effect has an entry."""
        return self.effect in {"narrowed", "suspended"}

    def change_list(self, revision: int) -> ListChange:
        """Add the incident."""
        values = {
            "kind": self.kind,
            "guard": self.guard,
            "site": None if self.cell is None else self.cell.site,
            "window": None if self.cell is None else self.cell.window,
            "version": self.version,
            "opened_at": self.at,
            "acknowledged_at": None,
            "acknowledged_by": None,
            "opened_revision": revision,
        }
        return ListChange("incidents", self.incident, values, is_new=True)

    @property
    def alarm(self) -> Alarm | None:
        """Return the alarm of an incident in a cell."""
        if self.cell is None:
            return None
        return Alarm((self.cell, self.version), self.guard, self.alarms)

    def list_track_facts(self) -> Iterator[TrackFact]:
        """Yield the fact, or the action without an authorization."""
        kind = self.fact or get_incident_kind(self.kind).fact
        if kind and self.version:
            parts = (kind, self.version, self.at, self.cell)
            yield TrackFact(*parts, incident=self.incident, guard=self.guard)

    def apply(self, builder: ScopeBuilder) -> None:
        """Open the incident, also against its version."""
        builder.incident_count += 1
        builder.open_incidents[self.incident] = Incident(
            id=self.incident,
            kind=self.kind,
            reason=self.reason,
            trigger=self.trigger,
            alarms=self.alarms,
            at=self.at,
            cell=self.cell,
            version=self.version,
            about=self.about,
            fact=self.fact,
            holds=self.holds,
        )
        if self.fact:
            _speak_against(builder, self)
        if get_incident_kind(self.kind).about == "value" and self.cell is not None:
            key = (self.cell, self.version)
            previous = builder.cell_values.get(key, NO_VALUES)
            builder.cell_values[key] = replace(previous, reported=previous.reported | {self.about})
        if self.effect in {"reported", LATE} and self.cell is not None:
            state = builder.get_cell_state(self.cell, self.version)
            since = builder.get_effective_time()
            guard = name_late(self.guard) if self.effect == LATE else self.guard
            changes: dict[str, Any] = {"last_alarms": add_entry(state.last_alarms, guard, since)}
            if self.effect == "reported":
                changes["detectors"] = state.detectors.add_alarm(guard, state.changed_at, since)
                changes["reported_guards"] = state.reported_guards | {guard}
            builder.change_cell_state(self.cell, self.version, **changes)


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentAcknowledged(LedgerEvent):
    """A user acknowledged an incident."""

    stage_reach = Reach.NONE
    is_hidden = True

    incident: str
    note: str = field(default="", metadata={FREE_TEXT: True})

    def change_list(self, revision: int) -> ListChange:
        """Mark the incident as acknowledged."""
        values = {"acknowledged_at": self.at, "acknowledged_by": self.by}
        return ListChange("incidents", self.incident, values)

    def apply(self, builder: ScopeBuilder) -> None:
        """Close the incident."""
        incident = builder.open_incidents.pop(self.incident, None)
        if incident and incident.about and get_incident_kind(incident.kind).about == "instant":
            builder.confirmed_ahead = datetime.fromisoformat(incident.about)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockCorrected(LedgerEvent):
    """The rollout's time went back from `previous_time`, of an entry or a tick, to `at`.

    What was counted for slots from that of `at` on was taken back, to be counted when it is due. A
    `RecordsCounted` before that has such a slot covers nothing any longer.
    """

    takes_back = discards_evidence = ends_snapshots = True

    previous_time: datetime

    def compute_effective_time(self, previous: datetime | None) -> datetime:
        """Return the corrected time."""
        return self.at

    def apply(self, builder: ScopeBuilder) -> None:
        """Move all times back; grants that ended stay ended."""
        to, previous_at = self.at, self.previous_time
        builder.confirmed_ahead = None
        for (cell, version), state in list(builder.cells.items()):
            builder.cut_grants(
                cell, version, _count_surviving_grants(state.grants, to, previous_at), to
            )
            builder.set_cell_state(
                cell,
                version,
                _move_back_in_time(builder.get_cell_state(cell, version), to, previous_at),
            )
        builder.move_back_in_time(to)


@dataclass(frozen=True, slots=True, kw_only=True)
class EraBegan(LedgerEvent):
    """A restored database began an era; nothing issued before it is valid."""

    era: int
    reason: str = field(default="", metadata={FREE_TEXT: True})
    trigger: Trigger | None = field(default=None, metadata={OMITTED_WHEN_EMPTY: True})

    @property
    def cause_text(self) -> str:
        """Return why."""
        return say_cause(self.reason, self.trigger)

    def apply(self, builder: ScopeBuilder) -> None:
        """Begin the era."""
        builder.era = max(builder.era, self.era)


@dataclass(frozen=True, slots=True, kw_only=True)
class DamageCleared(LedgerEvent):
    """An admin checked rows that could not be read; the model may decide again."""

    reason: str = field(default="", metadata={FREE_TEXT: True})

    def apply(self, builder: ScopeBuilder) -> None:
        """Leave the scope: damage is no part of it."""


def _rename_cell(builder: ScopeBuilder, cell: Cell, former: Cell) -> None:
    """Continue a cell's year and stops; of two years in one, the one with less risk left."""
    years = [builder.attempt_years[c] for c in (former, cell) if c in builder.attempt_years]
    if years:
        builder.attempt_years[cell] = max(years, key=lambda year: (year.year, -year.unspent_share))
    for name, stop in builder.stops.items():
        if former in stop.cells:
            builder.stops[name] = replace(stop, cells=stop.cells | {cell})


def _speak_against(builder: ScopeBuilder, event: IncidentOpened) -> None:
    """Note an incident against its version, and with each of its open proposals."""
    spoken = builder.spoken_against.get(event.version, NOTHING_AGAINST)
    recent = [item for item in spoken.incidents if event.at - item[1] <= SPOKEN_KEPT]
    incidents = (*recent, (event.incident, event.at))
    builder.spoken_against[event.version] = replace(spoken, incidents=incidents)
    for proposal in list(builder.proposals.values()):
        if proposal.cell is not None and proposal.version == event.version:
            builder.proposals[proposal.id] = proposal.add_incident(event.incident)


def _count_surviving_grants(
    grants: tuple[Grant, ...], corrected_at: datetime, previous_at: datetime
) -> int:
    """Return how many grants, lowest first, span the clock correction.

    A grant from the skipped time would otherwise begin once that time comes.
    """
    survives = [grant.since <= corrected_at and previous_at < grant.until for grant in grants]
    return survives.index(False) if False in survives else len(survives)


def _move_back_in_time(
    state: CellState, corrected_at: datetime, previous_at: datetime
) -> CellState:
    """Move a state's times back; the rest of a quiet time remains."""
    quiet_until = state.quiet_until
    return replace(
        state,
        attempt_since=min(state.attempt_since, corrected_at),
        changed_at=min(state.changed_at, corrected_at),
        detectors=state.detectors.move_back(corrected_at),
        last_alarms=MappingProxyType(
            {guard: min(at, corrected_at) for guard, at in state.last_alarms.items()}
        ),
        suspensions=tuple((guard, min(at, corrected_at)) for guard, at in state.suspensions),
        cleared_at=MappingProxyType(
            {guard: min(at, corrected_at) for guard, at in state.cleared_at.items()}
        ),
        quiet_until=corrected_at + (quiet_until - previous_at)
        if quiet_until is not None and quiet_until > previous_at
        else quiet_until,
    )


class RecordEvent(LedgerEvent):
    """An event that never changes the scope."""

    __slots__ = ()
    stage_reach = Reach.NONE

    def apply(self, builder: ScopeBuilder) -> None:
        """Leave the scope."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordsPurged(RecordEvent):
    """Records before an instant were deleted: `counts` rows of `tables`.

    `digest` covers the hashes of the deleted records, which the database keeps.
    """

    removes_records = True

    before: datetime
    tables: tuple[str, ...]
    counts: tuple[int, ...]
    digest: str = field(default="", metadata={OMITTED_WHEN_EMPTY: True})

    @property
    def removed_digest(self) -> str:
        """Return the digest of the deleted records."""
        return self.digest


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasureEvent(RecordEvent):
    """Contents or names were erased from records.

    Attributes:
        tables, counts: the database's tables, and how many rows were deleted or changed in each.
        records_digest: digest of the hashes of these records; the database keeps these.
    """

    erases = removes_records = discards_evidence = ends_snapshots = True

    tables: tuple[str, ...]
    counts: tuple[int, ...]
    records_digest: str = ""
    reason: str = field(default="", metadata={FREE_TEXT: True})

    @property
    def removed_digest(self) -> str:
        """Return the digest of the changed records."""
        return self.records_digest


@dataclass(frozen=True, slots=True, kw_only=True)
class CasesErased(ErasureEvent):
    """The contents of cases were erased on request; their counts stay.

    Attributes:
        keys: hashes of the keys of the cases, which need the rollout's salt.
        episode: hash of the erased episode's key, if there was one.
        reports: numbers of the sealed reports from which rows were erased.
    """

    keys: tuple[str, ...]
    reports: tuple[int, ...] = ()
    episode: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NameErased(ErasureEvent):
    """A pseudonym replaced the name of a user or reviewer in this rollout.

    Attributes:
        pseudonym: the id that stands for the name from now on; no table holds the name for it.
        name_hash: hash of the name, which needs the rollout's salt.
    """

    pseudonym: str
    name_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordsImported(RecordEvent):
    """`by` imported recorded files and vouches for the times of receipt in them.

    `at` is the time of the ledger entry before, so that the imported records, which are older than
    the import, keep their order.

    Attributes:
        imported_at: the time of the import.
        files, digests: the files' names and the SHA-256 of each.
        cases: all cases of the files that have a time.
        stated_receipts: how many of these cases state when they were received; the others count as
            received when they occurred.
        received_since, received_until: the first and the last time of receipt of these cases.
        cells, cell_cases: the cells of the policy that have cases, and how many each has.
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
class CasesPlanted(RecordEvent):
    """A user declared cases as planted, before any record of them.

    Attributes:
        cases: how many cases were declared.
        digest: digest of the hashes of their keys, which need the rollout's salt.
        file_digest: SHA-256 of the file that declares them, if an import does.
    """

    cases: int
    digest: str
    file_digest: str = ""
    reason: str = field(default="", metadata={FREE_TEXT: True})


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingCutoffSet(RecordEvent):
    """The training cases of `version` reach up to an instant: gates don't count those cases.

    Guards do. Units that were counted before stay counted. Of an import, `at` is the time of the
    ledger entry before, as in `RecordsImported`.
    """

    is_for_all = True

    version: str
    trained_until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class CalendarDataSet(RecordEvent):
    """A service counts with other data than before: from here on days may lie in other windows.

    Attributes:
        program: the version of the program.
        time_zones: a digest of the offsets of the sites' time zones.
        holidays: the year, and a digest of the public holidays of the sites' countries.
        changed: which of these differ from the entry of this kind before; none in the first.
    """

    program: str
    time_zones: str
    holidays: str = ""
    changed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportSealed(RecordEvent):
    """A version of a report on the cases in [since, until) was stored.

    `number` counts the versions of the same span. `sha256` is its seal; `state` is `provisional`
    while decisions are due, then `final`.
    """

    is_hidden = True

    report: str
    since: datetime
    until: datetime
    number: int
    state: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordsCounted(RecordEvent):
    """A tick counted units: `digest` covers them and the hashes of the `records` behind them.

    It covers every unit, action and outcome that was counted after the event of this kind before
    it.
    """

    keeps_scope = seals_units = is_hidden = True

    records: int
    digest: str

    @property
    def sealed_digest(self) -> str:
        """Return its digest."""
        return self.digest
