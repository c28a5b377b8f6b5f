"""Labels for a sample: predictions of which only a part was labelled on purpose."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import polars as pl

from rollout.tally.frames import VALUE_PREFIX, LabelCoverage, RecordKind

if TYPE_CHECKING:
    from rollout.tally.frames import RecordFrames

MAX_UNASKED = 0.05
"""Share of predicted cases without a decision up to which a draft counts them as missing."""
SAMPLED, ALL = "sampled", "all"


def select_labelled(records: RecordFrames, labels: str | None) -> RecordFrames:
    """Return the records with their coverage; for a sample only those of labelled cases.

    A case is labelled by a decision, or by an outcome with an answer.
    """
    answers = pl.any_horizontal(
        pl.col(VALUE_PREFIX + lever).is_not_null() for lever in records.levers
    )
    frames = (records.decisions, records.outcomes.filter(answers))
    labelled = pl.concat([frame.select(pl.col("case_key").unique()) for frame in frames])
    keys = labelled.to_series().unique()
    predicted = records.predictions.select(pl.col("case_key").unique()).to_series()
    rejected = records.rejected.filter(pl.col("records") == RecordKind.DECISIONS.value)
    is_labelled = predicted.is_in(keys.implode())
    coverage = LabelCoverage(
        predicted=predicted.len(),
        labelled=int(is_labelled.sum()),
        missing=int((~is_labelled & ~predicted.is_in(rejected["case_key"].implode())).sum()),
        is_sample=labels == SAMPLED,
    )
    if coverage.is_sample:
        records = records.select_cases(keys)
    return replace(records, labels=coverage)
