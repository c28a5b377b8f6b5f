"""Compare what a process holds as evidence with the counted units, some at a time.

A process begins with a stored snapshot, whose hash is no secret: who can write to the database
can store other counts with a right hash. So each process compares some of its units with the
counted ones every few minutes, each once before any again, from a random place on. Where one
differs, its cells are stopped, and all processes read the counted units anew.

Read the evidence of each proposal and alarm anew, from the counted units and the ledger.

The readings of a proposal hold its counts and e-values, an alarm the counts at which its guard's
e-process crossed. Both follow from the units counted by their slot, the scope before their tick and
the stages of the cell.

Count units again, from the records that they rest on.

A unit is resolved under the policy that counted it, from those of today's records whose hashes it
holds. So records that arrived later play no part.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import groupby, islice
from json import loads
from secrets import SystemRandom
from typing import Any, Final, TypeVar

from rollout.data.counting.counted_outcomes import LINES_PER_READ, CountedOutcomes
from rollout.data.counting.counted_units import CellVersion, CountedUnits, UnitLine
from rollout.data.counting.counts import CLASS_COLUMNS, load_classes
from rollout.data.counting.unit_records import SelectedRecords
from rollout.data.database.append_failures import STOP
from rollout.data.database.rollouts import Rollout
from rollout.data.database.session import Database, Transaction
from rollout.data.ledger.evidence_snapshots import EvidenceSnapshots
from rollout.data.ledger.ledger import Ledger
from rollout.data.records.external_keys import CASE, EPISODE, ExternalKeys, is_name_refused
from rollout.data.records.record_rows import split_hashes
from rollout.engine.decide.commands import StopChangedCells
from rollout.engine.decide.guards import store_alarm
from rollout.engine.decide.projection import apply_events
from rollout.engine.decide.proposals import store_readings
from rollout.engine.decide.scope import Scope
from rollout.engine.decide.widening_steps import WideningStep, find_acting_index, list_met_floors
from rollout.engine.events import (
    Alarm,
    IncidentOpened,
    LedgerEvent,
    ProposalRaised,
    Suspended,
    find_applied_policies,
    select_events,
)
from rollout.engine.evidence.evidence_view import EvidenceView
from rollout.engine.evidence.guard_evidence import GuardEvidence
from rollout.engine.evidence.outcome_buffer import CountedOutcome, OutcomeBuffer
from rollout.engine.evidence.slots import find_slot_before
from rollout.engine.evidence.unit_buffer import (
    FIRST_POSITION,
    LAST_POSITION,
    DefinitionLevels,
    HeldEvidence,
    SlotPosition,
    UnitBuffer,
    compare_snapshot,
    find_differences,
)
from rollout.engine.evidence.units import TRAINED_ON
from rollout.kernel.calendar.sites import Cell
from rollout.kernel.facts import StoredAlarm
from rollout.kernel.policy.cell_evidence import EvidenceCounts, VersionEvidence
from rollout.kernel.policy.confidence_floors import find_floor_index
from rollout.kernel.policy.gates import GateReading, read_gate, read_renewal
from rollout.kernel.policy.policy import Guard, Policy
from rollout.kernel.policy.record_definition import compute_definition
from rollout.kernel.words import say_against, say_alarms, say_reading
from rollout.live.command_handler import execute_command
from rollout.live.evidence.evidence_reader import GateFeeds, restore_evidence
from rollout.live.evidence.evidence_seals import load_policies
from rollout.live.evidence.stage_history import RolloutHistory
from rollout.live.evidence.unit_counting import resolve_case_units
from rollout.live.rollout_state import RolloutState, load_rollout_state

CHECK_INTERVAL: Final = timedelta(minutes=5)
UNITS_PER_CHECK: Final = 5_000
"""Counted units, and as many outcomes, in about 0.1 s: over a million a day."""
MAX_NAMED_CELLS: Final = 5


@dataclass(frozen=True, slots=True)
class _Part:
    """Positions (`after`, `until`]; the last part also has what is held beyond all."""

    after: SlotPosition
    until: SlotPosition
    is_last: bool


class HeldEvidenceCheck:
    """The turn of one process's checks, which begins at a random place."""

    def __init__(self) -> None:
        self._random = SystemRandom()
        self._after: SlotPosition | None = None
        self._known_hash: bytes | None = None  # of the stored snapshot that was compared last
        self._found: tuple[SlotPosition | None, bytes | None] = (None, None)

    def find_differences(
        self,
        transaction: Transaction,
        state: RolloutState,
        memory: HeldEvidence,
        levels: DefinitionLevels,
    ) -> Mapping[Cell, str]:
        """Return by cell what differs in the next part; `confirm` moves on to the one after it.

        A stored snapshot that this process does not know is compared before, as a whole: pages and
        other processes begin with it.
        """
        if memory.last_slot < 0:
            return {}  # nothing was read yet
        stored_hash = EvidenceSnapshots(transaction, state.rollout).load_hash()
        if stored_hash not in {None, self._known_hash}:
            self._found = (self._after, stored_hash)
            if differences := _compare_snapshot(transaction, state, memory, levels):
                return differences
        part = _find_part(transaction, state, self._begin(memory), memory.last_slot)
        self._found = (FIRST_POSITION if part.is_last else part.until, stored_hash)
        counted = _read_part(transaction, state, part, levels)
        until = LAST_POSITION if part.is_last else part.until
        return find_differences(memory, counted, part.after, until)

    def confirm(self) -> None:
        """Note that what the last comparison found is dealt with."""
        self._after, self._known_hash = self._found

    def _begin(self, memory: HeldEvidence) -> SlotPosition:
        """Return where this part begins: at first at a random slot, which no editor can foresee."""
        if self._after is None:
            tables = (table for _, table in memory.units.list_series() if table.shape[1])
            first_slot = min([memory.last_slot, *(int(table[0, 0]) for table in tables)])
            slot = self._random.randint(first_slot - 1, memory.last_slot)
            self._after = (slot, FIRST_POSITION[1])
        return self._after


