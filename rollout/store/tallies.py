"""Sums of counted units: how many fell into each class, by cell, version and slot."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import polars as pl
from sqlalchemy import select

from rollout.store.bulk import add_up
from rollout.store.frames import framed
from rollout.store.rollouts import Rollout
from rollout.store.session import Transaction
from rollout.store.tables import tallies, tally_kinds, tally_series

SERIES: Final = ("track", "version", "site", "window", "definition", "attempt")
"""Whose units a tally counts."""

KIND: Final = ("lever", "predicted", "decided", "second", "level")
"""The class that a unit falls into."""


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

    def add(self, counts: Mapping[Key, int]) -> None:
        """Add counts; only in the transaction that marks the units, and only after `through`."""
        rows = [
            (self._rollout.number, k.slot, k.occurred, k.series, k.kind, k.band, n)
            for k, n in sorted(counts.items())
        ]
        add_up(self._transaction, tallies, rows, "n")

    def numbered(self) -> dict[Key, int]:
        """Return every tally under its numbers."""
        query = select(tallies).where(tallies.c.rollout == self._rollout.number)
        rows = self._transaction.execute(query)
        return {Key(r.slot, r.occurred, r.series, r.kind, r.band): r.n for r in rows}

    def frame(self, *, after: int, until: int) -> pl.DataFrame:
        """Return the tallies of the slots after one and up to another, with what they count.

        Columns: slot, occurred, those of `SERIES` and `KIND`, band, n; ordered by slot.
        """
        query = (
            select(
                *(tallies.c.slot, tallies.c.occurred),
                *(tally_series.c[name] for name in SERIES),
                *(tally_kinds.c[name] for name in KIND),
                *(tallies.c.band, tallies.c.n),
            )
            .join(tally_series, tally_series.c.id == tallies.c.series)
            .join(tally_kinds, tally_kinds.c.id == tallies.c.kind)
            .where(tallies.c.rollout == self._rollout.number)
            .where(tallies.c.slot > after, tallies.c.slot <= until)
            .order_by(tallies.c.slot, tallies.c.occurred)
        )
        return framed(self._transaction, query)
