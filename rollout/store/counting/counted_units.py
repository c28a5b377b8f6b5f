"""Counted units: each unit of a version is stored once on a track."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from operator import itemgetter
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Text, func, select, type_coerce

from rollout.core.calendar.sites import Cell
from rollout.store.counting.counted_records import select_lines
from rollout.store.counting.counts import (
    SlotPosition,
    find_position,
    load_classes,
    match_positions,
)
from rollout.store.counting.unit_digests import IS_ERASED
from rollout.store.database.bulk import insert_missing_columns, select_numbers
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.tables.columns import encode_json
from rollout.store.tables.tables import count_series, counted_units, external_keys
from rollout.tally.stored_units import COLUMNS, LeverClass, StoredUnits, UnitSeries

ROWS_PER_FETCH: Final = 5_000
ROWS_PER_PART: Final = 20_000  # each part costs its readers something for every cell
_COMPUTED_COLUMNS: Final[Mapping[str, ColumnElement[Any]]] = {
    "unit": external_keys.c.key,
    "class_ids": type_coerce(counted_units.c.class_ids, Text),  # few texts are decoded
    "is_erased": IS_ERASED,
}
_UNIT_COLUMNS: Final = [
    _COMPUTED_COLUMNS[name] if name in _COMPUTED_COLUMNS else counted_units.c[name]
    for name in COLUMNS
]


class CountedUnitRow(NamedTuple):
    """A counted unit of a version on a track, in the order of the table's columns.

    Attributes:
        unit, case_id: numbers of the unit and of its representative case.
        slot, occurred, day: slot of the count, slot of the case, its local day.
        series_id: number of the series of counts (track, version, cell, definition, attempt).
        class_ids: class numbers: one a lever, and one for all levers together if there are several.
        bucket: bucket of the case's sampling value.
        reviewer: whose decision counts; None without a decision.
        exclusion_reason: why the unit is not evidence; None if it is.
        record_hashes: of the records behind it, sorted and joined.
        attribute_values: of its cases, as `rollout.core.policy.familiarity` stores them; None if
            the policy asked for none.
        slices: the case's values of the recorded attributes, as JSON; None if none was recorded.
        value_seal: hashed with both (`rollout.store.counting.unit_digests`); None without values.
        band: how many confidence floors above the lowest its confidence reaches; None where the
            policy has no several floors.
    """

    unit: int
    version: str
    track: str
    case_id: int
    slot: int
    occurred: int
    day: int
    series_id: int
    class_ids: tuple[int, ...]
    bucket: int
    reviewer: str | None
    exclusion_reason: str | None
    record_hashes: bytes = b""
    attribute_values: str | None = None
    slices: str | None = None
    value_seal: bytes | None = None
    band: int | None = None

    @property
    def identity(self) -> tuple[int, str, str]:
        """Return the key under which the unit is counted once."""
        return (self.unit, self.version, self.track)


SLOT: Final = CountedUnitRow._fields.index("slot")
GET_IDENTITY: Final = itemgetter(
    *(CountedUnitRow._fields.index(name) for name in ("unit", "version", "track"))
)
build_row: Final = partial(tuple.__new__, CountedUnitRow)
"""Returns a row of its fields in order; by the class's own methods it takes three times as long."""


def shift_slots(units: Sequence[CountedUnitRow], first_slot: int) -> Sequence[CountedUnitRow]:
    """Return units, those of earlier slots in the first one that is open."""
    columns = list(zip(*units, strict=True))
    slots = columns[SLOT] if columns else ()
    if min(slots, default=first_slot) >= first_slot:
        return units
    columns[SLOT] = tuple([max(slot, first_slot) for slot in slots])
    return list(map(build_row, zip(*columns, strict=True)))


