"""Findings about what the model brought: losses, and where agreement would mislead."""

from collections.abc import Iterator
from typing import Final

from rollout.reports.figures.facts import ReportFacts
from rollout.reports.pages.finding import AUDITOR, BAD, ENGINEER, OPERATOR, WARN, Finding
from rollout.reports.pages.gain_text import describe_conflicts, describe_gain
from rollout.reports.text.formatting import format_cell_name, format_quantity

MAX_NAMED: Final = 2


def list_gain_findings(facts: ReportFacts) -> Iterator[Finding]:
    """Yield cells in which the model surely loses, and where agreement and gain point apart.

    Operators may still review blind, so they are not told how often the model agrees.
    """
    for gain in facts.gains:
        if gain.upper < 0:
            cell = format_cell_name(gain.site, gain.window)
            title = f"{gain.version} has the worse {gain.outcome} in {cell}"
            text = describe_gain(gain)
            yield Finding(BAD, "Loss", title, text, "outcomes", (OPERATOR, ENGINEER, AUDITOR))
    conflicts = list(describe_conflicts(facts.gains, facts.sighted))
    if conflicts:
        title = f"Agreement would mislead in {format_quantity(len(conflicts), 'cell')}"
        yield Finding(
            WARN, "Apart", title, " ".join(conflicts[:MAX_NAMED]), "outcomes", (ENGINEER,)
        )
