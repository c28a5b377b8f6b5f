"""Placeholders: texts that scripts and spreadsheets write where a value is missing.

They are no label, site, reviewer, version or key, unless a policy lists such a label or site.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import polars as pl

from rollout.core.records.row_remarks import RemarkReason
from rollout.formats.records.rejected_rows import build_faults
from rollout.tally.frames import VALUE_PREFIX

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from rollout.formats.records.mapped_rows import MappedRows

NAME_COLUMNS = ("case_key", "site", "reviewer", "model_version")
"""Columns in which a placeholder is no name, beside the answers of levers."""
DOUBTFUL = frozenset({"none", "na", "null", "-"})
"""Placeholders that some people use as a label."""
PLACEHOLDERS = DOUBTFUL | frozenset(
    {
        *("nan", "nil", "nat", "n/a", "n.a.", "n/d", "--", "---", "?", "??", "\\n", "undefined"),
        *("<na>", "<nan>", "<nat>", "<none>", "<null>", "<nil>", "(null)", "(none)", "(nan)"),
        *("[null]", "#n/a", "#na", "#n/a n/a", "1.#qnan", "-1.#ind", "-nan", "+nan"),
    }
)
MAX_LETTERS = max(map(len, PLACEHOLDERS))


def find_placeholders(texts: Iterable[str], listed: Collection[str] = ()) -> list[str]:
    """Return the texts that stand for a missing value, sorted.

    >>> find_placeholders(["bear", "NaN", "None", " n/a "], ["none"])
    [' n/a ', 'NaN']
    """
    names = {text.strip().lower() for text in listed}
    placeholders = {text for text in texts if text.strip().lower() in PLACEHOLDERS - names}
    return sorted(placeholders)


def find_doubtful(texts: Iterable[str]) -> set[str]:
    """Return the placeholders, in lower case, that can be labels too."""
    return {text.strip().lower() for text in texts} & DOUBTFUL


def clear_placeholders(rows: MappedRows, listed: Mapping[str, Collection[str]]) -> MappedRows:
    """Return the rows with null for each placeholder, and a remark on it.

    `listed` has by column the labels or sites that a policy lists.
    """
    columns, faults = [], []
    for name in rows.cells.columns:
        if name not in NAME_COLUMNS and not name.startswith(VALUE_PREFIX):
            continue
        column = rows.cells[name]
        placeholders = _list_placeholders(column, listed.get(name, ()))
        faults += [
            build_faults(column == text, name, RemarkReason.PLACEHOLDER, repr(text))
            for text in placeholders
        ]
        if placeholders:
            blank = pl.repeat(None, column.len(), dtype=pl.String, eager=True)
            is_placeholder = column.is_in(placeholders).fill_null(value=False)
            columns.append(blank.zip_with(is_placeholder, column).alias(name))
    if not columns:
        return rows
    remarks = pl.concat([rows.remarks, rows.build_remarks(pl.concat(faults))])
    return replace(rows, cells=rows.cells.with_columns(columns), remarks=remarks)


def _list_placeholders(column: pl.Series, listed: Collection[str]) -> list[str]:
    """Return the placeholders of a column; most texts are too long to be one."""
    short = column.filter(column.str.len_bytes() <= MAX_LETTERS + 2)
    return find_placeholders(short.unique().drop_nulls(), listed)
