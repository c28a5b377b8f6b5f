"""Units with the value of an outcome, and the harms of cases that hold.

A unit counts in the slot in which its deadline passes, or later if its case was received later. Of
all cases of a unit the one received first decides where and when the unit belongs: one that is
added later, when its sender may know the outcome, moves it nowhere. The value is the mean over its
cases, as a score in [0, 1] of which more is better. A value that comes after the deadline is
missing: counting it when it comes would favour outcomes that become known early.

Of several revisions the newest one in time with a value counts, so that none takes a value away;
one of no source of evidence only where there is no other. A unit with such a value is no evidence
to widen: its value is missing for gates, and guards read it.

An outcome's sender is judged by the unit, because a unit counts as one: a prediction of any of its
cases, of any version, makes the sender's outcomes of all its cases no evidence to widen.
"""

import numpy as np
import polars as pl

from rollout.engine.decide.assignment import MAX_CLOCK_SKEW
from rollout.engine.evidence.case_placement import PlacedHistory
from rollout.engine.evidence.frames import (
    OUTCOME_FAULT,
    OUTCOME_PREFIX,
    OUTCOME_SOURCE,
    OUTCOME_SOURCE_SCHEMA,
    SAMPLED_ARM,
    RecordFrames,
)
from rollout.engine.evidence.outcome_buffer import (
    ANY_SHARE,
    DRAWN_MODEL,
    DRAWN_PEOPLE,
    NOT_ASKED,
    UNRECORDED,
    OutcomeUnits,
)
from rollout.engine.evidence.version_uses import PAIR, list_silent_pairs
from rollout.kernel.arrays import Ints
from rollout.kernel.calendar.instants import FIRST_SLOT, count_micros
from rollout.kernel.policy.evidence_sources import OWN_EPISODE_PREDICTION, OWN_PREDICTION
from rollout.kernel.policy.policy import Policy
from rollout.kernel.units import OutcomeRule

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

    A harm is known from its first report on, since a source last took one back: not before that was
    received, whatever time it states. A later report of the same harm is no second one.

    The newest revision of a source holds, with or without a harm. A later revision of no source
    may add a harm, so it replaces none. `cases` has case_key and unit of all cases.
    """
    frames = [records.earlier_outcomes, records.outcomes]
    known_at = pl.max_horizontal("at", "received_at")
    revisions = _join_revisions(frames, harm=pl.col("harm"), at=known_at)
    revisions = revisions.join(
        cases.select("case_key", "unit"), on="case_key", maintain_order="left"
    )
    newest_sourced = pl.when(IS_SOURCED).then("order").max().over("case_key")
    taken_back = pl.when(IS_SOURCED, pl.col("harm").is_null()).then("order").max().over("case_key")
    return (
        mark_own_predictions(revisions, records, cases)
        .filter(pl.col("order") >= pl.coalesce(taken_back, 0))
        .with_columns(at=pl.col("at").cum_min().over("case_key", "harm"))
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
    kinds = OUTCOME_SOURCE_SCHEMA.items()
    missing = [pl.lit(None, kind).alias(name) for name, kind in kinds if name not in frame.columns]
    return frame.with_columns(missing)


def resolve_outcome_units(
    records: RecordFrames, history: PlacedHistory, policy: Policy, outcome: OutcomeRule
) -> pl.DataFrame:
    """Return one row a unit and version with a prediction.

    Columns: site, window, version, unit, case_key (of its first case), slot, occurred (slot),
    score, known_share, value (mean of the values as sent), sources and source_fault (null in
    files), and sampled_arm if the predictions have it.
    Ordered by slot and unit. A unit whose first case has no sure prediction in time to act on is
    left out: the sampling value did not decide it. Later predictions could be picked by what became
    of the case. Of a version in use a unit without any prediction in time is there: who knows the
    arm could else be silent where the outcome will be bad.
    """
    closes, tick = count_micros(outcome.closes), count_micros(policy.tick)
    cases = history.cases.filter("is_registered").select(
        "case_key", "site", "window", "unit", "occurred_us", "effective_us", "received"
    )
    first_cases = cases.sort("received", "occurred_us", "case_key").unique("unit", keep="first")
    firsts = first_cases.join(_list_sampled_predictions(records, history, policy), on="case_key")
    firsts = firsts.filter(_is_in_time()).with_columns(used=pl.lit(FIRST_SLOT, pl.Int64))
    if (silent := _list_silent_units(records, history, tick)) is not None:
        firsts = pl.concat([firsts, first_cases.join(silent, on="case_key")], how="diagonal")
    firsts = firsts.with_columns(
        deadline=pl.col("occurred_us") + closes,
        predicted_us=pl.coalesce("predicted_us", "occurred_us"),
        occurred=pl.col("effective_us") // tick,
    ).filter(pl.col("predicted_us") <= pl.col("deadline"))
    counted = pl.max_horizontal("deadline", "received", "predicted_us")
    firsts = firsts.with_columns(
        counted=counted, slot=pl.max_horizontal(-((-counted) // tick), pl.col("occurred") + 1)
    ).filter(pl.col("used") < pl.col("slot"))
    units = firsts.select(
        *("unit", "version", "case_key", "site", "window"),
        *("slot", "occurred", "deadline", "counted"),
        *([SAMPLED_ARM] if SAMPLED_ARM in firsts.columns else []),
    )
    scores = _compute_scores(units, cases, records, outcome)
    return (
        units.join(scores, on=["unit", "version"])
        .drop("deadline", "counted")
        .sort("slot", "unit", "version")
    )


def _is_in_time() -> pl.Expr:
    """Return whether a prediction came soon enough after its case to act on."""
    delay = pl.col("predicted_us") - pl.col("occurred_us")
    return (delay <= count_micros(MAX_CLOCK_SKEW)).fill_null(value=True)


def _list_silent_units(
    records: RecordFrames, history: PlacedHistory, tick: int
) -> pl.DataFrame | None:
    """Return case_key, version and used of cases that versions in use did not predict in time."""
    predictions = records.predictions.select(*PAIR, predicted_us=pl.col("at").dt.epoch("us"))
    occurred = history.cases.select("case_key", "occurred_us")
    in_time = predictions.join(occurred, on="case_key").filter(_is_in_time())
    return list_silent_pairs(history, in_time.lazy(), history.uses, tick)


def _list_sampled_predictions(
    records: RecordFrames, history: PlacedHistory, policy: Policy
) -> pl.DataFrame:
    """Return case_key, version, predicted_us of the predictions whose case chance gave to an arm.

    So too sampled_arm, if the predictions have it. A failed prediction is among them: who knows the
    arm and what a case will bring could else fail on the bad ones of one arm. Below the floor
    people decide, whatever the sampling value.
    """
    floor, predictions = policy.evidence.lowest_floor, records.predictions
    if floor is not None:
        predictions = predictions.filter(pl.col("confidence") >= floor)
    arms = [SAMPLED_ARM] if SAMPLED_ARM in predictions.columns else []
    usable = predictions.select(
        "case_key", "version", *arms, predicted_us=pl.col("at").dt.epoch("us")
    )
    trained_until = history.placed.trained_until
    if not trained_until:
        return usable
    ends = pl.DataFrame(
        {"version": list(trained_until), "trained_us": list(trained_until.values())},
        schema={"version": pl.String, "trained_us": pl.Int64},
    )
    occurred = history.cases.select("case_key", "occurred_us")
    trained = usable.join(ends, on="version", how="left").join(occurred, on="case_key")
    is_later = pl.col("trained_us").is_null() | (pl.col("occurred_us") > pl.col("trained_us"))
    return trained.filter(is_later).drop("trained_us", "occurred_us")


def _compute_scores(
    units: pl.DataFrame, cases: pl.DataFrame, records: RecordFrames, outcome: OutcomeRule
) -> pl.DataFrame:
    """Return score, known_share, value, sources and source_fault by unit and version."""
    unit_cases = ["unit", "version", "case_key"]
    rows = (
        units.select("unit", "version", "deadline", "counted")
        .join(cases.select("unit", "case_key", "occurred_us", "received"), on="unit")
        .filter(
            pl.col("occurred_us") <= pl.col("deadline"), pl.col("received") <= pl.col("counted")
        )
    )
    in_time = rows.join(list_values(records, outcome.id), on="case_key").filter(
        pl.coalesce("at", "occurred_us") <= pl.col("deadline")
    )
    in_time = mark_own_predictions(in_time, records, cases)
    if not records.earlier_outcomes.is_empty():
        in_time = in_time.sort(IS_SOURCED, "order").unique(unit_cases, keep="last")
    values = in_time.select(*unit_cases, "value", *OUTCOME_SOURCE_SCHEMA)
    distance = (
        pl.col("value") - outcome.low if outcome.more_is_better else outcome.high - pl.col("value")
    )
    score = pl.when("is_known").then((distance / outcome.span).clip(0.0, 1.0))
    return (
        rows.join(values, on=unit_cases, how="left")
        .with_columns(is_known=pl.col("value").is_not_null())
        .group_by("unit", "version")
        .agg(
            score=score.mean().fill_null(0.0),
            known_share=pl.col("is_known").mean(),
            value=pl.when("is_known").then("value").mean(),
            sources=pl.col(OUTCOME_SOURCE).drop_nulls().unique().sort().str.join(" "),
            source_fault=pl.col(OUTCOME_FAULT).max(),
        )
        .with_columns(sources=pl.col("sources").replace("", None))
    )


def to_outcome_units(part: pl.DataFrame) -> OutcomeUnits:
    """Return rows of `resolve_outcome_units`, with their buckets, as arrays."""
    return OutcomeUnits(
        slot=part["slot"].to_numpy().astype(np.int64),
        occurred=part["occurred"].to_numpy().astype(np.int64),
        bucket=part["bucket"].to_numpy().astype(np.int64),
        score=part["score"].to_numpy().astype(np.float64),
        known_share=part["known_share"].to_numpy().astype(np.float64),
        drawn_arm=_read_arms(part),
        drawn_share=np.full(part.height, ANY_SHARE),
        source_fault=np.zeros(part.height, dtype=np.int64),  # files have sources of decisions alone
    )


def _read_arms(part: pl.DataFrame) -> Ints:
    """Return the arms that a history's predictions record."""
    if SAMPLED_ARM not in part.columns:
        return np.full(part.height, UNRECORDED, dtype=np.int64)
    numbers = {"human": DRAWN_PEOPLE, "model": DRAWN_MODEL}
    arms = part[SAMPLED_ARM].replace_strict(numbers, default=NOT_ASKED, return_dtype=pl.Int64)
    return arms.fill_null(NOT_ASKED).to_numpy()
