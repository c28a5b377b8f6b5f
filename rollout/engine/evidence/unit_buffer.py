"""A rollout's units as arrays that grow in the service, their snapshots, and checks of both.

The buffer grows slot by slot. The cost of adding units depends on their number alone. Sampling
values are not computed again: a unit is stored with its bucket under the policy at its time.

A snapshot holds units and outcomes as compressed bytes, which restore the same arrays bit by bit.

Evidence in memory is compared with the counted units of a part of the slots, row by row.
"""

import json
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, fields
from hashlib import sha256
from itertools import chain, compress, pairwise
from sys import intern
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rollout.engine.evidence.outcome_buffer import (
    SOURCE_FAULTS,
    OutcomeBuffer,
    OutcomeKey,
    OutcomeUnits,
    build_empty_outcomes,
)
from rollout.engine.evidence.stored_units import FirstValues, StoredUnits
from rollout.engine.evidence.unit_arrays import (
    CELL_TRACKS,
    CellUnitArrays,
    Column,
    UnitArrays,
    UnitClasses,
    build_empty_arrays,
    decode_bits,
    decode_integers,
    decode_integers_into,
    encode_bits,
    encode_integers,
    find_run_starts,
    join_parts,
    split_column,
    split_parts,
)
from rollout.engine.records.reviews import fold_name
from rollout.kernel.arrays import Bools, Ints
from rollout.kernel.calendar.instants import Cell, CellVersion
from rollout.kernel.policy.cell_evidence import list_slice_attributes, select_values
from rollout.kernel.policy.policy import Policy
from rollout.kernel.units import UnitClass

SeriesKey = tuple[str, str, str, str]  # site, window, version, track
UnitTable = Ints  # a row for each field of `UnitArrays`
CostLevels = tuple[float, ...]
DefinitionLevels = Callable[[Cell], Mapping[str, CostLevels]]
UNIT_ORDER = ("site", "window", "version", "track", "slot", "occurred", "unit")
Combination = tuple[tuple[int, ...] | None, tuple[int, ...], str | None, str | None, int | None]
"""What a unit's classes depend on: levels of its series, class numbers, values, slices, band."""


class _ComparableSeries(NamedTuple):
    """A series of stored units, and the policy's cost level of each one of its definition."""

    key: SeriesKey
    levels: tuple[int, ...]


