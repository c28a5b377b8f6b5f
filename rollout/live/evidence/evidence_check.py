"""Recompute the evidence of a rollout from its raw records and compare it with the ledger.

Each record is hashed anew. Each unit is counted anew from the records whose hashes it holds; those
that a purge or an erasure took must stand in its event. The units, actions and outcomes of each
tick, and the evidence of each proposal, must give the digest in the ledger. All are read in parts,
so memory is bounded; a part that can't be read is a fault and costs no other part.

Compare what was counted with its records, for the check of evidence.
"""

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from datetime import datetime
from heapq import nsmallest
from itertools import groupby
from random import Random, SystemRandom
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from polars.exceptions import PolarsError

from rollout.data.counting.counted_outcomes import CountedOutcomes
from rollout.data.counting.counted_units import (
    CellDigests,
    UnitLine,
    compute_digest,
    read_unit_lines,
)
from rollout.data.counting.unit_records import (
    CountedRecords,
    RecordLine,
    SelectedOutcomeRecords,
    count_lines,
)
from rollout.data.database.errors import UNREADABLE_ERRORS, describe_unreadable
from rollout.data.database.rollouts import Rollout, Rollouts
from rollout.data.database.session import Database, Transaction
from rollout.data.ledger.evidence_snapshots import EvidenceStore
from rollout.data.ledger.ledger import Ledger
from rollout.data.ledger.tick_slots import TickSlots
from rollout.data.records.external_keys import ExternalKeys
from rollout.data.records.record_check import find_changed_records, find_last_case
from rollout.data.records.record_rows import (
    RECORD_SCHEMAS,
    ErasedHashes,
    RecordSchema,
    find_stored_hashes,
    load_case_hashes,
    split_hashes,
)
from rollout.engine.decide.commands import OpenIncident
from rollout.engine.decide.incident_kinds import EVIDENCE_CHANGED
from rollout.engine.events import EVENT_TYPES
from rollout.engine.evidence.outcome_buffer import CountedOutcome
from rollout.engine.evidence.slots import to_instant
from rollout.engine.evidence.unit_arrays import IntArray
from rollout.kernel.policy.policy import Policy
from rollout.live.command_handler import execute_command
from rollout.live.evidence.due_counting import open_unit_keys, resolve_outcome_lines
from rollout.live.evidence.evidence_report import EvidenceReport
from rollout.live.evidence.evidence_seals import SealedSpan, SealedSpans, find_last_sealed
from rollout.live.evidence.held_evidence_check import (
    find_reading_faults,
    recount_units,
    split_by_records,
)
from rollout.live.evidence.unit_counting import add_unit_cases, open_stored_history
from rollout.live.rollout_state import RolloutState, load_rollout_state
from rollout.live.versions import check_training_cutoffs

RECORDS_PER_CHECK: Final = 2_000


class CountedRecordCheck:
    """Checks counted actions and outcomes in batches, so that memory is bounded."""

    def __init__(self, transaction: Transaction, rollout: Rollout, report: EvidenceReport) -> None:
        self._transaction, self._rollout, self._report = transaction, rollout, report
        self._lines: list[RecordLine] = []

    def pass_lines(self, lines: Iterable[RecordLine]) -> Iterator[RecordLine]:
        """Yield the lines, which are also checked."""
        for line in lines:
            if len(self._lines) == RECORDS_PER_CHECK:
                self.finish()
            self._lines.append(line)
            yield line

    def finish(self) -> None:
        """Check the lines that were passed on."""
        lines, self._lines = self._lines, []
        if not lines:
            return
        self._report.other_records += len(lines)
        case_ids = {line.case_id for line in lines}
        stored_hashes = {
            row.hash for row in load_case_hashes(self._transaction, self._rollout, case_ids)
        }
        missing = [line for line in lines if line.record_hash not in stored_hashes]
        if missing:
            self._explain_missing(missing)

    def _explain_missing(self, lines: Sequence[RecordLine]) -> None:
        """Find the events that erased records; the others are faults."""
        case_ids = {line.case_id for line in lines}
        erased_hashes = ErasedHashes(self._transaction, self._rollout).load_by_case(case_ids)
        case_keys = ExternalKeys(self._transaction, self._rollout).find_keys(case_ids)
        for line in lines:
            if line.record_hash in erased_hashes:
                self._report.erased_records += 1
                self._report.erasures.add(erased_hashes[line.record_hash])
            else:
                case_key = case_keys.get(line.case_id, f"number {line.case_id}")
                self._report.add_faults([_describe_missing(line, case_key)])


def _describe_missing(line: RecordLine, case_key: str) -> str:
    return (
        f"the {line.kind} of case {case_key}, counted in slot {line.slot}: it changed or is "
        f"missing, and no event erased it (hash {line.record_hash.hex()[:12]}…)"
    )


UNITS_PER_COUNT: Final = 2_000


