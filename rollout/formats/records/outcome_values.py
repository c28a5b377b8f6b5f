"""The column `values` of outcomes: an object with a number for each outcome."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import polars as pl

from rollout.formats.records.column_map import ColumnError
from rollout.kernel.outcomes import describe_unknown_outcome

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

VALUES = "values"


def expand_values(file: str, cells: pl.DataFrame, outcomes: Sequence[str]) -> pl.DataFrame:
    """Return the cells with a column for each outcome instead of `values`.

    Raises:
        ColumnError: a cell is no object, or names an outcome that the policy lacks.
    """
    if VALUES not in cells.columns or not outcomes:
        return cells
    rows = [_parse_values(file, text) for text in cells[VALUES]]
    unknown = sorted({name for row in rows for name in row} - set(outcomes))
    if unknown:
        raise ColumnError([f"{file}: {describe_unknown_outcome(unknown[0], outcomes)}"])
    columns = {
        outcome: [row.get(outcome) for row in rows]
        for outcome in outcomes
        if any(outcome in row for row in rows)
    }
    expanded = cells.drop(VALUES)
    return expanded.with_columns(
        pl.Series(name, values, dtype=pl.String) for name, values in columns.items()
    )


def _parse_values(file: str, text: str | None) -> Mapping[str, str | None]:
    if text is None:
        return {}
    try:
        content = json.loads(text, parse_float=str, parse_int=str, parse_constant=str)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or not all(map(_is_scalar, content.values())):
        raise ColumnError(
            [f'{file}: values is {text[:80]!r}; write an object such as {{"profit": 12.5}}']
        )
    return content


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, str)
