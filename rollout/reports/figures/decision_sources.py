"""From which sources human decisions came, and how many came from none that the policy names."""

from dataclasses import dataclass
from typing import Final

import polars as pl

from rollout.core.policy.evidence_sources import BEFORE_SOURCES
from rollout.reports.text.formatting import format_count, format_quantity, join_words
from rollout.reports.text.source_text import CountedSource
from rollout.tally.frames import RecordFrames, RemarkReason


@dataclass(frozen=True, slots=True)
class UnsourcedDecisions:
    """Decisions that are no evidence because of their source, with the reason."""

    reason: str
    decisions: int


@dataclass(frozen=True, slots=True)
class DecisionSources:
    """Decisions by source, most first; () where sources are not distinguished.

    Attributes:
        chosen: the sources that a replay counts; () for all.
        left_out: decisions of its other sources.
    """

    counted: tuple[CountedSource, ...]
    unsourced: tuple[UnsourcedDecisions, ...]
    chosen: tuple[str, ...] = ()
    left_out: int = 0

    @property
    def choice_text(self) -> str:
        """Return which sources a replay counts as sentences, "" for all."""
        if not self.chosen:
            return ""
        used = sum(count.decisions for count in self.counted)
        return (
            f"Only decisions of {join_words(list(self.chosen))} count in this replay (--sources):"
            f" {format_count(used)} of {format_quantity(used + self.left_out, 'decision')}. It says"
            " nothing about the decisions of other sources."
        )


NO_SOURCES: Final = DecisionSources((), ())
"""The sources in reports from before they were counted."""


def compute_decision_sources(
    records: RecordFrames, chosen_sources: tuple[str, ...] = ()
) -> DecisionSources:
    """Return the sources of the decisions, and those of no source by reason."""
    has_sources = bool(chosen_sources) or records.decisions["source"].is_not_null().any()
    counts = (
        records.decisions.group_by(source=pl.col("source").fill_null(BEFORE_SOURCES))
        .agg(decisions=pl.len(), reviewers=pl.col("reviewer").n_unique())
        .sort(["decisions", "source"], descending=[True, False])
    )
    reasons = records.unsourced_decisions.group_by("reason").len().sort("reason")
    return DecisionSources(
        tuple(CountedSource(*row) for row in counts.iter_rows()) if has_sources else (),
        tuple(UnsourcedDecisions(*row) for row in reasons.iter_rows()),
        chosen_sources,
        records.rejected.filter(pl.col("reason") == RemarkReason.OTHER_SOURCE).height
        if chosen_sources
        else 0,
    )
