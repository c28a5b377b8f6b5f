"""Units that this process has just stored, so that its tick needn't read them again.

They are used only where the store has as many in their slots: each is stored once, so those are the
same ones. Where another replica counted some too, all are read. Whoever changes or takes back what
is stored appends an event, at which `clear` forgets it.
"""

from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Final, NamedTuple

from sqlalchemy import select

from rollout.store.counting.counted_units import CountedUnitRow, CountedUnits
from rollout.store.counting.unit_digests import (
    COVERED_FIELDS,
    VALUE_FIELDS,
    UnitLine,
    UnitLines,
    join_lines,
    read_joined_lines,
)
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.tables.columns import encode_json
from rollout.store.tables.tables import count_series
from rollout.tally.stored_units import StoredUnits

UNITS_AT_MOST: Final = 50_000
"""Of more, a tick reads all again: they would take more memory than their page."""
GET_LINE: Final = itemgetter(
    *map(CountedUnitRow._fields.index, (*UnitLine._fields[:COVERED_FIELDS], *VALUE_FIELDS))
)
CLASS_IDS: Final = UnitLine._fields.index("class_ids")


class _KeyedUnit(NamedTuple):
    key: str
    row: CountedUnitRow


class JustCounted:
    """The units of one rollout that one ticker has stored since its last decision."""

    def __init__(self) -> None:
        self._units: list[_KeyedUnit] = []

    def add(self, units: Iterable[CountedUnitRow], keys: Mapping[int, str]) -> None:
        """Add units after their transaction; `keys` are those of units by number."""
        self._units += [_KeyedUnit(keys[row.unit], row) for row in units]
        if len(self._units) > UNITS_AT_MOST:
            self.clear()

    def clear(self) -> None:
        """Forget all units."""
        self._units = []

    def forget_until(self, slot: int) -> None:
        """Forget the units of slots that are decided."""
        self._units = [unit for unit in self._units if unit.row.slot > slot]

    def load_units(
        self, transaction: Transaction, rollout: Rollout, *, after: int, until: int
    ) -> Iterable[StoredUnits]:
        """Return the evidence of slots (`after`, `until`] in parts, ordered by slot."""
        stored = CountedUnits(transaction, rollout)
        units = self._select(transaction, rollout, after, until)
        if not units:
            return stored.load_units(after=after, until=until)
        evidence = [unit for unit in units if unit.row.exclusion_reason is None]
        evidence.sort(key=lambda unit: (unit.row.slot, unit.row.occurred, unit.row.unit))
        keys, rows = [unit.key for unit in evidence], [unit.row for unit in evidence]
        return [stored.convert_units(keys, rows)] if rows else []

    def read_lines(
        self, transaction: Transaction, rollout: Rollout, *, after: int, until: int
    ) -> Iterable[UnitLines]:
        """Return the lines of units of slots (`after`, `until`] in parts."""
        units = self._select(transaction, rollout, after, until)
        if not units:
            return read_joined_lines(transaction, rollout, after=after, until=until)
        places = _order_versions(transaction, rollout, {unit.row.version for unit in units})
        rows = sorted(
            (unit.row for unit in units),
            key=lambda row: (row.slot, row.occurred, row.unit, places[row.version], row.track),
        )
        texts = {class_ids: encode_json(class_ids) for class_ids in {row.class_ids for row in rows}}
        lines = map(GET_LINE, rows)
        return [
            join_lines([(*x[:CLASS_IDS], texts[x[CLASS_IDS]], *x[CLASS_IDS + 1 :]) for x in lines])
        ]

    def _select(
        self, transaction: Transaction, rollout: Rollout, after: int, until: int
    ) -> Sequence[_KeyedUnit]:
        """Return the units of slots (`after`, `until`]; none if the store has others too."""
        units = [unit for unit in self._units if after < unit.row.slot <= until]
        if not units:
            return ()
        stored_count = CountedUnits(transaction, rollout).count(after=after, until=until)
        return units if stored_count == len(units) else ()


def _order_versions(
    transaction: Transaction, rollout: Rollout, versions: set[str]
) -> Mapping[str, int]:
    """Return the place of each version in the database's own order of texts, as digests have it."""
    query = select(count_series.c.version).where(
        count_series.c.rollout == rollout.number, count_series.c.version.in_(versions)
    )
    ordered = transaction.execute(query.distinct().order_by(count_series.c.version)).scalars()
    return {version: place for place, version in enumerate(ordered)}