class CountedUnits:
    """The counted units of one rollout."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction = transaction
        self._rollout = rollout

    def store(self, units: Sequence[CountedUnitRow]) -> list[CountedUnitRow]:
        """Store units and return those that were not counted before."""
        if not units:
            return []
        units_by_key = dict(zip(map(GET_IDENTITY, units), units, strict=True))
        keys = sorted(units_by_key)
        ordered_units = [units_by_key[key] for key in keys]
        # rows are built by the driver: a tuple for each unit took as long as a third of the insert
        columns: dict[str, Sequence[Any]] = {
            "rollout": (self._rollout.number,) * len(keys),
            **dict(zip(CountedUnitRow._fields, zip(*ordered_units, strict=True), strict=True)),
        }
        class_texts = {class_ids: encode_json(class_ids) for class_ids in {*columns["class_ids"]}}
        columns["class_ids"] = [class_texts[class_ids] for class_ids in columns["class_ids"]]
        new_keys = insert_missing_columns(self._transaction, counted_units, columns)
        if len(new_keys) == len(keys):
            return ordered_units
        number = self._rollout.number
        return [unit for unit in ordered_units if (number, *unit.identity) in new_keys]

    def list_cases(self, case_numbers: range) -> Iterator[CountedUnitRow]:
        """Yield the units that some cases represent, in no order."""
        case_id = counted_units.c.case_id
        return self.list_matching(case_id >= case_numbers.start, case_id < case_numbers.stop)

    def list_part(self, *, after: SlotPosition, until: SlotPosition) -> Iterator[CountedUnitRow]:
        """Yield the units of positions (`after`, `until`], in no order."""
        return self.list_matching(*match_positions(counted_units, after, until))

    def list_part_ends(self, size: int) -> Iterator[SlotPosition]:
        """Yield the last positions of parts with at least `size` units, in order."""
        position = (counted_units.c.slot, counted_units.c.occurred)
        query = (
            select(*position, func.count().label("n"))
            .where(counted_units.c.rollout == self._rollout.number)
            .group_by(*position)
            .order_by(*position)
        )
        unit_count = 0
        for row in self._transaction.execute(query.execution_options(yield_per=ROWS_PER_FETCH)):
            unit_count += row.n
            if unit_count >= size:
                yield row.slot, row.occurred
                unit_count = 0

    def list_matching(self, *conditions: ColumnElement[bool]) -> Iterator[CountedUnitRow]:
        """Yield the units that meet conditions on their table, in no order."""
        columns = (counted_units.c[name] for name in CountedUnitRow._fields)
        query = select(*columns).where(counted_units.c.rollout == self._rollout.number, *conditions)
        for row in self._transaction.execute(query.execution_options(yield_per=ROWS_PER_FETCH)):
            yield CountedUnitRow(**{**row._asdict(), "class_ids": tuple(row.class_ids)})

    def count(self, *, after: int, until: int) -> int:
        """Return the number of units of slots (`after`, `until`], evidence or not."""
        lines = select_lines(counted_units, self._rollout, after, until)
        return int(self._transaction.execute(select(func.count()).select_from(lines)).scalar_one())

    def convert_units(self, keys: Sequence[str], units: Sequence[CountedUnitRow]) -> StoredUnits:
        """Return units, of which there are some, with their keys as `load_units` does."""
        values: dict[str, Sequence[Any]] = {
            **dict(zip(CountedUnitRow._fields, zip(*units, strict=True), strict=True)),
            "unit": keys,
            "is_erased": (False,) * len(units),
        }
        lookup = NumberLookup(self._transaction, self._rollout)
        lookup.load_series(values["series_id"])
        lookup.load_classes({n for class_ids in {*values["class_ids"]} for n in class_ids})
        return StoredUnits(lookup.series, lookup.classes, *(values[name] for name in COLUMNS))

    def load_units(
        self, *, after: int, until: int, key: tuple[Cell, str] | None = None
    ) -> Iterator[StoredUnits]:
        """Yield the evidence of slots (`after`, `until`] in parts, ordered by slot.

        With `key` only the units of that version in that cell.
        """
        return self._load_units(*self._build_conditions(after, until), *_match_series(key))

    def find_part_end(self, after: SlotPosition, size: int) -> SlotPosition | None:
        """Return the position of the unit that follows the next `size` ones; None at the end."""
        return find_position(self._transaction, counted_units, self._rollout, after, size)

    def load_part(self, *, after: SlotPosition, until: SlotPosition) -> Iterator[StoredUnits]:
        """Yield the evidence of positions (`after`, `until`] as `load_units` does."""
        return self._load_units(
            counted_units.c.rollout == self._rollout.number,
            counted_units.c.exclusion_reason.is_(None),
            *match_positions(counted_units, after, until),
        )

    def _load_units(self, *conditions: ColumnElement[bool]) -> Iterator[StoredUnits]:
        query = (
            select(*_UNIT_COLUMNS)
            .join(external_keys, external_keys.c.id == counted_units.c.unit)
            .where(*conditions)
            .order_by(counted_units.c.slot, counted_units.c.occurred, counted_units.c.unit)
        )
        result = self._transaction.execute(query.execution_options(yield_per=ROWS_PER_PART))
        lookup = NumberLookup(self._transaction, self._rollout)
        for rows in result.partitions():
            columns: dict[str, Any] = dict(zip(COLUMNS, zip(*rows, strict=True), strict=True))
            columns["class_ids"] = lookup.decode_classes(columns["class_ids"])
            lookup.load_series(columns["series_id"])
            yield StoredUnits(lookup.series, lookup.classes, **columns)

    def _build_conditions(self, after: int, until: int) -> tuple[ColumnElement[bool], ...]:
        conditions = (
            counted_units.c.rollout == self._rollout.number,
            counted_units.c.exclusion_reason.is_(None),
        )
        return (*conditions, counted_units.c.slot > after, counted_units.c.slot <= until)


class NumberLookup:
    """Series and classes by number, read when a unit first has them.

    As texts in each row, the columns of a series took half of a read.
    """

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction, self._rollout = transaction, rollout
        self.series: dict[int, UnitSeries] = {}
        self.classes: dict[int, LeverClass] = {}
        self._class_ids: dict[str, tuple[int, ...]] = {}

    def load_series(self, numbers: Iterable[int]) -> None:
        """Read the series of new numbers."""
        if new_numbers := {*numbers} - self.series.keys():
            columns = (count_series.c[name] for name in ("id", *UnitSeries._fields))
            is_new = count_series.c.id.in_(select_numbers(self._transaction, new_numbers))
            rows = self._transaction.execute(select(*columns).where(is_new))
            self.series |= {row.id: UnitSeries._make(row[1:]) for row in rows}

    def decode_classes(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """Return the class numbers in stored texts; read the classes of new numbers."""
        new_texts = {*texts} - self._class_ids.keys()
        self._class_ids |= {text: tuple(json.loads(text)) for text in new_texts}
        self.load_classes({n for text in new_texts for n in self._class_ids[text]})
        return list(map(self._class_ids.__getitem__, texts))

    def load_classes(self, numbers: AbstractSet[int]) -> None:
        """Read the classes of new numbers."""
        if new_numbers := numbers - self.classes.keys():
            classes = load_classes(self._transaction, self._rollout, new_numbers)
            self.classes |= {number: LeverClass(*values) for number, values in classes.items()}


def _match_series(key: tuple[Cell, str] | None) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions for the series of a version in a cell; () for all."""
    if key is None:
        return ()
    cell, version = key
    is_cell = (count_series.c.site == cell.site, count_series.c.window == cell.window)
    series = select(count_series.c.id).where(*is_cell, count_series.c.version == version)
    return (counted_units.c.series_id.in_(series),)