def _compare_snapshot(
    transaction: Transaction, state: RolloutState, memory: HeldEvidence, levels: DefinitionLevels
) -> Mapping[Cell, str]:
    """Return by cell how the stored snapshot, if any process uses it, differs from what is held."""
    units, outcomes = UnitBuffer(state.policy, levels), OutcomeBuffer()
    slot = restore_evidence(transaction, state, units, outcomes)
    return {} if slot < 0 else compare_snapshot(HeldEvidence(units, outcomes, slot), memory)


def _find_part(
    transaction: Transaction, state: RolloutState, after: SlotPosition, last_slot: int
) -> _Part:
    """Return the next part of at most `UNITS_PER_CHECK` units, but for those of one position."""
    tables: list[CountedUnits | CountedOutcomes] = [CountedUnits(transaction, state.rollout)]
    if state.policy.outcomes:
        tables.append(CountedOutcomes(transaction, state.rollout))
    ends = (table.find_part_end(after, UNITS_PER_CHECK - 1) for table in tables)
    last = (last_slot, LAST_POSITION[1])
    until = min([last, *(end for end in ends if end is not None)])
    return _Part(after, until, is_last=until == last)


def _read_part(
    transaction: Transaction, state: RolloutState, part: _Part, levels: DefinitionLevels
) -> HeldEvidence:
    units, outcomes = UnitBuffer(state.policy, levels), OutcomeBuffer()
    stored_units = CountedUnits(transaction, state.rollout)
    for stored_part in stored_units.load_part(after=part.after, until=part.until):
        units.add(stored_part)
    if state.policy.outcomes:
        stored_outcomes = CountedOutcomes(transaction, state.rollout)
        outcomes.add(stored_outcomes.read_part(after=part.after, until=part.until))
    return HeldEvidence(units, outcomes, part.until[0])


def stop_changed_cells(
    database: Database, rollout_name: str, differences: Mapping[Cell, str], at: datetime
) -> None:
    """Stop the cells whose evidence differs, and those in which it counts as well.

    The event ends all snapshots in its transaction, and processes read the counted units again. If
    all of it had happened already, the stored snapshot is deleted anyway.
    """
    reason = _describe_cells(differences)

    def build_command(_: RolloutState) -> StopChangedCells:
        changed = next(iter(differences))
        cells = tuple(sorted(differences))
        return StopChangedCells(at=at, cells=cells, cell=changed, reason=reason)

    execute_command(database, rollout_name, build_command, append_kind=STOP)
    with database.begin_write() as transaction:
        rollout = load_rollout_state(transaction, rollout_name).rollout
        EvidenceSnapshots(transaction, rollout).delete()


def _describe_cells(differences: Mapping[Cell, str]) -> str:
    texts = [f"{cell}: {text}" for cell, text in differences.items()]
    others: Collection[str] = texts[MAX_NAMED_CELLS:]
    return "; ".join([*texts[:MAX_NAMED_CELLS], *([f"{len(others)} more cells"] if others else [])])


