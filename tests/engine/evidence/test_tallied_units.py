"""Units become arrays: combinations of values get numbers in the order of first use."""

import tracemalloc

import numpy as np
import polars as pl
import pytest

from rollout.engine.evidence import tallied_units
from rollout.engine.evidence.frames import share_constants
from rollout.engine.evidence.tallied_units import number_combinations

FRAME = pl.DataFrame(
    {
        "lever": ["b", "b", "a", "b", "a", "b"],
        "level": [5, 1, 5, 5, None, 1],
        "band": [0] * 6,
    }
)


@pytest.mark.parametrize("limit", [1, 1_000_000])
@pytest.mark.parametrize("dtype", [pl.String, pl.Categorical])
def test_combinations_are_numbered_in_the_order_of_first_use(monkeypatch, limit, dtype):
    monkeypatch.setattr(tallied_units, "MAX_COMBINATIONS", limit)
    frame = FRAME.with_columns(pl.col("lever").cast(dtype))
    numbers, first_rows = number_combinations(frame, FRAME.columns)
    assert numbers.tolist() == [0, 1, 2, 0, 3, 1]
    assert first_rows.tolist() == [0, 1, 2, 4]


@pytest.mark.parametrize("levels", [[3, 3, 3], [-2, 61, -2], [-2, 62, -2], [2**62, 0, -(2**62)]])
def test_integers_are_numbered_whatever_their_range(levels):
    frame = pl.DataFrame({"level": levels, "band": [1, 0, 1]})
    numbers, first_rows = number_combinations(frame, ["level", "band"])
    is_third_new = levels[2] != levels[0]
    assert numbers.tolist() == [0, 1, 2 if is_third_new else 0]
    assert first_rows.tolist() == [0, 1, 2][: 2 + is_third_new]


def test_columns_of_one_value_are_not_encoded(monkeypatch):
    names, encode = [], tallied_units._prepare_encoding

    def note(column):
        names.append(column.name)
        return encode(column)

    monkeypatch.setattr(tallied_units, "_prepare_encoding", note)
    number_combinations(FRAME, FRAME.columns)
    assert names == ["lever", "level"]


def test_rows_are_numbered_part_by_part():
    rows = 4 * tallied_units.ROWS_AT_ONCE
    places = np.arange(rows)
    columns = {"level": places % 7, "decided": places % 3, "reviewer": places % 200}
    frame = pl.DataFrame(columns).with_columns(
        pl.col("decided").cast(pl.String).cast(pl.Categorical)
    )
    tracemalloc.start()
    numbers, first_rows = number_combinations(frame, frame.columns)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.5 * numbers.nbytes  # the numbers, and a few of a quarter of the rows
    assert len(first_rows) == 7 * 3 * 200
    assert np.array_equal(numbers, places % len(first_rows))


def test_no_rows_have_no_combinations():
    numbers, first_rows = number_combinations(FRAME.clear(), FRAME.columns)
    assert (numbers.tolist(), first_rows.tolist()) == ([], [])


def test_columns_of_one_value_keep_values_and_types():
    columns = {
        "empty": pl.Series([None] * 3, dtype=pl.Int16),
        "same": ["x"] * 3,
        "nan": [np.nan] * 3,
        "gap": ["x", None, "x"],
        "other": ["x", "y", "x"],
    }
    frame = pl.DataFrame(columns)
    for rows in (frame, frame.clear()):
        shared = share_constants(rows)
        assert shared.schema == frame.schema
        assert shared.equals(rows)


def test_columns_are_sorted_one_by_one_and_never_all_held_twice():
    rows = 50_000
    frame = pl.DataFrame(
        {
            "site": "creek",
            "window": "day",
            "version": "v1",
            "track": ["gate", "guard"] * (rows // 2),
        }
    )
    places = np.arange(rows)[::-1].copy()
    names = ("slot", "occurred", "unit_class", "reviewer", "day", "unit")
    expected = {name: np.sort(places + number) for number, name in enumerate(names)}
    tracemalloc.start()
    columns = {name: places + number for number, name in enumerate(names)}
    found = tallied_units._split_cells(frame, columns)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 11 * places.nbytes  # six, one of them twice, and what sorts them
    ((tracks),) = found.values()
    for name in names:
        both = np.concatenate([getattr(tracks.gate, name), getattr(tracks.guard, name)])
        assert np.array_equal(np.sort(both), expected[name])
    assert (np.diff(tracks.gate.slot) > 0).all()
