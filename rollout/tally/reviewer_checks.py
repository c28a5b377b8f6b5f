"""Reviewer checks: blind decisions compared with gold answers or other reviewers.

They measure the reliability of a reviewer and read no prediction. With
`evidence.min_reviewer_agreement` a decision is excluded from the gate track if its reviewer's
checks before the UTC day of the decision show a lower agreement. Its unit then counts as one
without a decision (decision record 0018).

A check does not depend on records that arrive later, nor on the order of records.
"""

from __future__ import annotations

from functools import reduce
from operator import and_
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from rollout.core.late_modules import LateModule
from rollout.core.policy.levers import SLACK, Lever, Number
from rollout.core.statistics.gate_thresholds import get_gate_threshold
from rollout.core.statistics.truncated_beta import compute_log_mixture
from rollout.tally.decision_resolution import number_decisions
from rollout.tally.frames import GOLD_PREFIX, VALUE_PREFIX, RecordFrames, Schema
from rollout.tally.set_answers import do_set_texts_agree
from rollout.tally.units import build_unit_key

if TYPE_CHECKING:
    from collections.abc import Iterator

    import narwhals as nw

    from rollout.core.policy.policy import Policy
    from rollout.tally.unit_arrays import BoolArray, IntArray
else:
    nw = LateModule("narwhals")

MIN_CHECKS = 10  # with fewer checks no reviewer fails
EXCLUSION_RISK = 0.05  # chance of ever excluding a reviewer who agrees often enough
DAY = 86_400_000_000  # microseconds

CHECK_SCHEMA: Schema = {
    "reviewer": pl.String(),
    "case_key": pl.String(),
    "at": pl.Int64(),  # time of the check's last decision, microseconds
    "agrees": pl.Boolean(),
    "against": pl.String(),  # the other reviewer; null for a majority or gold answer
    "known": pl.Boolean(),  # compared with a gold answer
}
"""Columns of `build_reviewer_checks`: one row a reviewer and unit."""

RELIABILITY_SCHEMA: Schema = {
    "reviewer": pl.String(),
    "day": pl.Int64(),  # UTC, days since 1970; values are at its end
    "agreed": pl.Int64(),
    "differed": pl.Int64(),
    "failing": pl.Boolean(),
}
"""Columns of `compute_reliability`: a row a change of a reviewer's checks.

Counts are summed up to the day's end.
"""


def is_blind_decision(policy: Policy) -> pl.Expr:
    """Return the condition for decisions that are blind under the policy."""
    is_blind = pl.col("exposure") == "blind"
    return (
        is_blind | (pl.col("exposure") == "unknown") if policy.evidence.outside_blind else is_blind
    )


def compute_required_reliability(records: RecordFrames, policy: Policy) -> pl.DataFrame | None:
    """Return the reviewers' reliability; None if the policy requires none."""
    min_agreement = policy.evidence.min_reviewer_agreement
    if min_agreement is None or records.reliability is not None:
        return None if min_agreement is None else records.reliability
    return compute_reliability(build_reviewer_checks(records, policy), min_agreement)


def build_reviewer_checks(records: RecordFrames, policy: Policy) -> pl.DataFrame:
    """Return the reviewer checks of some records, one a reviewer and unit.

    In cases with several decisions only those from review tasks count, because these reviewers were
    selected before any comparison; cases decided elsewhere count under policies with `outside:
    blind`. With `verdicts: n` a reviewer is compared with the majority of the other requested
    reviewers; without a majority there is no check, nor for an unsure reviewer.

    Returns:
        A frame of `CHECK_SCHEMA`, by reviewer and time.
    """
    checks = pl.concat([_compare_with_others(records, policy), _compare_with_gold(records, policy)])
    units = records.cases.select("case_key", unit=pl.coalesce(build_unit_key(policy), "case_key"))
    order = ["reviewer", "at", "case_key"]
    checks_with_units = checks.join(units, on="case_key").sort(
        *order, "known", descending=[*[False] * 3, True]
    )
    return checks_with_units.unique(["reviewer", "unit"], keep="first", maintain_order=True).select(
        *CHECK_SCHEMA
    )