MAX_HELD_ROWS: Final = 50_000


class RecountedCell:
    """The evidence of one version in one cell, up to a slot."""

    def __init__(
        self, policy: Policy, key: CellVersion, definition_levels: DefinitionLevels
    ) -> None:
        self.units, self.outcomes = UnitBuffer(policy, definition_levels), OutcomeBuffer()
        self.row_count = 0
        self._key, self._last_slot = key, -1
        self._has_outcomes = bool(policy.outcomes)

    def advance(self, transaction: Transaction, rollout: Rollout, slot: int) -> None:
        """Read what was counted up to a slot."""
        if slot <= self._last_slot:
            return
        unit_store = CountedUnits(transaction, rollout)
        for units in unit_store.load_units(after=self._last_slot, until=slot, key=self._key):
            self.row_count += len(units)
            self.units.add(units)
        if self._has_outcomes:
            lines = self._list_outcomes(CountedOutcomes(transaction, rollout), slot)
            while part := list(islice(lines, LINES_PER_READ)):
                self.row_count += len(part)
                self.outcomes.add(part)
        self._last_slot = slot

    def _list_outcomes(self, outcomes: CountedOutcomes, slot: int) -> Iterator[CountedOutcome]:
        cell, version = self._key
        lines = outcomes.read_lines(after=self._last_slot, until=slot, version=version)
        return (line for line in lines if Cell(line.site, line.window) == cell)


class RecountedEvidence:
    """The evidence of the cells that were asked for last, under one policy."""

    def __init__(
        self, rollout: Rollout, policy: Policy, definition_levels: DefinitionLevels
    ) -> None:
        self._rollout, self._policy, self._definition_levels = rollout, policy, definition_levels
        self._cells: dict[CellVersion, RecountedCell] = {}

    def load(self, transaction: Transaction, key: CellVersion, slot: int) -> RecountedCell:
        """Return a version's evidence in a cell, up to a slot or a later one asked for before."""
        evidence = self._cells.pop(key, None)
        if evidence is None:
            evidence = RecountedCell(self._policy, key, self._definition_levels)
        evidence.advance(transaction, self._rollout, slot)
        self._drop_cells(MAX_HELD_ROWS - evidence.row_count)
        self._cells[key] = evidence
        return evidence

    def _drop_cells(self, row_count: int) -> None:
        """Drop the cells not asked for lately until the others hold at most so many rows."""
        row_total = sum(evidence.row_count for evidence in self._cells.values())
        for key in list(self._cells):
            if row_total <= row_count:
                return
            row_total -= self._cells.pop(key).row_count


RECOUNTED_KINDS: Final = (ProposalRaised.__name__, IncidentOpened.__name__, Suspended.__name__)
TickEvents = tuple[LedgerEvent, ...]


def find_reading_faults(transaction: Transaction, state: RolloutState) -> Iterator[str]:
    """Yield a sentence for each proposal and alarm of a tick that its evidence doesn't give.

    Alarms about failures, latency, harm and silence rest on records that no tick counts; they are
    not read again.
    """
    ledger = Ledger(transaction, state.rollout)
    if next(ledger.list_rows(kinds=RECOUNTED_KINDS), None) is None:
        return
    recount = _ReadingRecount(transaction, state)
    for _, tick_events in groupby(enumerate(ledger.list_events()), key=_find_group):
        yield from recount.check_events(tuple(event for _, event in tick_events))


def _find_group(numbered_event: tuple[int, LedgerEvent]) -> object:
    """Return what the events of one tick share; other events stand alone."""
    number, event = numbered_event
    return number if event.slot is None else event.slot