class UnitBuffer:
    """Units by cell and version.

    Args:
        policy: the policy in force.
        definition_levels: returns for a cell the definitions whose units are comparable under the
            policy, each with its cost levels.
    """

    def __init__(self, policy: Policy, definition_levels: DefinitionLevels) -> None:
        self._policy, self._definition_levels = policy, definition_levels
        self._slice_attributes = list_slice_attributes(policy)
        self._levels: dict[CostLevels, tuple[int, ...]] = {}
        self._class_numbers: dict[UnitClass, int] = {}
        self._reviewer_numbers: dict[str, int] = {}
        self._tables: dict[CellVersion, dict[str, UnitTable]] = {}
        self._cells_by_name = {(cell.site, cell.window): cell for cell in policy.cells}
        self.unit_classes = UnitClasses((), policy)
        self.first_values = FirstValues()
        self.row_count = 0

    def add(self, units: StoredUnits) -> set[CellVersion]:
        """Add units of later slots; return the cells and versions that grew.

        In the resulting arrays `unit` is the bucket.
        """
        self.first_values.add(units.list_sliced_units())
        series = self._find_comparable_series(units)
        if not series:
            return set()
        combinations, classes = self._number_classes(units, series)
        reviewers = self._number_reviewers(units, series)
        keys = sorted({s.key for s in series.values()})
        key_places = {key: place for place, key in enumerate(keys)}
        places = {number: key_places[s.key] for number, s in series.items()}
        order, row_places = _sort_rows(units, places)
        rows, row_classes = _repeat_by_class(order, combinations, classes)
        columns = (units.slot, units.occurred, row_classes, reviewers, units.day, units.bucket)
        table = np.array(
            [c if c is row_classes else np.array(c, dtype=np.int64)[rows] for c in columns]
        )
        starts = [*find_run_starts(row_places[rows]).tolist(), len(rows)]
        return {
            self._append(keys[row_places[rows[start]]], table[:, start:end].copy())
            for start, end in pairwise(starts)
        }

    def _append(self, series_key: SeriesKey, rows: UnitTable) -> CellVersion:
        """Append units to a series; return its cell and version."""
        site, window, version, track = series_key
        key = (self._cells_by_name[site, window], intern(version))
        tables = self._tables.setdefault(key, {})
        previous = tables.get(track)
        tables[intern(track)] = rows if previous is None else np.concatenate([previous, rows], 1)
        self.row_count += rows.shape[1]
        return key

    def __iter__(self) -> Iterator[CellVersion]:
        """Iterate over the cells and versions with units."""
        return iter(self._tables)

    def get_rows(self, key: CellVersion) -> CellUnitArrays:
        """Return the units of a cell and version, which may be empty."""
        rows = {track: UnitArrays(*table) for track, table in self._tables.get(key, {}).items()}
        empty = build_empty_arrays()
        gate, guard, assisted, planted = (rows.get(track, empty) for track in CELL_TRACKS)
        return CellUnitArrays(gate, guard, assisted, planted)

    @property
    def reviewers(self) -> Sequence[str]:
        """Return the reviewers' names by number, by `fold_name`."""
        return list(self._reviewer_numbers)

    def list_series(self) -> Iterator[tuple[SeriesKey, UnitTable]]:
        """Yield the table of each series."""
        for (cell, version), tables in self._tables.items():
            for track, table in tables.items():
                yield (cell.site, cell.window, version, track), table

    def restore(
        self,
        classes: Sequence[UnitClass],
        reviewers: Sequence[str],
        tables: Mapping[SeriesKey, UnitTable],
    ) -> None:
        """Fill this empty buffer with what another one of the same policy held.

        Raises:
            ValueError: a series is of a cell that the policy lacks.
        """
        if unknown := {key[:2] for key in tables} - self._cells_by_name.keys():
            raise ValueError(f"the policy has no cells {sorted(unknown)}")
        self._class_numbers = {unit_class: n for n, unit_class in enumerate(classes)}
        self._reviewer_numbers = {name: n for n, name in enumerate(reviewers)}
        self.unit_classes = UnitClasses(tuple(classes), self._policy)
        for (site, window, version, track), table in tables.items():
            key = (self._cells_by_name[site, window], intern(version))
            self._tables.setdefault(key, {})[intern(track)] = table
            self.row_count += table.shape[1]

    def _find_comparable_series(self, units: StoredUnits) -> dict[int, _ComparableSeries]:
        """Return the series of the units that are comparable under the policy, by number."""
        comparable = {}
        for number in set(units.series_id):
            series = units.series[number]
            cell = self._cells_by_name.get((series.site, series.window))
            levels = None if cell is None else self._definition_levels(cell).get(series.definition)
            if levels is not None:
                key = (series.site, series.window, series.version, series.track)
                comparable[number] = _ComparableSeries(key, self._convert_levels(levels))
        return comparable

    def _convert_levels(self, levels: CostLevels) -> tuple[int, ...]:
        """Return the policy's cost level of each level of a definition."""
        if levels not in self._levels:
            own_levels = self._policy.cost_levels
            self._levels[levels] = tuple(find_cost_level(cost, own_levels) for cost in levels)
        return self._levels[levels]

    def _number_classes(
        self, units: StoredUnits, series: Mapping[int, _ComparableSeries]
    ) -> tuple[Ints, list[list[int]]]:
        """Return the number of each unit's combination, and the classes of each combination.

        Classes have lasting numbers in the order of first use; a unit of a series that is not
        comparable has none.
        """
        levels = {number: s.levels for number, s in series.items()}
        rows = zip(
            map(levels.get, units.series_id),
            *(units.class_ids, units.attribute_values, units.slices, units.band),
            strict=True,
        )
        numbers: dict[Combination, int] = {}
        combinations = np.array([numbers.setdefault(row, len(numbers)) for row in rows])
        classes = [
            [
                self._class_numbers.setdefault(unit_class, len(self._class_numbers))
                for unit_class in self._list_classes(units, combination)
            ]
            for combination in numbers
        ]
        if len(self._class_numbers) > len(self.unit_classes.classes):
            self.unit_classes = UnitClasses(tuple(self._class_numbers), self._policy)
        return combinations, classes

    def _list_classes(self, units: StoredUnits, combination: Combination) -> Iterator[UnitClass]:
        levels, class_ids, attribute_values, slices, band = combination
        if levels is None:
            return
        values = select_values(slices or "", self._slice_attributes)
        for class_id in class_ids:
            lever_class = units.classes[class_id]
            answers = (*lever_class[:-1], levels[lever_class.level])
            yield UnitClass(*answers, attribute_values or "", values, band or 0)

    def _number_reviewers(
        self, units: StoredUnits, series: Mapping[int, _ComparableSeries]
    ) -> list[int]:
        """Return the lasting number of each unit's reviewer; -1 without one, or one so far."""
        folded = {name: fold_name(name) for name in set(units.reviewer) if name is not None}
        is_comparable = map(series.__contains__, units.series_id)
        names, numbers = {*compress(units.reviewer, is_comparable)}, self._reviewer_numbers
        for name in sorted(folded[name] for name in names if name is not None):
            numbers.setdefault(name, len(numbers))
        return [-1 if name is None else numbers.get(folded[name], -1) for name in units.reviewer]


