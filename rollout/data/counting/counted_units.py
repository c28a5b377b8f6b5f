"""Counted units, their digests, and the versions that they bring into use.

Each unit of a version is stored once on a track.

Units that this process has just stored are kept, so that its tick needn't read them again. They are
used only where the store has as many in their slots: each is stored once, so those are the same
ones. Where another replica counted some too, all are read. Whoever changes or takes back what is
stored appends an event, at which `clear` forgets it.

A digest covers one line a unit, in the order of slots, and the hashes of the records behind it;
that of a tick then one line an action or outcome, and one a unit that was counted with the value of
an outcome. The reviewer's name is not in the line, so that an erasure can replace it; the hash of
the decision covers it, and a recount compares it, as it does the columns of the series.

Since when each version is in use in each cell is written with the units that begin it. The table
follows from the counted units. It holds a row a version and cell, so reading it costs nothing where
reading the first unit of each would cost a look at all.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from itertools import chain
from json import loads
from operator import itemgetter
from secrets import token_bytes
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Subquery,
    Text,
    func,
    insert,
    select,
    type_coerce,
    update,
)

from rollout.data.counting.counts import SlotPosition, find_position, load_classes, match_positions
from rollout.data.counting.unit_records import RecordLine, select_lines
from rollout.data.database.bulk import insert_missing_columns, select_numbers
from rollout.data.database.rollouts import Rollout, RolloutRepository
from rollout.data.database.session import Transaction
from rollout.data.records.record_rows import HASH_BYTES, split_hashes
from rollout.data.tables.record_tables import GATE, encode_json
from rollout.data.tables.tables import (
    count_classes,
    count_series,
    counted_units,
    external_keys,
    version_uses,
)
from rollout.engine.evidence.stored_units import COLUMNS, LeverClass, StoredUnits, UnitSeries
from rollout.engine.evidence.version_uses import LAST_USE, Use, UseKey
from rollout.kernel.calendar.instants import Cell, CellVersion
from rollout.kernel.units import AFTER_CLOSING, SILENT

if TYPE_CHECKING:
    from hashlib import _Hash

    from rollout.engine.evidence.outcome_buffer import CountedOutcome


RANDOM_BYTES: Final = 16
IS_ERASED: Final = func.coalesce(func.length(counted_units.c.value_seal), 0) == HASH_BYTES
"""Whether an erasure took the values of a unit's case, or their names."""


def create_seal(attribute_values: str | None, slices: str | None) -> bytes | None:
    """Return a new seal, None for a unit without values."""
    return None if attribute_values is None and slices is None else token_bytes(RANDOM_BYTES)


def hash_values(seal: bytes | None, attribute_values: str | None, slices: str | None) -> bytes:
    """Return what digests cover of a unit's values, also of erased ones."""
    if seal is not None and len(seal) == HASH_BYTES:
        return seal
    return sha256((seal or b"") + f"{(attribute_values, slices)!a}".encode()).digest()


UNITS_PER_READ: Final = 2_000
SERIES_FIELDS: Final = ("track", "version", "definition")
ORDER: Final = ("slot", "occurred", "unit", "version", "track")


class UnitLine(NamedTuple):
    """A counted unit, its cell and its series; digests cover the columns before the cell.

    Of `attribute_values` and `slices` they cover a hash with `value_seal`. It and a band are
    covered where they are stored.

    `class_ids` is the stored JSON. `series` is track, version and definition in the series, by
    which evidence is read.
    """

    unit: int
    version: str
    track: str
    case_id: int
    slot: int
    occurred: int
    day: int
    series_id: int
    class_ids: str
    bucket: int
    exclusion_reason: str | None
    record_hashes: bytes
    site: str
    window: str
    attribute_values: str | None = None
    slices: str | None = None
    value_seal: bytes | None = None
    reviewer: str | None = None
    band: int | None = None
    series: tuple[str, str, str] = ("", "", "")

    @property
    def text(self) -> bytes:
        """Return the line that digests cover; values only where any were recorded."""
        values = self.attribute_values, self.slices, self.value_seal, self.band
        return f"{_add_values(self[:COVERED_FIELDS], *values)!a}\n".encode()


COVERED_FIELDS: Final = UnitLine._fields.index("site")
VALUE_FIELDS: Final = ("attribute_values", "slices", "value_seal", "band")
NO_VALUES: Final = (None,) * len(VALUE_FIELDS)


def _add_values(
    covered: tuple[object, ...],
    attribute_values: str | None,
    slices: str | None,
    value_seal: bytes | None,
    band: int | None,
) -> tuple[object, ...]:
    """Return the covered columns of a unit with what digests cover of its values."""
    if band is not None:
        covered += (("band", band),)
    if (attribute_values, slices, value_seal) == (None, None, None):
        return covered
    return (*covered, ("values", hash_values(value_seal, attribute_values, slices).hex()))


