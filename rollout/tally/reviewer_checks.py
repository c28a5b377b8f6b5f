"""Checks: blind verdicts held against a known answer, or against others on the same case.

They say how far a person's verdicts are to be relied on, and nothing of any model: no prediction
is read here. With `evidence.min_reviewer_agreement` a verdict is left out of the gate track if its
reviewer's checks before the UTC day on which it was given show that they agree less often than
that. Then its unit counts as one without a verdict (decision record 0018).

What a check is does not depend on what comes in later, and the same records in any order give the
same checks.
"""

from collections.abc import Iterator
from functools import reduce
from operator import and_

import narwhals as nw
import numpy as np
import polars as pl

from rollout.core.policy.levers import SLACK, Lever
from rollout.core.policy.policy import Policy
from rollout.core.statistics.gate_thresholds import gate_line
from rollout.core.statistics.truncated_beta import log_mixture
from rollout.tally.decision_resolution import seated
from rollout.tally.frames import RIGHT, VALUE, Records, Schema
from rollout.tally.unit_arrays import Bools, Ints
from rollout.tally.unit_keys import unit_key

LEAST = 10  # checks below which nothing is said of anybody: one bad morning is no habit
RISK = 0.05  # chance of ever leaving out somebody who agrees as often as is asked
DAY = 86_400_000_000  # microseconds

CHECKS: Schema = {
    "reviewer": pl.String(),
    "case_key": pl.String(),
    "at": pl.Int64(),  # when it could be made: the last verdict that it takes, microseconds
    "agrees": pl.Boolean(),
    "against": pl.String(),  # the other reader; null of a majority and of a known answer
    "known": pl.Boolean(),  # against a known answer, not against others
}
"""Columns of `checks_of`: one row per person and unit."""

STANDINGS: Schema = {
    "reviewer": pl.String(),
    "day": pl.Int64(),  # UTC, days since 1970: how they stand at its end
    "agreed": pl.Int64(),
    "differed": pl.Int64(),
    "failing": pl.Boolean(),
}
"""Columns of `standings`: a row where a person's checks, or what follows from them, changed.

Counts are summed up to the day's end.
"""


def seen_blind(policy: Policy) -> pl.Expr:
    """Say which decisions the policy takes for blind ones."""
    is_blind = pl.col("exposure") == "blind"
    return (
        is_blind | (pl.col("exposure") == "unknown") if policy.evidence.outside_blind else is_blind
    )


def asked_of(records: Records, policy: Policy) -> pl.DataFrame | None:
    """Return how people stand by what the policy asks of them; None where it asks nothing."""
    min_agreement = policy.evidence.min_reviewer_agreement
    if min_agreement is None or records.people is not None:
        return None if min_agreement is None else records.people
    return standings(checks_of(records, policy), min_agreement)


def checks_of(records: Records, policy: Policy) -> pl.DataFrame:
    """Return the checks of everybody in some records, each person once per unit.

    Of doubly read cases those in seats count, that is people asked before anything was compared;
    of cases judged elsewhere those of policies that say `outside: blind`. With `verdicts: n` a
    person is held against what most of the others say who were asked, and where these are of no
    one mind there is no check. Whoever was unsure has none.

    Returns:
        A frame of `CHECKS`, by reviewer and time.
    """
    checks = pl.concat([_against_others(records, policy), _against_known(records, policy)])
    units = records.cases.select("case_key", unit=pl.coalesce(unit_key(policy), "case_key"))
    order = ["reviewer", "at", "case_key"]
    checks_with_units = checks.join(units, on="case_key").sort(
        *order, "known", descending=[*[False] * 3, True]
    )
    return checks_with_units.unique(["reviewer", "unit"], keep="first", maintain_order=True).select(
        *CHECKS
    )


