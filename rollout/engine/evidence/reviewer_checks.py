"""Reviewer checks: blind decisions compared with gold answers or other reviewers.

They measure the reliability of a reviewer and read no prediction. A check does not depend on
records that arrive later, nor on the order of records.
"""

from __future__ import annotations

from functools import reduce
from operator import and_
from typing import TYPE_CHECKING

import polars as pl

from rollout.engine.evidence.decision_resolution import number_decisions
from rollout.engine.evidence.frames import GOLD_PREFIX, VALUE_PREFIX, RecordFrames, Schema
from rollout.engine.evidence.picks import do_set_texts_agree
from rollout.engine.evidence.units import build_unit_key
from rollout.kernel.arrays import nw
from rollout.kernel.units import SLACK, Lever, Number

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rollout.kernel.policy.policy import Policy

CHECK_SCHEMA: Schema = {
    "reviewer": pl.String(),
    "case_key": pl.String(),
    "at": pl.Int64(),  # time of the check's last decision, microseconds
    "agrees": pl.Boolean(),
    "against": pl.String(),  # the other reviewer; null for a majority or gold answer
    "known": pl.Boolean(),  # compared with a gold answer
}
"""Columns of `build_reviewer_checks`: one row a reviewer and unit."""


def is_blind_decision(policy: Policy) -> pl.Expr:
    """Return the condition for decisions that are blind under the policy."""
    is_blind = pl.col("exposure") == "blind"
    return (
        is_blind | (pl.col("exposure") == "unknown") if policy.evidence.outside_blind else is_blind
    )


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
    are_equal = (
        _are_answers_equal(
            lever, pl.col(VALUE_PREFIX + lever.id), pl.col(f"o:{VALUE_PREFIX}{lever.id}")
        )
        for lever in policy.levers
    )
    pairs = pairs.with_columns(is_equal=reduce(and_, are_equal))
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
