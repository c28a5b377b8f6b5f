"""Recompute the evidence of a rollout from its raw records and compare it with the ledger.

Each record is hashed anew. Each unit is counted anew from the records whose hashes it holds; those
that a purge or an erasure took must stand in its event. The units, actions and outcomes of each
tick, and the evidence of each proposal, must give the digest in the ledger. All are read in parts,
so memory is bounded; a part that can't be read is a fault and costs no other part.
"""

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import groupby
from random import Random
from typing import Final, TypeVar

from rollout.core.ledger.ledger import parse_event
from rollout.core.policy.policy import Policy
from rollout.core.policy.pools import list_counted_cells
from rollout.core.scope.event_base import LedgerEvent
from rollout.core.scope.events import PolicyApplied, ProposalRaised
from rollout.core.scope.record_events import (
    CasesErased,
    NameErased,
    RecordsCounted,
    RecordsPurged,
)
from rollout.services.engine.counted_outcome_check import CountedOutcomeCheck
from rollout.services.engine.counted_record_check import CountedRecordCheck
from rollout.services.engine.evidence_report import EvidenceReport
from rollout.services.engine.evidence_seals import find_sealed_slot
from rollout.services.engine.proposal_recount import find_reading_faults
from rollout.services.engine.rollout_state import (
    RolloutState,
    load_rollout_state,
    parse_stored_policy,
)
from rollout.services.engine.unit_counting import add_unit_cases, open_stored_history
from rollout.services.engine.unit_recount import find_recount_faults
from rollout.store.counting.counted_outcomes import CountedOutcomes
from rollout.store.counting.counted_records import CountedRecords, RecordLine
from rollout.store.counting.unit_digests import (
    CellDigests,
    UnitLine,
    read_unit_lines,
    summarize_counted,
)
from rollout.store.database.errors import UNREADABLE_ERRORS, describe_unreadable
from rollout.store.database.session import Database, Transaction
from rollout.store.ledger.ledger import Ledger
from rollout.store.ledger.policies import PolicyTexts
from rollout.store.records.external_keys import ExternalKeys
from rollout.store.records.record_check import find_changed_records, find_last_case
from rollout.store.records.record_hashes import ErasedHashes, load_case_hashes, split_hashes
from rollout.store.records.record_rows import RECORD_SCHEMAS, RecordSchema
from rollout.tally.outcome_buffer import CountedOutcome

CASES_PER_READ: Final = 2_000
UNITS_PER_COUNT: Final = 2_000
SPANS_PER_READ: Final = 200
MAX_SAMPLED_RECORDS: Final = 5_000
ERASING_EVENTS: Final = (RecordsPurged, CasesErased, NameErased)
LAST_SLOT: Final = 2**62
LineT = TypeVar("LineT", UnitLine, RecordLine, CountedOutcome)