class UnitLines(NamedTuple):
    """Units in the order of digests: their lines, and their joined record hashes, each once."""

    text: bytes
    joined_hashes: frozenset[bytes]


@dataclass(frozen=True, slots=True)
class CountedSummary:
    """What a tick counted: the number of different records, and the digest."""

    records: int
    digest: str


def _select_covered(lines: Subquery) -> Iterator[ColumnElement[Any]]:
    """Yield the covered columns of selected lines; JSON as it is stored."""
    for name in UnitLine._fields[:COVERED_FIELDS]:
        column = lines.c[name]
        yield type_coerce(column, Text) if name == "class_ids" else column


def read_unit_lines(
    transaction: Transaction,
    rollout: Rollout,
    *,
    after: int,
    until: int,
    positions: range | None = None,
) -> Iterator[UnitLine]:
    """Yield the units of slots (`after`, `until`], or a run of them, in the order of digests."""
    lines = select_lines(counted_units, rollout, after, until, positions)
    query = (
        select(
            *_select_covered(lines),
            count_series.c.site,
            count_series.c.window,
            lines.c.attribute_values,
            lines.c.slices,
            lines.c.value_seal,
            lines.c.reviewer,
            lines.c.band,
            *(count_series.c[name].label(f"series_{name}") for name in SERIES_FIELDS),
        )
        .join(count_series, count_series.c.id == lines.c.series_id)
        .order_by(*(lines.c[name] for name in ORDER))
    )
    result = transaction.execute(query.execution_options(yield_per=UNITS_PER_READ))
    for row in map(tuple, chain.from_iterable(result.partitions())):
        hashes = bytes(row[COVERED_FIELDS - 1])
        rest, series = row[COVERED_FIELDS : -len(SERIES_FIELDS)], row[-len(SERIES_FIELDS) :]
        yield UnitLine._make((*row[: COVERED_FIELDS - 1], hashes, *rest, series))


def read_joined_lines(
    transaction: Transaction, rollout: Rollout, *, after: int, until: int
) -> Iterator[UnitLines]:
    """Yield the lines of units of slots (`after`, `until`] in parts.

    An object and a hash for each line took longer than reading it.
    """
    lines = select_lines(counted_units, rollout, after, until)
    query = select(*_select_covered(lines), *(lines.c[name] for name in VALUE_FIELDS))
    query = query.order_by(*(lines.c[name] for name in ORDER))
    result = transaction.execute(query.execution_options(yield_per=UNITS_PER_READ))
    yield from map(join_lines, result.partitions())


def join_lines(part: Sequence[Sequence[Any]]) -> UnitLines:
    """Return the lines of units in order, each with its `COVERED_FIELDS` and `VALUE_FIELDS`."""
    rows = [tuple(row[:COVERED_FIELDS]) for row in part]
    joined_hashes = frozenset(row[-1] for row in rows)
    if any(row[COVERED_FIELDS:] != NO_VALUES for row in part):
        rows = [
            _add_values(row, *stored[COVERED_FIELDS:])
            for row, stored in zip(rows, part, strict=True)
        ]
    return UnitLines("\n".join([*map(ascii, rows), ""]).encode(), joined_hashes)


def summarize_counted(
    units: Iterable[UnitLines],
    records: Iterable[RecordLine],
    outcomes: "Iterable[CountedOutcome]" = (),
) -> CountedSummary | None:
    """Return what a tick's units, records and outcomes come to; None without any."""
    hashes, digest, is_empty = set[bytes](), sha256(), True
    for part in units:
        for joined in part.joined_hashes:
            hashes.update(split_hashes(joined))
        digest.update(part.text)
        is_empty = False
    lines: Iterable[RecordLine | CountedOutcome] = chain(records, outcomes)
    for line in lines:
        hashes.update(split_hashes(line.record_hashes))
        digest.update(line.text)
        is_empty = False
    return None if is_empty else CountedSummary(len(hashes), digest.hexdigest())


def compute_digest(
    units: Iterable[UnitLine], records: Iterable[RecordLine], outcomes: "Iterable[CountedOutcome]"
) -> str:
    """Return the digest of what a tick counted; "" without any. No line is kept."""
    digest, is_empty = sha256(), True
    lines: Iterable[UnitLine | RecordLine | CountedOutcome] = chain(units, records, outcomes)
    for line in lines:
        digest.update(line.text)
        is_empty = False
    return "" if is_empty else digest.hexdigest()


