"""Units with the value of an outcome, each counted in the slot in which its deadline passes.

Of all cases of a unit the first one decides where and when the unit belongs. The value is the mean
over its cases, as a score in [0, 1] of which more is better. A value that comes after the deadline
is missing: counting it when it comes would favour outcomes that become known early. Of several
revisions the newest one in time with a value counts, so that none takes a value away; one of no
source of evidence only where there is no other. A unit with such a value is no evidence to widen:
its value is missing for gates, and guards read it.
"""

from dataclasses import dataclass, fields, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rollout.core.calendar.instants import count_micros
from rollout.core.calendar.sites import Cell
from rollout.core.policy.evidence_sources import (
    NOT_NAMED,
    OWN_EPISODE_PREDICTION,
    OWN_PREDICTION,
)
from rollout.core.policy.outcomes import DECIDES, OutcomeRule
from rollout.core.policy.policy import Policy
from rollout.core.scope.assignment import MAX_CLOCK_SKEW
from rollout.core.statistics.gain import ArmUnits
from rollout.tally.case_placement import PlacedHistory
from rollout.tally.frames import (
    OUTCOME_FAULT,
    OUTCOME_SOURCE,
    OUTCOME_SOURCE_SCHEMA,
    SAMPLED_ARM,
    VALUE_PREFIX,
    RecordFrames,
)
from rollout.tally.outcome_revisions import IS_SOURCED, list_values, mark_own_predictions
from rollout.tally.stage_history import StageShares
from rollout.tally.unit_arrays import BoolArray, IntArray

Floats = NDArray[np.float64]
UNRECORDED, NOT_ASKED, DRAWN_PEOPLE, DRAWN_MODEL = -2, -1, 0, 1
"""Arms: of a history that records none, of a unit without an answer, and those of answers."""
ANY_SHARE = np.nan  # of files, which have the arm alone
SOURCE_FAULTS = ("", NOT_NAMED, OWN_PREDICTION, OWN_EPISODE_PREDICTION)
"""Why a unit with a value is no evidence to widen, by number; "" is evidence."""
SHARE_TOLERANCE = 1e-9  # shares are sums and products of the policy's


@dataclass(frozen=True)
class OutcomeUnits:
    """Units of one version in one cell with one outcome, ascending by slot.

    Attributes:
        slot: when the unit is counted.
        occurred: the slot at or before the unit's first case.
        bucket: bucket of the unit's sampling value.
        score: mean score of the cases with a value; 0 without any.
        known_share: share of the cases with a value.
        drawn_arm: arm that the stored answer gave the unit; `NOT_ASKED` without one.
        drawn_share: share of units with that answer, as stored with it; `ANY_SHARE` without one.
        source_fault: number of the reason in `SOURCE_FAULTS`.
    """

    slot: IntArray
    occurred: IntArray
    bucket: IntArray
    score: Floats
    known_share: Floats
    drawn_arm: IntArray
    drawn_share: Floats
    source_fault: IntArray

    def __len__(self) -> int:
        """Return the number of units."""
        return len(self.slot)

    def drop_unsourced_values(self) -> "OutcomeUnits":
        """Return the units, with a value of no source of evidence as a missing one."""
        is_sourced = self.source_fault == 0
        if is_sourced.all():
            return self
        scores, shares = self.score * is_sourced, self.known_share * is_sourced
        return replace(self, score=scores, known_share=shares)

    def select(self, is_kept: BoolArray) -> "OutcomeUnits":
        """Return some of the units."""
        return OutcomeUnits(*(getattr(self, item.name)[is_kept] for item in fields(self)))


def build_empty_outcomes() -> OutcomeUnits:
    """Return no units."""
    whole, real = np.empty(0, dtype=np.int64), np.empty(0)
    return OutcomeUnits(whole, whole, whole, real, real, whole, real, whole)


def join_outcomes(earlier: OutcomeUnits, later: OutcomeUnits) -> OutcomeUnits:
    """Return the units of both."""
    pairs = ((getattr(earlier, item.name), getattr(later, item.name)) for item in fields(earlier))
    return OutcomeUnits(*map(np.concatenate, pairs))


class WithoutOutcomes:
    """Feeds that read no outcomes, so that no gate opens and no guard alarms on their gain."""

    def read_outcomes(self, _cell: Cell, _version: str, _outcome: OutcomeRule) -> OutcomeUnits:
        """Return no units."""
        return build_empty_outcomes()


def build_arms(
    rows: OutcomeUnits, stage_levels: IntArray, shares: StageShares, arm: str
) -> ArmUnits:
    """Return the units that the sampling value alone gave to one of two arms.

    Args:
        rows: units of a version in a cell.
        stage_levels: the version's stage at each unit; 0 where it did not act.
        shares: the policy's shares by stage level.
        arm: `decides` or `proposes`; "" for both.
    """
    model_shares = shares.model_shares[stage_levels]
    is_model = rows.bucket >= shares.blind_buckets[stage_levels]
    is_kept = _find_staged(stage_levels, shares, arm)
    is_kept &= _find_answered_as_drawn(rows, stage_levels, shares, is_model)
    kept_rows = rows.select(is_kept)
    return ArmUnits(
        slots=kept_rows.slot,
        scores=kept_rows.score,
        is_model=is_model[is_kept],
        shares=model_shares[is_kept],
        known_shares=kept_rows.known_share,
    )