def compute_reliability(checks: pl.DataFrame, min_agreement: float) -> pl.DataFrame:
    """Return each reviewer's reliability by day, a frame of `RELIABILITY_SCHEMA`.

    A reviewer fails, from `MIN_CHECKS` checks on, if the agreement averaged over all checks so far
    is below `min_agreement` with risk `EXCLUSION_RISK`, valid at every look: of the reviewers who
    agree as often as required, in the long run at most one in twenty is ever excluded.

    If two reviewers differ, either may have erred. So the reviewer who fails most clearly is
    removed first, together with all differences with this reviewer, and the others fail only on
    what remains.

    Args:
        checks: the result of `build_reviewer_checks`.
        min_agreement: the required share, in [0, 1]; nobody fails 0.

    Source: the e-value of `rollout.core.statistics.evidence` (Robbins 1970), for differing more
    often than allowed.
    """
    reviewers = checks["reviewer"].unique().sort()
    parts = list(_find_changes(checks, reviewers, min_agreement))
    if not parts:
        return pl.DataFrame(schema=RELIABILITY_SCHEMA)
    reviewer_indexes, *columns = map(np.concatenate, zip(*parts, strict=True))
    values = [reviewers.gather(reviewer_indexes), *columns]
    return pl.DataFrame(
        dict(zip(RELIABILITY_SCHEMA, values, strict=True)), schema=RELIABILITY_SCHEMA
    )


def _find_changes(
    checks: pl.DataFrame, reviewers: pl.Series, min_agreement: float
) -> Iterator[tuple[IntArray, IntArray, IntArray, IntArray, BoolArray]]:
    """Yield by day the columns of `RELIABILITY_SCHEMA`, of changed reviewers."""
    agreed, differed = np.zeros((2, len(reviewers), len(reviewers) + 1), dtype=np.int64)
    failing_before = np.zeros(len(reviewers), dtype=np.bool_)
    for day, reviewer, other, agreements, differences in _group_checks_by_day(checks, reviewers):
        np.add.at(agreed, (reviewer, other), agreements)
        np.add.at(differed, (reviewer, other), differences)
        failing = _find_failing(agreed, differed, min_agreement)
        is_changed = failing != failing_before
        is_changed[reviewer] = True
        changed = np.flatnonzero(is_changed)
        counts = agreed[changed].sum(axis=1), differed[changed].sum(axis=1)
        yield changed, np.full(len(changed), day), *counts, failing[changed]
        failing_before = failing


def _group_checks_by_day(
    checks: pl.DataFrame, reviewers: pl.Series
) -> Iterator[tuple[int, IntArray, IntArray, IntArray, IntArray]]:
    """Yield each UTC day with its checks.

    The arrays are reviewer, other reviewer, agreements and differences. Reviewers are indexes in
    `reviewers`; the index after the last means no other reviewer. The other reviewer of a pair
    always has an index, because the unit gives that reviewer a check too.
    """
    index_by_name = {name: at for at, name in enumerate(reviewers)}
    reviewer_expr = pl.col("reviewer").replace_strict(index_by_name, return_dtype=pl.Int64)
    other_expr = pl.col("against").replace_strict(
        index_by_name, default=len(reviewers), return_dtype=pl.Int64
    )
    daily = checks.group_by(day=pl.col("at") // DAY, who=reviewer_expr, other=other_expr).agg(
        agreed=pl.col("agrees").sum().cast(pl.Int64),
        differed=(~pl.col("agrees")).sum().cast(pl.Int64),
    )
    for day_checks in daily.sort("day", "who", "other").partition_by("day", maintain_order=True):
        _, reviewer_indexes, other_indexes, agreed, differed = (
            column.to_numpy() for column in day_checks
        )
        yield day_checks["day"][0], reviewer_indexes, other_indexes, agreed, differed