def find_cost_level(cost: float, levels: CostLevels) -> int:
    """Return the index of the level at or above a cost.

    >>> find_cost_level(5.0, (0.0, 1.0, 3.0, 5.0))
    3
    """
    return min(int(np.searchsorted(levels, cost - 1e-9)), len(levels) - 1)


def _sort_rows(units: StoredUnits, places: Mapping[int, int]) -> tuple[Ints, Ints]:
    """Return the rows of the units in `UNIT_ORDER`, and the place of each unit's series.

    `places` has the place of each series by number; the rows of others are left out.
    """
    row_places = np.array([places.get(number, -1) for number in units.series_id])
    by_unit = np.array(sorted(range(len(units)), key=units.unit.__getitem__))
    by_unit = by_unit[row_places[by_unit] >= 0]
    slots, occurred = (np.array(c, dtype=np.int64)[by_unit] for c in (units.slot, units.occurred))
    return by_unit[np.lexsort((occurred, slots, row_places[by_unit]))], row_places


def _repeat_by_class(
    rows: Ints, combinations: Ints, classes: Sequence[Sequence[int]]
) -> tuple[Ints, Ints]:
    """Return the rows, each as often as it has classes, and these classes.

    Args:
        rows: indices of units.
        combinations: a number for each unit.
        classes: by that number.
    """
    widths = np.array([len(part) for part in classes])
    flat_classes = np.fromiter(chain.from_iterable(classes), dtype=np.int64)
    numbers = combinations[rows]
    row_widths, firsts = widths[numbers], (np.cumsum(widths) - widths)[numbers]
    ends = np.cumsum(row_widths)
    within = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - row_widths, row_widths)
    return np.repeat(rows, row_widths), flat_classes[np.repeat(firsts, row_widths) + within]


COUNTING_FORM: Final = 3
"""Raise it if the arrays of the same counted units change: their fields are noticed below."""
_TYPES = (UnitClass, UnitArrays, OutcomeUnits)
FORM: Final = sha256(
    repr(
        (COUNTING_FORM, UNIT_ORDER, SOURCE_FAULTS, [[f.name for f in fields(t)] for t in _TYPES])
    ).encode()
).digest()[:8]
"""Begins a snapshot, so that no program with other arrays reads it."""


