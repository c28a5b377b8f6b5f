"""Counts of units in each class, by cell, version and slot; and counted outcomes.

The columns of a series and of a class are stored once, and counts have their ids. Each unit of a
version is stored once for each outcome with a value: when its deadline passes, with the score that
it then has, so that values which come later change nothing.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from operator import itemgetter
from typing import Any, Final, NamedTuple

from sqlalchemy import Column, ColumnElement, Select, Table, select, tuple_

from rollout.data.counting.unit_records import select_lines
from rollout.data.database.bulk import insert_missing, insert_new_rows, select_numbers, upsert_sums
from rollout.data.database.rollouts import Rollout, RolloutRepository
from rollout.data.database.session import Transaction
from rollout.data.ledger.scopes import EvidenceStore
from rollout.data.tables.tables import count_classes, counted_outcomes, counts
from rollout.engine.evidence.outcome_buffer import CountedOutcome

SERIES_COLUMNS: Final = ("track", "version", "site", "window", "definition", "attempt")
"""The columns that identify a series of counts."""

CLASS_COLUMNS: Final = ("lever", "predicted", "decided", "second", "level")
"""The columns that identify a class of units."""


VALUES_PER_QUERY: Final = 1_000
ValueTuple = tuple[Any, ...]
SlotPosition = tuple[int, int]
"""A slot of counting and the slot in which its units occurred."""


class CountKey(NamedTuple):
    """The key of a count: slots, series, class and bucket."""

    slot: int
    occurred: int
    series_id: int
    class_id: int
    bucket: int


def match_positions(
    table: Table, after: SlotPosition, until: SlotPosition
) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions for the rows of positions (`after`, `until`]."""
    position = tuple_(table.c.slot, table.c.occurred)
    is_near = (table.c.slot >= after[0], table.c.slot <= until[0])  # for the index
    return (*is_near, position > tuple_(*after), position <= tuple_(*until))


def find_position(
    transaction: Transaction, table: Table, rollout: Rollout, after: SlotPosition, offset: int
) -> SlotPosition | None:
    """Return the position of the row that follows the next `offset` ones; None at the end."""
    position = (table.c.slot, table.c.occurred)
    query = (
        select(*position)
        .where(table.c.rollout == rollout.number)
        .where(table.c.slot >= after[0], tuple_(*position) > tuple_(*after))
        .order_by(*position)
        .offset(offset)
        .limit(1)
    )
    return transaction.find(query, lambda row: (row.slot, row.occurred))


class StoredCounts(RolloutRepository):
    """The counts of one rollout."""

    def add(self, added: Mapping[CountKey, int]) -> None:
        """Add counts, in the transaction that stores the units, after `through`."""
        rows = [(self._rollout.number, *key, n) for key, n in sorted(added.items())]
        upsert_sums(self._transaction, counts, rows, "n")

    def load_by_key(
        self, *, after: SlotPosition = (-1, -1), until: SlotPosition = (2**62, 2**62)
    ) -> dict[CountKey, int]:
        """Return the counts of positions (`after`, `until`] by key, by default all."""
        query = select(counts).where(
            counts.c.rollout == self._rollout.number, *match_positions(counts, after, until)
        )
        rows = self._transaction.execute(query)
        return {CountKey(r.slot, r.occurred, r.series_id, r.class_id, r.bucket): r.n for r in rows}


def load_classes(
    transaction: Transaction, rollout: Rollout, class_ids: Collection[int]
) -> dict[int, ValueTuple]:
    """Return the values of classes, in the order of `CLASS_COLUMNS`, by number."""
    query = select(count_classes.c.id, *(count_classes.c[name] for name in CLASS_COLUMNS)).where(
        count_classes.c.rollout == rollout.number,
        count_classes.c.id.in_(select_numbers(transaction, class_ids)),
    )
    return {row[0]: tuple(row[1:]) for row in transaction.execute(query)}


