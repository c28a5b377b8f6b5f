"""Digests of counted units and records, and of the hashes of the records behind the units.

A digest covers one line a unit, in the order of slots; that of a tick then one line an action or
outcome, and one a unit that was counted with the value of an outcome. The reviewer's name is not in
the line, so that an erasure can replace it; the hash of the decision covers it, and a recount
compares it, as it does the columns of the series.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain
from secrets import token_bytes
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Subquery, Text, func, select, type_coerce

from rollout.core.calendar.sites import Cell
from rollout.store.counting.counted_records import RecordLine, select_lines
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.records.record_hashes import split_hashes
from rollout.store.tables.tables import count_series, counted_units

if TYPE_CHECKING:
    from hashlib import _Hash

    from rollout.tally.outcome_buffer import CountedOutcome


RANDOM_BYTES: Final = 16
HASH_BYTES: Final = 32
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


CellVersion = tuple[Cell, str]
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
    values_hash = hash_values(value_seal, attribute_values, slices)
    return (*covered, ("values", values_hash.hex()))


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
    lines: Iterable[tuple[bytes, Iterable[bytes]]] = chain(
        ((line.text, (line.record_hash,)) for line in records),
        ((line.text, split_hashes(line.record_hashes)) for line in outcomes),
    )
    for text, line_hashes in lines:
        hashes.update(line_hashes)
        digest.update(text)
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
        from rollout.store.counting.counted_outcomes import CountedOutcomes  # noqa: PLC0415 - frames

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
