"""Draft a lever with a number: its range, its tolerance, and what speaks for them."""

from collections.abc import Iterator, Sequence
from math import ceil, floor

import polars as pl

from rollout.formats.policy.draft_import import quote_scalar
from rollout.tally.frames import VALUE_PREFIX, RecordFrames

NUMBER_TOLERANCE = 0.05
OTHER_TOLERANCES = (0.01, 0.02, 0.1)


def draft_number_lever(records: RecordFrames, lever: str, answers: Sequence[str]) -> Iterator[str]:
    """Yield the lines of a lever; `answers` are its different numbers as text."""
    low, high = _find_range(answers)
    yield f"  - id: {quote_scalar(lever)}"
    yield f"    # {len(answers):,} different numbers, so no labels; write their unit at `in`"
    yield f"    # within {NUMBER_TOLERANCE:.0%} of the human's number is agreement"
    shares = _describe_shares(records, lever)
    if shares:
        yield f"    # {shares}"
    yield f"    number: {{in: units, from: {low}, to: {high}, tolerance: {NUMBER_TOLERANCE:.0%}}}"


def describe_number_lever(records: RecordFrames, lever: str, answers: Sequence[str]) -> str:
    """Return in one line what was chosen for a lever, and why."""
    low, high = _find_range(answers)
    shares = _describe_shares(records, lever)
    text = (
        f"{lever}: {len(answers):,} different numbers, so it is a number from {low:,} to {high:,},"
        f" not labels; the proposed tolerance is {NUMBER_TOLERANCE:.0%}"
    )
    return f"{text}: {shares}" if shares else text


def is_within_share(predicted: pl.Expr, decided: pl.Expr, tolerance: float) -> pl.Expr:
    """Return whether a predicted number is within a share of the decided one."""
    target = decided.cast(pl.Float64, strict=False)
    distance = (predicted.cast(pl.Float64, strict=False) - target).abs()
    return distance <= tolerance * target.abs()


def _find_range(answers: Sequence[str]) -> tuple[int, int]:
    numbers = [float(answer) for answer in answers]
    low, high = floor(min(numbers)), ceil(max(numbers))
    return low, max(high, low + 1)


def _describe_shares(records: RecordFrames, lever: str) -> str:
    """Describe how many pairs are within other tolerances; empty without pairs."""
    column = VALUE_PREFIX + lever
    decided = records.decisions.filter(~pl.col("unsure")).select("case_key", decided=column)
    predicted = records.predictions.select("case_key", predicted=column)
    pairs = predicted.join(decided, on="case_key").drop_nulls()
    if pairs.is_empty():
        return ""
    texts = []
    for tolerance in sorted((NUMBER_TOLERANCE, *OTHER_TOLERANCES)):
        close = is_within_share(pl.col("predicted"), pl.col("decided"), tolerance)
        share = pairs.select(close.fill_null(value=False).mean()).item()
        texts.append(f"{share:.1%} within {tolerance:.0%}")
    return f"of {pairs.height:,} pairs {', '.join(texts)}"