class ValueIds(RolloutRepository):
    """The ids of one rollout's values in a table with unique values."""

    def __init__(self, transaction: Transaction, rollout: Rollout, table: Table) -> None:
        super().__init__(transaction, rollout)
        self._table = table

    def assign_ids(self, values: Iterable[ValueTuple]) -> dict[ValueTuple, int]:
        """Return the ids of values; new values get one."""
        unique_values = sorted(set(values))
        ids = self.find_ids(unique_values)
        missing_values = [value for value in unique_values if value not in ids]
        if not missing_values:
            return ids
        names = [column.name for column in self._columns]
        rows = [
            {"rollout": self._rollout.number, **dict(zip(names, value, strict=True))}
            for value in missing_values
        ]
        insert_new_rows(self._transaction, self._table, rows)
        return {**ids, **self.find_ids(missing_values)}

    def find_ids(self, unique_values: Sequence[ValueTuple]) -> dict[ValueTuple, int]:
        """Return the ids of values that have one."""
        ids: dict[ValueTuple, int] = {}
        values = iter(unique_values)
        while part := list(islice(values, VALUES_PER_QUERY)):
            query = select(self._table.c.id, *self._columns).where(
                self._table.c.rollout == self._rollout.number, tuple_(*self._columns).in_(part)
            )
            ids |= {tuple(row[1:]): row[0] for row in self._transaction.execute(query)}
        return ids

    @property
    def _columns(self) -> list[Column[Any]]:
        return [c for c in self._table.columns if c.name not in {"id", "rollout"}]


LINES_PER_READ: Final = 2_000
ORDER: Final = ("slot", "occurred", "unit", "version", "outcome")


class CountedOutcomes(RolloutRepository):
    """The counted outcomes of one rollout."""

    def store(self, lines: Sequence[CountedOutcome]) -> None:
        """Store units that were not counted before.

        If evidence has already reached a unit's slot, it counts in the next one.
        """
        if not lines:
            return
        first_slot = EvidenceStore(self._transaction, self._rollout).get_last_slot(lock=True) + 1
        ordered_lines = sorted(lines, key=itemgetter(0, 1, 2))
        open_lines = (line._replace(slot=max(line.slot, first_slot)) for line in ordered_lines)
        rows = [(self._rollout.number, *line) for line in open_lines]
        insert_missing(self._transaction, counted_outcomes, rows)

    def read_lines(
        self,
        *,
        after: int,
        until: int,
        version: str | None = None,
        positions: range | None = None,
    ) -> Iterator[CountedOutcome]:
        """Yield the units of slots (`after`, `until`] in digests' order.

        They are those of a version or all, or a run of all.
        """
        lines = select_lines(counted_outcomes, self._rollout, after, until, positions)
        query = select(*(lines.c[name] for name in CountedOutcome._fields)).order_by(
            *(lines.c[name] for name in ORDER)
        )
        if version is not None:
            query = query.where(lines.c.version == version)
        return self._read(query)

    def find_part_end(self, after: SlotPosition, size: int) -> SlotPosition | None:
        """Return the position of the unit that follows the next `size` ones; None at the end."""
        return find_position(self._transaction, counted_outcomes, self._rollout, after, size)

    def read_part(self, *, after: SlotPosition, until: SlotPosition) -> Iterator[CountedOutcome]:
        """Yield the units of positions (`after`, `until`]."""
        query = select(*(counted_outcomes.c[name] for name in CountedOutcome._fields)).where(
            counted_outcomes.c.rollout == self._rollout.number,
            *match_positions(counted_outcomes, after, until),
        )
        return self._read(query)

    def _read(self, query: Select[Any]) -> Iterator[CountedOutcome]:
        for row in self._transaction.execute(query.execution_options(yield_per=LINES_PER_READ)):
            yield CountedOutcome._make(row)._replace(record_hashes=bytes(row.record_hashes))