def standings(checks: pl.DataFrame, least_agreement: float) -> pl.DataFrame:
    """Return how each person stands at the end of each day, a frame of `STANDINGS`.

    Somebody fails from `LEAST` checks on whose agreement, averaged over all checks so far, is
    below `least_agreement` at every look with risk `RISK`: in the long run at most one in twenty
    of those who agree as often as is asked is ever left out, however often anybody looks.

    Where two differ nobody knows who erred. So whoever fails most clearly is taken first, what
    others differed with them is held against nobody, and only who fails on the rest fails too.

    Args:
        checks: as `checks_of` returns them.
        least_agreement: the share that is asked, in [0, 1]; nobody fails 0.

    Source: the e-value of statistics.md §2, of differing more often than the line allows.
    """
    reviewers = checks["reviewer"].unique().sort()
    agreed, differed = np.zeros((2, len(reviewers), len(reviewers) + 1), dtype=np.int64)
    failing_before, parts = np.zeros(len(reviewers), dtype=np.bool_), []
    for day_number, reviewer_index, other_index, agreed_count, differed_count in _by_day(
        checks, reviewers
    ):
        np.add.at(agreed, (reviewer_index, other_index), agreed_count)
        np.add.at(differed, (reviewer_index, other_index), differed_count)
        failing = _failing(agreed, differed, least_agreement)
        changed = failing != failing_before
        changed[reviewer_index] = True
        reviewer_indexes = np.flatnonzero(changed)
        counts = agreed[reviewer_indexes].sum(axis=1), differed[reviewer_indexes].sum(axis=1)
        parts.append(
            (
                reviewer_indexes,
                np.full(len(reviewer_indexes), day_number),
                *counts,
                failing[reviewer_indexes],
            )
        )
        failing_before = failing
    if not parts:
        return pl.DataFrame(schema=STANDINGS)
    reviewer_indexes, *columns = map(np.concatenate, zip(*parts, strict=True))
    values = [reviewers.gather(reviewer_indexes), *columns]
    return pl.DataFrame(dict(zip(STANDINGS, values, strict=True)), schema=STANDINGS)


