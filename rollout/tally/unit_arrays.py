"""One version's units in one cell as arrays, ordered by the slot that counts them.

Replay and the service both produce these arrays; all later steps are shared. Slots are whole ticks
since 1970, UTC.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rollout.core.calendar.sites import Cell
from rollout.core.policy.familiarity import AttributeValue, decode_unit_values
from rollout.core.policy.label_sets import is_label_success
from rollout.core.policy.measures import (
    MISSING,
    Condition,
    UnitClass,
    compute_parity_class,
    is_success,
)
from rollout.core.policy.planted_conditions import is_missed
from rollout.core.policy.policy import Policy
from rollout.core.policy.slice_conditions import read_slice_value
from rollout.tally.frames import is_constant, select_rows
from rollout.tally.slice_values import select_slices
from rollout.tally.slots import FIRST_SLOT

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
CLASS_COLUMNS = (
    *("lever", "predicted", "decided", "second", "level"),
    *("attribute_values", "slices", "band"),
)


SERIES_COLUMNS = ("site", "window", "version", "track")
ROWS_AT_ONCE = 250_000  # of a join or an encoding, which hold their rows several times
_MAX_RANGE = 64  # of integers that are their own numbers
MAX_COMBINATIONS = 1_000_000  # above them, those that occur are numbered anew


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

    slot: IntArray
    occurred: IntArray
    unit_class: IntArray
    reviewer: IntArray
    day: IntArray
    unit: IntArray

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.slot)

    def select(self, rows: BoolArray | IntArray | slice) -> "UnitArrays":
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


def find_run_starts(values: IntArray) -> IntArray:
    """Return where each run of equal values begins; `np.unique` would sort them."""
    is_start = np.ones(len(values), dtype=bool)
    np.not_equal(values[1:], values[:-1], out=is_start[1:])
    return np.flatnonzero(is_start)


def find_first_positions(values: IntArray) -> IntArray:
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


def unite_ascending(first: IntArray, second: IntArray) -> IntArray:
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


@dataclass(frozen=True)
class CellUnitArrays:
    """The tracks of one version in one cell; `planted` has the closed units of planted cases."""

    gate: UnitArrays = field(default_factory=build_empty_arrays)
    guard: UnitArrays = field(default_factory=build_empty_arrays)
    assisted: UnitArrays = field(default_factory=build_empty_arrays)
    planted: UnitArrays = field(default_factory=build_empty_arrays)


@dataclass(frozen=True)
class UnitClasses:
    """All classes of a history's units, and the counts of each measure."""

    classes: tuple[UnitClass, ...]
    policy: Policy

    @cached_property
    def is_whole_unit(self) -> BoolArray:
        """Return which classes represent whole units, so that each unit counts once."""
        return np.array(
            [unit_class.lever == self.policy.whole_unit_lever for unit_class in self.classes],
            dtype=bool,
        )

    @cached_property
    def bands(self) -> IntArray:
        """Return the confidence band of each class; 0 where none is recorded."""
        return np.array([unit_class.band for unit_class in self.classes], dtype=np.int64)

    @cached_property
    def agrees(self) -> BoolArray:
        """Return in which classes model and human agree."""
        return np.array([unit_class.agrees for unit_class in self.classes], dtype=bool)

    @cached_property
    def values_by_class(self) -> tuple[tuple[frozenset[AttributeValue], ...], ...]:
        """Return each class's attribute values, case by case, the judged one first."""
        return tuple(decode_unit_values(c.attribute_values) for c in self.classes)

    @cached_property
    def has_values(self) -> bool:
        """Return whether any class holds attribute values."""
        return any(unit_class.attribute_values for unit_class in self.classes)

    @cached_property
    def is_missing(self) -> BoolArray:
        """Return which classes have no blind decision."""
        return np.array([unit_class.decided == MISSING for unit_class in self.classes], dtype=bool)

    def get_slice_codes(self, attribute: str) -> tuple[IntArray, tuple[str, ...]]:
        """Return the number of an attribute's value for each class, and the values by number."""
        if attribute not in self._slice_codes:
            values = [read_slice_value(c.slices, attribute) for c in self.classes]
            names = {value: number for number, value in enumerate(sorted(set(values)))}
            codes = np.array([names[value] for value in values], dtype=np.int64)
            self._slice_codes[attribute] = codes, tuple(names)
        return self._slice_codes[attribute]

    def get_decision_codes(self, lever: str | None) -> tuple[IntArray, tuple[str, ...]]:
        """Return the number of the human's answer for each class, -1 without one, and the answers.

        `lever` may be None if there is one.
        """
        lever_id = lever or self.policy.levers[0].id
        labels = sorted({c.decided for c in self.classes if c.lever == lever_id} - {MISSING})
        numbers = {label: number for number, label in enumerate(labels)}
        codes = [numbers.get(c.decided, -1) if c.lever == lever_id else -1 for c in self.classes]
        return np.array(codes, dtype=np.int64), tuple(labels)

    @cached_property
    def _slice_codes(self) -> dict[str, tuple[IntArray, tuple[str, ...]]]:
        return {}

    def get_class_counts(self, condition: Condition) -> IntArray:
        """Return the counts of a unit of each class, shape (classes, width)."""
        class_counts = self._class_counts.get(condition.key)
        if class_counts is None:
            class_counts = self._class_counts[condition.key] = np.array(
                [self._build_class_counts(condition, unit_class) for unit_class in self.classes],
                dtype=np.int64,
            ).reshape(len(self.classes), self.get_count_width(condition))
        return class_counts

    def take_counts(self, condition: Condition, rows: UnitArrays) -> IntArray:
        """Return the counts of each row, shape (rows, width).

        Indexing would copy number by number, which takes ten times as long.
        """
        return self.get_class_counts(condition).take(rows.unit_class, axis=0)

    @cached_property
    def _class_counts(self) -> dict[tuple[str, str | None, str | None], IntArray]:
        return {}

    def get_count_width(self, condition: Condition) -> int:
        """Return how many numbers a condition's counts have."""
        widths = {"cost": len(self.policy.cost_levels), "parity": 4, "action_change": 3}
        return widths.get(condition.measure, 2)

    def _build_class_counts(self, condition: Condition, unit_class: UnitClass) -> list[int]:
        row = [0] * self.get_count_width(condition)
        column = self._find_count_column(condition, unit_class)
        if column is not None:
            row[column] = 1
        return row

    def _find_count_column(self, condition: Condition, unit_class: UnitClass) -> int | None:
        if unit_class.lever != (condition.lever or self.policy.whole_unit_lever):
            return self._find_action_column(condition, unit_class) if condition.action else None
        match condition.measure:
            case "cost":
                return unit_class.level
            case "parity":
                return compute_parity_class(unit_class)
            case "action_change":
                return self._find_action_column(condition, unit_class)
        is_counted_success = self._is_success(condition, unit_class)
        return None if is_counted_success is None else int(not is_counted_success)

    def _is_success(self, condition: Condition, unit_class: UnitClass) -> bool | None:
        lever = self.policy.levers_by_id.get(unit_class.lever)
        has_set = lever is not None and lever.many and condition.label is not None
        counted = (is_label_success if has_set else is_success)(condition, unit_class)
        return False if is_missed(condition, unit_class, many=has_set) else counted

    def _find_action_column(self, condition: Condition, unit_class: UnitClass) -> int | None:
        """Return whose action it is: 0 the model's, 1 the human's.

        2 means both or neither; None that the unit does not count.
        """
        lever = self.policy.levers_by_id.get(unit_class.lever)
        if lever is None or lever.many or unit_class.decided == MISSING:
            return None
        if condition.action not in lever.actions:
            return None
        model_acts = lever.find_action(unit_class.predicted) == condition.action
        human_acts = lever.find_action(unit_class.decided) == condition.action
        return 2 if model_acts == human_acts else int(human_acts)


