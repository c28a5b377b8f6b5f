"""Compare what was counted with its records, for the check of evidence."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rollout.core.policy.policy import Policy
from rollout.services.engine.evidence_report import EvidenceReport
from rollout.services.engine.evidence_seals import SealedSpan, find_last_sealed
from rollout.services.engine.outcome_counting import open_unit_keys, resolve_outcome_lines
from rollout.services.engine.rollout_state import RolloutState
from rollout.services.engine.unit_counting import add_unit_cases, open_stored_history
from rollout.services.engine.unit_recount import recount_units, split_by_records
from rollout.store.counting.counted_records import RecordLine
from rollout.store.counting.unit_digests import UnitLine
from rollout.store.counting.unit_records import SelectedOutcomeRecords
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.ledger.evidence import EvidenceStore
from rollout.store.ledger.tick_slots import TickSlots
from rollout.store.records.external_keys import ExternalKeys
from rollout.store.records.record_hashes import (
    ErasedHashes,
    find_stored_hashes,
    load_case_hashes,
    split_hashes,
)
from rollout.tally.outcome_buffer import CountedOutcome
from rollout.tally.slots import to_instant
from rollout.tally.unit_arrays import IntArray

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
