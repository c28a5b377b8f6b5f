"""Evidence of a live rollout, kept in memory, and its recomputation from the raw records.

Evidence is kept from slot to slot. Only cells in which something may follow are evaluated: those
with new units or records, a changed state, or a due time. Replay skips slots by the same agenda.

The recomputation is compared with the ledger. Each record is hashed anew, each unit counted anew
from its records. The units, actions and outcomes of each tick, and the evidence of each proposal,
must give the digest in the ledger. All are read in parts, so memory is bounded; a part that can't
be read is a fault and costs no other part.
"""

from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from heapq import nsmallest
from itertools import groupby
from random import Random, SystemRandom
from typing import Final, TypeVar

from polars.exceptions import PolarsError

from rollout.data.counting.counted_units import (
    CellDigests,
    JustCounted,
    UnitLine,
    compute_digest,
    read_unit_lines,
)
from rollout.data.counting.counts import CountedOutcomes
from rollout.data.counting.unit_records import CountedRecords, RecordLine, count_lines
from rollout.data.database.append_failures import UNREADABLE_ERRORS, describe_unreadable
from rollout.data.database.rollouts import list_rollout_names
from rollout.data.database.session import Database, Transaction
from rollout.data.ledger.ledger import Ledger
from rollout.data.ledger.scopes import EvidenceSnapshot, EvidenceStore, TickSlots
from rollout.data.records.record_check import find_changed_records, find_last_case
from rollout.data.records.record_rows import RECORD_SCHEMAS, ErasedHashes, RecordSchema
from rollout.engine.decide.commands import OpenIncident, Tick
from rollout.engine.decide.decider import decide
from rollout.engine.decide.incident_kinds import EVIDENCE_CHANGED
from rollout.engine.decide.projection import apply_events
from rollout.engine.decide.scope import Scope
from rollout.engine.events import EVENT_TYPES, LedgerEvent
from rollout.engine.evidence.evidence_view import EvidenceView, read_fresh_evidence
from rollout.engine.evidence.outcome_buffer import CountedOutcome, OutcomeBuffer
from rollout.engine.evidence.unit_buffer import HeldEvidence, UnitBuffer, encode_buffers
from rollout.engine.slots.engine import SlotReadings, update_view
from rollout.engine.slots.fast_forward import Agenda, SlotInterest, find_interest
from rollout.kernel.calendar.instants import Cell, CellVersion, to_instant
from rollout.kernel.measures import Watch
from rollout.kernel.policy.cell_evidence import VersionEvidence
from rollout.kernel.policy.policy import Policy
from rollout.live.evidence.counted_check import (
    CountedOutcomeCheck,
    CountedRecordCheck,
    CountedUnitCheck,
)
from rollout.live.evidence.evidence_feeds import LiveGuardFeeds
from rollout.live.evidence.evidence_reader import find_reading_faults, restore_evidence
from rollout.live.evidence.evidence_seals import (
    EvidenceReport,
    SealedSpan,
    SealedSpans,
    find_last_sealed,
)
from rollout.live.evidence.fresh_units import FreshUnitReader
from rollout.live.evidence.stage_history import RolloutHistory
from rollout.live.evidence.unit_counting import find_answered_units
from rollout.live.rollout_state import RolloutState, execute_command, load_rollout_state
from rollout.live.versions import check_training_cutoffs

MIN_NEW_ROWS = 10_000  # which a process reads in about 0.1 s
SNAPSHOTS_PER_DOUBLING = 50  # at most about so many are written until the rows double


