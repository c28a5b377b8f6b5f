"""Rollouts and their policy texts; rows of cases by their numbers.

Policy texts are stored by hash, also those of policies that wait for approval and have no number
yet. The ledger has the policy in force, its start and its number; the table has the text of its
hash.

Rows of cases are read by the cases' numbers, without SQLAlchemy's share of the time.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from hashlib import sha256
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Row,
    Select,
    Table,
    bindparam,
    literal,
    literal_column,
    select,
    tuple_,
)

from rollout.data.database.bulk import (
    RowValues,
    encode_driver_values,
    fetch_rows,
    insert_once,
    select_integers,
    select_numbers,
)
from rollout.data.database.session import Database, Repository, Transaction
from rollout.data.tables.tables import (
    ACCESS_LEDGER,
    evidence_heads,
    ledger,
    ledger_heads,
    policies,
    rollouts,
)


@dataclass(frozen=True, slots=True)
class Rollout:
    """A stored rollout: the number in keys and the name in hashes.

    Clients get `salt` with a snapshot. `service_salt` leaves the service in no form but its hash:
    who chooses keys could else choose what it draws.
    """

    number: int
    name: str
    salt: bytes = field(default=b"", repr=False)
    service_salt: bytes = field(default=b"", repr=False)


ACCESS_CHAIN: Final = Rollout(ACCESS_LEDGER, ":access")
"""The owner of the access ledger; no rollout may have its name, which is part of stored hashes."""


def match_cases(
    transaction: Transaction, rollout: Rollout, table: FromClause, case_ids: Collection[int] | None
) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions for a rollout's rows; None means all cases.

    PostgreSQL gets pairs that it can't take apart: with a condition for the rollout alone it
    compares all its cases with all of `case_ids` as long as the table has no statistics.
    """
    is_own = table.c.rollout == rollout.number
    if case_ids is None:
        return (is_own,)
    if transaction.engine == "sqlite" and (run := _find_run(case_ids)) is not None:
        return is_own, table.c.case_id.between(run.start, run.stop - 1)
    numbers = select_numbers(transaction, case_ids)
    if transaction.engine == "sqlite":
        return is_own, table.c.case_id.in_(numbers)
    own_number = literal(rollout.number).label("rollout")
    pairs = numbers.with_only_columns(own_number, *numbers.selected_columns)
    is_listed = tuple_(table.c.rollout, table.c.case_id).in_(pairs.offset(literal_column("0")))
    return (is_listed,)


def _find_run(case_ids: Collection[int]) -> range | None:
    """Return cases that follow each other, as those of a batch do: SQLite reads them faster."""
    if len(case_ids) <= 1:
        return None
    run = range(min(case_ids), max(case_ids) + 1)
    return run if len(run) <= len(case_ids) and len(run) == len({*case_ids}) else None


