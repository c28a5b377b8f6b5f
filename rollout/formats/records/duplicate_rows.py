"""Rows that speak again of what an earlier row of the same file speaks of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from rollout.formats.records.rejected_rows import faults, first_per_row, no_faults
from rollout.tally.frames import Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

AGAIN = "says again what an earlier row says"
OTHERWISE = "says otherwise than an earlier row of the same key; the first is kept"


def repeats(rows: pl.DataFrame, key: Sequence[str]) -> pl.DataFrame:
    """Return faults for all rows of a key but the first: duplicates, and conflicts with it.

    A row is a duplicate when any earlier row says exactly the same in every column. The first
    row is the first in the file. `row` counts within `rows`.

    >>> rows = pl.DataFrame({"case_key": ["a", "a", "a"], "label": ["x", "x", "y"]})
    >>> repeats(rows, ["case_key"])["reason"].to_list()
    ['duplicate', 'conflict']
    """
    is_repeat = _later(rows, key)
    if not is_repeat.any():
        return no_faults()
    is_duplicate = _later(rows, rows.columns)
    return first_per_row(
        [
            faults(is_duplicate, None, Reason.DUPLICATE, AGAIN),
            faults(is_repeat, None, Reason.CONFLICT, OTHERWISE),
        ]
    )


def several_labels(rows: pl.DataFrame, key: Sequence[str], answer: Sequence[str]) -> pl.DataFrame:
    """Return faults for decisions of one reviewer on one case, as `repeats` does, by their rule.

    An exact repeat is a duplicate. Where what is left of a key holds different answers none of
    it is used: nobody can say which was meant. Equal answers that differ otherwise (in their
    time, say) are conflicts with the first.

    >>> rows = pl.DataFrame({"case_key": ["a", "a", "a"], "label": ["x", "x", "y"]})
    >>> several_labels(rows, ["case_key"], ["label"])["reason"].to_list()
    ['several-labels', 'duplicate', 'several-labels']
    """
    is_repeat = _later(rows, key)
    if not is_repeat.any():
        return no_faults()
    is_duplicate = _later(rows, rows.columns)
    answers = rows.select(pl.struct(answer).n_unique().over(key)).to_series()
    detail = "this reviewer gave the case different answers; none is used"
    return first_per_row(
        [
            faults(is_duplicate, None, Reason.DUPLICATE, AGAIN),
            faults(answers > 1, None, Reason.SEVERAL_LABELS, detail),
            faults(is_repeat, None, Reason.CONFLICT, OTHERWISE),
        ]
    )


def _later(rows: pl.DataFrame, columns: Sequence[str]) -> pl.Series:
    """Say of each row whether an earlier one has the same in these columns."""
    return ~rows.select(pl.struct(columns).is_first_distinct()).to_series()
