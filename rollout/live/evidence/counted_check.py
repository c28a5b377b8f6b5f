"""Counted units checked against their records, and what a process holds against the counted units.

Records are checked in batches. Those that a purge or an erasure took must stand in its event. Units
and outcomes are resolved under the policy that counted them, from those of today's records whose
hashes they hold. So records that arrived later play no part.

A process begins with a stored snapshot, whose hash is no secret: who can write to the database can
store other counts with a right hash. So each process compares some of its units with the counted
ones every few minutes, each once before any again, from a random place on. Where one differs, its
cells are stopped, and all processes read the counted units anew.
"""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import (
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from collections.abc import (
    Set as AbstractSet,
)
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from json import loads
from secrets import SystemRandom
from typing import Any, Final, Generic, TypeVar

import numpy as np

from rollout.data.counting.counted_units import CountedUnits, UnitLine
from rollout.data.counting.counts import CLASS_COLUMNS, CountedOutcomes, load_classes
from rollout.data.counting.unit_records import RecordLine, SelectedRecords
from rollout.data.database.append_failures import STOP
from rollout.data.database.rollouts import Rollout
from rollout.data.database.session import Database, Transaction
from rollout.data.ledger.scopes import EvidenceSnapshots
from rollout.data.records.external_keys import CASE, EPISODE, ExternalKeys, is_name_refused
from rollout.data.records.record_rows import (
    ErasedHashes,
    find_stored_hashes,
    load_case_hashes,
    split_hashes,
)
from rollout.engine.decide.commands import StopChangedCells
from rollout.engine.evidence.outcome_buffer import CountedOutcome, OutcomeBuffer
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
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.policy.policy import Policy
from rollout.kernel.policy.record_definition import compute_definition
from rollout.kernel.units import group_pairs
from rollout.live.evidence.due_counting import open_unit_keys, resolve_outcome_lines
from rollout.live.evidence.evidence_reader import restore_evidence
from rollout.live.evidence.evidence_seals import EvidenceReport
from rollout.live.evidence.unit_counting import (
    add_unit_cases,
    open_stored_history,
    resolve_case_units,
)
from rollout.live.rollout_state import RolloutState, execute_command, write_rollout

LINES_PER_CHECK: Final = 2_000
CountedLine = UnitLine | CountedOutcome | RecordLine
LineT = TypeVar("LineT", UnitLine, CountedOutcome, RecordLine)
UnitKey = tuple[int, str, str]
ClassValues = tuple[Any, ...]
UNRECORDED_REASONS: Final = frozenset({TRAINED_ON})
"""Reasons that depend on what was known of a version when the unit was counted."""
COMPARED: Final = (
    *("occurred", "site", "window", "definition", "drawn", "score", "known_share"),
    *("sources", "source_fault"),
)
"""Not the bucket, which follows from the policies of its time."""


class CountedLineCheck(ABC, Generic[LineT]):
    """Checks lines of one kind in batches, so that memory is bounded."""

    missing_text = "{} of its records changed or are missing, and no event erased them"

    def __init__(
        self, transaction: Transaction, state: RolloutState, report: EvidenceReport
    ) -> None:
        self._transaction, self._report = transaction, report
        # an end of training that was recorded later took no unit back that had been counted
        self._state = replace(state, versions={})
        self._lines: list[LineT] = []
        self._policies: tuple[Policy, ...] = ()

    def pass_lines(self, lines: Iterable[LineT], policies: tuple[Policy, ...]) -> Iterator[LineT]:
        """Yield the lines, which were counted under one of `policies` and are also checked."""
        for line in lines:
            if len(self._lines) == LINES_PER_CHECK or policies is not self._policies:
                self.finish()
            self._policies = policies
            self._lines.append(line)
            yield line

    def finish(self) -> None:
        """Check the lines that were passed on."""
        lines, self._lines = self._lines, []
        if not lines:
            return
        for group in _split_by_records(self._filter_intact(lines)):
            faults_by_policy = (
                list(self._compare(replace(self._state, policy=policy), group))
                for policy in self._policies
            )
            self._add_faults(min(faults_by_policy, key=len, default=[]))

    def _add_faults(self, faults: Sequence[tuple[LineT, str]]) -> None:
        case_ids = {line.case_id for line, _ in faults}
        case_keys = ExternalKeys(self._transaction, self._state.rollout).find_keys(case_ids)
        for line, fault in faults:
            case_key = case_keys.get(line.case_id, f"number {line.case_id}")
            text = f"{self._name(line, case_key)}, counted in slot {line.slot}: {fault}"
            self._report.add_faults([text])

    def _filter_intact(self, lines: Sequence[LineT]) -> list[LineT]:
        """Return the lines with all their records; report the others."""
        rollout, case_ids = self._state.rollout, self._list_cases(lines)
        stored_hashes = {row.hash for row in load_case_hashes(self._transaction, rollout, case_ids)}
        missing = {part for line in lines for part in split_hashes(line.record_hashes)}
        missing -= stored_hashes
        revisions = ErasedHashes(self._transaction, rollout).find_revisions(missing, case_ids)
        missing -= _find_beside_erased(self._transaction, rollout, lines, missing, revisions.keys())
        intact, faults, erased_count = list[LineT](), list[tuple[LineT, str]](), 0
        for line in lines:
            parts = missing.intersection(split_hashes(line.record_hashes))
            if not parts:
                intact.append(line)
            elif parts <= revisions.keys():
                erased_count += 1
                self._report.erasures |= {revisions[part] for part in parts}
            else:
                text = self.missing_text.format(len(parts))
                faults.append((line, f"{text} (hash {min(parts).hex()[:12]}…)"))
        self._note_counts(len(lines), len(intact), erased_count)
        self._add_faults(faults)
        return intact

    def _list_cases(self, lines: Sequence[LineT]) -> set[int]:
        case_ids = {line.case_id for line in lines}
        for policy in self._policies:
            history = open_stored_history(self._transaction, replace(self._state, policy=policy))
            case_ids |= add_unit_cases(history, policy, case_ids)
        return case_ids

    def _note_counts(self, _total: int, intact: int, erased: int) -> None:
        self._report.units += intact
        self._report.erased_units += erased

    @abstractmethod
    def _name(self, line: LineT, case_key: str) -> str:
        """Return what a line is about, for the beginning of a sentence."""

    @abstractmethod
    def _compare(self, state: RolloutState, lines: Sequence[LineT]) -> Iterable[tuple[LineT, str]]:
        """Return the lines that their records don't give under a policy, each with what differs.

        Each unit has one set of records among them.
        """


class CountedRecordCheck(CountedLineCheck[RecordLine]):
    """Checks actions and outcomes, which are their own records; pass them with no policies."""

    missing_text = "it changed or is missing, and no event erased it"

    def _note_counts(self, total: int, _intact: int, erased: int) -> None:
        self._report.other_records += total
        self._report.erased_records += erased

    def _name(self, line: RecordLine, case_key: str) -> str:
        return f"the {line.kind} of case {case_key}"

    def _compare(
        self, _state: RolloutState, _lines: Sequence[RecordLine]
    ) -> Iterable[tuple[RecordLine, str]]:
        return ()


class CountedOutcomeCheck(CountedLineCheck[CountedOutcome]):
    """Checks units with the value of an outcome."""

    def _name(self, line: CountedOutcome, case_key: str) -> str:
        return f"the {line.outcome} of case {case_key} and version {line.version}"

    def _compare(
        self, state: RolloutState, lines: Sequence[CountedOutcome]
    ) -> Iterator[tuple[CountedOutcome, str]]:
        hashes = {part for line in lines for part in split_hashes(line.record_hashes)}
        records = SelectedRecords(hashes, state.first_names)
        case_ids = {line.case_id for line in lines}
        # buckets follow from the policies of their time, and are not compared
        finders = (
            lambda occurred, _: np.zeros_like(occurred),
            open_unit_keys(self._transaction, state).find_ids,
        )
        units = resolve_outcome_lines(self._transaction, state, case_ids, records, *finders)
        expected = {(unit.unit, unit.version, unit.outcome): unit for unit in units}
        for line in lines:
            unit = expected.get((line.unit, line.version, line.outcome))
            if fault := _describe_other_outcome(line, unit):
                yield line, fault


class CountedUnitCheck(CountedLineCheck[UnitLine]):
    """Checks units of both tracks."""

    def _name(self, line: UnitLine, case_key: str) -> str:
        return f"the {line.track} unit of case {case_key} and version {line.version}"

    def _filter_intact(self, lines: Sequence[UnitLine]) -> list[UnitLine]:
        intact_lines = super()._filter_intact(lines)
        self._add_faults(self._find_other_series(intact_lines))
        return intact_lines

    def _find_other_series(self, lines: Iterable[UnitLine]) -> list[tuple[UnitLine, str]]:
        """Return the units with another series, by whose columns evidence is read, than their own.

        A pass that was interrupted by an edit counts some units under each policy.
        """
        definitions_by_cell: dict[Cell, set[str]] = {}
        faults: list[tuple[UnitLine, str]] = []
        for line in lines:
            cell = Cell(line.site, line.window)
            if cell not in definitions_by_cell:
                definitions_by_cell[cell] = {
                    compute_definition(policy, cell) if cell in policy.cell_set else ""
                    for policy in self._policies
                }
            *own, definition = line.series
            if own != [line.track, line.version]:
                faults.append((line, f"its series is of {' and '.join(own)}"))
            elif definition not in definitions_by_cell[cell]:
                faults.append((line, "no policy in force has the definition of its series"))
        return faults

    def _compare(
        self, state: RolloutState, lines: Sequence[UnitLine]
    ) -> Iterator[tuple[UnitLine, str]]:
        hashes = {part for line in lines for part in split_hashes(line.record_hashes)}
        case_ids = {line.case_id for line in lines}
        records = SelectedRecords(hashes, state.first_names)
        frame = resolve_case_units(self._transaction, state, case_ids, records)
        units = _group_rows(self._transaction, state, frame.to_dicts())
        class_ids = {number for line in lines for number in loads(line.class_ids)}
        classes = load_classes(self._transaction, state.rollout, class_ids)
        for line in lines:
            rows = units.get((line.unit, line.version, line.track))
            if fault := _describe_difference(line, rows, classes):
                yield line, fault
            elif rows and self._has_other_reviewer(line, rows[0]["reviewer"]):
                text = f"counted with reviewer {line.reviewer or ''}"
                yield line, f"{text}; its records give {rows[0]['reviewer']}"

    def _has_other_reviewer(self, line: UnitLine, reviewer: str | None) -> bool:
        """Return whether gates would count another reviewer.

        Not a name that an erasure replaces at this moment: decisions lose it first.
        """
        return line.reviewer != reviewer and not is_name_refused(
            self._transaction, self._state.rollout, line.reviewer or ""
        )


def _split_by_records(lines: Iterable[LineT]) -> Iterator[list[LineT]]:
    """Yield groups in which each record is behind one set of records.

    The lines of a unit rest on different records where one came in between: in another slot, or in
    the same one, where a second pass counted what a first one had left. A case that was moved to
    another episode between two counts is behind the units of both.
    """
    hashes_by_part: dict[int, dict[int | bytes, bytes]] = defaultdict(dict)
    groups: dict[int, list[LineT]] = defaultdict(list)
    for line in lines:
        hashes: bytes = line.record_hashes
        parts: list[int | bytes] = [line.unit, *split_hashes(hashes)]
        number = next(
            (
                n
                for n, others in hashes_by_part.items()
                if all(others.get(part, hashes) == hashes for part in parts)
            ),
            len(groups),
        )
        hashes_by_part[number].update(dict.fromkeys(parts, hashes))
        groups[number].append(line)
    yield from groups.values()


def _find_beside_erased(
    transaction: Transaction,
    rollout: Rollout,
    lines: Iterable[CountedLine],
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


def _describe_other_outcome(line: CountedOutcome, unit: CountedOutcome | None) -> str:
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


def _group_rows(
    transaction: Transaction, state: RolloutState, rows: Sequence[Mapping[str, Any]]
) -> Mapping[UnitKey, list[Mapping[str, Any]]]:
    kind = CASE if state.policy.evidence.unit == "case" else EPISODE
    unit_ids = ExternalKeys(transaction, state.rollout, kind).find_ids(
        {row["unit"] for row in rows}
    )
    return group_pairs(
        ((unit_ids[row["unit"]], row["version"], row["track"]), row)
        for row in rows
        if row["unit"] in unit_ids
    )


def _describe_difference(
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
    with write_rollout(database, rollout_name) as (transaction, state):
        EvidenceSnapshots(transaction, state.rollout).delete()


def _describe_cells(differences: Mapping[Cell, str]) -> str:
    texts = [f"{cell}: {text}" for cell, text in differences.items()]
    others: Collection[str] = texts[MAX_NAMED_CELLS:]
    return "; ".join([*texts[:MAX_NAMED_CELLS], *([f"{len(others)} more cells"] if others else [])])
