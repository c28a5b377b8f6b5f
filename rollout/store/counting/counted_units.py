"""Which units were counted: each once on a track, whoever tries, however often."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

import polars as pl
from sqlalchemy import ColumnElement, Select, select

from rollout.store.counting.counts import KIND, SERIES
from rollout.store.database.bulk import insert_missing
from rollout.store.database.frames import framed, framed_parts
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.tables.columns import plain
from rollout.store.tables.tables import count_classes, count_series, counted_units, external_keys

COLUMN_OF: Final = {
    "series": "series_id",
    "kinds": "class_ids",
    "band": "bucket",
    "excluded": "exclusion_reason",
}
"""The columns that have other names than a mark's fields."""
OWN: Final = tuple(
    counted_units.c[COLUMN_OF.get(name, name)].label(name)
    for name in ("slot", "occurred", "day", "band", "reviewer", "excluded", "kinds")
)


@dataclass(frozen=True, slots=True)
class Mark:
    """One unit of a version on a track, as it was counted.

    Attributes:
        unit, case_id: numbers of the unit and of the case that stood for it.
        version, track: whose unit, on which track.
        slot, occurred, day: where it is counted, where it occurred, its local day.
        series, kinds, band: the tallies that it adds to; a kind a lever, and one for all levers.
        reviewer: whose verdict counts, None without one.
        excluded: why it is no evidence, None where it is.
    """

    unit: int
    version: str
    track: str
    case_id: int
    slot: int
    occurred: int
    day: int
    series: int
    kinds: tuple[int, ...]
    band: int
    reviewer: str | None
    excluded: str | None

    @property
    def key(self) -> tuple[int, str, str]:
        """Return what it is counted once by."""
        return (self.unit, self.version, self.track)


class Counted:
    """The counted units of one rollout."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction = transaction
        self._rollout = rollout

    def mark(self, marks: Sequence[Mark]) -> list[Mark]:
        """Write marks and return those that are new: what is left out was counted before."""
        units_by_key = {unit.key: unit for unit in marks}
        ordered_units = [units_by_key[key] for key in sorted(units_by_key)]
        rows = [
            (
                *(self._rollout.number, *unit.key, unit.case_id, unit.slot, unit.occurred),
                *(unit.day, unit.series, plain(unit.kinds), unit.band),
                *(unit.reviewer, unit.excluded),
            )
            for unit in ordered_units
        ]
        new_keys = insert_missing(self._transaction, counted_units, rows)
        return [unit for unit in ordered_units if (self._rollout.number, *unit.key) in new_keys]

    def all(self) -> Iterator[Mark]:
        """Yield every mark, in the order of units."""
        names = [field.name for field in fields(Mark)]
        query = (
            select(*(counted_units.c[COLUMN_OF.get(name, name)].label(name) for name in names))
            .where(counted_units.c.rollout == self._rollout.number)
            .order_by(counted_units.c.unit, counted_units.c.version, counted_units.c.track)
        )
        for row in self._transaction.execute(query):
            yield Mark(**{**row._asdict(), "kinds": tuple(row.kinds)})

    def some(self, *, after: int, until: int) -> bool:
        """Say whether there is evidence in the slots after one and up to another."""
        query = select(counted_units.c.slot).where(*self._of(after, until)).limit(1)
        return self._transaction.execute(query).first() is not None

    def frame(self, *, after: int, until: int) -> pl.DataFrame:
        """Return the units that are evidence, of the slots after one and up to another.

        One row a unit and lever, as `rollout.tally.units.resolve` gives them, so that
        `unit_arrays.gather` reads what was counted live as it reads a history. Columns:
        those of `SERIES` and `KIND`, unit (its key; after a purge a hash of it), slot, occurred,
        day, band, reviewer, and excluded, which is null. Ordered by slot.
        """
        return pl.concat(self.frames(after=after, until=until))

    def frames(self, *, after: int, until: int) -> Iterator[pl.DataFrame]:
        """Yield what `frame` returns in parts, so that a long history is never there whole."""
        query = (
            select(
                *(count_series.c[name] for name in SERIES),
                external_keys.c.key.label("unit"),
                *OWN,
            )
            .join(count_series, count_series.c.id == counted_units.c.series_id)
            .join(external_keys, external_keys.c.id == counted_units.c.unit)
            .where(*self._of(after, until))
            .order_by(counted_units.c.slot, counted_units.c.occurred, counted_units.c.unit)
        )
        classes = framed(self._transaction, self._kinds())
        for unit_rows in framed_parts(self._transaction, query):
            lever_rows = unit_rows.explode("kinds")
            yield lever_rows.join(classes, on="kinds", how="left", maintain_order="left").drop(
                "kinds"
            )

    def _of(self, after: int, until: int) -> tuple[ColumnElement[bool], ...]:
        conditions = (
            counted_units.c.rollout == self._rollout.number,
            counted_units.c.exclusion_reason.is_(None),
        )
        return (*conditions, counted_units.c.slot > after, counted_units.c.slot <= until)

    def _kinds(self) -> Select[Any]:
        """Return the classes of units, under the name that units have for their numbers."""
        columns = (count_classes.c[name] for name in KIND)
        query = select(count_classes.c.id.label("kinds"), *columns)
        return query.where(count_classes.c.rollout == self._rollout.number)
