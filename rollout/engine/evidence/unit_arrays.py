"""One version's units in one cell as arrays, and columns of arrays as compressed bytes.

The units are ordered by the slot that counts them. Replay and the service both produce these
arrays; all later steps are shared. Slots are whole ticks since 1970, UTC.

The bytes restore the same values bit by bit. Whole numbers are stored as differences in the
narrowest type, other numbers as their bits.
"""

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rollout.kernel.arrays import Bools, Floats, Ints
from rollout.kernel.calendar.instants import FIRST_SLOT
from rollout.kernel.measures import Condition
from rollout.kernel.policy.cell_evidence import read_slice_value
from rollout.kernel.policy.familiarity import AttributeValue, decode_unit_values
from rollout.kernel.policy.policy import Policy
from rollout.kernel.units import CASELESS, MISSING, SILENT, UnitClass


@dataclass(frozen=True)
class UnitArrays:
    """Units of one track, each array of shape (rows,), sorted by `slot`.

    Attributes:
        slot: when the unit is counted.
        occurred: the slot at or before the unit's time.
        unit_class: index in the history's classes.
        reviewer: number of the reviewer whose decision counts, -1 without one.
        day: local day number of the unit.
        unit: number of the unit in the history, from whose key the sampling value is computed.
    """

    slot: Ints
    occurred: Ints
    unit_class: Ints
    reviewer: Ints
    day: Ints
    unit: Ints

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.slot)

    def select(self, rows: Bools | Ints | slice) -> "UnitArrays":
        """Return some rows, by a mask, by their indices or as a slice, which shares them."""
        return UnitArrays(
            self.slot[rows],
            self.occurred[rows],
            self.unit_class[rows],
            self.reviewer[rows],
            self.day[rows],
            self.unit[rows],
        )

    def select_since(self, first_slot: int, after_slot: int = FIRST_SLOT) -> "UnitArrays":
        """Return the rows that occurred from `first_slot` on and are counted after `after_slot`.

        A unit is counted after its slot of occurrence, so rows that are counted before are left
        out by their place, and nothing of them is read.
        """
        start = int(np.searchsorted(self.slot, max(first_slot, after_slot + 1)))
        rows = self.select(slice(start, None)) if start else self
        is_kept = rows.occurred >= first_slot
        return rows if is_kept.all() else rows.select(np.flatnonzero(is_kept))


_MAX_TABLE_SHARE = 4  # values of a table for each row


def find_run_starts(values: Ints) -> Ints:
    """Return where each run of equal values begins; `np.unique` would sort them."""
    is_start = np.ones(len(values), dtype=bool)
    np.not_equal(values[1:], values[:-1], out=is_start[1:])
    return np.flatnonzero(is_start)


def find_first_positions(values: Ints) -> Ints:
    """Return the position of each different value's first occurrence, in any order.

    Days and numbers of reviewers lie close together: a table of them needs no sorting.
    """
    if not len(values):
        return np.empty(0, dtype=np.int64)
    lowest, highest = int(values.min()), int(values.max())
    if highest - lowest > _MAX_TABLE_SHARE * len(values):
        return np.unique(values, return_index=True)[1]
    first_positions = np.full(highest - lowest + 1, -1)
    # For repeated indices NumPy keeps the last assignment.
    first_positions[values[::-1] - lowest] = np.arange(len(values))[::-1]
    return first_positions[first_positions >= 0]


def unite_ascending(first: Ints, second: Ints) -> Ints:
    """Return the values of two ascending arrays, ascending and each once.

    `np.union1d` hashes them, which takes longer.
    """
    values = np.concatenate([first, second])
    values.sort(kind="stable")
    return values[find_run_starts(values)]


def build_empty_arrays() -> UnitArrays:
    """Return arrays without rows."""
    empty = np.empty(0, dtype=np.int64)
    return UnitArrays(empty, empty, empty, empty, empty, empty)


CELL_TRACKS: Final = ("gate", "guard", "assisted", "planted")


@dataclass(frozen=True)
class CellUnitArrays:
    """The tracks of one version in one cell; `planted` has the closed units of planted cases.

    `gate_known` is from which slot on it is certain how each row of `gate` counts, if units to come
    are among them.
    """

    gate: UnitArrays = field(default_factory=build_empty_arrays)
    guard: UnitArrays = field(default_factory=build_empty_arrays)
    assisted: UnitArrays = field(default_factory=build_empty_arrays)
    planted: UnitArrays = field(default_factory=build_empty_arrays)
    gate_known: Ints | None = None


