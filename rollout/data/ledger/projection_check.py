"""Compare the rows of proposals and incidents with the ledger, which is read once, in order.

Rows are compared when `ROWS_PER_COMPARISON` wait, and again after a later event has changed them.
So memory grows only with the differences, and with rows that are open at one time and close later.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, Final

from sqlalchemy import Row, Table, func, select

from rollout.data.database.rollouts import Rollout, RolloutRepository
from rollout.data.database.session import Transaction
from rollout.data.ledger.projections import get_name_column
from rollout.data.tables.tables import incidents, proposals
from rollout.engine.events import LedgerEvent, ListChange

ROWS_PER_COMPARISON: Final = 500
CHECKED_TABLES: Final[Mapping[str, Table]] = {table.name: table for table in (incidents, proposals)}
RowKey = tuple[str, str]
"""The names of a table and of a row."""

RowValues = dict[str, Any]
RowPair = tuple[RowValues | None, RowValues | None]
EventReader = Callable[[], Iterable[LedgerEvent]]
"""Reads a ledger from its first event."""


def find_differences(
    transaction: Transaction, rollout: Rollout, read_events: EventReader
) -> dict[RowKey, RowPair]:
    """Return rows that differ from the ledger: stored and expected, by key."""
    check = _ProjectionCheck(transaction, rollout)
    for change in _list_changes(read_events):
        check.add_change(change)
    differences = check.finish(read_events)
    return {key: differences[key] for key in sorted(differences)}


def _list_changes(read_events: EventReader) -> Iterator[ListChange]:
    for revision, event in enumerate(read_events(), start=1):
        if change := event.change_list(revision):
            yield change


class _ProjectionCheck(RolloutRepository):
    """The ledger's rows that wait to be compared, and the differences so far."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        super().__init__(transaction, rollout)
        self._rows: dict[RowKey, RowValues] = {}
        self._new_keys: set[RowKey] = set()
        self._differences: dict[RowKey, RowPair] = {}
        self._found_count = 0  # rows of the ledger that are stored

    def add_change(self, change: ListChange) -> None:
        """Add the next change of a row."""
        key = (change.list_name, change.id)
        if change.is_new:
            self._new_keys.add(key)
        elif key not in self._rows:
            self._rows[key] = self._load_expected(key)
        self._rows[key] = {**self._rows.get(key, {}), **change.values}
        if len(self._rows) >= ROWS_PER_COMPARISON:
            self._compare_rows()

    def finish(self, read_events: EventReader) -> Mapping[RowKey, RowPair]:
        """Compare the last rows, find those that the ledger lacks, and return all differences."""
        self._compare_rows()
        if self._found_count != sum(map(self._count_stored, CHECKED_TABLES.values())):
            self._add_unknown_rows(read_events)
        return self._differences

    def _load_expected(self, key: RowKey) -> RowValues:
        """Return a row that was compared before; without a difference the stored one is right."""
        if key in self._differences:
            return self._differences[key][1] or {}
        return self._load_stored([key]).get(key, {})

    def _compare_rows(self) -> None:
        stored = self._load_stored(self._rows)
        for key, expected_row in self._rows.items():
            stored_row = stored.get(key)
            self._found_count += key in self._new_keys and stored_row is not None
            if stored_row == expected_row:
                self._differences.pop(key, None)
            else:
                self._differences[key] = (stored_row, expected_row)
        self._rows, self._new_keys = {}, set()

    def _add_unknown_rows(self, read_events: EventReader) -> None:
        """Add the stored rows that no event of the ledger created, from the names of all."""
        keys = {
            (name, row_name)
            for name, table in CHECKED_TABLES.items()
            for row_name in self._list_names(table)
        }
        for change in _list_changes(read_events):
            if change.is_new:
                keys.discard((change.list_name, change.id))
        self._differences |= {key: (row, None) for key, row in self._load_stored(keys).items()}

    def _load_stored(self, keys: Collection[RowKey]) -> dict[RowKey, RowValues]:
        stored: dict[RowKey, RowValues] = {}
        for table_name, table in CHECKED_TABLES.items():
            names = [row_name for name, row_name in keys if name == table_name]
            name_column = table.c[get_name_column(table)]
            for start in range(0, len(names), ROWS_PER_COMPARISON):
                part = names[start : start + ROWS_PER_COMPARISON]
                query = select(table).where(table.c.rollout == self._rollout.number)
                for row in self._transaction.execute(query.where(name_column.in_(part))):
                    row_name, values = _split_row(row, table)
                    stored[table_name, row_name] = values
        return stored

    def _list_names(self, table: Table) -> Iterator[str]:
        return self._transaction.execute(
            select(table.c[get_name_column(table)]).where(table.c.rollout == self._rollout.number)
        ).scalars()

    def _count_stored(self, table: Table) -> int:
        own = select(func.count()).select_from(table).where(table.c.rollout == self._rollout.number)
        return int(self._transaction.execute(own).scalar_one())


def _split_row(row: Row[Any], table: Table) -> tuple[str, RowValues]:
    """Return a stored row's name and its other columns."""
    values = row._asdict()
    del values["rollout"]
    return values.pop(get_name_column(table)), values