class _ReadingRecount:
    """The state of a rollout as its ledger is read."""

    def __init__(self, transaction: Transaction, state: RolloutState) -> None:
        self._transaction, self._state = transaction, state
        self._scope, self._history = Scope(), RolloutHistory()
        self._policies: dict[str, Policy] = {}
        self._evidence: RecountedEvidence | None = None

    def check_events(self, events: TickEvents) -> Iterator[str]:
        """Yield the faults of a tick's proposals and alarms, then apply its events."""
        if (slot_start := events[0].slot) is not None:
            slot = find_slot_before(slot_start, self._policy.tick)
            self._history.advance_to(slot - 1, self._scope)
            yield from self._check_alarms(events, slot)
            yield from self._check_proposals(events, slot)
        self._policies |= load_policies(self._transaction, self._state, events)
        self._scope = apply_events(events, self._scope)
        self._history.add_events(events, self._policies.__getitem__)
        if find_applied_policies(events):
            self._policies = {self._scope.policy_hash: self._policy}
            self._evidence = None  # units are compared under the policy in force

    @property
    def _policy(self) -> Policy:
        return self._policies[self._scope.policy_hash]

    # Proposals

    def _check_proposals(self, events: TickEvents, slot: int) -> Iterator[str]:
        for event in select_events(events, ProposalRaised):
            if event.cell is not None:
                scope = apply_events(events[: events.index(event)], self._scope)
                reading = self._read_gate(event, event.cell, scope, slot)
                expected = store_readings(self._policy, reading)
                if expected != event.readings:
                    yield (
                        f"proposal {event.proposal} of {event.cell}: its readings are "
                        f"{'; '.join(map(say_reading, event.readings))}; the counted units give "
                        f"{'; '.join(map(say_reading, expected))}"
                    )
                elif event.floors != reading.floors:
                    floors = ", ".join(reading.floors)
                    yield (
                        f"proposal {event.proposal} of {event.cell}: it opens the confidence floors"
                        f" {', '.join(event.floors)}; the counted units give {floors}"
                    )

    def _read_gate(self, event: ProposalRaised, cell: Cell, scope: Scope, slot: int) -> GateReading:
        """Return the reading of a proposal's gate; `scope` has the tick's events before it.

        It is at the proposal's confidence floor, with the floors that are met.
        """
        policy, view = self._policy, self._build_view(cell, event.version, slot)
        stage_level = policy.stage_ids.index(event.to_stage)
        step = WideningStep(stage_level, find_floor_index(policy.evidence, event.confidence_floor))
        at_floor, state = (
            view.get_floor_view(step.floor_index),
            scope.get_cell_state(cell, event.version),
        )
        if event.rules.extends_grant:
            window = at_floor.grant_windows.get(event.to_stage)
            counts = EvidenceCounts() if window is None else window.count_at(slot)
            floors = state.grants[stage_level - 1].floors
            return replace(read_renewal(policy, cell, stage_level, counts), floors=floors)
        attempt = at_floor.attempt_window.count_at(slot)
        entered = (
            attempt if event.rules.replaces_version else at_floor.entered_window.count_at(slot)
        )
        reading = read_gate(policy, cell, stage_level, state.risk_share, attempt, entered)
        floors = list_met_floors(policy, cell, step, state.risk_share, _count_floors(view, slot))
        return replace(reading, floors=floors)

    # Alarms

    def _check_alarms(self, events: TickEvents, slot: int) -> Iterator[str]:
        expected_by_guard: dict[str, list[StoredAlarm | None]] = defaultdict(list)
        for event in events:
            alarm = None if event.narrows else event.alarm
            guard = alarm and self._find_counting_guard(alarm.key[0], alarm.guard)
            if alarm is not None and guard is not None:
                view = self._build_view(*alarm.key, slot)
                view = view.get_floor_view(find_acting_index(self._policy, view.state))
                reading = GuardEvidence(view).compute_series(guard).read_at(slot, self._policy.tick)
                expected = store_alarm(guard, reading) if reading.is_alarm else None
                expected_by_guard[guard.id].append(expected)
                yield from _compare_alarm(alarm, [expected])
        for event in events:  # a guard's narrowings come before its incident, also of other cells
            alarm = event.alarm if event.narrows else None
            if alarm is not None and alarm.guard in expected_by_guard:
                yield from _compare_alarm(alarm, expected_by_guard[alarm.guard])

    def _find_counting_guard(self, cell: Cell, guard_id: str) -> Guard | None:
        """Return a guard of a cell, if it reads counted units and outcomes alone."""
        guards = self._policy.list_guards(cell) if cell in self._policy.cell_set else ()
        guard = next((guard for guard in guards if guard.id == guard_id), None)
        if guard is None or guard.condition.measure.reads_more:
            return None
        return guard

    def _build_view(self, cell: Cell, version: str, slot: int) -> EvidenceView:
        if self._evidence is None:
            definition_levels = self._history.find_equivalent_definitions
            self._evidence = RecountedEvidence(self._state.rollout, self._policy, definition_levels)
        evidence = self._evidence.load(self._transaction, (cell, version), slot)
        return EvidenceView(
            cell=cell,
            version=version,
            rows=evidence.units.get_rows((cell, version)),
            unit_classes=evidence.units.unit_classes,
            policy=self._policy,
            state=self._scope.get_cell_state(cell, version),
            first_seen=self._scope.versions[version].first_seen,
            stage_history=self._history.get_stage_history(cell),
            shares=self._history.stage_shares,
            find_buckets=lambda rows: rows.unit,  # stored units hold their bucket
            feeds=GateFeeds(evidence.outcomes),
            familiar_history=self._history.familiar_histories[cell, version],
        )


