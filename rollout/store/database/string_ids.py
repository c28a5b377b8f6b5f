"""Values that stand in many rows, each stored once and known by a number from then on."""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

from sqlalchemy import Column, Table, select, tuple_

from rollout.store.database.bulk import inserting
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction

AT_ONCE = 1_000
Values = tuple[Any, ...]


class Interned:
    """The numbers of one rollout's values in one table, which has them in a unique index."""

    def __init__(self, transaction: Transaction, rollout: Rollout, table: Table) -> None:
        self._transaction = transaction
        self._rollout = rollout
        self._table = table

    def number(self, values: Iterable[Values]) -> dict[Values, int]:
        """Return the numbers of values, given now to those that have none."""
        unique_values = sorted(set(values))
        ids = self._find(unique_values)
        missing_values = [value for value in unique_values if value not in ids]
        if not missing_values:
            return ids
        names = [column.name for column in self._columns]
        rows = [
            {"rollout": self._rollout.number, **dict(zip(names, value, strict=True))}
            for value in missing_values
        ]
        self._transaction.execute(
            inserting(self._transaction.engine, self._table).on_conflict_do_nothing(), rows
        )
        return {**ids, **self._find(missing_values)}

    def _find(self, wanted: Sequence[Values]) -> dict[Values, int]:
        ids: dict[Values, int] = {}
        values = iter(wanted)
        while part := list(islice(values, AT_ONCE)):
            query = select(self._table.c.id, *self._columns).where(
                self._table.c.rollout == self._rollout.number, tuple_(*self._columns).in_(part)
            )
            ids |= {tuple(row[1:]): row[0] for row in self._transaction.execute(query)}
        return ids

    @property
    def _columns(self) -> list[Column[Any]]:
        return [c for c in self._table.columns if c.name not in {"id", "rollout"}]
