"""Counted units and outcomes as compressed bytes, which restore the same arrays bit by bit."""

import json
import zlib
from collections.abc import Iterator
from dataclasses import astuple, fields
from hashlib import sha256
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rollout.core.calendar.sites import Cell
from rollout.kernel.units import UnitClass
from rollout.tally.column_codes import (
    Column,
    decode_bits,
    decode_integers,
    decode_integers_into,
    encode_bits,
    encode_integers,
    join_parts,
    split_column,
    split_parts,
)
from rollout.tally.outcome_buffer import OutcomeBuffer, OutcomeKey
from rollout.tally.outcome_units import SOURCE_FAULTS, OutcomeUnits, build_empty_outcomes
from rollout.tally.unit_arrays import UnitArrays
from rollout.tally.unit_buffer import UNIT_ORDER, SeriesKey, UnitBuffer, UnitTable

COUNTING_FORM: Final = 2
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
        for outcome_key, part in outcomes.list_units():
            values = [getattr(part, item.name) for item in fields(part)]
            if self._last_slot is not None:
                values = [column[part.slot <= self._last_slot] for column in values]
            self._add_rows(_name_outcome(outcome_key), values)

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


def _name_outcome(key: OutcomeKey) -> tuple[str, ...]:
    cell, *names = key
    return ("outcome", cell.site, cell.window, *names)
