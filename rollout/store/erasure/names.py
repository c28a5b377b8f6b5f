"""Replacing a user's or reviewer's name by a pseudonym in the tables of a rollout."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Column, ColumnElement, Select, Table, delete, select, update

from rollout.store.counting.purge import open_purge
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.erasure.texts import (
    clear_notes,
    delete_ledger_texts,
    delete_rejected,
    delete_responses,
    delete_texts_by,
)
from rollout.store.tables.tables import (
    baselines,
    cleanings,
    counted_units,
    decisions,
    exposures,
    idempotency_keys,
    incidents,
    policies,
    proposals,
    reviews,
)

BATCHED_COLUMNS: Final[tuple[Column[str], ...]] = (
    decisions.c.reviewer,
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

    def list_reviewers(self) -> list[str]:
        """Return the names of all reviewers and of those who acted here; reads every row."""
        names = set[str]()
        for column in (*BATCHED_COLUMNS, *SMALL_COLUMNS):
            query = select(column).where(column.table.c.rollout == self._rollout.number)
            names |= set(self._transaction.execute(query.distinct()).scalars())
        return sorted(names - {None, ""})

    def replace_batch(
        self, name: str, pseudonym: str, limit: int
    ) -> tuple[Mapping[str, int], tuple[str, ...]]:
        """Replace the name in up to `limit` rows.

        Returns the number of rows by table, empty when none is left, and the hashes of the
        decisions among them. Open tasks of the name are free afterwards.
        """
        self._release_tasks(name)
        for column in BATCHED_COLUMNS:
            keys = self._list_keys(column, name, limit)
            if keys:
                hashes = self._list_hashes(keys) if column.table is decisions else ()
                with open_purge(self._transaction):
                    self._replace_keys(column, keys, pseudonym)
                return {column.table.name: len(keys)}, hashes
        return {}, ()

    def replace_rest(self, name: str, pseudonym: str, account: str) -> Mapping[str, int]:
        """Replace the name in small tables, and delete the texts that have or are by it."""
        counts: Counter[str] = Counter()
        with open_purge(self._transaction):
            counts["cleanings"] += self._clear_reasons(name)
            for column in SMALL_COLUMNS:
                counts[column.table.name] += self._replace_all(column, name, pseudonym)
            counts["rejected_records"] += delete_rejected(self._transaction, self._rollout, [name])
            counts["decisions"] += clear_notes(self._transaction, self._rollout, [name])
        texts = delete_texts_by(self._transaction, self._rollout, account)
        counts["ledger_texts"] += texts + delete_ledger_texts(
            self._transaction, self._rollout, [name]
        )
        delete_responses(self._transaction, [name])
        self._transaction.execute(
            delete(idempotency_keys).where(idempotency_keys.c.principal == name)
        )
        return {table: n for table, n in counts.items() if n}

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

    def _list_keys(self, column: Column[str], name: str, limit: int) -> list[Mapping[str, object]]:
        table = column.table
        query = select(*table.primary_key).where(
            table.c.rollout == self._rollout.number, column == name
        )
        return [dict(row) for row in self._transaction.execute(query.limit(limit)).mappings()]

    def _list_hashes(self, keys: list[Mapping[str, object]]) -> tuple[str, ...]:
        values = (
            self._transaction.execute(
                select(decisions.c.hash).where(*_match_key(decisions, key))
            ).scalar_one()
            for key in keys
        )
        return tuple(sorted(value.hex() for value in values))

    def _replace_keys(
        self, column: Column[str], keys: list[Mapping[str, object]], pseudonym: str
    ) -> None:
        values: dict[str, object] = {column.name: pseudonym}
        if column.table is decisions:
            values["note"] = None
        for key in keys:
            statement = update(column.table).where(*_match_key(column.table, key))
            self._transaction.execute(statement.values(**values))
        if column.table is reviews:
            self._clear_gold_notes(keys)

    def _clear_gold_notes(self, keys: list[Mapping[str, object]]) -> None:
        """Remove the typed notes of decisions on gold cases."""
        for key in keys:
            query = select(reviews.c.gold_decision).where(*_match_key(reviews, key))
            decision = self._transaction.execute(query).scalar_one()
            if decision is not None:
                statement = update(reviews).where(*_match_key(reviews, key))
                without_note = {**decision, "note": None}
                self._transaction.execute(statement.values(gold_decision=without_note))

    def _clear_reasons(self, name: str) -> int:
        conditions = (cleanings.c.rollout == self._rollout.number, cleanings.c.by == name)
        statement = update(cleanings).where(*conditions).values(reason="")
        return self._transaction.execute(statement).rowcount

    def _replace_all(self, column: Column[str], name: str, pseudonym: str) -> int:
        table = column.table
        conditions = (table.c.rollout == self._rollout.number, column == name)
        statement = update(table).where(*conditions).values(**{column.name: pseudonym})
        return self._transaction.execute(statement).rowcount


def _match_key(table: Table, key: Mapping[str, object]) -> list[ColumnElement[bool]]:
    return [table.c[name] == value for name, value in key.items()]