def encode_buffers(units: UnitBuffer, outcomes: OutcomeBuffer) -> bytes:
    """Return the contents of both buffers."""
    series, outcome_units = dict(units.list_series()), dict(outcomes.list_units())
    header = {
        "classes": [astuple(unit_class) for unit_class in units.unit_classes.classes],
        "reviewers": units.reviewers,
        "series": [[*key, table.shape[1]] for key, table in series.items()],
        "outcomes": [
            [cell.site, cell.window, *names, len(part)]
            for (cell, *names), part in outcome_units.items()
        ],
        "first_values": units.first_values.encode(),
    }
    parts = [zlib.compress(json.dumps(header).encode(), 1)]
    if series:
        for number in range(len(fields(UnitArrays))):
            column = np.concatenate([table[number] for table in series.values()])
            parts.append(_encode_column(column))
    if outcome_units:
        for item in fields(OutcomeUnits):
            column = np.concatenate([getattr(part, item.name) for part in outcome_units.values()])
            parts.append(_encode_column(column))
    return FORM + join_parts(parts)


def restore_buffers(body: bytes, units: UnitBuffer, outcomes: OutcomeBuffer) -> bool:
    """Fill empty buffers with a snapshot's contents; return False for another form.

    Raises:
        ValueError: the contents contradict each other, or the buffers' policy.
    """
    if not body.startswith(FORM):
        return False
    parts = split_parts(memoryview(body)[len(FORM) :])
    header = json.loads(zlib.decompress(next(parts)))
    series: list[SeriesKey] = [tuple(row[:-1]) for row in header["series"]]
    tables = _restore_tables([row[-1] for row in header["series"]], parts)
    outcome_keys: list[OutcomeKey] = [
        (Cell(site, window), *names) for site, window, *names, _ in header["outcomes"]
    ]
    outcome_units = _restore_outcomes([row[-1] for row in header["outcomes"]], parts)
    classes = [UnitClass(*values) for values in header["classes"]]
    units.restore(classes, header["reviewers"], dict(zip(series, tables, strict=True)))
    units.first_values.restore(header["first_values"])
    outcomes.restore(dict(zip(outcome_keys, outcome_units, strict=True)))
    return True


def _restore_tables(lengths: list[int], parts: Iterator[memoryview]) -> list[UnitTable]:
    """Return a table for each series, filled column by column to limit memory."""
    width = len(fields(UnitArrays))
    tables = [np.empty((width, length), dtype=np.int64) for length in lengths]
    for number in range(width if lengths else 0):
        decode_integers_into(next(parts), [table[number] for table in tables])
    return tables


def _restore_outcomes(lengths: list[int], parts: Iterator[memoryview]) -> list[OutcomeUnits]:
    if not lengths:
        return []
    columns: list[list[Column]] = []
    for item in fields(build_empty_outcomes()):
        is_whole = getattr(build_empty_outcomes(), item.name).dtype == np.int64
        part = next(parts)
        column = decode_integers(part) if is_whole else decode_bits(part)
        columns.append([values.copy() for values in split_column(column, lengths)])
    return [OutcomeUnits(*values) for values in zip(*columns, strict=True)]


def _encode_column(column: Column) -> bytes:
    return encode_bits(column) if column.dtype == np.float64 else encode_integers(column)


BufferDigest = dict[tuple[str, ...], tuple[int, int]]