class CountedUnitCheck:
    """Checks units in batches: the records behind them, and the count."""

    def __init__(
        self, transaction: Transaction, state: RolloutState, report: EvidenceReport
    ) -> None:
        self._transaction, self._state, self._report = transaction, state, report
        self._lines: list[UnitLine] = []
        self._span: SealedSpan | None = None

    def add(self, line: UnitLine, span: SealedSpan) -> None:
        """Add a unit that was counted under one of the span's policies."""
        has_other_policies = self._span is not None and span.policies is not self._span.policies
        if len(self._lines) == UNITS_PER_COUNT or has_other_policies:
            self.finish()
        self._span = span
        self._lines.append(line)

    def finish(self) -> None:
        """Check the units that were added."""
        lines, self._lines = self._lines, []
        if self._span is None or not lines:
            return
        policies = self._span.policies
        intact_lines = list(self._filter_intact(lines, policies))
        self._report.units += len(intact_lines)
        faults = recount_units(self._transaction, self._state, policies, intact_lines)
        self._report.add_faults(faults)

    def _filter_intact(
        self, lines: Sequence[UnitLine], policies: Sequence[Policy]
    ) -> Iterator[UnitLine]:
        """Yield the units with all their records; report the others."""
        case_ids = {line.case_id for line in lines}
        for policy in policies:
            history = open_stored_history(self._transaction, replace(self._state, policy=policy))
            case_ids |= add_unit_cases(history, policy, case_ids)
        rollout = self._state.rollout
        stored_hashes = {row.hash for row in load_case_hashes(self._transaction, rollout, case_ids)}
        unstored = {part for line in lines for part in split_hashes(line.record_hashes)}
        unstored -= stored_hashes
        revisions = ErasedHashes(self._transaction, rollout).find_revisions(unstored, case_ids)
        stored_hashes |= _find_beside_erased(
            self._transaction, rollout, lines, unstored, revisions.keys()
        )
        for line in lines:
            missing = [
                part for part in split_hashes(line.record_hashes) if part not in stored_hashes
            ]
            if not missing:
                yield line
            elif all(part in revisions for part in missing):
                self._report.erased_units += 1
                self._report.erasures |= {revisions[part] for part in missing}
            else:
                self._report.add_faults([self._describe_missing(line, missing)])

    def _describe_missing(self, line: UnitLine, missing: Sequence[bytes]) -> str:
        case_keys = ExternalKeys(self._transaction, self._state.rollout).find_keys({line.case_id})
        case_key = case_keys.get(line.case_id, f"number {line.case_id}")
        return (
            f"the {line.track} unit of case {case_key} and version {line.version}, counted in slot "
            f"{line.slot}: {len(missing)} of its records changed or are missing, and no event "
            f"erased them (hash {missing[0].hex()[:12]}…)"
        )


UNITS_PER_CHECK: Final = 500
COMPARED: Final = (
    *("occurred", "site", "window", "definition", "drawn", "score", "known_share"),
    *("sources", "source_fault"),
)
OutcomeKey = tuple[int, str, str]


class CountedOutcomeCheck:
    """Checks counted outcomes in batches, so that memory is bounded."""

    def __init__(
        self, transaction: Transaction, state: RolloutState, report: EvidenceReport
    ) -> None:
        self._transaction, self._state, self._report = transaction, state, report
        self._lines: list[CountedOutcome] = []
        self._policies: tuple[Policy, ...] = ()

    def pass_lines(
        self, lines: Iterable[CountedOutcome], policies: tuple[Policy, ...]
    ) -> Iterator[CountedOutcome]:
        """Yield the lines, which were counted under one of `policies` and are also checked."""
        for line in lines:
            if len(self._lines) == UNITS_PER_CHECK or policies is not self._policies:
                self.finish()
            self._policies = policies
            self._lines.append(line)
            yield line

    def finish(self) -> None:
        """Check the lines that were passed on."""
        lines, self._lines = self._lines, []
        if lines:
            intact_lines = list(self._filter_intact(lines))
            self._report.units += len(intact_lines)
            for group in split_by_records(intact_lines):
                self._report.add_faults(self._find_faults(group))

    def _filter_intact(self, lines: Sequence[CountedOutcome]) -> Iterator[CountedOutcome]:
        """Yield the units with all their records; report the others."""
        rollout, case_ids = self._state.rollout, self._list_cases(lines)
        stored_hashes = {row.hash for row in load_case_hashes(self._transaction, rollout, case_ids)}
        missing = {part for line in lines for part in split_hashes(line.record_hashes)}
        missing -= stored_hashes
        revisions = ErasedHashes(self._transaction, rollout).find_revisions(missing, case_ids)
        missing -= _find_beside_erased(self._transaction, rollout, lines, missing, revisions.keys())
        for line in lines:
            parts = missing.intersection(split_hashes(line.record_hashes))
            if not parts:
                yield line
            elif parts <= revisions.keys():
                self._report.erased_units += 1
                self._report.erasures |= {revisions[part] for part in parts}
            else:
                text = f"{len(parts)} of its records changed or are missing, and no event erased"
                self._report.add_faults([f"{self._name_unit(line)}: {text} them"])

    def _list_cases(self, lines: Sequence[CountedOutcome]) -> set[int]:
        case_ids = {line.case_id for line in lines}
        for policy in self._policies:
            history = open_stored_history(self._transaction, replace(self._state, policy=policy))
            case_ids |= add_unit_cases(history, policy, case_ids)
        return case_ids

    def _find_faults(self, lines: Sequence[CountedOutcome]) -> Sequence[str]:
        """Return a sentence for each unit that its records give under none of the policies."""
        faults_by_policy = (
            list(self._compare_units(replace(self._state, policy=policy), lines))
            for policy in self._policies
        )
        return min(faults_by_policy, key=len, default=[])

    def _compare_units(self, state: RolloutState, lines: Sequence[CountedOutcome]) -> Iterator[str]:
        expected = _resolve_again(self._transaction, state, lines)
        for line in lines:
            unit = expected.get((line.unit, line.version, line.outcome))
            if fault := _compare_unit(line, unit):
                yield f"{self._name_unit(line)}: {fault}"

    def _name_unit(self, line: CountedOutcome) -> str:
        keys = ExternalKeys(self._transaction, self._state.rollout).find_keys({line.case_id})
        case_key = keys.get(line.case_id, f"number {line.case_id}")
        return (
            f"the {line.outcome} of case {case_key} and version {line.version}, counted in slot "
            f"{line.slot}"
        )