@dataclass(frozen=True)
class UnitClasses:
    """All classes of a history's units, and the counts of each measure."""

    classes: tuple[UnitClass, ...]
    policy: Policy

    @cached_property
    def is_whole_unit(self) -> Bools:
        """Return which classes represent whole units, so that each unit counts once."""
        return np.array(
            [unit_class.lever == self.policy.whole_unit_lever for unit_class in self.classes],
            dtype=bool,
        )

    @cached_property
    def bands(self) -> Ints:
        """Return the confidence band of each class; 0 where none is recorded."""
        return np.array([unit_class.band for unit_class in self.classes], dtype=np.int64)

    @cached_property
    def agrees(self) -> Bools:
        """Return in which classes model and human agree."""
        return np.array([unit_class.agrees for unit_class in self.classes], dtype=bool)

    @cached_property
    def values_by_class(self) -> tuple[tuple[frozenset[AttributeValue], ...], ...]:
        """Return each class's attribute values, case by case, the judged one first.

        Those of a case that nobody sent are not known, so they keep no unit from counting.
        """
        return tuple(
            decode_unit_values("" if c.predicted == CASELESS else c.attribute_values)
            for c in self.classes
        )

    @cached_property
    def has_values(self) -> bool:
        """Return whether any class holds attribute values."""
        return any(unit_class.attribute_values for unit_class in self.classes)

    @cached_property
    def is_missing(self) -> Bools:
        """Return which classes are of missing units."""
        return np.array([unit_class.is_missing for unit_class in self.classes], dtype=bool)

    @cached_property
    def is_silent(self) -> Bools:
        """Return which classes are of units that nobody predicted before they were decided."""
        return np.array([unit_class.predicted in SILENT for unit_class in self.classes], dtype=bool)

    @cached_property
    def loss_reasons(self) -> tuple[str, ...]:
        """Return why the units of each class are missing, "" where they are not."""
        return tuple(unit_class.loss_reason for unit_class in self.classes)

    def get_slice_codes(self, attribute: str) -> tuple[Ints, tuple[str, ...]]:
        """Return the number of an attribute's value for each class, and the values by number."""
        if attribute not in self._slice_codes:
            values = [read_slice_value(c.slices, attribute) for c in self.classes]
            names = {value: number for number, value in enumerate(sorted(set(values)))}
            codes = np.array([names[value] for value in values], dtype=np.int64)
            self._slice_codes[attribute] = codes, tuple(names)
        return self._slice_codes[attribute]

    def get_decision_codes(self, lever: str | None) -> tuple[Ints, tuple[str, ...]]:
        """Return the number of the human's answer for each class, -1 without one, and the answers.

        `lever` may be None if there is one.
        """
        lever_id = lever or self.policy.levers[0].id
        labels = sorted({c.decided for c in self.classes if c.lever == lever_id} - {MISSING})
        numbers = {label: number for number, label in enumerate(labels)}
        codes = [numbers.get(c.decided, -1) if c.lever == lever_id else -1 for c in self.classes]
        return np.array(codes, dtype=np.int64), tuple(labels)

    @cached_property
    def _slice_codes(self) -> dict[str, tuple[Ints, tuple[str, ...]]]:
        return {}

    def get_class_counts(self, condition: Condition) -> Ints:
        """Return the counts of a unit of each class, shape (classes, width)."""
        class_counts = self._class_counts.get(condition.key)
        if class_counts is None:
            class_counts = self._class_counts[condition.key] = np.array(
                [self._build_class_counts(condition, unit_class) for unit_class in self.classes],
                dtype=np.int64,
            ).reshape(len(self.classes), self.get_count_width(condition))
        return class_counts

    def take_counts(self, condition: Condition, rows: UnitArrays) -> Ints:
        """Return the counts of each row, shape (rows, width).

        Indexing would copy number by number, which takes ten times as long.
        """
        return self.get_class_counts(condition).take(rows.unit_class, axis=0)

    @cached_property
    def _class_counts(self) -> dict[tuple[str, str | None, str | None], Ints]:
        return {}

    def get_count_width(self, condition: Condition) -> int:
        """Return how many numbers a condition's counts have."""
        return condition.measure.get_width(len(self.policy.cost_levels))

    def _build_class_counts(self, condition: Condition, unit_class: UnitClass) -> list[int]:
        row = [0] * self.get_count_width(condition)
        column = condition.find_column(unit_class, self.policy)
        if column is not None:
            row[column] = 1
        return row


DIFFERENCE_TYPES: Final = (np.int8, np.int16, np.int32, np.int64)
LENGTH_BYTES: Final = 8
Column = Ints | Floats


