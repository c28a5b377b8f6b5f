"""Replacing a user's or reviewer's name by a pseudonym in the tables of a rollout."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Column, Select, Table, delete, select, update
from sqlalchemy.engine import RowMapping

from rollout.core.records.record_fields import Personal
from rollout.core.records.records import Decision
from rollout.store.counting.purge import open_purge
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.erasure.case_contents import ErasedContents
from rollout.store.erasure.texts import (
    clear_deliveries,
    delete_ledger_texts,
    delete_rejected,
    delete_responses,
    delete_texts_by,
    find_rows,
    list_name_spellings,
)
from rollout.store.records.record_hashes import ErasedHashes
from rollout.store.records.record_rows import RECORD_SCHEMAS, RecordSchema
from rollout.store.tables.tables import (
    baselines,
    cleanings,
    counted_units,
    exposures,
    idempotency_keys,
    incidents,
    policies,
    proposals,
    report_requests,
    reviews,
)

SCHEMAS: Final = {schema.table: schema for schema in RECORD_SCHEMAS.values()}
BATCHED_COLUMNS: Final[tuple[Column[str], ...]] = (
    *(
        table.c[name]
        for table, schema in SCHEMAS.items()
        for name in schema.list_personal(Personal.NAME)
    ),
    counted_units.c.reviewer,
    exposures.c.reviewer,
    reviews.c.reviewer,
)
"""The columns with names whose tables grow with the cases."""
SMALL_COLUMNS: Final[tuple[Column[str], ...]] = (
    cleanings.c.by,
    baselines.c.imported_by,
    policies.c.received_by,
    proposals.c.raised_by,
    incidents.c.acknowledged_by,
)
OPEN_TASK: Final = "open"
GOLD_TEXTS: Final = RECORD_SCHEMAS[Decision].list_personal(Personal.TEXT)
RecordHash = tuple[int, bytes]


class RolloutNames:
    """The names of users and reviewers in one rollout."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction = transaction
        self._rollout = rollout

    def has_name(self, name: str) -> bool:
        """Return whether any table of the rollout has the name."""
        return any(
            self._transaction.execute(self._select(column, name).limit(1)).first() is not None
            for column in (*BATCHED_COLUMNS, *SMALL_COLUMNS)
        )

    def list_names(self) -> list[str]:
        """Return the names of all reviewers and users in the tables; reads every row."""
        names = set[str]()
        for column in (*BATCHED_COLUMNS, *SMALL_COLUMNS):
            query = select(column).where(column.table.c.rollout == self._rollout.number)
            names |= set(self._transaction.execute(query.distinct()).scalars())
        return sorted(names - {None, ""})

    def replace_batch(
        self, name: str, pseudonym: str, *, limit: int, revision: int
    ) -> ErasedContents:
        """Replace the name in up to `limit` rows of one table.

        Without rows none is left. Open tasks of the name are free afterwards. `revision` is that of
        the event, which belongs into this transaction.
        """
        self._release_tasks(name)
        for column in BATCHED_COLUMNS:
            table = column.table
            conditions = (table.c.rollout == self._rollout.number, column == name)
            query = select(table).where(*conditions).limit(limit)
            rows = self._transaction.execute(query).mappings().all()
            if rows:
                digest = self._replace_rows(column, rows, pseudonym, revision)
                return ErasedContents((), {table.name: len(rows)}, digest)
        return ErasedContents((), {}, "")

    def replace_rest(self, name: str, pseudonym: str, *, revision: int) -> ErasedContents:
        """Replace the name in small tables, and delete the texts that have or are by it."""
        counts: Counter[str] = Counter()
        words = list_name_spellings(name)
        with open_purge(self._transaction):
            counts["cleanings"] += self._clear_reasons(name)
            for column in SMALL_COLUMNS:
                counts[column.table.name] += self._replace_all(column, name, pseudonym)
            counts["rejected_records"] += delete_rejected(self._transaction, self._rollout, words)
        hashes: list[RecordHash] = []
        for table, schema in SCHEMAS.items():
            columns = [table.c[name] for name in schema.list_personal(Personal.TEXT)]
            rows = find_rows(self._transaction, self._rollout, table, columns, words)
            hashes += self._clear_records(schema, rows, {})
            counts[table.name] += len(rows)
        digest = ErasedHashes(self._transaction, self._rollout).store(hashes, revision=revision)
        counts["ledger_texts"] += delete_texts_by(self._transaction, self._rollout, pseudonym)
        counts["ledger_texts"] += delete_ledger_texts(self._transaction, self._rollout, words)
        counts["deliveries"] += clear_deliveries(self._transaction, self._rollout, words)
        delete_responses(self._transaction, words)
        self._transaction.execute(
            delete(idempotency_keys).where(idempotency_keys.c.principal == name)
        )
        self._transaction.execute(
            delete(report_requests).where(report_requests.c.principal == name)
        )
        return ErasedContents((), {table: n for table, n in counts.items() if n}, digest)

    def _select(self, column: Column[str], name: str) -> Select[Any]:
        return select(column).where(column.table.c.rollout == self._rollout.number, column == name)

    def _release_tasks(self, name: str) -> None:
        conditions = (
            reviews.c.rollout == self._rollout.number,
            reviews.c.reviewer == name,
            reviews.c.state == OPEN_TASK,
        )
        values = {"reviewer": None, "claimed_until": None}
        self._transaction.execute(update(reviews).where(*conditions).values(**values))

    def _replace_rows(
        self, column: Column[str], rows: Sequence[RowMapping], pseudonym: str, revision: int
    ) -> str:
        """Replace the name in rows, and return the digest of changed records."""
        if schema := SCHEMAS.get(column.table):
            hashes = self._clear_records(schema, rows, {column.name: pseudonym})
            return ErasedHashes(self._transaction, self._rollout).store(hashes, revision=revision)
        with open_purge(self._transaction):
            for row in rows:
                values: dict[str, Any] = {column.name: pseudonym}
                if row.get("gold_decision") is not None:
                    values["gold_decision"] = {**row["gold_decision"], **GOLD_TEXTS}
                self._update_row(column.table, row, values)
        return ""

    def _clear_records(
        self, schema: RecordSchema, rows: Sequence[RowMapping], values: Mapping[str, str]
    ) -> list[RecordHash]:
        """Clear personal texts of records and the random bytes of their hashes; return these."""
        cleared = {**schema.list_personal(Personal.TEXT), **values, "salt": None}
        with open_purge(self._transaction):
            for row in rows:
                self._update_row(schema.table, row, cleared)
        return [(int(row["case_id"]), row["record_hash"]) for row in rows]

    def _update_row(self, table: Table, row: RowMapping, values: Mapping[str, Any]) -> None:
        same_row = (column == row[column.name] for column in table.primary_key)
        self._transaction.execute(update(table).where(*same_row).values(**values))

    def _clear_reasons(self, name: str) -> int:
        conditions = (cleanings.c.rollout == self._rollout.number, cleanings.c.by == name)
        statement = update(cleanings).where(*conditions).values(reason="")
        return self._transaction.execute(statement).rowcount

    def _replace_all(self, column: Column[str], name: str, pseudonym: str) -> int:
        table = column.table
        conditions = (table.c.rollout == self._rollout.number, column == name)
        statement = update(table).where(*conditions).values(**{column.name: pseudonym})
        return self._transaction.execute(statement).rowcount