@dataclass(frozen=True)
class TalliedUnits:
    """A history's units by cell and version, with their keys."""

    cells: Mapping[tuple[Cell, str], CellUnitArrays]
    unit_classes: UnitClasses
    unit_keys: pl.Series
    reviewers: Sequence[str]
    first_slot: int
    last_slot: int


def build_units(frame: pl.DataFrame, policy: Policy, keys: pl.Series | None = None) -> TalliedUnits:
    """Return the evidence in a frame of `resolve_units` as arrays.

    If `keys` are given, they are sorted, and the frame's `unit` is the place of its key in them.
    """
    evidence = fill_attribute_values(select_rows(frame, pl.col("excluded").is_null()))
    evidence = select_slices(evidence, policy)
    unit_classes, class_rows = number_combinations(evidence, CLASS_COLUMNS)
    classes = evidence.select(pl.col(CLASS_COLUMNS).gather(class_rows))
    reviewer_numbers, reviewers = _number_texts(evidence["reviewer"])
    if keys is None:
        unit_numbers, unit_keys = _number_texts(evidence["unit"])
    else:
        unit_numbers, unit_keys = _to_integers(evidence["unit"]), keys
    columns = {
        "slot": _to_integers(evidence["slot"]),
        "occurred": _to_integers(evidence["occurred"]),
        "unit_class": unit_classes,
        "reviewer": reviewer_numbers,
        "day": _to_integers(evidence["day"]),
        "unit": unit_numbers,
    }
    del unit_classes, reviewer_numbers, unit_numbers  # freed as they are sorted
    has_rows = bool(evidence.height)
    first_slot = int(columns["occurred"].min()) if has_rows else 0
    last_slot = int(columns["slot"].max()) if has_rows else 0
    return TalliedUnits(
        cells=_split_cells(evidence, columns),
        unit_classes=UnitClasses(tuple(UnitClass(*row) for row in classes.iter_rows()), policy),
        unit_keys=unit_keys,
        reviewers=reviewers.to_list(),
        first_slot=first_slot,
        last_slot=last_slot,
    )


