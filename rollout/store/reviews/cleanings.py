"""What people chose about cases for training: every choice, and the one that holds."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, Select, insert, select

from rollout.core.records.label_cleaning import Choice
from rollout.store.database import value_lists
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.records.external_keys import CallerKeys
from rollout.store.tables.tables import cleanings, rollouts

FIELDS = ("lever", "choice", "label", "reason", "by", "at", "version", "report")


@dataclass(frozen=True, slots=True)
class Numbered:
    """A choice with its number: later ones have higher numbers."""

    number: int
    choice: Choice


class Cleanings:
    """The choices of one rollout. They are never changed: a later one stands beside."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction = transaction
        self._rollout = rollout

    def take_turns(self) -> None:
        """Let nobody else choose in this rollout until the transaction ends."""
        lock_query = select(rollouts.c.id).where(rollouts.c.id == self._rollout.number)
        self._transaction.execute(lock_query.with_for_update())

    def add(self, new: Iterable[tuple[int, Choice]]) -> None:
        """Keep choices, each with the number of its case, in their order."""
        for case_id, choice in new:
            values = {name: getattr(choice, name) for name in FIELDS}
            row = {"rollout": self._rollout.number, "case_id": case_id, **values}
            self._transaction.execute(insert(cleanings).values(row))

    def of(self, case_ids: Collection[int]) -> Sequence[Choice]:
        """Return every choice about some cases, in the order in which they were made."""
        condition = cleanings.c.case_id.in_(value_lists.numbers(self._transaction, case_ids))
        return [numbered.choice for numbered in self._read(self._own().where(condition))]

    def page(self, *, before: int | None = None, limit: int = 100) -> Sequence[Numbered]:
        """Return choices, newest first, those before a number."""
        query = self._own(newest_first=True)
        if before is not None:
            query = query.where(cleanings.c.id < before)
        return self._read(query.limit(limit))

    def _own(self, *, newest_first: bool = False) -> Select[Any]:
        order = cleanings.c.id.desc() if newest_first else cleanings.c.id
        condition = cleanings.c.rollout == self._rollout.number
        return select(cleanings).where(condition).order_by(order)

    def _read(self, query: Select[Any]) -> list[Numbered]:
        rows = self._transaction.execute(query).all()
        keys = CallerKeys(self._transaction, self._rollout).keys_of({row.case_id for row in rows})
        return [Numbered(row.id, _choice(row, keys)) for row in rows if row.case_id in keys]


def _choice(row: Row[Any], keys: Mapping[int, str]) -> Choice:
    return Choice(key=keys[row.case_id], **{name: getattr(row, name) for name in FIELDS})
