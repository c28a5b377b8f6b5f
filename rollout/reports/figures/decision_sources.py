"""From which sources human decisions came, and how many came from none that the policy names."""

from dataclasses import dataclass
from typing import Final

import polars as pl

from rollout.core.policy.evidence_sources import BEFORE_SOURCES
from rollout.reports.text.source_text import CountedSource
from rollout.tally.frames import RecordFrames


@dataclass(frozen=True, slots=True)
class UnsourcedDecisions:
    """Decisions that are no evidence because of their source, with the reason."""

    reason: str
    decisions: int


@dataclass(frozen=True, slots=True)
class DecisionSources:
    """Decisions by source, most first; () where sources are not distinguished, as in files."""

    counted: tuple[CountedSource, ...]
    unsourced: tuple[UnsourcedDecisions, ...]


NO_SOURCES: Final = DecisionSources((), ())
"""The sources in reports from before they were counted."""


def compute_decision_sources(records: RecordFrames) -> DecisionSources:
    """Return the sources of the decisions, and those of no source by reason."""
    has_sources = records.decisions["source"].is_not_null().any()
    counts = (
        records.decisions.group_by(source=pl.col("source").fill_null(BEFORE_SOURCES))
        .agg(decisions=pl.len(), reviewers=pl.col("reviewer").n_unique())
        .sort(["decisions", "source"], descending=[True, False])
    )
    reasons = records.unsourced_decisions.group_by("reason").len().sort("reason")
    return DecisionSources(
        tuple(CountedSource(*row) for row in counts.iter_rows()) if has_sources else (),
        tuple(UnsourcedDecisions(*row) for row in reasons.iter_rows()),
    )