class LiveEvidence:
    """Evidence under one policy; `history` and `counted` are shared with the ticker."""

    def __init__(
        self, policy: Policy, scope: Scope, history: RolloutHistory, counted: JustCounted
    ) -> None:
        self._policy, self._history, self._counted = policy, history, counted
        self._units = UnitBuffer(policy, history.find_equivalent_definitions)
        self._outcomes = OutcomeBuffer()
        self._feeds = LiveGuardFeeds(self._outcomes)
        self._agenda = Agenda(policy, self._find_interest)
        self._evidence_views: dict[CellVersion, EvidenceView] = {}
        self._last_slot = -1
        self._snapshot_rows = 0
        self._track_keys(
            (key for key, cell_state in scope.cells.items() if cell_state.grants), scope
        )

    def apply_events(self, events: Iterable[LedgerEvent], scope: Scope) -> None:
        """Apply the next events; `scope` already includes them."""
        self._agenda.apply_events(events)
        self._track_keys({*self._units, *self._outcomes.list_keys()}, scope)

    def _track_keys(self, keys: Iterable[CellVersion], scope: Scope) -> None:
        policy_cells = self._policy.cell_set
        self._agenda.add_keys(
            key for key in keys if key[0] in policy_cells and key[1] in scope.versions
        )

    def load_slot(self, transaction: Transaction, state: RolloutState, slot: int) -> None:
        """Load the units up to a slot, and new records for guards."""
        if self._last_slot < 0:
            self._restore_snapshot(transaction, state, slot)
        if self._last_slot < slot:
            self._load_outcomes(CountedOutcomes(transaction, state.rollout), state, slot)
            self._load_counted_units(transaction, state, slot)
        self._invalidate_cells(self._history.advance_to(slot - 1, state.scope))
        at = to_instant(slot, self._policy.tick)
        if self._feeds.is_stale(at):
            self._feeds = LiveGuardFeeds(self._outcomes)
        arrival_sites = self._feeds.load_arrivals(transaction, state, at)
        self._invalidate_sites(arrival_sites)
        due_cells = self._agenda.list_due_cells(state.scope, slot)
        silence_sites = self._list_silence_sites(state.scope, due_cells, arrival_sites)
        self._invalidate_sites(self._feeds.load_heartbeats(transaction, state, silence_sites, at))

    def _restore_snapshot(self, transaction: Transaction, state: RolloutState, slot: int) -> None:
        self._last_slot = restore_evidence(
            transaction, state, self._units, self._outcomes, until=slot
        )
        self._snapshot_rows = self._units.row_count + self._outcomes.row_count
        self._track_keys({*self._units, *self._outcomes.list_keys()}, state.scope)

    def encode_if_due(self, revision: int) -> EvidenceSnapshot | None:
        """Return a snapshot at a revision, or None while few units are new since the last one."""
        row_count = self._units.row_count + self._outcomes.row_count
        if row_count - self._snapshot_rows < max(MIN_NEW_ROWS, row_count // SNAPSHOTS_PER_DOUBLING):
            return None
        self._snapshot_rows = row_count
        body = encode_buffers(self._units, self._outcomes)
        return EvidenceSnapshot(revision, self._last_slot, body)

    @property
    def memory(self) -> HeldEvidence:
        """Return what is in memory of counted units and outcomes."""
        return HeldEvidence(self._units, self._outcomes, self._last_slot)

    @property
    def feeds(self) -> LiveGuardFeeds:
        """Return what guards read besides decisions."""
        return self._feeds

    def _load_outcomes(self, outcomes: CountedOutcomes, state: RolloutState, slot: int) -> None:
        if self._policy.outcomes:
            lines = outcomes.read_lines(after=self._last_slot, until=slot)
            changed_keys = self._outcomes.add(lines)
            self._track_keys(changed_keys, state.scope)
            self._invalidate_cells(cell for cell, _ in changed_keys)

    def _load_counted_units(self, transaction: Transaction, state: RolloutState, slot: int) -> None:
        for units in self._counted.load_units(
            transaction, state.rollout, after=self._last_slot, until=slot
        ):
            changed_keys = self._units.add(units)
            self._track_keys(changed_keys, state.scope)
            self._invalidate_cells(cell for cell, _ in changed_keys)
        self._last_slot = slot

    def _list_silence_sites(
        self, scope: Scope, due_cells: Collection[Cell], arrival_sites: Collection[str]
    ) -> set[str]:
        """Return the sites whose new signs of life matter in this slot.

        Known signs give the slot in which more are missed; later ones matter then, and when a case
        came, after which signs of life have to go on.
        """
        sites = {cell.site for cell in due_cells if self._has_heartbeat_guard(cell)}
        granted_cells = (cell for (cell, _), cell_state in scope.cells.items() if cell_state.grants)
        watched_sites = {
            cell.site
            for cell in granted_cells
            if cell in self._policy.cell_set and self._has_heartbeat_guard(cell)
        }
        return sites | {
            site
            for site in watched_sites
            if site in arrival_sites or not self._feeds.has_sign_interval(site)
        }

    def _has_heartbeat_guard(self, cell: Cell) -> bool:
        guards = self._policy.list_guards(cell)
        return any(guard.condition.measure.watch is Watch.SIGNS for guard in guards)

    def _invalidate_sites(self, sites: Collection[str]) -> None:
        windows = [window.id for window in self._policy.windows]
        self._invalidate_cells(Cell(site, window) for site in sites for window in windows)

    def _invalidate_cells(self, cells: Iterable[Cell]) -> None:
        cell_set = set(cells)
        for cell in cell_set:
            self._agenda.forget_cell(cell)
        if cell_set:
            self._evidence_views = {
                key: evidence_view
                for key, evidence_view in self._evidence_views.items()
                if key[0] not in cell_set
            }

    def decide_slot(
        self,
        state: RolloutState,
        slot: int,
        now: datetime,
        transaction: Transaction,
        *,
        narrow_only: bool,
    ) -> tuple[LedgerEvent, ...]:
        """Return the events of a loaded slot, written at `now`, the time of the pass.

        What is not counted yet is read where it matters.
        """
        due_cells = self._agenda.list_due_cells(state.scope, slot)
        fresh_units = FreshUnitReader(transaction, state, self._history, slot)
        events = self._decide_cells(
            state, slot, now, due_cells, fresh_units, transaction, narrow_only=narrow_only
        )
        pending_keys = self._agenda.held_keys
        self._evidence_views = {
            key: evidence_view
            for key, evidence_view in self._evidence_views.items()
            if key in pending_keys
        }
        return events

    def _decide_cells(
        self,
        state: RolloutState,
        slot: int,
        at: datetime,
        cells: Collection[Cell],
        fresh_units: FreshUnitReader,
        transaction: Transaction,
        *,
        narrow_only: bool,
    ) -> tuple[LedgerEvent, ...]:
        """Evaluate `cells` and every cell affected by the resulting events."""
        keys = sorted(key for cell in cells for key in self._agenda.get_keys(cell))
        views = {key: self._get_evidence_view(key, state.scope) for key in keys}
        evidence = SlotReadings(views, lambda key: views[key].read_evidence(slot))
        slot_start = to_instant(slot, self._policy.tick)
        if narrow_only:
            tick = Tick(at=at, evidence=evidence, slot=slot_start)
            return _decide_narrowing(tick, state.scope, self._policy)
        tick = Tick(
            at=at,
            evidence=evidence,
            fresh=SlotReadings(
                views,
                lambda key: read_fresh_evidence(views[key], slot, fresh_units.read_units(key)),
            ),
            pending_policies=state.pending,
            find_answered=partial(find_answered_units, transaction, state, at),
            slot=slot_start,
        )
        events = decide(tick, state.scope, self._policy)
        if not events:
            return events
        affected_cells = self._agenda.find_affected_cells(
            events, apply_events(events, state.scope), slot
        )
        if affected_cells.issubset(cells):
            return events
        all_cells = affected_cells.union(cells)
        return self._decide_cells(
            state, slot, at, all_cells, fresh_units, transaction, narrow_only=False
        )

    def _find_interest(self, key: CellVersion, scope: Scope, slot: int) -> SlotInterest:
        cell_interest = find_interest(self._get_evidence_view(key, scope), scope, slot)
        if cell_interest.slot != slot and not cell_interest.is_held_by_wave:
            del self._evidence_views[key]  # views are large, and this one isn't needed now
        return cell_interest

    def _get_evidence_view(self, key: CellVersion, scope: Scope) -> EvidenceView:
        cell, version = key
        cell_state = scope.get_cell_state(cell, version)
        familiar_history = self._history.familiar_histories[key]
        stage_history = self._history.get_stage_history(cell)
        evidence_view = update_view(
            self._evidence_views.get(key),
            cell_state,
            stage_history,
            familiar_history,
        )
        if evidence_view is None:
            evidence_view = EvidenceView(
                cell=cell,
                version=version,
                rows=self._units.get_rows(key),
                unit_classes=self._units.unit_classes,
                policy=self._policy,
                state=cell_state,
                first_seen=scope.versions[version].first_seen,
                stage_history=stage_history,
                shares=self._history.stage_shares,
                find_buckets=lambda rows: rows.unit,  # stored units hold their bucket
                feeds=self._feeds,
                familiar_history=familiar_history,
            )
        self._evidence_views[key] = evidence_view
        return evidence_view


def _decide_narrowing(tick: Tick, scope: Scope, policy: Policy) -> tuple[LedgerEvent, ...]:
    """Return only events that narrow: alarms, expiries and voided proposals.

    No approval counts, no guard counts as recovered, and no value becomes familiar.
    """
    pessimistic = _PessimisticEvidence(tick.evidence)
    events = decide(replace(tick, evidence=pessimistic, narrow_only=True), scope, policy)
    return tuple(event for event in events if not event.widens)


class _PessimisticEvidence(Mapping[CellVersion, VersionEvidence]):
    """Evidence in which no guard counts as recovered."""

    def __init__(self, evidence: Mapping[CellVersion, VersionEvidence]) -> None:
        self._evidence = evidence

    def __getitem__(self, key: CellVersion) -> VersionEvidence:
        cell_evidence = self._evidence[key]
        guards = {
            guard_id: replace(guard_reading, good_since=None)
            for guard_id, guard_reading in cell_evidence.guards.items()
        }
        return replace(cell_evidence, guards=guards)

    def __iter__(self) -> Iterator[CellVersion]:
        return iter(self._evidence)

    def __len__(self) -> int:
        return len(self._evidence)


def find_head_faults(transaction: Transaction, state: RolloutState) -> Iterator[str]:
    """Yield a sentence if no tick can have left the last slot of evidence, or of ticks.

    A later one would keep units that are counted from now on out of evidence, an earlier one would
    add units to slots that a tick has sealed. Read in this order, a tick that runs meanwhile makes
    no fault.
    """
    sealed_slot = max(find_last_sealed(transaction, state), 0)
    last_slot = EvidenceStore(transaction, state.rollout).get_last_slot()
    claim = TickSlots(transaction, state.rollout).load_last_claim()
    claimed_slot = 0 if claim is None else claim[0]
    if not sealed_slot <= last_slot <= claimed_slot:
        yield (
            f"evidence_heads: the last slot of evidence is {last_slot}; the ledger has a digest"
            f" through slot {sealed_slot}, and the last tick began slot {claimed_slot}"
        )
    if claim is not None and to_instant(claimed_slot, state.policy.tick) > claim[1]:
        yield (
            f"tick_slots: slot {claimed_slot} begins after {claim[1].isoformat()}, when a tick"
            " claimed it; until then no tick runs"
        )


CASES_PER_READ: Final = 2_000
MAX_SAMPLED_LINES: Final = 5_000
UNREADABLE: Final = (*UNREADABLE_ERRORS, PolarsError)
"""Also what a frame of records refuses: an edited text of another type, for example."""
LINES_PER_RUN: Final = 2_000
ERASING_KINDS: Final = frozenset(n for n, kind in EVENT_TYPES.items() if kind.removes_records)
LineRuns = tuple[range, ...]
"""Positions among the units, the records and the outcomes of a span."""
LineT = TypeVar("LineT", UnitLine, RecordLine, CountedOutcome)


class EvidenceCheck:
    """One check of a rollout's evidence."""

    def __init__(self, database: Database, rollout_name: str) -> None:
        """Load the state and the ledger's seals.

        Raises:
            NoSuchRolloutError: there is no such rollout.
        """
        self._database, self._report = database, EvidenceReport()
        self._cell_digests, self._is_complete = CellDigests(), True
        with database.begin_read() as transaction:
            self._state = load_rollout_state(transaction, rollout_name)
        self._spans = SealedSpans(database, self._state)

    def check_all(self) -> EvidenceReport:
        """Check every record, unit, digest and erasure."""
        self._check_all_records()
        self._count_unsealed()
        self._check_erasures()
        self._check_decisive_rows()
        self._check_all_spans()
        self._check_readings()
        return self._report

    def _check_all_spans(self) -> None:
        try:
            for spans in self._spans.iterate_parts():
                self._check_spans(spans, is_whole=True)
        except UNREADABLE as error:
            self._report.add_faults([f"seals in the ledger: {describe_unreadable(error)}"])

    def check_sample(self, span_count: int, random: Random) -> EvidenceReport:
        """Check some ticks, with the records of their cases.

        Of a tick of more than `MAX_SAMPLED_LINES` units, actions and outcomes, as after an import,
        a random run of each is checked. The rest and its digest are left to `check_all`.
        """
        self._check_decisive_rows()
        for span in self._draw_spans(span_count, random):
            try:
                case_ids = self._check_drawn_span(span, random)
            except UNREADABLE as error:
                self._report.add_faults([_describe_unreadable_span([span], error)])
                continue
            for start in range(0, len(case_ids), CASES_PER_READ):
                for schema in RECORD_SCHEMAS.values():
                    self._check_records(schema, case_ids[start : start + CASES_PER_READ])
        return self._report

    def _draw_spans(self, span_count: int, random: Random) -> list[SealedSpan]:
        """Return some sealed spans, each as likely as any other."""
        drawn: list[tuple[float, int, SealedSpan]] = []
        for part in self._spans.iterate_parts():
            drawn += (
                (random.random(), span.revision, span) for span in part if span.event is not None
            )
            drawn = nsmallest(span_count, drawn)
        return [span for _, _, span in drawn]

    def _check_drawn_span(self, span: SealedSpan, random: Random) -> list[int]:
        """Check a tick, or runs of a large one; return the cases of what was checked."""
        with self._database.begin_read() as transaction:
            sizes = count_lines(
                transaction, self._state.rollout, after=span.after, until=span.until
            )
        runs = None
        if sum(sizes) > MAX_SAMPLED_LINES:
            runs = tuple(_draw_run(size, random) for size in sizes)
            self._report.large_ticks += 1
            self._report.unread_lines += sum(sizes) - sum(map(len, runs))
        self._check_spans([span], is_whole=False, runs=runs)
        with self._database.begin_read() as transaction:
            parts = _read_parts(transaction, self._state, [span], runs)
            return sorted({line.case_id for part in parts for line in part})

    def _check_all_records(self) -> None:
        for schema in RECORD_SCHEMAS.values():
            try:
                with self._database.begin_read() as transaction:
                    last_case = find_last_case(transaction, self._state.rollout, schema)
            except UNREADABLE as error:
                self._report.add_faults([f"{schema.table.name}: {describe_unreadable(error)}"])
                continue
            for start in range(0, last_case + 1, CASES_PER_READ):
                self._check_records(schema, range(start, start + CASES_PER_READ))

    def _check_records(self, schema: RecordSchema, case_ids: Collection[int]) -> None:
        """Hash the records of one kind and some cases anew."""
        try:
            with self._database.begin_read() as transaction:
                count, faults = find_changed_records(
                    transaction, self._state.rollout, schema, case_ids
                )
        except UNREADABLE as error:
            place = f"{schema.table.name}, cases {min(case_ids)} to {max(case_ids)}"
            self._report.add_faults([f"{place}: {describe_unreadable(error)}"])
            return
        self._report.records += count
        self._report.add_faults(faults)

    def _count_unsealed(self) -> None:
        try:
            with self._database.begin_read() as transaction:
                others = CountedRecords(transaction, self._state.rollout)
                self._report.unsealed_records = others.count_unsealed()
        except UNREADABLE as error:
            self._report.add_faults([f"actions and outcomes: {describe_unreadable(error)}"])

    def _check_erasures(self) -> None:
        """Compare the hashes that each purge or erasure took with its event."""
        with self._database.begin_read() as transaction:
            erased_hashes = ErasedHashes(transaction, self._state.rollout)
            ledger = Ledger(transaction, self._state.rollout)
            rows = ledger.list_rows(kinds=ERASING_KINDS)
            revisions = {*erased_hashes.list_revisions(), *(row.revision for row in rows)}
            for revision in sorted(revisions):
                event = next(ledger.list_events(after=revision - 1, until=revision), None)
                digest = "" if event is None else event.removed_digest
                if digest != erased_hashes.compute_digest(revision):
                    self._report.add_faults(
                        [f"the hashes that event {revision} erased are not those of its digest"]
                    )

    def _check_decisive_rows(self) -> None:
        """Compare the rows that decide which units are evidence with the ledger."""
        try:
            with self._database.begin_read() as transaction:
                check_training_cutoffs(transaction, self._state.rollout, self._report)
                self._report.add_faults(find_head_faults(transaction, self._state))
        except UNREADABLE as error:
            text = describe_unreadable(error)
            self._report.add_faults([f"training cutoffs, last slot of evidence: {text}"])

    def _check_readings(self) -> None:
        """Read the evidence of each proposal anew."""
        try:
            with self._database.begin_read() as transaction:
                self._report.add_faults(find_reading_faults(transaction, self._state))
        except UNREADABLE as error:
            self._report.add_faults([f"readings of proposals: {describe_unreadable(error)}"])

    def _check_spans(
        self, spans: Sequence[SealedSpan], *, is_whole: bool, runs: LineRuns | None = None
    ) -> None:
        """Check some spans, or `runs` of the only one, which has no digest of their own."""
        try:
            with self._database.begin_read() as transaction:
                units = CountedUnitCheck(transaction, self._state, self._report)
                others = CountedRecordCheck(transaction, self._state, self._report)
                values = CountedOutcomeCheck(transaction, self._state, self._report)
                groups = _group_by_span(transaction, self._state, spans, runs)
                digests = self._cell_digests
                for span, lines, records, outcomes in groups:
                    digest = compute_digest(
                        _hand_on(units.pass_lines(lines, span.policies), digests.add_line),
                        others.pass_lines(records, ()),
                        _hand_on(values.pass_lines(outcomes, span.policies), digests.add_outcome),
                    )
                    if runs is None:
                        self._compare_digest(span, digest)
                    if is_whole:
                        self._compare_proposals(span)
                units.finish()
                others.finish()
                values.finish()
        except UNREADABLE as error:
            self._is_complete = False  # later digests of cells cover these units too
            self._report.add_faults([_describe_unreadable_span(spans, error)])

    def _compare_digest(self, span: SealedSpan, digest: str) -> None:
        if span.event is not None and span.event.sealed_digest != digest:
            slots = f"slots {span.after + 1} to {span.until}"
            self._report.add_faults(
                [f"the units, actions and outcomes of {slots} are not those of the tick's digest"]
            )

    def _compare_proposals(self, span: SealedSpan) -> None:
        for event in span.proposals if self._is_complete else ():
            if event.cell is None or not event.records_digest:
                continue
            if event.records_digest != self._cell_digests.get_digest(event.cell, event.version):
                name = f"proposal {event.proposal} of {event.cell}"
                self._report.add_faults([f"{name}: the evidence is not that of its digest"])


def _hand_on(lines: Iterable[LineT], receive: Callable[[LineT], None]) -> Iterator[LineT]:
    """Yield the lines, each after it was received."""
    for line in lines:
        receive(line)
        yield line


def _draw_run(size: int, random: Random) -> range:
    """Return up to `LINES_PER_RUN` neighbouring positions; each is as likely as any other."""
    if size <= LINES_PER_RUN:
        return range(size)
    start = random.randrange(1 - LINES_PER_RUN, size)  # runs over either end are cut
    return range(max(start, 0), min(start + LINES_PER_RUN, size))


def _describe_unreadable_span(spans: Sequence[SealedSpan], error: Exception) -> str:
    last_slot = "the last" if spans[-1].event is None else spans[-1].until
    return f"units of slots {spans[0].after + 1} to {last_slot}: {describe_unreadable(error)}"


def _group_by_span(
    transaction: Transaction,
    state: RolloutState,
    spans: Sequence[SealedSpan],
    runs: LineRuns | None,
) -> Iterator[
    tuple[SealedSpan, Iterable[UnitLine], Iterable[RecordLine], Iterable[CountedOutcome]]
]:
    """Yield each span with its units, records and outcomes; read all before the next, in order."""
    units, records, outcomes = _read_parts(transaction, state, spans, runs)
    ends = [span.until for span in spans]
    parts = (_split_at(ends, units), _split_at(ends, records), _split_at(ends, outcomes))
    yield from zip(spans, *parts, strict=True)


def _read_parts(
    transaction: Transaction,
    state: RolloutState,
    spans: Sequence[SealedSpan],
    runs: LineRuns | None,
) -> tuple[Iterator[UnitLine], Iterator[RecordLine], Iterator[CountedOutcome]]:
    """Return the units, records and outcomes of neighbouring spans, or runs of them."""
    after, until, rollout = spans[0].after, spans[-1].until, state.rollout
    unit_run, record_run, outcome_run = runs or (None, None, None)
    others, values = CountedRecords(transaction, rollout), CountedOutcomes(transaction, rollout)
    return (
        read_unit_lines(transaction, rollout, after=after, until=until, positions=unit_run),
        others.read_lines(after=after, until=until, positions=record_run),
        values.read_lines(after=after, until=until, positions=outcome_run),
    )


def _split_at(ends: Sequence[int], lines: Iterable[LineT]) -> Iterator[Iterable[LineT]]:
    """Yield the lines up to each slot; read them before the next."""
    groups = groupby(lines, key=lambda line: bisect_left(ends, line.slot))
    group = next(groups, None)
    for position in range(len(ends)):
        if group is not None and group[0] == position:
            yield group[1]
            group = next(groups, None)
        else:
            yield ()


TICKS_PER_SAMPLE: Final = 20


def sample_evidence(database: Database, at: datetime) -> dict[str, EvidenceReport]:
    """Check some ticks of each rollout; return the results with differences, by rollout.

    A difference opens an incident, unless one is open. The ticks differ each time, and nobody can
    tell which come next.
    """
    rollout_names = list_rollout_names(database)
    reports: dict[str, EvidenceReport] = {}
    for rollout_name in rollout_names:
        report = EvidenceCheck(database, rollout_name).check_sample(
            TICKS_PER_SAMPLE, SystemRandom()
        )
        if report.faults:
            reports[rollout_name] = report
            _open_incident(database, rollout_name, report.faults[0], at)
    return reports


def _open_incident(database: Database, rollout_name: str, reason: str, at: datetime) -> None:
    command = OpenIncident(at=at, kind=EVIDENCE_CHANGED.name, reason=reason)
    execute_command(database, rollout_name, lambda _: command)
