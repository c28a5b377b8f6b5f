"""What could not be used: kept as it came, with the reason, each once however often it is sent."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from sqlalchemy import func, select

from rollout.store.database.bulk import inserting
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.tables.tables import rejected_records


@dataclass(frozen=True, slots=True)
class Item:
    """Something that was set aside: which kind of record under which key, its text, and why."""

    kind: str
    key: str
    body: str
    reason: str


@dataclass(frozen=True, slots=True)
class Kept:
    """An item as it stands in the table; `number` rises with time."""

    number: int
    received_at: datetime
    item: Item


class SetAside:
    """What was set aside in one rollout."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction = transaction
        self._rollout = rollout

    def add(self, items: Iterable[Item], *, received_at: datetime) -> None:
        """Keep items; one that stands there already is not kept twice."""
        rows = [self._row(item, received_at) for item in items]
        if rows:
            statement = inserting(
                self._transaction.engine, rejected_records
            ).on_conflict_do_nothing()
            self._transaction.execute(statement, rows)

    def after(self, number: int = 0, *, limit: int = 100) -> Sequence[Kept]:
        """Return items in the order in which they came, from after a number on."""
        query = (
            select(rejected_records)
            .where(
                rejected_records.c.rollout == self._rollout.number, rejected_records.c.id > number
            )
            .order_by(rejected_records.c.id)
            .limit(limit)
        )
        return [
            Kept(row.id, row.received_at, Item(row.kind, row.key, row.body, row.reason))
            for row in self._transaction.execute(query)
        ]

    def counts(self) -> dict[tuple[str, str], int]:
        """Return how many items there are by kind and reason."""
        columns = (rejected_records.c.kind, rejected_records.c.reason)
        query = (
            select(*columns, func.count().label("n"))
            .where(rejected_records.c.rollout == self._rollout.number)
            .group_by(*columns)
        )
        return {(row.kind, row.reason): row.n for row in self._transaction.execute(query)}

    def _row(self, item: Item, received_at: datetime) -> dict[str, object]:
        content = f"{item.kind}\n{item.key}\n{item.body}"
        return {
            "rollout": self._rollout.number,
            "kind": item.kind,
            "key": item.key,
            "body": item.body,
            "reason": item.reason,
            "received_at": received_at,
            "hash": sha256(content.encode()).digest(),
        }
