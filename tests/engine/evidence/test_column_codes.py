"""Columns are restored bit by bit, and jumps between series cost no width."""

import numpy as np
import pytest

from rollout.engine.evidence.unit_arrays import (
    decode_integers,
    decode_integers_into,
    encode_integers,
)

RISING = np.arange(1000) // 3
COLUMNS = {
    "empty": [],
    "one": [2**62],
    "small": RISING,
    "jumps": np.concatenate([RISING + n * 10**15 for n in (5, 0, -7, 3)]),
    "wide": np.random.default_rng(1).integers(-(2**62), 2**62, 500),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_whole_numbers_are_restored(name):
    column = np.array(COLUMNS[name], dtype=np.int64)
    part = memoryview(encode_integers(column))
    assert decode_integers(part).tolist() == column.tolist()
    half = len(column) // 2
    rows = [np.empty(half, np.int64), np.empty(0, np.int64), np.empty(len(column) - half, np.int64)]
    decode_integers_into(part, rows)
    assert np.concatenate(rows).tolist() == column.tolist()


def test_jumps_between_series_make_no_difference_wider():
    for name in ("small", "jumps"):
        assert encode_integers(COLUMNS[name])[0] == 1  # byte a difference


def test_wide_differences_at_places_that_do_not_exist_are_refused():
    part = bytearray(encode_integers(COLUMNS["jumps"]))
    part[1 + 8 + 6] = 1  # the first position
    with pytest.raises(IndexError):
        decode_integers(memoryview(bytes(part)))