def count_staged(stage_levels: IntArray, shares: StageShares, arm: str) -> int:
    """Return how many units a stage with two arms had, whether or not they are in one."""
    return int(_find_staged(stage_levels, shares, arm).sum())


def _find_staged(stage_levels: IntArray, shares: StageShares, arm: str) -> BoolArray:
    """Return which units were at a stage with two arms."""
    is_staged: BoolArray = ~np.isnan(shares.model_shares[stage_levels])
    if arm:
        is_staged &= shares.model_decides[stage_levels] == (arm == DECIDES)
    return is_staged


def _find_answered_as_drawn(
    rows: OutcomeUnits, stage_levels: IntArray, shares: StageShares, is_model: BoolArray
) -> BoolArray:
    """Return which units the stage's sampling alone assigned, by what was stored with them.

    A stop, a confidence floor or another stage at the instant of the question has another answer or
    share, in either arm. A unit without an answer is in no arm.
    """
    blind, reviewed = 1 - shares.model_shares[stage_levels], shares.reviewed_shares[stage_levels]
    is_audited = rows.bucket < shares.reviewed_buckets[stage_levels]
    model_share = np.where(is_audited, reviewed - blind, 1 - reviewed)
    expected = np.where(is_model, model_share, blind)
    is_same_arm = rows.drawn_arm == np.where(is_model, DRAWN_MODEL, DRAWN_PEOPLE)
    is_same_share = np.abs(rows.drawn_share - expected) < SHARE_TOLERANCE
    is_as_drawn = is_same_arm & (is_same_share | np.isnan(rows.drawn_share))
    result: BoolArray = (rows.drawn_arm == UNRECORDED) | is_as_drawn
    return result


def resolve_outcome_units(
    records: RecordFrames, history: PlacedHistory, policy: Policy, outcome: OutcomeRule
) -> pl.DataFrame:
    """Return one row a unit and version with a usable prediction.

    Columns: site, window, version, unit, case_key (the first case), slot, occurred (slot), score,
    known_share, value (mean of the values as sent), sources and source_fault (null in files), and
    sampled_arm if the predictions have it.
    Ordered by slot and unit. A unit whose first case has no usable prediction in time to act on is
    left out: the sampling value did not decide it. Later predictions could be picked by what became
    of the case.
    """
    closes, tick = count_micros(outcome.closes), count_micros(policy.tick)
    latest_answer = pl.col("occurred_us") + count_micros(MAX_CLOCK_SKEW)
    cases = history.cases.select("case_key", "site", "window", "unit", "occurred_us", "received")
    first_cases = cases.sort("occurred_us", "case_key").unique("unit", keep="first")
    firsts = first_cases.join(_list_usable_predictions(records, history, policy), on="case_key")
    deadline = pl.col("occurred_us") + closes
    firsts = firsts.with_columns(
        deadline=deadline,
        predicted_us=pl.coalesce("predicted_us", "occurred_us"),
        occurred=pl.col("occurred_us") // tick,
    ).filter(pl.col("predicted_us") <= pl.min_horizontal("deadline", latest_answer))
    counted = pl.max_horizontal("deadline", "received", "predicted_us")
    firsts = firsts.with_columns(
        counted=counted, slot=pl.max_horizontal(-((-counted) // tick), pl.col("occurred") + 1)
    )
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


def _list_usable_predictions(
    records: RecordFrames, history: PlacedHistory, policy: Policy
) -> pl.DataFrame:
    """Return case_key, version, predicted_us of the answers that may be acted on.

    So too sampled_arm, if the predictions have it.
    """
    is_usable = [pl.col(VALUE_PREFIX + lever.id).is_not_null() for lever in policy.levers]
    floor = policy.evidence.confidence_floor
    if floor is not None:
        is_usable.append((pl.col("confidence") >= floor).fill_null(value=False))
    arms = [SAMPLED_ARM] if SAMPLED_ARM in records.predictions.columns else []
    usable = records.predictions.filter(*is_usable).select(
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
    columns = ("value", *OUTCOME_SOURCE_SCHEMA)
    rows = rows.join(in_time.select(*unit_cases, *columns), on=unit_cases, how="left")
    is_known = pl.col("value").is_not_null()
    distance = (
        pl.col("value") - outcome.low if outcome.more_is_better else outcome.high - pl.col("value")
    )
    known_value = pl.when("is_known").then("value")
    score = pl.when("is_known").then((distance / outcome.span).clip(0.0, 1.0))
    return (
        rows.with_columns(is_known=is_known)
        .group_by("unit", "version")
        .agg(
            score=score.mean().fill_null(0.0),
            known_share=pl.col("is_known").mean(),
            value=known_value.mean(),
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


def _read_arms(part: pl.DataFrame) -> IntArray:
    """Return the arms that a history's predictions record."""
    if SAMPLED_ARM not in part.columns:
        return np.full(part.height, UNRECORDED, dtype=np.int64)
    numbers = {"human": DRAWN_PEOPLE, "model": DRAWN_MODEL}
    arms = part[SAMPLED_ARM].replace_strict(numbers, default=NOT_ASKED, return_dtype=pl.Int64)
    return arms.fill_null(NOT_ASKED).to_numpy()