@dataclass(frozen=True, slots=True)
class SealedSpan:
    """The units of slots (`after`, `until`] and what the ledger holds of them.

    Attributes:
        event: the tick's event; None after the last one.
        revision: of the event; 0 without one.
        policies: those in force since the event before, newest first.
        proposals: raised since the event and before the next one, each with the policy in force.
    """

    after: int
    until: int
    event: RecordsCounted | None
    revision: int
    policies: tuple[Policy, ...]
    proposals: list[tuple[ProposalRaised, Policy]] = field(default_factory=list)


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
            self._spans = _load_spans(transaction, self._state)

    def check_all(self) -> EvidenceReport:
        """Check every record, unit, digest and erasure."""
        self._check_all_records()
        self._count_unsealed()
        self._check_erasures()
        for start in range(0, len(self._spans), SPANS_PER_READ):
            self._check_spans(self._spans[start : start + SPANS_PER_READ], with_proposals=True)
        self._check_readings()
        return self._report

    def check_sample(self, span_count: int, random: Random) -> EvidenceReport:
        """Check the units of some ticks, with the records behind them.

        Ticks of more than `MAX_SAMPLED_RECORDS` records, as after an import, are left to
        `check_all`.
        """
        spans = [
            span
            for span in self._spans
            if span.event is not None and span.event.records <= MAX_SAMPLED_RECORDS
        ]
        for span in random.sample(spans, min(span_count, len(spans))):
            self._check_spans([span], with_proposals=False)
            case_ids = self._list_cases(span)
            for schema in RECORD_SCHEMAS.values():
                self._check_records(schema, case_ids)
        return self._report

    def _list_cases(self, span: SealedSpan) -> list[int]:
        with self._database.begin_read() as transaction:
            rollout = self._state.rollout
            units = read_unit_lines(transaction, rollout, after=span.after, until=span.until)
            case_ids = {unit.case_id for unit in units}
            others = CountedRecords(transaction, rollout)
            records = others.read_lines(after=span.after, until=span.until)
            case_ids |= {record.case_id for record in records}
            outcomes = CountedOutcomes(transaction, rollout)
            values = outcomes.read_lines(after=span.after, until=span.until)
            case_ids |= {value.case_id for value in values}
            return sorted(case_ids)[:CASES_PER_READ]

    def _check_all_records(self) -> None:
        for schema in RECORD_SCHEMAS.values():
            try:
                with self._database.begin_read() as transaction:
                    last_case = find_last_case(transaction, self._state.rollout, schema)
            except UNREADABLE_ERRORS as error:
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
        except UNREADABLE_ERRORS as error:
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
        except UNREADABLE_ERRORS as error:
            self._report.add_faults([f"actions and outcomes: {describe_unreadable(error)}"])

    def _check_erasures(self) -> None:
        """Compare the hashes that each purge or erasure took with its event."""
        with self._database.begin_read() as transaction:
            erased_hashes = ErasedHashes(transaction, self._state.rollout)
            ledger = Ledger(transaction, self._state.rollout)
            rows = ledger.list_rows(kinds={kind.__name__ for kind in ERASING_EVENTS})
            revisions = {*erased_hashes.list_revisions(), *(row.revision for row in rows)}
            for revision in sorted(revisions):
                event = next(ledger.list_events(after=revision - 1, until=revision), None)
                if _get_digest(event) != erased_hashes.compute_digest(revision):
                    self._report.add_faults(
                        [f"the hashes that event {revision} erased are not those of its digest"]
                    )

    def _check_readings(self) -> None:
        """Read the evidence of each proposal anew."""
        try:
            with self._database.begin_read() as transaction:
                self._report.add_faults(find_reading_faults(transaction, self._state))
        except UNREADABLE_ERRORS as error:
            self._report.add_faults([f"readings of proposals: {describe_unreadable(error)}"])

    def _check_spans(self, spans: Sequence[SealedSpan], *, with_proposals: bool) -> None:
        try:
            with self._database.begin_read() as transaction:
                units = _UnitCheck(transaction, self._state, self._report)
                others = CountedRecordCheck(transaction, self._state.rollout, self._report)
                values = CountedOutcomeCheck(transaction, self._state, self._report)
                groups = _group_by_span(transaction, self._state, spans)
                for span, lines, records, outcomes in groups:
                    passed = self._pass_lines(units, span, lines)
                    summary = summarize_counted(
                        passed,
                        others.pass_lines(records),
                        self._pass_outcomes(values, span, outcomes),
                    )
                    self._compare_digest(span, "" if summary is None else summary.digest)
                    if with_proposals:
                        self._compare_proposals(span)
                units.finish()
                others.finish()
                values.finish()
        except UNREADABLE_ERRORS as error:
            self._is_complete = False  # later digests of cells cover these units too
            last_slot = "the last" if spans[-1].event is None else spans[-1].until
            place = f"units of slots {spans[0].after + 1} to {last_slot}"
            self._report.add_faults([f"{place}: {describe_unreadable(error)}"])

    def _pass_lines(
        self, units: "_UnitCheck", span: SealedSpan, lines: Iterable[UnitLine]
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
        if span.event is not None and span.event.digest != digest:
            slots = f"slots {span.after + 1} to {span.until}"
            self._report.add_faults(
                [f"the units, actions and outcomes of {slots} are not those of the tick's digest"]
            )

    def _compare_proposals(self, span: SealedSpan) -> None:
        for event, policy in span.proposals if self._is_complete else ():
            if event.cell is None or not event.records_digest:
                continue
            cells = list_counted_cells(policy, event.cell, event.to_stage)
            pools = (cells, (event.cell,))  # an older proposal's digest covers its own cell
            if event.records_digest not in {
                self._cell_digests.get_pool_digest(pool, event.version) for pool in pools
            }:
                name = f"proposal {event.proposal} of {event.cell}"
                self._report.add_faults([f"{name}: the evidence is not that of its digest"])


class _UnitCheck:
    """Checks units in batches: the records behind them, and the count."""

    def __init__(
        self, transaction: Transaction, state: RolloutState, report: EvidenceReport
    ) -> None:
        self._transaction, self._state, self._report = transaction, state, report
        self._lines: list[UnitLine] = []
        self._policies: tuple[Policy, ...] = ()

    def add(self, line: UnitLine, span: SealedSpan) -> None:
        """Add a unit that was counted under one of the span's policies."""
        if not line.record_hashes:
            self._report.unhashed_units += 1
            self._report.unhashed_events |= {span.revision} - {0}
            return
        if len(self._lines) == UNITS_PER_COUNT or span.policies is not self._policies:
            self.finish()
        self._policies = span.policies
        self._lines.append(line)

    def finish(self) -> None:
        """Check the units that were added."""
        lines, self._lines = self._lines, []
        if not lines:
            return
        intact_lines = list(self._filter_intact(lines))
        if any(policy.evidence.min_reviewer_agreement is not None for policy in self._policies):
            self._report.unrepeatable_units += len(intact_lines)
            return
        self._report.units += len(intact_lines)
        self._report.add_faults(
            find_recount_faults(self._transaction, self._state, self._policies, intact_lines)
        )

    def _filter_intact(self, lines: Sequence[UnitLine]) -> Iterator[UnitLine]:
        """Yield the units with all their records; report the others."""
        case_ids = {line.case_id for line in lines}
        for policy in self._policies:
            history = open_stored_history(self._transaction, replace(self._state, policy=policy))
            case_ids |= add_unit_cases(history, policy, case_ids)
        rollout = self._state.rollout
        stored_hashes = {row.hash for row in load_case_hashes(self._transaction, rollout, case_ids)}
        erased_hashes = ErasedHashes(self._transaction, rollout)
        revisions = erased_hashes.find_revisions(
            {part for line in lines for part in split_hashes(line.record_hashes)} - stored_hashes,
            case_ids,
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


def _get_digest(event: LedgerEvent | None) -> str:
    """Return the digest of the hashes that an event took; "" for other events."""
    if isinstance(event, RecordsPurged):
        return event.digest
    return event.records_digest if isinstance(event, CasesErased | NameErased) else ""


def _group_by_span(
    transaction: Transaction, state: RolloutState, spans: Sequence[SealedSpan]
) -> Iterator[
    tuple[SealedSpan, Iterable[UnitLine], Iterable[RecordLine], Iterable[CountedOutcome]]
]:
    """Yield each span with its units, records and outcomes; read all before the next, in order."""
    after, until = spans[0].after, spans[-1].until
    units = read_unit_lines(transaction, state.rollout, after=after, until=until)
    records = CountedRecords(transaction, state.rollout).read_lines(after=after, until=until)
    ends = [span.until for span in spans]
    outcomes = CountedOutcomes(transaction, state.rollout).read_lines(after=after, until=until)
    parts = (_split_at(ends, units), _split_at(ends, records), _split_at(ends, outcomes))
    yield from zip(spans, *parts, strict=True)


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


def _load_spans(transaction: Transaction, state: RolloutState) -> list[SealedSpan]:
    """Return the sealed spans in the order of the ledger, and the open one after them."""
    events = list(_list_events(transaction, state))
    applied = {event.policy_hash for _, event in events if isinstance(event, PolicyApplied)}
    texts = PolicyTexts(transaction, state.rollout).load_texts(applied)
    policies = {policy_hash: parse_stored_policy(text) for policy_hash, text in texts.items()}
    find_policies = cache(lambda hashes: tuple(policies[part] for part in dict.fromkeys(hashes)))
    spans: list[SealedSpan] = []
    in_force: tuple[str, ...] = ()
    last_slot = -1
    for revision, event in events:
        if isinstance(event, PolicyApplied):
            in_force = (event.policy_hash, *in_force)
        elif isinstance(event, RecordsCounted):
            slot = find_sealed_slot(event, policies[in_force[0]])
            spans.append(SealedSpan(last_slot, slot, event, revision, find_policies(in_force)))
            in_force, last_slot = in_force[:1], slot
        elif isinstance(event, ProposalRaised) and spans:
            spans[-1].proposals.append((event, policies[in_force[0]]))
    spans.append(SealedSpan(last_slot, LAST_SLOT, None, 0, find_policies(in_force)))
    return spans


def _list_events(
    transaction: Transaction, state: RolloutState
) -> Iterator[tuple[int, LedgerEvent]]:
    kinds = (PolicyApplied.__name__, RecordsCounted.__name__, ProposalRaised.__name__)
    for row in Ledger(transaction, state.rollout).list_rows(kinds=kinds):
        yield row.revision, parse_event(row)
