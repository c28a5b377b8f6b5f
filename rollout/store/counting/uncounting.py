"""Take back what was counted for slots that have not come, to be counted when they do.

A process whose clock was ahead counted cases before their time, and what came after it counted
later still. Whatever lacks its records stays as it was counted, since nothing could count it again.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, Table, delete, select, tuple_

from rollout.store.counting.count_queue import CASE_RECEIVED, CountQueue, DueCase
from rollout.store.counting.counted_units import CountedUnits
from rollout.store.counting.counter import sum_by_key
from rollout.store.counting.counts import StoredCounts
from rollout.store.counting.matrices import Matrices
from rollout.store.counting.projection_repair import ProjectionRepair
from rollout.store.counting.purge import open_purge
from rollout.store.counting.unit_digests import IS_ERASED
from rollout.store.counting.version_uses import StoredUses
from rollout.store.database.bulk import delete_keys
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.ledger.evidence import EvidenceStore
from rollout.store.ledger.tick_slots import TickSlots
from rollout.store.tables.counting_tables import OUTCOME, RECORD_UNSEALED
from rollout.store.tables.tables import (
    cases,
    confusion_matrices,
    counted_outcomes,
    counted_records,
    counted_units,
    counts,
    top_losses,
)


def take_back_slots(transaction: Transaction, rollout: Rollout, *, first: int, at: datetime) -> int:
    """Take back slots from the first on; return the number of units.

    Their ticks count as none. `at`, when the first begins, is when their cases are due again.
    """
    slots, evidence = TickSlots(transaction, rollout), EvidenceStore(transaction, rollout)
    evidence.get_last_slot(lock=True)  # nothing is counted meanwhile
    slots.delete_from(first)
    evidence.rewind(min(slots.load_last_claimed() or 0, first - 1))
    taking = _Taking(transaction, rollout, first, at)
    with open_purge(transaction):
        unit_count = taking.take_units()
        taking.take_rows(counted_outcomes, OUTCOME)
        taking.take_rows(counted_records, RECORD_UNSEALED)
    uses = StoredUses(transaction, rollout).find_differences()
    ProjectionRepair(transaction, rollout).repair_uses(uses)
    return unit_count


class _Taking:
    """The slots of one rollout that are taken back."""

    def __init__(
        self, transaction: Transaction, rollout: Rollout, first: int, at: datetime
    ) -> None:
        self._transaction, self._rollout, self._first, self._at = transaction, rollout, first, at

    def take_units(self) -> int:
        """Delete units with their sums, and queue their cases; return the number of units."""
        conditions = (*self._match_rows(counted_units), ~IS_ERASED)
        units = list(CountedUnits(self._transaction, self._rollout).list_matching(*conditions))
        negative = {key: -n for key, n in sum_by_key(units).items()}
        StoredCounts(self._transaction, self._rollout).add(negative)
        Matrices(self._transaction, self._rollout).add(negative)
        for table in (counts, confusion_matrices):
            self._delete(table, table.c.n == 0)
        number = self._rollout.number
        pairs = select(counted_units.c.case_id, counted_units.c.version).where(*conditions)
        self._delete(top_losses, tuple_(top_losses.c.case_id, top_losses.c.version).in_(pairs))
        delete_keys(self._transaction, counted_units, [(number, *unit.identity) for unit in units])
        self._queue((unit.case_id for unit in units), CASE_RECEIVED)
        return len(units)

    def take_rows(self, table: Table, track: str) -> None:
        """Delete rows of counted outcomes or records, and queue their cases."""
        conditions = self._match_rows(table)
        case_ids = self._transaction.execute(select(table.c.case_id).where(*conditions)).scalars()
        self._queue(case_ids, track)
        self._delete(table, *conditions)

    def _queue(self, case_ids: Iterable[int], track: str) -> None:
        queue = CountQueue(self._transaction, self._rollout)
        queue.add(DueCase(self._at, case_id, track) for case_id in {*case_ids})

    def _delete(self, table: Table, *conditions: ColumnElement[bool]) -> None:
        is_own = table.c.rollout == self._rollout.number
        self._transaction.execute(delete(table).where(is_own, *conditions))

    def _match_rows(self, table: Table) -> tuple[ColumnElement[bool], ...]:
        """Return the conditions for rows of the slots whose case has its records."""
        stored_cases: Select[Any] = select(cases.c.case_id).where(
            cases.c.rollout == self._rollout.number
        )
        is_own = table.c.rollout == self._rollout.number
        return is_own, table.c.slot >= self._first, table.c.case_id.in_(stored_cases)