def _find_beside_erased(
    transaction: Transaction,
    rollout: Rollout,
    lines: Iterable[UnitLine | CountedOutcome],
    unstored: AbstractSet[bytes],
    erased: AbstractSet[bytes],
) -> set[bytes]:
    """Return the hashes of other cases' records in units of which a case was erased.

    Where it was the one that names the unit, nothing tells which other cases its episode had.
    """
    near, unexplained = set[int](), set[bytes]()
    for line in lines:
        parts = unstored & set(split_hashes(line.record_hashes))
        if not parts.isdisjoint(erased) and not parts <= erased:
            near.add(line.case_id)
            unexplained |= parts - erased
    return find_stored_hashes(transaction, rollout, unexplained, near) if near else set()


def _resolve_again(
    transaction: Transaction, state: RolloutState, lines: Sequence[CountedOutcome]
) -> Mapping[OutcomeKey, CountedOutcome]:
    hashes = {part for line in lines for part in split_hashes(line.record_hashes)}
    records = SelectedOutcomeRecords(hashes, state.first_names)
    case_ids = {line.case_id for line in lines}
    finders = (_omit_buckets, open_unit_keys(transaction, state).find_ids)
    # an end of training that was recorded later took no unit back that had been counted
    state = replace(state, versions={})
    units = resolve_outcome_lines(transaction, state, case_ids, records, *finders)
    return {(unit.unit, unit.version, unit.outcome): unit for unit in units}


def _omit_buckets(occurred: IntArray, _values: NDArray[np.float64]) -> IntArray:
    """Return zeros: buckets follow from the policies of their time, and are not compared."""
    return np.zeros(len(occurred), dtype=np.int64)


def _compare_unit(line: CountedOutcome, unit: CountedOutcome | None) -> str:
    """Return what differs, or ""."""
    if unit is None:
        return "its records give no such unit"
    if unit.slot > line.slot:
        return f"its deadline passes in slot {unit.slot}"
    for name in COMPARED:
        stored, expected = getattr(line, name), getattr(unit, name)
        if stored != expected:
            return f"counted with {name} {stored}; its records give {expected}"
    return ""


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
                others = CountedRecordCheck(transaction, self._state.rollout, self._report)
                values = CountedOutcomeCheck(transaction, self._state, self._report)
                groups = _group_by_span(transaction, self._state, spans, runs)
                for span, lines, records, outcomes in groups:
                    passed = self._pass_lines(units, span, lines)
                    digest = compute_digest(
                        passed,
                        others.pass_lines(records),
                        self._pass_outcomes(values, span, outcomes),
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

    def _pass_lines(
        self, units: CountedUnitCheck, span: SealedSpan, lines: Iterable[UnitLine]
    ) -> Iterator[UnitLine]:
        """Yield a span's units, which are also checked."""
        for line in lines:
            self._cell_digests.add_line(line)
            units.add(line, span)
            yield line

    def _pass_outcomes(
        self, values: CountedOutcomeCheck, span: SealedSpan, lines: Iterable[CountedOutcome]
    ) -> Iterator[CountedOutcome]:
        """Yield a span's units with outcomes, which are also checked."""
        for line in values.pass_lines(lines, span.policies):
            self._cell_digests.add_outcome(line)
            yield line

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
    with database.begin_read() as transaction:
        rollout_names = [rollout.name for rollout in Rollouts(transaction).list_all()]
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
