"""Which of a case's blind verdicts count, and as what: the first, the second, the majority.

Written on narwhals expressions, as `units` is; instants are whole microseconds since 1970, UTC.
"""

from collections.abc import Sequence
from typing import Any

import narwhals as nw

from rollout.core.policy import Policy
from rollout.tally.frames import VALUE

Frame = nw.LazyFrame[Any]


def verdicts_of(decisions: Frame, picked: Frame, policy: Policy) -> Frame:
    """Return per case the first and second blind verdict, and the one that counts for gates.

    With `verdicts: n` the gate's is the majority of the first n, none without one.
    """
    columns = [VALUE + lever.id for lever in policy.levers]
    seated, count = _seated(decisions), policy.evidence.verdicts
    if count > 1:  # all n are asked alike: the first is whichever comes first
        asked = seated.filter(nw.col("place") <= count)
        seated = asked.with_columns(place=turn("case_key"))
    first = at_place(seated, 1, "first", columns, keep=("at", "reviewer"))
    second = at_place(seated, 2, "second", columns, keep=("at",))
    joined = first.join(second, on="case_key", how="left")
    if count == 1:
        gate = {f"gate:{c}": nw.col(f"first:{c}") for c in columns}
        return joined.with_columns(**gate, gate_at=nw.col("first_at"))
    closing = seated.join(picked.select("case_key", "due"), on="case_key", how="inner")
    known = closing.filter(nw.col("at") <= nw.col("due"))
    return joined.join(_majority(known, count, columns), on="case_key", how="left")


def _seated(decisions: Frame) -> Frame:
    """Number each case's verdicts by their seats, in cases without seats by their times.

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
