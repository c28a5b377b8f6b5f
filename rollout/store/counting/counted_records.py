"""Hashes of actions and outcomes, by the tick whose digest covers them.

No unit of a gate on decisions rests on them: actions open incidents, and outcomes feed guards,
reports and `counted_outcomes`. The queue has each case with new ones, in the transaction that
stores them.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    Select,
    Subquery,
    Table,
    bindparam,
    func,
    literal,
    select,
    type_coerce,
    union_all,
)

from rollout.core.records.records import Action, Outcome
from rollout.store.database.bulk import build_insert, fetch_rows
from rollout.store.database.rollouts import Rollout, match_cases
from rollout.store.database.session import Transaction
from rollout.store.ledger.evidence import EvidenceStore
from rollout.store.records.record_rows import RECORD_SCHEMAS, RecordSchema
from rollout.store.tables.counting_tables import RECORD_UNSEALED
from rollout.store.tables.tables import (
    count_queue,
    counted_outcomes,
    counted_records,
    counted_units,
)

LINE_TABLES: Final = (counted_units, counted_records, counted_outcomes)


def count_lines(
    transaction: Transaction, rollout: Rollout, *, after: int, until: int
) -> tuple[int, ...]:
    """Return the numbers of units, records and outcomes of slots (`after`, `until`]."""
    lines = (select_lines(table, rollout, after, until) for table in LINE_TABLES)
    queries = (select(func.count()).select_from(table_lines) for table_lines in lines)
    return tuple(int(transaction.execute(query).scalar_one()) for query in queries)


def select_lines(
    table: Table, rollout: Rollout, after: int, until: int, positions: range | None = None
) -> Subquery:
    """Select the rows of slots (`after`, `until`], or those at some positions among them.

    Positions count in the order of slots; rows of one slot have the index's order, which costs no
    sorting.
    """
    query = select(table).where(
        table.c.rollout == rollout.number, table.c.slot > after, table.c.slot <= until
    )
    if positions is not None:
        query = query.order_by(table.c.slot).offset(positions.start).limit(len(positions))
    return query.subquery()


SEALED_SCHEMAS: Final = (RECORD_SCHEMAS[Action], RECORD_SCHEMAS[Outcome])
RECORDS_PER_READ: Final = 2_000


class RecordLine(NamedTuple):
    """A record that a tick counted, as its digest covers it."""

    slot: int
    case_id: int
    kind: str
    record_hash: bytes

    @property
    def text(self) -> bytes:
        """Return the line that digests cover."""
        return f"{self.kind} {self.case_id} {self.slot} {self.record_hash.hex()}\n".encode()


@dataclass(frozen=True, slots=True)
class UnsealedRecords:
    """Actions and outcomes in no tick's digest; `newest` is when the last was received."""

    number: int = 0
    newest: datetime | None = None


class CountedRecords:
    """The counted actions and outcomes of one rollout."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction, self._rollout = transaction, rollout

    def store(self, case_ids: Collection[int], *, slot: int) -> None:
        """Store the hashes of the actions and outcomes of cases; those stored before stay.

        If evidence has already reached the slot, the hashes belong to the next one.
        """
        if not case_ids:
            return
        last_slot = EvidenceStore(self._transaction, self._rollout).get_last_slot(lock=True)
        for schema in SEALED_SCHEMAS:
            new_rows = self._select_rows(schema, case_ids, max(slot, last_slot + 1))
            statement = build_insert(self._transaction.engine, counted_records)
            self._transaction.execute(
                statement.from_select(
                    ["rollout", "case_id", "record_hash", "kind", "slot"], new_rows
                ).on_conflict_do_nothing()
            )

    def read_lines(
        self, *, after: int, until: int, positions: range | None = None
    ) -> Iterator[RecordLine]:
        """Yield the records of slots (`after`, `until`], or a run of them, in digests' order."""
        lines = select_lines(counted_records, self._rollout, after, until, positions)
        query = select(*(lines.c[name] for name in RecordLine._fields)).order_by(
            *(lines.c[name] for name in ("slot", "case_id", "record_hash"))
        )
        for row in self._transaction.execute(query.execution_options(yield_per=RECORDS_PER_READ)):
            yield RecordLine(row.slot, row.case_id, row.kind, bytes(row.record_hash))

    def has_any_line(self, *, after: int, until: int) -> bool:
        """Return whether slots (`after`, `until`] have a counted unit, record or outcome."""
        parameters = {"rollout": self._rollout.number, "after": after, "until": until}
        return bool(fetch_rows(self._transaction, ANY_LINE_QUERY, parameters))

    def count_unsealed(self) -> UnsealedRecords:
        """Return the actions and outcomes that no tick counted and none will."""
        queued_cases = select(count_queue.c.case_id).where(
            count_queue.c.rollout == self._rollout.number, count_queue.c.track == RECORD_UNSEALED
        )
        rows = [
            self._transaction.execute(self._select_unsealed(schema, queued_cases)).one()
            for schema in SEALED_SCHEMAS
        ]
        newest = max((row.newest for row in rows if row.newest is not None), default=None)
        return UnsealedRecords(sum(row.number for row in rows), newest)

    def _select_rows(
        self, schema: RecordSchema, case_ids: Collection[int], slot: int
    ) -> Select[Any]:
        table = schema.table
        return select(
            *(table.c.rollout, table.c.case_id, table.c.record_hash),
            *(literal(schema.name), literal(slot)),
        ).where(*match_cases(self._transaction, self._rollout, table, case_ids))

    def _select_unsealed(self, schema: RecordSchema, queued_cases: Select[Any]) -> Select[Any]:
        table = schema.table
        is_sealed = (
            select(counted_records.c.case_id)
            .where(counted_records.c.rollout == table.c.rollout)
            .where(counted_records.c.case_id == table.c.case_id)
            .where(counted_records.c.record_hash == table.c.record_hash)
            .exists()
        )
        newest = type_coerce(func.max(table.c.received_at), table.c.received_at.type)
        return (
            select(func.count().label("number"), newest.label("newest"))
            .select_from(table)
            .where(table.c.rollout == self._rollout.number, ~is_sealed)
            .where(table.c.case_id.not_in(queued_cases))
        )


def _select_any(table: Table) -> Select[Any]:
    is_inside = table.c.slot > bindparam("after"), table.c.slot <= bindparam("until")
    query = select(table.c.slot).where(table.c.rollout == bindparam("rollout"), *is_inside)
    return select(query.limit(1).subquery())


ANY_LINE_QUERY: Final = union_all(
    *map(_select_any, (counted_units, counted_records, counted_outcomes))
)