def number_combinations(frame: pl.DataFrame, columns: Sequence[str]) -> tuple[IntArray, IntArray]:
    """Return the number of each row's combination of values, and the first row of each number.

    Numbers are given in the order of first use.
    """
    numbers, size = np.zeros(frame.height, dtype=np.int64), 1
    for name in columns:
        # the frame itself would keep what it writes out of a column of one value
        column = frame.select(name).to_series()
        if is_constant(column):
            continue
        encode, width = _prepare_encoding(column)
        for part in _list_parts(frame.height):
            numbers[part] *= width
            numbers[part] += encode(column[part])
        size *= width
        if size > MAX_COMBINATIONS:
            present, numbers = np.unique(numbers, return_inverse=True)
            size = len(present)
    first_rows = np.full(size, frame.height)
    for part in reversed(_list_parts(frame.height)):
        # For repeated indices NumPy keeps the last assignment.
        first_rows[numbers[part][::-1]] = np.arange(part.start, part.stop)[::-1]
    in_order = np.sort(first_rows[first_rows < frame.height])
    numbers_in_order = np.empty(size, dtype=np.int64)
    numbers_in_order[numbers[in_order]] = np.arange(len(in_order))
    for part in _list_parts(frame.height):
        numbers[part] = numbers_in_order[numbers[part]]
    return numbers, in_order


def _list_parts(rows: int) -> list[slice]:
    """Return the parts of a column: few numbers are held twice, and they stay near."""
    starts = range(0, rows, ROWS_AT_ONCE)
    return [slice(start, min(start + ROWS_AT_ONCE, rows)) for start in starts]


