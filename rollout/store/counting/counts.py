"""Sums of counted units: how many fell into each class, by cell, version and slot."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import polars as pl
from sqlalchemy import select

from rollout.store.database.bulk import add_up
from rollout.store.database.frames import framed
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.tables.tables import count_classes, count_series, counts

SERIES: Final = ("track", "version", "site", "window", "definition", "attempt")
"""Whose units a tally counts."""

KIND: Final = ("lever", "predicted", "decided", "second", "level")
"""The class that a unit falls into."""


COLUMN_OF: Final = {"series": "series_id", "kind": "class_id", "band": "bucket"}
"""The columns that have other names than a key's fields."""


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """One tally: where its units were counted and occurred, and the numbers of what they are."""

    slot: int
    occurred: int
    series: int
    kind: int
    band: int


class Tallies:
    """The tallies of one rollout."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction = transaction
        self._rollout = rollout

    def add(self, added: Mapping[Key, int]) -> None:
        """Add counts; only in the transaction that marks the units, and only after `through`."""
        rows = [
            (self._rollout.number, k.slot, k.occurred, k.series, k.kind, k.band, n)
            for k, n in sorted(added.items())
        ]
        add_up(self._transaction, counts, rows, "n")

    def numbered(self) -> dict[Key, int]:
        """Return every tally under its numbers."""
        query = select(counts).where(counts.c.rollout == self._rollout.number)
        rows = self._transaction.execute(query)
        return {Key(r.slot, r.occurred, r.series_id, r.class_id, r.bucket): r.n for r in rows}

    def frame(self, *, after: int, until: int) -> pl.DataFrame:
        """Return the tallies of the slots after one and up to another, with what they count.

        Columns: slot, occurred, those of `SERIES` and `KIND`, band, n; ordered by slot.
        """
        query = (
            select(
                *(counts.c.slot, counts.c.occurred),
                *(count_series.c[name] for name in SERIES),
                *(count_classes.c[name] for name in KIND),
                *(counts.c.bucket.label("band"), counts.c.n),
            )
            .join(count_series, count_series.c.id == counts.c.series_id)
            .join(count_classes, count_classes.c.id == counts.c.class_id)
            .where(counts.c.rollout == self._rollout.number)
            .where(counts.c.slot > after, counts.c.slot <= until)
            .order_by(counts.c.slot, counts.c.occurred)
        )
        return framed(self._transaction, query)
