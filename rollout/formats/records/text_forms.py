"""Texts that differ in form only, such as 1 and 1.0, TRUE and true, or `["bear"]` and bear."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_QUOTED = r'^"([^"\\]*)"$'
_ONE_OF_LIST = r"^\[\s*([^\[\],]*?)\s*\]$"
_CHOICES = r'^\{\s*"choices"\s*:\s*(\[.*\])\s*\}$'
_WHOLE_DECIMAL = r"^([+-]?\d+)\.0+$"


def normalize_forms(texts: pl.Series) -> pl.Series:
    r"""Return texts without what only their form says.

    >>> normalize_forms(pl.Series(["1.0", "TRUE", '{"choices": ["Bear"]}', "a\u00a0 b"])).to_list()
    ['1', 'true', 'bear', 'a b']
    """
    column = pl.col("text").str.normalize("NFC").str.replace_all(r"[\s\x{a0}\x{202f}]+", " ")
    column = column.str.strip_chars()
    for pattern in (_CHOICES, _ONE_OF_LIST, _QUOTED):
        column = column.str.replace(pattern, "$1")
    column = column.str.to_lowercase().str.replace(_WHOLE_DECIMAL, "$1")
    return pl.DataFrame({"text": texts}, schema={"text": pl.String}).select(column).to_series()


def pair_forms(texts: Iterable[str], others: Iterable[str]) -> dict[str, str]:
    """Return for texts that `others` lack the one of them that differs in form only.

    >>> pair_forms(["0.0", "deer"], ["0", "1", "deer"])
    {'0.0': '0'}
    """
    names = sorted({*others})
    unmatched = sorted({*texts} - {*names})
    by_form = dict(zip(reversed(normalize_forms(_build(names))), reversed(names), strict=True))
    forms = zip(unmatched, normalize_forms(_build(unmatched)), strict=True)
    return {text: by_form[form] for text, form in forms if form in by_form}


def _build(texts: Sequence[str]) -> pl.Series:
    return pl.Series(texts, dtype=pl.String)
