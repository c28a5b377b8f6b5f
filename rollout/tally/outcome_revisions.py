"""Revisions of outcomes: which are no evidence, and which harms of a case hold.

An outcome's sender is judged by the unit, because a unit counts as one: a prediction of any of its
cases, of any version, makes the sender's outcomes of all its cases no evidence to widen.
"""

import polars as pl

from rollout.core.policy.evidence_sources import OWN_EPISODE_PREDICTION, OWN_PREDICTION
from rollout.tally.frames import (
    OUTCOME_FAULT,
    OUTCOME_PREFIX,
    OUTCOME_SOURCE,
    OUTCOME_SOURCE_SCHEMA,
    RecordFrames,
)

IS_SOURCED = pl.col(OUTCOME_FAULT).is_null()
"""Whether a revision is of a source of evidence."""


def mark_own_predictions(
    revisions: pl.DataFrame, records: RecordFrames, cases: pl.DataFrame
) -> pl.DataFrame:
    """Return revisions with the fault of senders that predicted their unit.

    Args:
        revisions: with case_key, unit and the columns of `OUTCOME_SOURCE_SCHEMA`.
        records: has the senders of predictions.
        cases: case_key and unit of all cases.
    """
    if records.own_predictions.is_empty():
        return revisions
    predicted_units = (
        records.own_predictions.join(cases.select("case_key", "unit"), on="case_key")
        .select("unit", OUTCOME_SOURCE, is_own=pl.lit(value=True))
        .unique()
    )
    fault = pl.when(pl.col("unit") == pl.col("case_key")).then(pl.lit(OWN_PREDICTION))
    own_fault = pl.when("is_own").then(fault.otherwise(pl.lit(OWN_EPISODE_PREDICTION)))
    return (
        revisions.join(
            predicted_units, on=["unit", OUTCOME_SOURCE], how="left", maintain_order="left"
        )
        .with_columns(pl.coalesce(OUTCOME_FAULT, own_fault).alias(OUTCOME_FAULT))
        .drop("is_own")
    )


def list_values(records: RecordFrames, outcome_id: str) -> pl.DataFrame:
    """Return case_key, value, at (microseconds), source and fault of all values, by `order`.

    Faults of senders that predicted the unit are not marked yet.
    """
    column = OUTCOME_PREFIX + outcome_id
    frames = [
        frame for frame in (records.earlier_outcomes, records.outcomes) if column in frame.columns
    ]
    if not frames:
        schema = {"case_key": pl.String, "value": pl.Float64, "at": pl.Int64, "order": pl.UInt32}
        return pl.DataFrame(schema={**schema, **OUTCOME_SOURCE_SCHEMA})
    revisions = _join_revisions(frames, value=pl.col(column), at=pl.col("at").dt.epoch("us"))
    return revisions.drop_nulls("value")


def list_harms(records: RecordFrames, cases: pl.DataFrame) -> pl.DataFrame:
    """Return case_key, harm and at of the harms that hold; a case may have several.

    The newest revision of a source holds, with or without a harm. A later revision of no source
    may add a harm, so it replaces none. `cases` has case_key and unit of all cases.
    """
    frames = [records.earlier_outcomes, records.outcomes]
    revisions = _join_revisions(frames, harm=pl.col("harm"), at=pl.col("at"))
    revisions = revisions.join(
        cases.select("case_key", "unit"), on="case_key", maintain_order="left"
    )
    newest_sourced = pl.when(IS_SOURCED).then("order").max().over("case_key")
    return (
        mark_own_predictions(revisions, records, cases)
        .filter(pl.col("order") >= pl.coalesce(newest_sourced, 0))
        .drop_nulls("harm")
        .select("case_key", "harm", "at")
    )


def _join_revisions(frames: list[pl.DataFrame], **columns: pl.Expr) -> pl.DataFrame:
    """Return the columns and sources of revisions, in `order`."""
    parts = [
        _add_sources(frame).select("case_key", *OUTCOME_SOURCE_SCHEMA, **columns)
        for frame in frames
    ]
    return pl.concat(parts).with_row_index("order")


def _add_sources(frame: pl.DataFrame) -> pl.DataFrame:
    """Return outcomes with the columns of sources, empty for those of files."""
    missing = [name for name in OUTCOME_SOURCE_SCHEMA if name not in frame.columns]
    return frame.with_columns(pl.lit(None, pl.String).alias(name) for name in missing)
