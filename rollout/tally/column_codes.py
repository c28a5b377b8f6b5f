"""Columns of arrays as compressed bytes, which restore the same values bit by bit.

Whole numbers are differences in the narrowest type, other numbers the bits of their values.
"""

import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

DIFFERENCE_TYPES: Final = (np.int8, np.int16, np.int32, np.int64)
LENGTH_BYTES: Final = 8
Column = NDArray[np.int64] | NDArray[np.float64]


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


def _find_wide(differences: NDArray[np.int64], limits: np.iinfo[Any]) -> NDArray[np.int64]:
    """Return the positions of the differences outside of a type's limits."""
    return np.flatnonzero((differences < limits.min) | (differences > limits.max))


def decode_integers(part: memoryview) -> NDArray[np.int64]:
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


def decode_integers_into(part: memoryview, rows: Sequence[NDArray[np.int64]]) -> None:
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


def decode_bits(part: memoryview) -> NDArray[np.float64]:
    """Return what `encode_bits` encoded."""
    return np.frombuffer(zlib.decompress(part), dtype="<f8").astype(np.float64)


def encode_flags(column: NDArray[np.bool_]) -> bytes:
    """Return truth values as bytes."""
    packed = np.packbits(column).tobytes()
    return len(column).to_bytes(LENGTH_BYTES, "big") + zlib.compress(packed, 1)


def decode_flags(part: memoryview) -> NDArray[np.bool_]:
    """Return what `encode_flags` encoded."""
    count = int.from_bytes(part[:LENGTH_BYTES], "big")
    packed = np.frombuffer(zlib.decompress(part[LENGTH_BYTES:]), dtype=np.uint8)
    return np.unpackbits(packed, count=count).view(np.bool_)


def encode_raw(column: NDArray[Any]) -> bytes:
    """Return the bits of random numbers, which no compression makes fewer."""
    return column.astype("<f8").tobytes()


def decode_raw(part: memoryview) -> NDArray[np.float64]:
    """Return what `encode_raw` encoded."""
    return np.frombuffer(part, dtype="<f8").astype(np.float64)
