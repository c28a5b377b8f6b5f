"""Two sides that agree everywhere: one side read twice looks like a perfect model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from rollout.formats.records.questions import EqualSides
from rollout.tally.frames import VALUE_PREFIX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rollout.formats.records.mapped_rows import MappedRows

MIN_PAIRS = 50
_SAMPLE = 1000
"""Pairs that are compared first, because sides that differ do so early."""


def find_equal_sides(
    predictions: MappedRows, decisions: MappedRows, levers: Sequence[str]
) -> EqualSides | None:
    """Return a question if the answers to 50 cases or more are all equal on every lever.

    Cases without an answer on a side don't count.
    """
    names = [VALUE_PREFIX + lever for lever in levers]
    predicted, decided = (
        pl.DataFrame([rows.get_texts(name) for name in ("case_key", *names)]).drop_nulls()
        for rows in (predictions, decisions)
    )
    if _count_equal(predicted.head(_SAMPLE), decided, names) is None:
        return None
    pairs = _count_equal(predicted, decided, names)
    if pairs is None or pairs < MIN_PAIRS:
        return None
    return EqualSides(file=f"{predictions.file} and {decisions.file}", pairs=pairs)


def _count_equal(
    predicted: pl.DataFrame, decided: pl.DataFrame, names: Sequence[str]
) -> int | None:
    """Return the number of pairs, or None if some differ."""
    pairs = predicted.join(decided, on="case_key", suffix=" decided")
    is_equal = pl.all_horizontal(pl.col(name) == pl.col(f"{name} decided") for name in names)
    return pairs.height if pairs.select(is_equal.all()).item() else None