class BufferDigests:
    """Number and hash sum of each series' rows, whatever their order and numbering.

    So a snapshot is compared with counted units that are read in parts.
    """

    def __init__(self, last_slot: int | None = None) -> None:
        """Begin empty; with `last_slot` later rows are left out."""
        self._last_slot = last_slot
        self.sums: BufferDigest = {}

    def add(self, units: UnitBuffer, outcomes: OutcomeBuffer) -> None:
        """Add the contents of both buffers."""
        class_hashes = _hash_values([astuple(c) for c in units.unit_classes.classes])
        reviewer_hashes = _hash_values([*units.reviewers, None])  # -1 is without a reviewer
        for key, table in units.list_series():
            rows = UnitArrays(*table)
            if self._last_slot is not None:
                rows = rows.select(rows.slot <= self._last_slot)
            columns = (rows.slot, rows.occurred, rows.day, rows.unit)
            names = (class_hashes[rows.unit_class], reviewer_hashes[rows.reviewer])
            self._add_rows(key, [*columns, *names])
        for (cell, *outcome_names), part in outcomes.list_units():
            values = [getattr(part, item.name) for item in fields(part)]
            if self._last_slot is not None:
                values = [column[part.slot <= self._last_slot] for column in values]
            self._add_rows((OUTCOME, cell.site, cell.window, *outcome_names), values)

    def _add_rows(self, key: tuple[str, ...], columns: Any) -> None:
        if not len(columns[0]):
            return
        count, total = self.sums.get(key, (0, 0))
        hashes = np.zeros(len(columns[0]), dtype=np.uint64)
        for column in columns:  # unsigned numbers wrap around
            hashes = (hashes ^ np.ascontiguousarray(column).view(np.uint64)) * _MULTIPLIER
            hashes ^= hashes >> np.uint64(29)
        total = (total + int(hashes.sum(dtype=np.uint64))) % 2**64
        self.sums[key] = (count + len(hashes), total)


_MULTIPLIER: Final = np.uint64(0x9E3779B97F4A7C15)  # the golden ratio's bits mix all others


def _hash_values(values: list[Any]) -> NDArray[np.uint64]:
    digests = (sha256(repr(value).encode()).digest()[:8] for value in values)
    return np.array([int.from_bytes(digest, "big") for digest in digests], dtype=np.uint64)


SlotPosition = tuple[int, int]
"""A slot of counting and the slot in which its units occurred."""
FIRST_POSITION: Final[SlotPosition] = (-(2**62), -(2**62))
LAST_POSITION: Final[SlotPosition] = (2**62, 2**62)
OUTCOME: Final = "outcome"
SeriesName = tuple[Cell, str, str]  # cell, version, track or outcome
Rows = Counter[tuple[object, ...]]


class HeldEvidence(NamedTuple):
    """Counted units and outcomes as a process holds them, up to a slot."""

    units: UnitBuffer
    outcomes: OutcomeBuffer
    last_slot: int


def find_differences(
    memory: HeldEvidence, counted: HeldEvidence, after: SlotPosition, until: SlotPosition
) -> Mapping[Cell, str]:
    """Return by cell how `memory` differs from what was counted at positions (`after`, `until`].

    `counted` holds nothing else. A unit in another slot, or with another answer, is a difference.
    """
    held_rows, counted_rows = _collect_rows(memory, after, until), _collect_rows(counted)
    texts: dict[Cell, list[str]] = defaultdict(list)
    for name in sorted(held_rows.keys() | counted_rows.keys()):
        parts = held_rows.get(name, Counter()), counted_rows.get(name, Counter())
        if parts[0] != parts[1]:
            texts[name[0]].append(_describe_difference(name, *parts))
    return {cell: "; ".join(parts) for cell, parts in texts.items()}


def compare_snapshot(stored: HeldEvidence, memory: HeldEvidence) -> Mapping[Cell, str]:
    """Return by cell how a restored snapshot differs from what is held, up to the slot of both."""
    sums = []
    for evidence in (stored, memory):
        digests = BufferDigests(min(stored.last_slot, memory.last_slot))
        digests.add(evidence.units, evidence.outcomes)
        sums.append(digests.sums)
    texts: dict[Cell, list[str]] = defaultdict(list)
    for key in sorted(sums[0].keys() | sums[1].keys()):
        counts = [part.get(key, (0, 0)) for part in sums]
        if counts[0] != counts[1]:
            site, window, version, *series = key[1:] if key[0] == OUTCOME else key
            texts[Cell(site, window)].append(
                f"{version} ({' '.join(series)}) has {counts[0][0]} units in the stored snapshot,"
                f" {counts[1][0]} in memory{', others' * (counts[0][0] == counts[1][0])}"
            )
    return {cell: "; ".join(parts) for cell, parts in texts.items()}