def _count_floors(view: EvidenceView, slot: int) -> VersionEvidence:
    """Return the counts of the attempt at each confidence floor."""
    floors = (VersionEvidence(part.attempt_window.count_at(slot)) for part in view.floor_views)
    return VersionEvidence(floors=tuple(floors))


def _compare_alarm(alarm: Alarm, expected: Sequence[StoredAlarm | None]) -> Iterator[str]:
    """Yield a sentence if an alarm has none of the expected counts.

    Names of slices are not compared: an erasure replaces them.
    """
    counts = [part and replace(part, subject=None) for part in expected]
    if any(
        part.suspensions or replace(part, subject=None) in counts for part in alarm.readings[:1]
    ):
        return
    texts = sorted("no alarm" if part is None else say_against(part) for part in expected)
    yield (
        f"alarm of {alarm.guard} in {alarm.key[0]}: it says {say_alarms(alarm.readings)}; the"
        f" counted units give {' or '.join(texts)}"
    )


UnitKey = tuple[int, str, str]
ClassValues = tuple[Any, ...]
UnitFault = tuple[UnitLine, str]
LineT = TypeVar("LineT", UnitLine, CountedOutcome)
UNRECORDED_REASONS: Final = frozenset({TRAINED_ON})
"""Reasons that depend on what was known of a version when the unit was counted."""


def recount_units(
    transaction: Transaction,
    state: RolloutState,
    policies: Sequence[Policy],
    lines: Sequence[UnitLine],
) -> tuple[str, ...]:
    """Return a sentence for each unit that its records give under none of `policies`.

    These are the policies that were in force when the units were counted.
    """
    faults = [
        fault
        for group in split_by_records(lines)
        for fault in min(
            (
                _find_faults(transaction, replace(state, policy=policy), group)
                for policy in policies
            ),
            key=len,
            default=[],
        )
    ]
    faults += _find_other_series(policies, lines)
    return _describe_faults(transaction, state, faults)


def split_by_records(lines: Iterable[LineT]) -> Iterator[list[LineT]]:
    """Yield groups in which each unit has one set of records.

    The lines of a unit rest on different records where one came in between: in another slot, or in
    the same one, where a second pass counted what a first one had left.
    """
    records_by_unit: dict[int, list[bytes]] = defaultdict(list)
    groups: dict[int, list[LineT]] = defaultdict(list)
    for line in lines:
        records = records_by_unit[line.unit]
        if line.record_hashes not in records:
            records.append(line.record_hashes)
        groups[records.index(line.record_hashes)].append(line)
    yield from groups.values()


def _find_faults(
    transaction: Transaction, state: RolloutState, lines: Sequence[UnitLine]
) -> list[UnitFault]:
    faults = _list_faults(transaction, state, lines)
    if not faults or not state.trained_until:
        return faults
    # an end of training that was recorded later took no unit back that had been counted
    untrained = replace(state, versions={})
    others = _list_faults(transaction, untrained, [line for line, _ in faults])
    line_ids = {id(line) for line, _ in others}
    return [(line, fault) for line, fault in faults if id(line) in line_ids]


def _describe_faults(
    transaction: Transaction, state: RolloutState, faults: Sequence[UnitFault]
) -> tuple[str, ...]:
    case_ids = {line.case_id for line, _ in faults}
    case_keys = ExternalKeys(transaction, state.rollout).find_keys(case_ids) if faults else {}
    return tuple(
        f"the {line.track} unit of case {case_keys.get(line.case_id, f'number {line.case_id}')}"
        f" and version {line.version}, counted in slot {line.slot}: {fault}"
        for line, fault in faults
    )


def _find_other_series(policies: Sequence[Policy], lines: Iterable[UnitLine]) -> list[UnitFault]:
    """Return the units with another series, by whose columns evidence is read, than their own.

    A pass that was interrupted by an edit counts some units under each policy.
    """
    definitions_by_cell: dict[Cell, set[str]] = {}
    faults: list[UnitFault] = []
    for line in lines:
        cell = Cell(line.site, line.window)
        if cell not in definitions_by_cell:
            definitions_by_cell[cell] = {
                compute_definition(policy, cell) if cell in policy.cell_set else ""
                for policy in policies
            }
        *own, definition = line.series
        if own != [line.track, line.version]:
            faults.append((line, f"its series is of {' and '.join(own)}"))
        elif definition not in definitions_by_cell[cell]:
            faults.append((line, "no policy in force has the definition of its series"))
    return faults