class CellDigests:
    """Running digests of all evidence of each version in each cell.

    The first call of `advance` reads all units; later ones those of new slots.
    """

    def __init__(self, keys: Collection[CellVersion] | None = None) -> None:
        """Build empty digests; with `keys` only of these."""
        self._keys = keys
        self._hashes: dict[CellVersion, _Hash] = {}
        self._outcome_hashes: dict[CellVersion, _Hash] = {}
        self._last_slot = -1

    def advance(self, transaction: Transaction, rollout: Rollout, until: int) -> None:
        """Add the units up to a slot."""
        for line in read_unit_lines(transaction, rollout, after=self._last_slot, until=until):
            self.add_line(line)
        from rollout.data.counting.counts import CountedOutcomes  # noqa: PLC0415 - frames

        counted_outcomes = CountedOutcomes(transaction, rollout)
        for outcome in counted_outcomes.read_lines(after=self._last_slot, until=until):
            self.add_outcome(outcome)
        self._last_slot = max(until, self._last_slot)

    def add_line(self, line: UnitLine) -> None:
        """Add the next unit."""
        key = (Cell(line.site, line.window), line.version)
        if line.exclusion_reason is None and (self._keys is None or key in self._keys):
            self._hashes.setdefault(key, sha256()).update(line.text)

    def add_outcome(self, line: "CountedOutcome") -> None:
        """Add the next unit with an outcome."""
        key = (Cell(line.site, line.window), line.version)
        if self._keys is None or key in self._keys:
            self._outcome_hashes.setdefault(key, sha256()).update(line.text)

    def get_digest(self, cell: Cell, version: str) -> str:
        """Return the digest of a version's evidence in a cell; "" without evidence.

        With outcomes it is the digest of both digests.
        """
        hashes = (self._hashes.get((cell, version)), self._outcome_hashes.get((cell, version)))
        units, outcomes = ("" if part is None else part.hexdigest() for part in hashes)
        return sha256(f"{units} {outcomes}".encode()).hexdigest() if outcomes else units


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
        attribute_values: of its cases, as `rollout.kernel.policy.familiarity` stores them; None if
            the policy asked for none.
        slices: the case's values of the recorded attributes, as JSON; None if none was recorded.
        value_seal: hashed with both (`rollout.data.counting.counted_units`); None without values.
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


class CountedUnits(RolloutRepository):
    """The counted units of one rollout."""

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


class NumberLookup(RolloutRepository):
    """Series and classes by number, read when a unit first has them.

    As texts in each row, the columns of a series took half of a read.
    """

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        super().__init__(transaction, rollout)
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


class StoredUses(RolloutRepository):
    """The uses of versions in one rollout."""

    def load_all(self) -> dict[UseKey, Use]:
        """Return all uses."""
        columns = version_uses.c
        query = select(
            columns.site, columns.window, columns.version, columns.occurred, columns.slot
        ).where(columns.rollout == self._rollout.number)
        rows = map(tuple, self._transaction.execute(query).all())
        return {(site, window, version): Use(*use) for site, window, version, *use in rows}

    def store(self, uses: Mapping[UseKey, Use]) -> None:
        """Store uses that are new, or began earlier; evidence can't advance meanwhile."""
        stored_uses = self.load_all() if uses else {}
        new_rows = []
        for (site, window, version), use in uses.items():
            key = {"rollout": self._rollout.number, "site": site, "window": window}
            key |= {"version": version}
            stored_use = stored_uses.get((site, window, version))
            if stored_use is None:
                new_rows.append({**key, **use._asdict()})
            elif use < stored_use:
                conditions = (version_uses.c[name] == value for name, value in key.items())
                change = update(version_uses).where(*conditions).values(**use._asdict())
                self._transaction.execute(change)
        if new_rows:
            self._transaction.execute(insert(version_uses), new_rows)

    def find_differences(self) -> dict[UseKey, tuple[Use | None, Use | None]]:
        """Return by key the stored and the right use, where they differ; None for a missing one.

        Only the occurrence is compared: a late tick counts a unit in a later slot than its own.
        """
        stored, expected = self.load_all(), self._find_expected()
        pairs = {key: (stored.get(key), expected.get(key)) for key in {*stored, *expected}}
        return {
            key: (use, right)
            for key, (use, right) in sorted(pairs.items())
            if use is None or right is None or use.occurred != right.occurred
        }

    def _find_expected(self) -> dict[UseKey, Use]:
        """Return the first predicted unit of each version and cell."""
        silent_query = select(count_classes.c.id).where(
            count_classes.c.rollout == self._rollout.number,
            count_classes.c.predicted.in_(SILENT),
        )
        silent_classes = set(self._transaction.execute(silent_query).scalars())
        query = select(
            count_series.c.site,
            count_series.c.window,
            counted_units.c.version,
            counted_units.c.occurred,
            counted_units.c.slot,
            type_coerce(counted_units.c.class_ids, Text),
        ).where(
            counted_units.c.rollout == self._rollout.number,
            counted_units.c.track == GATE,
            counted_units.c.exclusion_reason.is_distinct_from(AFTER_CLOSING),
            count_series.c.id == counted_units.c.series_id,
        )
        expected: dict[UseKey, Use] = {}
        for site, window, version, *use, class_ids in map(tuple, self._transaction.execute(query)):
            key, own = (site, window, version), Use(*use)
            if own < expected.get(key, LAST_USE) and silent_classes.isdisjoint(loads(class_ids)):
                expected[key] = own
        return expected