def _collect_rows(
    evidence: HeldEvidence,
    after: SlotPosition = FIRST_POSITION,
    until: SlotPosition = LAST_POSITION,
) -> dict[SeriesName, Rows]:
    """Return the rows of each series that has any, with classes and reviewers for their numbers."""
    series: dict[SeriesName, Rows] = {}
    classes = dict(enumerate(evidence.units.unit_classes.classes))
    reviewers = dict(enumerate(evidence.units.reviewers))
    for (site, window, version, track), table in evidence.units.list_series():
        rows = UnitArrays(*table)
        if (is_near := _select_positions(rows.slot, rows.occurred, after, until)).any():
            part = rows.select(is_near)
            answers = map(classes.get, part.unit_class.tolist())
            deciders = map(reviewers.get, part.reviewer.tolist())  # -1 is without a reviewer
            columns = (part.slot, part.occurred, part.day, part.unit)
            values = (column.tolist() for column in columns)
            series[Cell(site, window), version, track] = Counter(
                zip(answers, deciders, *values, strict=True)
            )
    for (cell, version, *names), units in evidence.outcomes.list_units():
        if (is_near := _select_positions(units.slot, units.occurred, after, until)).any():
            bits = [_list_bits(getattr(units, item.name)[is_near]) for item in fields(units)]
            counts: Rows = Counter(zip(*bits, strict=True))
            series[cell, version, " ".join((OUTCOME, *names))] = counts
    return series


def _select_positions(
    slots: Ints, occurred: Ints, after: SlotPosition, until: SlotPosition
) -> Bools:
    is_later = (slots > after[0]) | ((slots == after[0]) & (occurred > after[1]))
    is_not_beyond = (slots < until[0]) | ((slots == until[0]) & (occurred <= until[1]))
    is_near: Bools = is_later & is_not_beyond
    return is_near


def _list_bits(column: Column) -> list[int]:
    """Return the values of a column, floats as their bits: a missing share equals itself."""
    return list(np.ascontiguousarray(column).view(np.int64).tolist())


def _describe_difference(name: SeriesName, memory: Rows, counted: Rows) -> str:
    """Say what a series holds and what was counted; of the answers only those that differ."""
    _, version, track = name
    numbers = (memory.total(), counted.total())
    text = f"{version} ({track}) holds {numbers[0]} units of a part, {numbers[1]} were counted"
    if track.startswith(OUTCOME):
        return text if numbers[0] != numbers[1] else f"{text}, with other values"
    answers = [_count_answers(rows) for rows in (memory, counted)]
    for answer in sorted(answers[0].keys() | answers[1].keys()):
        if answers[0][answer] != answers[1][answer]:
            predicted, decided = answer
            return (
                f"{text}; predicted {predicted} and decided {decided}:"
                f" {answers[0][answer]} held, {answers[1][answer]} counted"
            )
    return f"{text}, with other times, reviewers or attributes"


def _count_answers(rows: Rows) -> Counter[tuple[str, str]]:
    counts = Counter[tuple[str, str]]()
    for unit_class, number in _list_classes(rows):
        counts[unit_class.predicted, unit_class.decided or "by nobody"] += number
    return counts


def _list_classes(rows: Rows) -> Iterator[tuple[UnitClass, int]]:
    """Yield the classes of rows; a number without a class has none."""
    for row, number in rows.items():
        if isinstance(row[0], UnitClass):
            yield row[0], number