def _list_faults(
    transaction: Transaction, state: RolloutState, lines: Sequence[UnitLine]
) -> list[UnitFault]:
    """Return the units that differ from what their records give, each with what differs."""
    hashes = {part for line in lines for part in split_hashes(line.record_hashes)}
    case_ids = {line.case_id for line in lines}
    records = SelectedRecords(hashes, state.first_names)
    frame = resolve_case_units(transaction, state, case_ids, records)
    units = _group_rows(transaction, state, frame.to_dicts())
    class_ids = {number for line in lines for number in loads(line.class_ids)}
    classes = load_classes(transaction, state.rollout, class_ids)
    compared = (
        (line, _compare_unit(line, units.get((line.unit, line.version, line.track)), classes))
        for line in lines
    )
    faults = [(line, fault) for line, fault in compared if fault]
    return faults + _find_other_reviewers(transaction, state, lines, units)


def _find_other_reviewers(
    transaction: Transaction,
    state: RolloutState,
    lines: Sequence[UnitLine],
    units: Mapping[UnitKey, list[Mapping[str, Any]]],
) -> list[UnitFault]:
    """Return the units with another reviewer than their records, by whom gates count reviewers.

    Not those with a name that an erasure replaces at this moment: decisions lose it first.
    """
    faults: list[UnitFault] = []
    for line in lines:
        rows = units.get((line.unit, line.version, line.track))
        if not rows or line.reviewer == (reviewer := rows[0]["reviewer"]):
            continue
        name = line.reviewer or ""
        if not is_name_refused(transaction, state.rollout, name):
            faults.append((line, f"counted with reviewer {name}; its records give {reviewer}"))
    return faults


def _group_rows(
    transaction: Transaction, state: RolloutState, rows: Sequence[Mapping[str, Any]]
) -> Mapping[UnitKey, list[Mapping[str, Any]]]:
    kind = CASE if state.policy.evidence.unit == "case" else EPISODE
    unit_ids = ExternalKeys(transaction, state.rollout, kind).find_ids(
        {row["unit"] for row in rows}
    )
    units: dict[UnitKey, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        if row["unit"] in unit_ids:
            units[unit_ids[row["unit"]], row["version"], row["track"]].append(row)
    return units


def _compare_unit(
    line: UnitLine,
    rows: Sequence[Mapping[str, Any]] | None,
    classes: Mapping[int, ClassValues],
) -> str:
    """Return what differs, or ""."""
    if not rows:
        return "its records give no such unit"
    stored = sorted(map(str, (classes.get(number) for number in loads(line.class_ids))))
    expected = sorted(str(tuple(row[name] for name in CLASS_COLUMNS)) for row in rows)
    if stored != expected:
        return f"counted as {', '.join(stored)}; its records give {', '.join(expected)}"
    if (line.site, line.window) != (rows[0]["site"], rows[0]["window"]):
        return f"counted in {line.site} × {line.window}; that is not the cell of its case"
    if fault := _compare_values(line, rows[0]):
        return fault
    reasons = {line.exclusion_reason, rows[0]["excluded"]}
    if len(reasons) > 1 and reasons.isdisjoint(UNRECORDED_REASONS):
        texts = (reason or "evidence" for reason in (line.exclusion_reason, rows[0]["excluded"]))
        return "counted as {}; its records give {}".format(*texts)
    return ""


def _compare_values(line: UnitLine, row: Mapping[str, Any]) -> str:
    if line.band != row.get("band"):
        return f"counted in confidence band {line.band}; its records give {row.get('band')}"
    values = row.get("attribute_values") or None
    if line.attribute_values != values:
        return f"counted with {line.attribute_values}; its records give {values}"
    return find_slice_fault(line.slices, row["slices"])


def find_slice_fault(stored: str | None, expected: str) -> str:
    """Return what differs in the attributes that both name, or ""."""
    stored_values, values = loads(stored or "{}"), loads(expected or "{}")
    names = [n for n in stored_values if n in values and stored_values[n] != values[n]]
    return f"counted with {stored}; its records give {expected}" if names else ""
