"""The blind decisions of a case that count: the first, the second and the majority.

Written as narwhals expressions, like `units`; times are whole microseconds since 1970, UTC.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rollout.engine.evidence.frames import VALUE_PREFIX
from rollout.kernel.arrays import nw

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rollout.kernel.policy.policy import Policy

    Frame = nw.LazyFrame[Any]


def resolve_decisions(
    decisions: Frame, picked_cases: Frame, policy: Policy, sole_decisions: Frame | None = None
) -> Frame:
    """Return by case the gate's blind decision (`decision`) and the second.

    With `verdicts: n` the gate's decision is the majority of the first n, or none; its reviewer is
    the first. `sole_decisions` are those on cases that have no other.
    """
    columns = [VALUE_PREFIX + lever.id for lever in policy.levers]
    decision_count = policy.evidence.verdicts
    numbered = _order_requested(number_decisions(decisions), rank_by_time("case_key"), policy)
    if sole_decisions is not None:
        seats = sole_decisions.with_columns(
            place=nw.coalesce(nw.col("seat").cast(nw.Int64), nw.lit(1, nw.Int64)),
            turn=nw.lit(1, nw.Int64),
        )
        sole = _order_requested(seats, nw.lit(1, nw.Int64), policy)
        numbered = nw.concat([numbered, sole], how="vertical")
    first_columns = [*columns, "received"] if decision_count == 1 else []
    first = select_rank(numbered, 1, "decision", [*first_columns, "reviewer"])
    second = select_rank(numbered, 2, "second", [*columns, "received"])
    both_decisions = first.join(second, on="case_key", how="left")
    if decision_count == 1:
        return both_decisions
    closing_decisions = numbered.join(
        picked_cases.select("case_key", "due"), on="case_key", how="inner"
    )
    decisions_in_time = closing_decisions.filter(nw.col("received") <= nw.col("due"))
    return both_decisions.join(
        _find_majority(decisions_in_time, decision_count, columns), on="case_key", how="left"
    )


def _order_requested(numbered: Frame, rank: nw.Expr, policy: Policy) -> Frame:
    """Return numbered decisions, of several that are requested at once by time."""
    if policy.evidence.verdicts == 1:
        return numbered
    return numbered.filter(nw.col("place") <= policy.evidence.verdicts).with_columns(place=rank)


def number_decisions(decisions: Frame) -> Frame:
    """Number each case's decisions (`place`): by review task, else by time.

    Of several reviewers in one task the earliest counts. In a case with review tasks, decisions
    without one are dropped, because nobody requested them.
    """
    requested_decisions = decisions.filter(~nw.col("seat").is_null())
    other_decisions = decisions.filter(nw.col("seat").is_null()).join(
        requested_decisions, on="case_key", how="anti"
    )
    task_decisions = requested_decisions.with_columns(
        place=nw.col("seat").cast(nw.Int64), turn=rank_by_time("case_key", "seat")
    )
    timed_decisions = other_decisions.with_columns(
        place=rank_by_time("case_key"), turn=nw.lit(1, nw.Int64)
    )
    return nw.concat([task_decisions.filter(nw.col("turn") == 1), timed_decisions], how="vertical")


def rank_by_time(*group_columns: str, order: Sequence[str] = ("at", "reviewer")) -> nw.Expr:
    """Return a decision's number within its group by time, from 1."""
    rank = nw.col("case_key").cum_count().over(*group_columns, order_by=list(order))
    return rank.cast(nw.Int64)


def select_rank(numbered: Frame, rank: int, prefix: str, columns: Sequence[str]) -> Frame:
    """Return the decisions with this number, their columns prefixed."""
    renamed = [nw.col(c).alias(f"{prefix}_{c}") for c in columns]
    return numbered.filter(nw.col("place") == rank).select("case_key", *renamed)


def select_first_answers(
    decisions: Frame,
    policy: Policy,
    sole_decisions: Frame | None = None,
    earlier_decisions: Frame | None = None,
) -> Frame:
    """Return by case the decision with an answer that was received first, for any review task.

    What others send later never changes it, nor does a correction made after a look at the model's
    answer (`earlier_decisions`). It has the columns of `resolve_decisions`.
    """
    columns = [VALUE_PREFIX + lever.id for lever in policy.levers]
    is_answered = nw.any_horizontal(*(~nw.col(c).is_null() for c in columns), ignore_nulls=True)
    if earlier_decisions is not None:
        decisions = nw.concat([decisions, earlier_decisions.select(*decisions.columns)])
    numbered = decisions.filter(is_answered).with_columns(
        place=rank_by_time("case_key", order=("received", "at", "reviewer"))
    )
    if sole_decisions is not None:
        sole = sole_decisions.filter(is_answered).with_columns(place=nw.lit(1, nw.Int64))
        numbered = nw.concat([numbered, sole], how="vertical")
    return select_rank(numbered, 1, "decision", [*columns, "received", "reviewer"]).with_columns(
        **{f"second_{c}": nw.lit(None, nw.String) for c in columns},
        second_received=nw.col("decision_received"),
    )


def _find_majority(
    requested_decisions: Frame, decision_count: int, columns: Sequence[str]
) -> Frame:
    result = requested_decisions.group_by("case_key").agg(
        decision_received=nw.col("received").max()
    )
    for column in columns:
        votes = requested_decisions.group_by("case_key", column).agg(votes=nw.len())
        winners = votes.filter(nw.col("votes") * 2 > decision_count)
        winning_answers = winners.select("case_key", nw.col(column).alias(f"decision_{column}"))
        result = result.join(winning_answers, on="case_key", how="left")
    return result
