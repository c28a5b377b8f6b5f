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
    placed, count = seated(decisions), policy.evidence.verdicts
    if count > 1:  # all n are asked alike: the first is whichever comes first
        asked = placed.filter(nw.col("place") <= count)
        placed = asked.with_columns(place=turn("case_key"))
    first = at_place(placed, 1, "first", columns, keep=("at", "reviewer", "left_out"))
    second = at_place(placed, 2, "second", columns, keep=("at", "left_out"))
    joined = first.join(second, on="case_key", how="left").with_columns(
        **{f"second:{c}": _unless(nw.col("second_left_out"), f"second:{c}") for c in columns}
    )
    if count == 1:
        gate = {f"gate:{c}": _unless(nw.col("first_left_out"), f"first:{c}") for c in columns}
        return joined.with_columns(**gate, gate_at=nw.col("first_at"))
    closing = placed.join(picked.select("case_key", "due"), on="case_key", how="inner")
    known = closing.filter(nw.col("at") <= nw.col("due"), ~nw.col("left_out"))
    return joined.join(_majority(known, count, columns), on="case_key", how="left")


def _unless(left_out: nw.Expr, said: str) -> nw.Expr:
    return nw.when(~left_out).then(nw.col(said))


def seated(decisions: Frame) -> Frame:
    """Number each case's verdicts by their seats (`place`), in cases without seats by their times.

    Of several people in one seat the earliest counts. Where the draw seated somebody, a verdict
    without a seat was not asked for.
    """
    asked = decisions.filter(~nw.col("seat").is_null())
    others = decisions.filter(nw.col("seat").is_null()).join(asked, on="case_key", how="anti")
    seated = asked.with_columns(place=nw.col("seat").cast(nw.Int64), turn=turn("case_key", "seat"))
    timed = others.with_columns(place=turn("case_key"), turn=nw.lit(1, nw.Int64))
    return nw.concat([seated.filter(nw.col("turn") == 1), timed], how="vertical")


def turn(*within: str) -> nw.Expr:
    """Return the number of a verdict within its group, in the order of time, from 1."""
    count = nw.col("case_key").cum_count().over(*within, order_by=["at", "reviewer"])
    return count.cast(nw.Int64)


def at_place(
    seated: Frame, place: int, prefix: str, columns: Sequence[str], keep: tuple[str, ...]
) -> Frame:
    """Return the verdicts in one place of each case, their columns named by `prefix`."""
    there = seated.filter(nw.col("place") == place)
    names = {c: f"{prefix}:{c}" for c in columns} | {k: f"{prefix}_{k}" for k in keep}
    return there.select("case_key", *(nw.col(old).alias(new) for old, new in names.items()))


def _majority(asked: Frame, count: int, columns: Sequence[str]) -> Frame:
    result = asked.group_by("case_key").agg(gate_at=nw.col("at").max())
    for column in columns:
        votes = asked.group_by("case_key", column).agg(votes=nw.len())
        won = votes.filter(nw.col("votes") * 2 > count)
        chosen = won.select("case_key", nw.col(column).alias(f"gate:{column}"))
        result = result.join(chosen, on="case_key", how="left")
    return result
