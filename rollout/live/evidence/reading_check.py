"""Read the evidence of each proposal and alarm anew, from the counted units and the ledger.

The readings of a proposal hold its counts and e-values, an alarm the counts at which its guard's
e-process crossed. Both follow from the units counted by their slot, the scope before their tick and
the stages of the cell.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby, islice
from typing import Final

from rollout.data.counting.counted_outcomes import LINES_PER_READ, CountedOutcomes
from rollout.data.counting.counted_units import CellVersion, CountedUnits
from rollout.data.database.rollouts import Rollout
from rollout.data.database.session import Transaction
from rollout.data.ledger.ledger import Ledger
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
    DefinitionLevels,
    UnitBuffer,
)
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.facts import StoredAlarm
from rollout.kernel.policy.cell_evidence import EvidenceCounts, VersionEvidence
from rollout.kernel.policy.confidence_floors import find_floor_index
from rollout.kernel.policy.gates import GateReading, read_gate, read_renewal
from rollout.kernel.policy.policy import Guard, Policy
from rollout.kernel.words import say_against, say_alarms, say_reading
from rollout.live.evidence.evidence_reader import GateFeeds
from rollout.live.evidence.evidence_seals import load_policies
from rollout.live.evidence.stage_history import RolloutHistory
from rollout.live.rollout_state import RolloutState

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