def _find_failing(agreed: IntArray, differed: IntArray, min_agreement: float) -> BoolArray:
    """Return the failing reviewers, from counts of shape (n, n + 1)."""
    is_failing = np.zeros(agreed.shape[1], dtype=np.bool_)
    if min_agreement <= 0:
        return is_failing[:-1]
    allowed_share = max(round(1 - min_agreement, 12), 1e-9)  # at 100 % one difference is too many
    suspects = _differ_too_often(agreed.sum(axis=1), differed.sum(axis=1), allowed_share)
    while True:
        counts = agreed[:, ~is_failing].sum(axis=1), differed[:, ~is_failing].sum(axis=1)
        candidates = np.flatnonzero(
            suspects & ~is_failing[:-1] & _differ_too_often(*counts, allowed_share)
        )
        if not len(candidates):
            return is_failing[:-1]
        agreements, differences = (count[candidates] for count in counts)
        strength = compute_log_mixture(differences, agreements, threshold=allowed_share)
        is_failing[candidates[strength == strength.max()]] = True


def _differ_too_often(agreed: IntArray, differed: IntArray, allowed_share: float) -> BoolArray:
    """Return which reviewers significantly exceed the allowed share of differences."""
    check_counts = agreed + differed
    is_above = (differed > allowed_share * check_counts) & (check_counts >= MIN_CHECKS)
    if not is_above.any():
        return is_above
    return get_gate_threshold(allowed_share, EXCLUSION_RISK).are_met(differed, agreed) & is_above


