"""Unfamiliar cases in words."""

from collections.abc import Iterator, Sequence
from typing import Final

from rollout.reports.figures.unfamiliar import UnfamiliarCases
from rollout.reports.text.formatting import (
    format_cell_name,
    format_count,
    format_percent,
    format_quantity,
)

MAX_ROWS: Final = 3  # one sentence each


def describe_unfamiliar(rows: Sequence[UnfamiliarCases]) -> Iterator[str]:
    """Yield a sentence for each set of unfamiliar values, most cases first."""
    for row in rows[:MAX_ROWS]:
        yield (
            f"{format_cell_name(row.site, row.window)}: {format_quantity(row.cases, 'case')} with"
            f" {row.values} ({format_percent(row.share)} of its cases under {row.version}) went to"
            f" humans, because {row.version} was not familiar with them{_describe_effect(row)}"
        )
    others = rows[MAX_ROWS:]
    if others:
        cases = format_quantity(sum(row.cases for row in others), "more case")
        yield f"{cases} with other unfamiliar values went to humans; report.json lists them."


def _describe_effect(row: UnfamiliarCases) -> str:
    """Describe how the version did on these cases, and what it would have done."""
    judged = row.agreement.n
    if not judged:
        return "."
    text = f"; it was right in {format_count(row.agreement.count)} of {format_count(judged)}"
    if not row.model_cases:
        return f"{text}."
    wrong = format_quantity(row.prevented, "wrong action")
    cases = format_count(row.model_cases)
    return (
        f"{text}. At its stage it would have decided {cases} of them until narrowed, with {wrong}."
    )
