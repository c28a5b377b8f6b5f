"""From a history's frame of units to arrays, and the numbers that stand for its texts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from rollout.engine.evidence.frames import (
    is_constant,
    select_rows,
    select_slices,
    unify_spellings,
)
from rollout.engine.evidence.unit_arrays import CellUnitArrays, UnitArrays, UnitClasses
from rollout.kernel.arrays import Ints
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.policy.gates import NO_UNPLACED, UnplacedDecisions
from rollout.kernel.policy.policy import Policy
from rollout.kernel.units import UnitClass

CLASS_COLUMNS = (
    *("lever", "predicted", "decided", "second", "level"),
    *("attribute_values", "slices", "band"),
)
SERIES_COLUMNS = ("site", "window", "version", "track")
ROWS_AT_ONCE = 250_000  # of a join or an encoding, which hold their rows several times
_MAX_RANGE = 64  # of integers that are their own numbers
MAX_COMBINATIONS = 1_000_000  # above them, those that occur are numbered anew


@dataclass(frozen=True)
class TalliedUnits:
    """A history's units by cell and version, with their keys.

    `unplaced` are decisions that make no unit, as they belong to no cell. `buckets` are those drawn
    of the keys, where these are gone; None: they are drawn when they are asked for.
    """

    cells: Mapping[tuple[Cell, str], CellUnitArrays]
    unit_classes: UnitClasses
    unit_keys: pl.Series
    reviewers: Sequence[str]
    first_slot: int
    last_slot: int
    unplaced: UnplacedDecisions = NO_UNPLACED
    buckets: Ints | None = None


def build_units(frame: pl.DataFrame, policy: Policy, keys: pl.Series | None = None) -> TalliedUnits:
    """Return the evidence in a frame of `resolve_units` as arrays.

    If `keys` are given, they are sorted, and the frame's `unit` is the place of its key in them.
    """
    evidence = fill_attribute_values(select_rows(frame, pl.col("excluded").is_null()))
    evidence = select_slices(evidence, policy)
    unit_classes, class_rows = number_combinations(evidence, CLASS_COLUMNS)
    classes = evidence.select(pl.col(CLASS_COLUMNS).gather(class_rows))
    reviewer_numbers, reviewers = _number_texts(unify_spellings(evidence["reviewer"]))
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
    if "known" in evidence.columns:
        columns["known"] = _to_integers(evidence["known"])
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


def number_combinations(frame: pl.DataFrame, columns: Sequence[str]) -> tuple[Ints, Ints]:
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


def _prepare_encoding(column: pl.Series) -> tuple[Callable[[pl.Series], Ints], int]:
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


def _number_texts(column: pl.Series) -> tuple[Ints, pl.Series]:
    """Return the number of each text, -1 for null, and the texts by number, sorted."""
    texts = column.unique().cast(pl.String).drop_nulls().sort()
    if not isinstance(column.dtype, pl.Categorical):
        return _find_positions(column, texts), texts
    codes = _get_category_codes(column)
    numbers = np.full(int(codes.max(initial=0)) + 1, -1)
    numbers[_get_category_codes(texts.cast(column.dtype))] = np.arange(len(texts))
    return numbers[codes], texts


def _get_category_codes(column: pl.Series) -> Ints:
    """Return the code of each category, 0 for null."""
    codes = column.to_physical()
    if codes.null_count():
        return _to_integers((codes.cast(pl.Int64) + 1).fill_null(0))
    return codes.to_numpy().astype(np.int64) + 1


def _find_positions(column: pl.Series, values: pl.Series) -> Ints:
    """Return the position of each value in `values`, which are unique; -1 for null."""
    places = values.alias("value").to_frame().with_row_index("place")
    positions = np.empty(len(column), dtype=np.int64)
    for start in range(0, len(column), ROWS_AT_ONCE):
        part = column.alias("value").slice(start, ROWS_AT_ONCE).to_frame()
        joined = part.join(places, on="value", how="left", maintain_order="left")["place"]
        positions[start : start + len(joined)] = joined.cast(pl.Int64).fill_null(-1).to_numpy()
    return positions


def _to_integers(column: pl.Series) -> Ints:
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
    evidence: pl.DataFrame, columns: dict[str, Ints]
) -> dict[tuple[Cell, str], CellUnitArrays]:
    """Return the tracks of each cell and version, in the order of their names.

    `columns` are those of the arrays. They are taken out one by one, so that only one is held
    twice.
    """
    numbers, series_rows = number_combinations(evidence, SERIES_COLUMNS)
    order = np.lexsort((columns["unit"], columns["occurred"], columns["slot"], numbers))
    ends = np.cumsum(np.bincount(numbers, minlength=len(series_rows)))
    del numbers
    known_slots = columns.pop("known")[order] if "known" in columns else None
    arrays = UnitArrays(**{name: columns.pop(name)[order] for name in tuple(columns)})
    tracks: dict[tuple[Cell, str], dict[str, UnitArrays]] = {}
    known_by_cell: dict[tuple[Cell, str], Ints] = {}
    series = evidence.select(pl.col(SERIES_COLUMNS).gather(series_rows)).iter_rows()
    for (site, window, version, track), end, start in zip(series, ends, [0, *ends], strict=False):
        rows = tracks.setdefault((Cell(site, window), version), {})
        rows[track] = arrays.select(slice(start, end))
        if track == "gate" and known_slots is not None:
            known_by_cell[Cell(site, window), version] = known_slots[start:end]
    return {
        key: CellUnitArrays(**rows, gate_known=known_by_cell.get(key))
        for key, rows in sorted(tracks.items())
    }