def join_parts(parts: Iterable[bytes]) -> bytes:
    """Return all parts, each after its length."""
    return b"".join(len(p).to_bytes(LENGTH_BYTES, "big") + p for p in parts)


def split_parts(body: memoryview) -> Iterator[memoryview]:
    """Yield what `join_parts` joined."""
    start = 0
    while start < len(body):
        end = start + LENGTH_BYTES + int.from_bytes(body[start : start + LENGTH_BYTES], "big")
        yield body[start + LENGTH_BYTES : end]
        start = end


def split_column(column: Any, lengths: list[int]) -> Iterator[Any]:
    """Return the parts of a column that have these lengths.

    Raises:
        ValueError: the column has another length.
    """
    ends = np.cumsum([0, *lengths]).tolist()
    if len(column) != ends[-1]:
        raise ValueError(f"a column has {len(column)} values, the series {ends[-1]}")
    return (column[start:end] for start, end in pairwise(ends))


def encode_integers(column: NDArray[Any]) -> bytes:
    """Return whole numbers as bytes.

    The few differences that the type of the others is too narrow for, as between two series, stand
    apart with their positions.
    """
    differences = np.diff(column, prepend=0)
    kind, wide = min(
        ((np.dtype(t), _find_wide(differences, np.iinfo(t))) for t in DIFFERENCE_TYPES),
        key=lambda choice: len(differences) * choice[0].itemsize + 16 * len(choice[1]),
    )
    wide_part = np.concatenate([wide, differences[wide]]).astype("<i8").tobytes()
    differences[wide] = 0
    values = differences.astype(kind.newbyteorder("<"))
    count_part = len(wide).to_bytes(LENGTH_BYTES, "big")
    return bytes([values.itemsize]) + count_part + wide_part + zlib.compress(values.tobytes(), 1)


def _find_wide(differences: Ints, limits: "np.iinfo[Any]") -> Ints:
    """Return the positions of the differences outside of a type's limits."""
    return np.flatnonzero((differences < limits.min) | (differences > limits.max))


def decode_integers(part: memoryview) -> Ints:
    """Return what `encode_integers` encoded."""
    return np.cumsum(_decode_differences(part), dtype=np.int64)


def _decode_differences(part: memoryview) -> NDArray[Any]:
    wide_start = 1 + LENGTH_BYTES
    count = int.from_bytes(part[1:wide_start], "big")
    wide_end = wide_start + 2 * 8 * count
    positions, differences = np.frombuffer(part[wide_start:wide_end], "<i8").reshape(2, count)
    values = np.frombuffer(zlib.decompress(part[wide_end:]), dtype=f"<i{part[0]}")
    if count:
        values = values.astype(np.int64)
        values[positions] = differences
    return values


def decode_integers_into(part: memoryview, rows: Sequence[Ints]) -> None:
    """Fill rows, one after another, with what `encode_integers` encoded.

    Raises:
        ValueError: the rows have another length together.
    """
    differences = _decode_differences(part)
    last = np.int64(0)
    for row, values in zip(rows, split_column(differences, [len(r) for r in rows]), strict=True):
        if len(row):
            np.add(np.cumsum(values, dtype=np.int64, out=row), last, out=row)
            last = row[-1]


def encode_bits(column: NDArray[Any]) -> bytes:
    """Return the bits of numbers as bytes."""
    return zlib.compress(column.astype("<f8").tobytes(), 1)


def decode_bits(part: memoryview) -> Floats:
    """Return what `encode_bits` encoded."""
    return np.frombuffer(zlib.decompress(part), dtype="<f8").astype(np.float64)


def encode_flags(column: Bools) -> bytes:
    """Return truth values as bytes."""
    packed = np.packbits(column).tobytes()
    return len(column).to_bytes(LENGTH_BYTES, "big") + zlib.compress(packed, 1)


def decode_flags(part: memoryview) -> Bools:
    """Return what `encode_flags` encoded."""
    count = int.from_bytes(part[:LENGTH_BYTES], "big")
    packed = np.frombuffer(zlib.decompress(part[LENGTH_BYTES:]), dtype=np.uint8)
    return np.unpackbits(packed, count=count).view(np.bool_)


def encode_raw(column: NDArray[Any]) -> bytes:
    """Return the bits of random numbers, which no compression makes fewer."""
    return column.astype("<f8").tobytes()


def decode_raw(part: memoryview) -> Floats:
    """Return what `encode_raw` encoded."""
    return np.frombuffer(part, dtype="<f8").astype(np.float64)