def _prepare_encoding(column: pl.Series) -> tuple[Callable[[pl.Series], IntArray], int]:
    """Return what gives each value of a part a number, and a number above all of them."""
    if isinstance(column.dtype, pl.Categorical):
        used_codes = _get_category_codes(column.unique())
        numbers = np.zeros(int(used_codes.max(initial=0)) + 1, dtype=np.int64)
        numbers[used_codes] = np.arange(len(used_codes))
        return lambda part: numbers[_get_category_codes(part)], len(used_codes)
    if column.dtype.is_integer() and len(column) and not column.null_count():
        lowest, highest = (int(value) for value in (column.min(), column.max()))  # type: ignore[arg-type]
        if highest - lowest < _MAX_RANGE:
            return lambda part: _to_integers(part) - lowest, highest - lowest + 1
    values = column.unique().sort(nulls_last=False)
    return lambda part: np.maximum(_find_positions(part, values), 0), len(values)


def _number_texts(column: pl.Series) -> tuple[IntArray, pl.Series]:
    """Return the number of each text, -1 for null, and the texts by number, sorted."""
    texts = column.unique().cast(pl.String).drop_nulls().sort()
    if not isinstance(column.dtype, pl.Categorical):
        return _find_positions(column, texts), texts
    codes = _get_category_codes(column)
    numbers = np.full(int(codes.max(initial=0)) + 1, -1)
    numbers[_get_category_codes(texts.cast(column.dtype))] = np.arange(len(texts))
    return numbers[codes], texts


def _get_category_codes(column: pl.Series) -> IntArray:
    """Return the code of each category, 0 for null."""
    codes = column.to_physical()
    if codes.null_count():
        return _to_integers((codes.cast(pl.Int64) + 1).fill_null(0))
    return codes.to_numpy().astype(np.int64) + 1


def _find_positions(column: pl.Series, values: pl.Series) -> IntArray:
    """Return the position of each value in `values`, which are unique; -1 for null."""
    places = values.alias("value").to_frame().with_row_index("place")
    positions = np.empty(len(column), dtype=np.int64)
    for start in range(0, len(column), ROWS_AT_ONCE):
        part = column.alias("value").slice(start, ROWS_AT_ONCE).to_frame()
        joined = part.join(places, on="value", how="left", maintain_order="left")["place"]
        positions[start : start + len(joined)] = joined.cast(pl.Int64).fill_null(-1).to_numpy()
    return positions


def _to_integers(column: pl.Series) -> IntArray:
    return column.to_numpy().astype(np.int64, copy=False)


def fill_attribute_values(frame: pl.DataFrame) -> pl.DataFrame:
    """Return units with attribute values and bands, "" and 0 where none are stored."""
    if "band" in frame.columns:
        frame = frame.with_columns(pl.col("band").cast(pl.Int64).fill_null(0))
    else:
        frame = frame.with_columns(band=pl.lit(0, pl.Int64))
    if "attribute_values" not in frame.columns:
        return frame.with_columns(attribute_values=pl.lit(""))
    return frame.with_columns(pl.col("attribute_values").fill_null(""))


def _split_cells(
    evidence: pl.DataFrame, columns: dict[str, IntArray]
) -> dict[tuple[Cell, str], CellUnitArrays]:
    """Return the tracks of each cell and version, in the order of their names.

    `columns` are those of the arrays. They are taken out one by one, so that only one is held
    twice.
    """
    numbers, series_rows = number_combinations(evidence, SERIES_COLUMNS)
    order = np.lexsort((columns["unit"], columns["occurred"], columns["slot"], numbers))
    ends = np.cumsum(np.bincount(numbers, minlength=len(series_rows)))
    del numbers
    arrays = UnitArrays(**{name: columns.pop(name)[order] for name in tuple(columns)})
    tracks: dict[tuple[Cell, str], dict[str, UnitArrays]] = {}
    series = evidence.select(pl.col(SERIES_COLUMNS).gather(series_rows)).iter_rows()
    for (site, window, version, track), end, start in zip(series, ends, [0, *ends], strict=False):
        rows = tracks.setdefault((Cell(site, window), version), {})
        rows[track] = arrays.select(slice(start, end))
    return {key: CellUnitArrays(**rows) for key, rows in sorted(tracks.items())}
