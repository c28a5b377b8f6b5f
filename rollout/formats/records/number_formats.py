"""Numbers with decimal commas and confidence in percent: recognize and rewrite them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from rollout.formats.records.reading_questions import ReadingQuestion

if TYPE_CHECKING:
    from collections.abc import Sequence

_COMMA = r"^[+-]?\d+,\d+\s*%?$"
_POINT = r"^[+-]?\d*\.\d+\s*%?$"
_GROUPS_BY_POINT = r"^[+-]?\d{1,3}(?:\.\d{3})+$"
_GROUPED_COMMA = r"^[+-]?\d{1,3}(?:\.\d{3})+,\d+$"
_PLAIN = r"^\+?\d+(?:\.\d+)?$"
_SIGNED = r"^\+?\d+(?:[.,]\d+)?\s*%$"
MIN_PERCENT_SHARE = 0.9
"""Share of confidences above 1 from which they are in percent."""


def rewrite_decimals(texts: pl.Series, decimal: str | None) -> pl.Series:
    """Return numbers with a decimal point; other texts stay.

    >>> rewrite_decimals(pl.Series(["0,5", "1.200,5", "1.200", "-"]), ",").to_list()
    ['0.5', '1200.5', '1200', '-']
    """
    if decimal != ",":
        return texts
    clean = pl.col("text").str.strip_chars()
    ungrouped = clean.str.replace_all(".", "", literal=True).str.replace(",", ".", literal=True)
    is_grouped = clean.str.contains(_GROUPS_BY_POINT) | clean.str.contains(_GROUPED_COMMA)
    rewritten = (
        pl.when(clean.str.contains(_COMMA))
        .then(clean.str.replace(",", ".", literal=True))
        .when(is_grouped)
        .then(ungrouped)
        .otherwise("text")
    )
    return pl.DataFrame({"text": texts}).select(rewritten.alias(texts.name)).to_series()


def rewrite_percents(texts: pl.Series) -> pl.Series:
    """Return confidences from 0 to 100 as numbers from 0 to 1; other texts stay.

    >>> rewrite_percents(pl.Series(["93.1", "7 %", "high"])).to_list()
    ['93.1e-2', '7e-2', 'high']
    """
    clean = pl.col("text").str.strip_chars()
    number = clean.str.strip_suffix("%").str.strip_chars()
    rewritten = pl.when(number.str.contains(_PLAIN)).then(number + "e-2").otherwise("text")
    return pl.DataFrame({"text": texts}).select(rewritten.alias(texts.name)).to_series()


def recognize_decimal(
    confidence: pl.Series, others: Sequence[pl.Series], file: str
) -> str | ReadingQuestion:
    """Return `.` or `,` for the numbers of a file, or what is open.

    A comma in a confidence is a decimal comma, because no confidence is above 100. Elsewhere 1,234
    can be a thousand, and in labels 1,2 can be two labels.
    """
    texts = pl.concat([column.drop_nulls().alias("") for column in (confidence, *others)])
    texts = texts.filter(texts.str.contains("[.,]")).str.strip_chars()
    commas = texts.filter(texts.str.contains(_COMMA) | texts.str.contains(_GROUPED_COMMA))
    if not commas.len():
        return "."
    points = texts.filter(texts.str.contains(_POINT) & ~texts.str.contains(_GROUPS_BY_POINT))
    if points.len():
        text = f"{file}: numbers have decimal points ({points[0]}) and commas ({commas[0]})"
        return ReadingQuestion("--decimal", text, (".", ","))
    if confidence.str.contains(",").any():
        return ","
    text = f"{file}: the comma in {commas[0]} can be a decimal comma, or something else"
    return ReadingQuestion("--decimal", text, (".", ","))


def recognize_percent(confidence: pl.Series, file: str) -> bool | ReadingQuestion:
    """Return whether confidences, with decimal points, are in percent, or what is open."""
    texts = confidence.drop_nulls().str.strip_chars()
    is_signed = texts.str.contains(_SIGNED)
    if texts.len() and is_signed.all():
        return True
    values = texts.cast(pl.Float64, strict=False).drop_nulls()
    values = values.filter(values.is_between(0, 100))
    above = values.filter(values > 1)
    choices = ("true", "false")
    if is_signed.any():
        text = f"{file}: some confidences have a percent sign ({texts.filter(is_signed)[0]})"
        return ReadingQuestion("--percent", f"{text} and some have none", choices)
    if not above.len():
        if values.len() and values.is_in([0.0, 1.0]).all():
            text = f"{file}: every confidence is 0 or 1, which can be 1 of 1 or 1 %"
            return ReadingQuestion("--percent", text, choices)
        return False
    if above.len() >= MIN_PERCENT_SHARE * values.len():
        return True
    share = f"{above.len():,} of {values.len():,} confidences are above 1 (as {above[0]:g})"
    return ReadingQuestion("--percent", f"{file}: {share}, the others from 0 to 1", choices)