class RolloutRepository(Repository):
    """Reads and writes rows of one rollout."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        super().__init__(transaction)
        self._rollout = rollout


class Rollouts(Repository):
    """The rollouts of one database."""

    def create(self, name: str, *, salt: bytes, at: datetime, service_salt: bytes = b"") -> Rollout:
        """Return the rollout with this name, created if new.

        A new rollout has an empty ledger; an existing one keeps its salts.
        """
        row = {"name": name, "salt": salt, "service_salt": service_salt, "created_at": at}
        insert_once(self._transaction, rollouts, row)
        rollout = self.find(name)
        assert rollout is not None  # noqa: S101 - inserted now or before
        self._open_ledger(rollout)
        insert_once(self._transaction, evidence_heads, {"rollout": rollout.number, "through": 0})
        return rollout

    def open_access_ledger(self) -> Rollout:
        """Return the owner of the access ledger, which is created if missing."""
        self._open_ledger(ACCESS_CHAIN)
        return ACCESS_CHAIN

    def find(self, name: str) -> Rollout | None:
        """Return the rollout with this name, or None."""
        query = select(rollouts).where(rollouts.c.name == name)
        return self._transaction.find(query, build_rollout)

    def list_all(self) -> tuple[Rollout, ...]:
        """Return all rollouts, oldest first."""
        rows = self._transaction.execute(select(rollouts).order_by(rollouts.c.id))
        return tuple(build_rollout(row) for row in rows)

    def list_orphans(self) -> list[int]:
        """Return the numbers of ledgers whose rollout has no row."""
        number = ledger.c.rollout
        query = select(number).where(number != ACCESS_LEDGER).distinct()
        return sorted(
            self._transaction.execute(query.where(number.not_in(select(rollouts.c.id)))).scalars()
        )

    def _open_ledger(self, rollout: Rollout) -> None:
        head = {"rollout": rollout.number, "revision": 0, "hash": ""}
        insert_once(self._transaction, ledger_heads, head)


def build_rollout(row: Row[tuple[object, ...]]) -> Rollout:
    """Return the rollout of a row."""
    return Rollout(row.id, row.name, row.salt, row.service_salt)


class PolicyTexts(RolloutRepository):
    """The policy texts of one rollout."""

    def store_text(self, text: str, *, by: str, at: datetime) -> str:
        """Store a policy's text and return its hash; an existing text stays."""
        text_hash = sha256(text.encode()).hexdigest()
        row = {
            "rollout": self._rollout.number,
            "hash": text_hash,
            "text": text,
            "received_by": by,
            "received_at": at,
        }
        insert_once(self._transaction, policies, row)
        return text_hash

    def load_texts(self, hashes: Collection[str]) -> dict[str, str]:
        """Return the stored texts of these hashes; without any nothing is read.

        Raises:
            ValueError: a text was changed, so it is not what was approved.
        """
        if not hashes:
            return {}
        query = select(policies.c.hash, policies.c.text).where(
            policies.c.rollout == self._rollout.number, policies.c.hash.in_(hashes)
        )
        texts = {row.hash: row.text for row in self._transaction.execute(query)}
        for text_hash, text in texts.items():
            if sha256(text.encode()).hexdigest() != text_hash:
                raise ValueError(f"the policy {text_hash[:12]}… is not the text of its hash")
        return texts


def list_rollout_names(database: Database) -> list[str]:
    """Return the names of all rollouts, oldest first."""
    with database.begin_read() as transaction:
        return [rollout.name for rollout in Rollouts(transaction).list_all()]


def fetch_case_rows(
    transaction: Transaction,
    rollout: Rollout,
    table: Table,
    columns: tuple[ColumnElement[Any], ...],
    case_ids: Collection[int],
) -> list[RowValues]:
    """Return columns of the cases' rows; the oldest revision of a record first.

    The columns are integers, texts or bytes, and belong to a table with the rollout and the case at
    the start of its primary key.
    """
    if not case_ids:
        return []
    engine = transaction.engine
    encoded = encode_driver_values(engine, case_ids)
    query = _build_query(engine, table, columns)
    return fetch_rows(transaction, query, {"rollout": rollout.number, "case_ids": encoded})


@cache
def _build_query(engine: str, table: Table, columns: tuple[ColumnElement[Any], ...]) -> Select[Any]:
    """Return the query for the rows of cases.

    On PostgreSQL a lateral subquery looks up each case: a plan made of `in` reads all cases of the
    rollout for each case as long as the table has no statistics. The order in it makes PostgreSQL
    use the primary key.
    """
    case_ids = select_integers(engine, "case_ids")
    query = select(*columns).where(table.c.rollout == bindparam("rollout"))
    query = query.order_by(*table.primary_key)
    if engine == "sqlite":
        return query.where(table.c.case_id.in_(case_ids))
    listed_ids = case_ids.subquery("listed_ids")
    rows = query.where(table.c.case_id == listed_ids.c.value).lateral("case_rows")
    return select(rows).select_from(listed_ids, rows)