def mark_excluded(decisions: pl.DataFrame, reliability: pl.DataFrame | None) -> pl.DataFrame:
    """Add `left_out`: whether the reviewer fails before the decision's day.

    `decisions` has `reviewer` and `at` in microseconds. Without `reliability` none is excluded.
    """
    if reliability is None:
        return decisions.with_columns(left_out=pl.lit(value=False))
    failing = reliability.select("reviewer", "failing", before=(pl.col("day") + 1) * DAY).sort(
        "before"
    )
    dated = decisions.with_row_index("row").with_columns(before=pl.col("at") // DAY * DAY)
    matched = dated.sort("before").join_asof(
        failing, on="before", by="reviewer", check_sortedness=False
    )
    marked = matched.sort("row").with_columns(left_out=pl.col("failing").fill_null(value=False))
    return marked.drop("row", "before", "failing")


# Comparison with other reviewers


def _compare_with_others(records: RecordFrames, policy: Policy) -> pl.DataFrame:
    readers = _select_readers(records, policy)
    columns = [VALUE_PREFIX + lever.id for lever in policy.levers]
    sure = readers.drop_nulls(columns)
    other_decisions = sure.select(
        "case_key", "elsewhere", other="reviewer", **{f"o:{c}": c for c in columns}
    )
    pairs = sure.join(other_decisions, on=["case_key", "elsewhere"]).filter(
        pl.col("reviewer") != pl.col("other")
    )
    pairs = pairs.with_columns(is_equal=reduce(and_, (_is_same_answer(v) for v in policy.levers)))
    return _compare_with_majority(pairs)


def _select_readers(records: RecordFrames, policy: Policy) -> pl.DataFrame:
    """Return the requested decisions of cases that have all of them.

    Review tasks and decisions made elsewhere are kept apart (`elsewhere`): a later record of the
    other kind changes no check.
    """
    case_times = records.cases.select("case_key", "occurred_at")
    timed_decisions = records.decisions.filter(is_blind_decision(policy)).join(
        case_times, on="case_key"
    )
    at = pl.coalesce("at", "occurred_at").dt.epoch("us")
    timed_decisions = timed_decisions.with_columns(at=at).drop_nulls("at")
    parts = [timed_decisions.filter(pl.col("seat").is_not_null())]
    if policy.evidence.outside_blind:
        parts.append(timed_decisions.filter(pl.col("seat").is_null()))
    reader_count = max(policy.evidence.verdicts, 2)
    frames = []
    for source_index, source_decisions in enumerate(parts):
        numbered: pl.DataFrame = (
            number_decisions(nw.from_native(source_decisions.lazy())).collect("polars").to_native()
        )
        requested_decisions = numbered.filter(pl.col("place").is_between(1, reader_count))
        complete_cases = requested_decisions.filter(pl.len().over("case_key") == reader_count)
        last_at = pl.col("at").max().over("case_key")
        frames.append(complete_cases.with_columns(at=last_at, elsewhere=pl.lit(source_index)))
    all_decisions: pl.DataFrame = pl.concat(frames)
    return all_decisions


def _compare_with_majority(pairs: pl.DataFrame) -> pl.DataFrame:
    """Return whether the majority of the others agrees, if there is one."""
    case_columns = ["case_key", "elsewhere"]
    equal_count = pl.col("is_equal").cast(pl.Int64)
    support = pairs.group_by(*case_columns, other="reviewer").agg(support=equal_count.sum())
    pairs_with_support = pairs.join(support, on=[*case_columns, "other"])
    # The largest number of the others that agree with one of them, who counts too.
    majority_support = (pl.col("support") - equal_count + 1).max()
    against = pl.when(pl.len() == 1).then(pl.col("other").first())
    compared = pairs_with_support.group_by(*case_columns, "reviewer").agg(
        pl.col("at").first(),
        agreeing=equal_count.sum(),
        others=pl.len(),
        majority_support=majority_support,
        against=against,
    )
    agrees = pl.col("agreeing") * 2 > pl.col("others")
    compared = compared.with_columns(agrees=agrees, known=pl.lit(value=False))
    return compared.filter(agrees | (pl.col("majority_support") * 2 > pl.col("others"))).select(
        _select_check_columns()
    )


def _is_same_answer(lever: Lever) -> pl.Expr:
    """Return the condition for equal answers of two reviewers."""
    return _are_answers_equal(
        lever, pl.col(VALUE_PREFIX + lever.id), pl.col(f"o:{VALUE_PREFIX}{lever.id}")
    )


def _are_answers_equal(lever: Lever, first: pl.Expr, second: pl.Expr) -> pl.Expr:
    """Return whether labels are equal, numbers within the larger one's tolerance, sets overlap.

    The comparison is symmetric.
    """
    if lever.many:
        return do_set_texts_agree(lever, first, second)
    if lever.number is None:
        return first == second
    first_number, second_number = (
        answer.cast(pl.Float64, strict=False) for answer in (first, second)
    )
    close = are_numbers_equal(lever.number, first_number, second_number)
    return (close | (first == second)).fill_null(value=False)


def are_numbers_equal(number: Number, first: pl.Expr, second: pl.Expr) -> pl.Expr:
    """Return whether two numbers are within the larger one's tolerance."""
    largest = pl.max_horizontal(first.abs(), second.abs())
    margin = number.tolerance
    slack = (
        largest * (margin.amount + SLACK) if margin.relative else largest * SLACK + margin.amount
    )
    return (first - second).abs() <= slack


# Comparison with gold answers


def _compare_with_gold(records: RecordFrames, policy: Policy) -> pl.DataFrame:
    """Return whether each gold case's decision is right on known levers."""
    if records.gold_decisions.is_empty():
        return pl.DataFrame(schema=CHECK_SCHEMA)
    agrees = reduce(and_, _list_gold_matches(records.gold_decisions, policy))
    sure_decisions = records.gold_decisions.filter(~pl.col("unsure"))
    no_reviewer = pl.lit(None, pl.String)
    checks = sure_decisions.with_columns(
        agrees=agrees, at=pl.col("at").dt.epoch("us"), against=no_reviewer, known=pl.lit(value=True)
    )
    return checks.select(_select_check_columns())


def _list_gold_matches(gold_decisions: pl.DataFrame, policy: Policy) -> Iterator[pl.Expr]:
    for lever in policy.levers:
        if GOLD_PREFIX + lever.id in gold_decisions.columns:
            answer, gold_answer = pl.col(VALUE_PREFIX + lever.id), pl.col(GOLD_PREFIX + lever.id)
            yield gold_answer.is_null() | _are_answers_equal(lever, answer, gold_answer).fill_null(
                value=False
            )


def _select_check_columns() -> list[pl.Expr]:
    return [pl.col(name).cast(kind) for name, kind in CHECK_SCHEMA.items()]
