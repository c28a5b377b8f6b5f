"""Which of a case's blind verdicts count, and as what: the first, the second, the majority.

Written on narwhals expressions, as `units` is; instants are whole microseconds since 1970, UTC.
"""

from collections.abc import Sequence
from typing import Any

import narwhals as nw

from rollout.core.policy.policy import Policy
from rollout.tally.frames import VALUE

Frame = nw.LazyFrame[Any]


def verdicts_of(decisions: Frame, picked: Frame, policy: Policy) -> Frame:
    """Return per case the first and second blind verdict, and the one that counts for gates.

    With `verdicts: n` the gate's is the majority of the first n, none without one. A verdict whose
    reviewer is left out keeps its place, so that nobody else's takes it, and is no vote.
    """
    columns = [VALUE + lever.id for lever in policy.levers]
    numbered, decision_count = seated(decisions), policy.evidence.verdicts
    if decision_count > 1:  # all n are asked alike: the first is whichever comes first
        asked_decisions = numbered.filter(nw.col("place") <= decision_count)
        numbered = asked_decisions.with_columns(place=turn("case_key"))
    first = at_place(numbered, 1, "first", columns, keep=("at", "reviewer", "left_out"))
    second = at_place(numbered, 2, "second", columns, keep=("at", "left_out"))
    both_decisions = first.join(second, on="case_key", how="left").with_columns(
        **{f"second:{c}": _unless(nw.col("second_left_out"), f"second:{c}") for c in columns}
    )
    if decision_count == 1:
        gate_answers = {
            f"gate:{c}": _unless(nw.col("first_left_out"), f"first:{c}") for c in columns
        }
        return both_decisions.with_columns(**gate_answers, gate_at=nw.col("first_at"))
    closing_decisions = numbered.join(picked.select("case_key", "due"), on="case_key", how="inner")
    known_in_time = closing_decisions.filter(nw.col("at") <= nw.col("due"), ~nw.col("left_out"))
    return both_decisions.join(
        _majority(known_in_time, decision_count, columns), on="case_key", how="left"
    )


def _unless(left_out: nw.Expr, said: str) -> nw.Expr:
    return nw.when(~left_out).then(nw.col(said))


def seated(decisions: Frame) -> Frame:
    """Number each case's verdicts by their seats (`place`), in cases without seats by their times.

    Of several people in one seat the earliest counts. Where the draw seated somebody, a verdict
    without a seat was not asked for.
    """
    asked_decisions = decisions.filter(~nw.col("seat").is_null())
    other_decisions = decisions.filter(nw.col("seat").is_null()).join(
        asked_decisions, on="case_key", how="anti"
    )
    task_decisions = asked_decisions.with_columns(
        place=nw.col("seat").cast(nw.Int64), turn=turn("case_key", "seat")
    )
    timed_decisions = other_decisions.with_columns(place=turn("case_key"), turn=nw.lit(1, nw.Int64))
    return nw.concat([task_decisions.filter(nw.col("turn") == 1), timed_decisions], how="vertical")


def turn(*within: str) -> nw.Expr:
    """Return the number of a verdict within its group, in the order of time, from 1."""
    rank = nw.col("case_key").cum_count().over(*within, order_by=["at", "reviewer"])
    return rank.cast(nw.Int64)


def at_place(
    seated: Frame, place: int, prefix: str, columns: Sequence[str], keep: tuple[str, ...]
) -> Frame:
    """Return the verdicts in one place of each case, their columns named by `prefix`."""
    ranked_decisions = seated.filter(nw.col("place") == place)
    names = {c: f"{prefix}:{c}" for c in columns} | {k: f"{prefix}_{k}" for k in keep}
    return ranked_decisions.select(
        "case_key", *(nw.col(old).alias(new) for old, new in names.items())
    )


def _majority(asked: Frame, count: int, columns: Sequence[str]) -> Frame:
    result = asked.group_by("case_key").agg(gate_at=nw.col("at").max())
    for column in columns:
        votes = asked.group_by("case_key", column).agg(votes=nw.len())
        winners = votes.filter(nw.col("votes") * 2 > count)
        winning_answers = winners.select("case_key", nw.col(column).alias(f"gate:{column}"))
        result = result.join(winning_answers, on="case_key", how="left")
    return result
