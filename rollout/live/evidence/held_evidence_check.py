"""Compare what a process holds as evidence with the counted units, some at a time.

A process begins with a stored snapshot, whose hash is no secret: who can write to the database
can store other counts with a right hash. So each process compares some of its units with the
counted ones every few minutes, each once before any again, from a random place on. Where one
differs, its cells are stopped, and all processes read the counted units anew.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from secrets import SystemRandom
from typing import Final

from rollout.data.counting.counted_outcomes import CountedOutcomes
from rollout.data.counting.counted_units import CountedUnits
from rollout.data.database.append_failures import STOP
from rollout.data.database.session import Database, Transaction
from rollout.data.ledger.evidence_snapshots import EvidenceSnapshots
from rollout.engine.decide.commands import StopChangedCells
from rollout.engine.evidence.outcome_buffer import OutcomeBuffer
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
from rollout.kernel.calendar.sites import Cell
from rollout.live.command_handler import execute_command
from rollout.live.evidence.evidence_reader import restore_evidence
from rollout.live.rollout_state import RolloutState, write_rollout

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