def _by_day(checks: pl.DataFrame, names: pl.Series) -> Iterator[tuple[int, Ints, Ints, Ints, Ints]]:
    """Yield each UTC day with its checks: who, against whom, how many agreed, how many differed.

    People are places in `names`, nobody the place behind. The other of a pair has a check of the
    same unit, and so a place.
    """
    index_by_name = {name: at for at, name in enumerate(names)}
    reviewer_expr = pl.col("reviewer").replace_strict(index_by_name, return_dtype=pl.Int64)
    other_expr = pl.col("against").replace_strict(
        index_by_name, default=len(names), return_dtype=pl.Int64
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


def _failing(agreed: Ints, differed: Ints, least_agreement: float) -> Bools:
    """Return who fails, from counts of shape (people, people and nobody)."""
    is_failing = np.zeros(agreed.shape[1], dtype=np.bool_)
    if least_agreement <= 0:
        return is_failing[:-1]
    allowed_share = max(
        round(1 - least_agreement, 12), 1e-9
    )  # at 100 % one that differs is too many
    threshold = gate_line(allowed_share, RISK)

    def shown(good: Ints, bad: Ints) -> Bools:
        is_below = (bad > allowed_share * (good + bad)) & (good + bad >= LEAST)
        return threshold.met_at(bad, good) & is_below if is_below.any() else is_below

    suspects = shown(agreed.sum(axis=1), differed.sum(axis=1))
    while True:
        agreed_counts, differed_counts = (
            agreed[:, ~is_failing].sum(axis=1),
            differed[:, ~is_failing].sum(axis=1),
        )
        suspect_indexes = np.flatnonzero(
            suspects & ~is_failing[:-1] & shown(agreed_counts, differed_counts)
        )
        if not len(suspect_indexes):
            return is_failing[:-1]
        strength = log_mixture(
            differed_counts[suspect_indexes], agreed_counts[suspect_indexes], line=allowed_share
        )
        is_failing[suspect_indexes[strength == strength.max()]] = True


def mark_left_out(decisions: pl.DataFrame, stood: pl.DataFrame | None) -> pl.DataFrame:
    """Add `left_out` to decisions: does their reviewer fail as the day begins on which they judge?

    Args:
        decisions: with `reviewer` and `at` in microseconds.
        stood: as `standings` returns it; None where the policy asks nothing of reviewers.
    """
    if stood is None:
        return decisions.with_columns(left_out=pl.lit(value=False))
    failing = stood.select("reviewer", "failing", before=(pl.col("day") + 1) * DAY).sort("before")
    dated = decisions.with_row_index("row").with_columns(before=pl.col("at") // DAY * DAY)
    matched = dated.sort("before").join_asof(
        failing, on="before", by="reviewer", check_sortedness=False
    )
    marked = matched.sort("row").with_columns(left_out=pl.col("failing").fill_null(value=False))
    return marked.drop("row", "before", "failing")


# Against others


def _against_others(records: Records, policy: Policy) -> pl.DataFrame:
    readers = _readers(records, policy)
    columns = [VALUE + lever.id for lever in policy.levers]
    sure = readers.drop_nulls(columns)
    other_decisions = sure.select(
        "case_key", "elsewhere", other="reviewer", **{f"o:{c}": c for c in columns}
    )
    pairs = sure.join(other_decisions, on=["case_key", "elsewhere"]).filter(
        pl.col("reviewer") != pl.col("other")
    )
    pairs = pairs.with_columns(alike=reduce(and_, (_alike(v) for v in policy.levers)))
    return _by_majority(pairs)


def _readers(records: Records, policy: Policy) -> pl.DataFrame:
    """Return the verdicts of those who were asked to read a case, where all of them are in.

    Seats and verdicts made elsewhere are kept apart (`elsewhere`): what comes in later of the
    other kind changes no check.
    """
    case_times = records.cases.select("case_key", "occurred_at")
    timed_decisions = records.decisions.filter(seen_blind(policy)).join(case_times, on="case_key")
    at = pl.coalesce("at", "occurred_at").dt.epoch("us")
    timed_decisions = timed_decisions.with_columns(at=at).drop_nulls("at")
    parts = [timed_decisions.filter(pl.col("seat").is_not_null())]
    if policy.evidence.outside_blind:
        parts.append(timed_decisions.filter(pl.col("seat").is_null()))
    reader_count = max(policy.evidence.verdicts, 2)
    frames = []
    for source_index, source_decisions in enumerate(parts):
        numbered: pl.DataFrame = (
            seated(nw.from_native(source_decisions.lazy())).collect("polars").to_native()
        )
        asked_decisions = numbered.filter(pl.col("place").is_between(1, reader_count))
        complete_cases = asked_decisions.filter(pl.len().over("case_key") == reader_count)
        last_at = pl.col("at").max().over("case_key")
        frames.append(complete_cases.with_columns(at=last_at, elsewhere=pl.lit(source_index)))
    all_decisions: pl.DataFrame = pl.concat(frames)
    return all_decisions


def _by_majority(pairs: pl.DataFrame) -> pl.DataFrame:
    """Return of each verdict whether most of the others agree with it, if they are of one mind."""
    case_columns = ["case_key", "elsewhere"]
    is_alike = pl.col("alike").cast(pl.Int64)
    support = pairs.group_by(*case_columns, other="reviewer").agg(support=is_alike.sum())
    pairs_with_support = pairs.join(support, on=[*case_columns, "other"])
    # How many of the others, themselves included, agree with each of the others.
    majority_support = (pl.col("support") - is_alike + 1).max()
    against = pl.when(pl.len() == 1).then(pl.col("other").first())
    compared = pairs_with_support.group_by(*case_columns, "reviewer").agg(
        pl.col("at").first(),
        agreeing=is_alike.sum(),
        others=pl.len(),
        mind=majority_support,
        against=against,
    )
    agrees = pl.col("agreeing") * 2 > pl.col("others")
    compared = compared.with_columns(agrees=agrees, known=pl.lit(value=False))
    return compared.filter(agrees | (pl.col("mind") * 2 > pl.col("others"))).select(_columns())


def _alike(lever: Lever) -> pl.Expr:
    """Say whether two people say the same."""
    return _same(lever, pl.col(VALUE + lever.id), pl.col(f"o:{VALUE}{lever.id}"))


def _same(lever: Lever, one: pl.Expr, other: pl.Expr) -> pl.Expr:
    """Compare labels, or numbers within the tolerance of the larger: whoever is named first."""
    if lever.number is None:
        return one == other
    first_number, second_number = (answer.cast(pl.Float64, strict=False) for answer in (one, other))
    largest, margin = (
        pl.max_horizontal(first_number.abs(), second_number.abs()),
        lever.number.tolerance,
    )
    slack = (
        largest * (margin.amount + SLACK) if margin.relative else largest * SLACK + margin.amount
    )
    close = (first_number - second_number).abs() <= slack
    return (close | (one == other)).fill_null(value=False)


# Against known answers


def _against_known(records: Records, policy: Policy) -> pl.DataFrame:
    """Return of each verdict on a known case whether it is right, on every lever that is known."""
    if records.known.is_empty():
        return pl.DataFrame(schema=CHECKS)
    agrees = reduce(and_, _right(records.known, policy))
    sure_decisions = records.known.filter(~pl.col("unsure"))
    no_reviewer = pl.lit(None, pl.String)
    checks = sure_decisions.with_columns(
        agrees=agrees, at=pl.col("at").dt.epoch("us"), against=no_reviewer, known=pl.lit(value=True)
    )
    return checks.select(_columns())


def _right(known: pl.DataFrame, policy: Policy) -> Iterator[pl.Expr]:
    for lever in policy.levers:
        if RIGHT + lever.id in known.columns:
            answer, gold_answer = pl.col(VALUE + lever.id), pl.col(RIGHT + lever.id)
            yield gold_answer.is_null() | _same(lever, answer, gold_answer).fill_null(value=False)


def _columns() -> list[pl.Expr]:
    return [pl.col(name).cast(kind) for name, kind in CHECKS.items()]
