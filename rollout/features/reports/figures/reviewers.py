"""Review quality: decision times, runs of equal answers, gold cases, overrides, checks, anchoring.

Each figure is a reason to talk with a reviewer. A sign is reported only if its chance of a false
report among all reviewers is at most 5 % (Bonferroni over reviewers).

Anchoring is how seeing the model's answer changes agreement with it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np
import polars as pl
import scipy

from rollout.engine.evidence.frames import GOLD_PREFIX, VALUE_PREFIX, RecordFrames
from rollout.engine.evidence.reviewer_checks import build_reviewer_checks, is_blind_decision
from rollout.features.reports.figures.reviewer_agreement import mark_agreement
from rollout.features.reports.inputs.inputs import ReportInputs
from rollout.features.reports.inputs.pairs import (
    ASSISTED,
    UNASSISTED_EXPOSURES,
    LeverFigures,
    Pairs,
    find_adjudicated_labels,
    select_pairs,
)
from rollout.kernel.arrays import Floats, Ints
from rollout.kernel.calendar.instants import to_micros
from rollout.kernel.policy.policy import Policy
from rollout.kernel.statistics.differences import (
    AdoptionRate,
    ShareDifference,
    build_side,
    build_strata_table,
    compute_adoption,
    compute_difference,
    compute_tail_chance,
)
from rollout.kernel.statistics.evidence import compute_lower_bound
from rollout.kernel.statistics.intervals import (
    CONFIDENCE_LEVEL,
    NO_DATA,
    Estimate,
    Share,
    WeightedShare,
    compute_share,
    compute_unit_share,
    compute_weighted_share,
)
from rollout.kernel.units import Lever

CELL_COLUMNS = ["site", "window"]


@dataclass(frozen=True, slots=True)
class Anchoring(LeverFigures):
    """Assisted and unassisted agreement of one version and lever (`*`: all levers).

    Attributes:
        version, lever: whose answers.
        cells: cells with both kinds of decisions.
        blind: agreement of unassisted decisions, weighted to the cells of assisted ones.
        assisted: agreement of assisted decisions in these cells.
        change: seen minus unseen, per 100 cases.
        adopted: share of conflicts in which reviewers adopted the displayed answer.
        summary: the result as text.
    """

    cells: int
    blind: WeightedShare
    assisted: Share
    change: ShareDifference
    adopted: AdoptionRate
    summary: str


def compute_anchoring(
    pairs: Pairs, assisted_pairs: pl.DataFrame, policy: Policy
) -> tuple[Anchoring, ...]:
    """Return the estimate of every version and lever with assisted decisions.

    `pairs`: unassisted decisions with the model's answers.
    `assisted_pairs`: the rows of `build_assisted_pairs`.
    """
    levers = [lever.id for lever in policy.levers]
    levers += [policy.whole_unit_lever] if len(levers) > 1 else []
    figures = (
        _compute_version_anchoring(
            pairs.select(version, lever),
            select_pairs(assisted_pairs, version, lever),
            version,
            lever,
        )
        for version in pairs.predicted
        for lever in levers
    )
    return tuple(item for item in figures if item.assisted.n)


def _compute_version_anchoring(
    unassisted: pl.DataFrame, assisted: pl.DataFrame, version: str, lever: str
) -> Anchoring:
    cell_sizes = _count_by_cell(unassisted, "unseen").join(
        _count_by_cell(assisted, "seen"), on=CELL_COLUMNS, nulls_equal=True
    )
    weighted = unassisted.join(cell_sizes, on=CELL_COLUMNS, nulls_equal=True).sort("case_key")
    shared = assisted.join(cell_sizes, on=CELL_COLUMNS, nulls_equal=True)
    unassisted_share = compute_weighted_share(
        weighted["agrees"].cast(pl.Int64).to_numpy(),
        (weighted["unseen"] / weighted["seen"]).to_numpy(),
        weighted["unit"].rank("dense").to_numpy(),
    )
    assisted_share = compute_unit_share(shared)
    change = compute_difference(build_side(assisted_share), build_side(unassisted_share))
    adoption = compute_adoption(build_side(unassisted_share), build_side(assisted_share))
    return Anchoring(
        version=version,
        lever=lever,
        cells=cell_sizes.height,
        blind=unassisted_share,
        assisted=assisted_share,
        change=change,
        adopted=adoption,
        summary=describe_anchoring(change, adoption),
    )


def describe_anchoring(change: ShareDifference, adoption: AdoptionRate) -> str:
    """Describe how seeing the answer changes agreement with it."""
    if change.low is None or change.high is None:
        if change.method != NO_DATA:
            return f"no interval: {change.method}"
        return "no data: no cell has decisions of both kinds"
    if change.high < 0:
        return "reviewers agree less when they see the answer: they may look for its errors"
    if change.low <= 0:
        return "no difference that could not be luck"
    if adoption.share is None or not adoption.low:
        return "reviewers agree more when they see the answer"
    return (
        "reviewers agree more when they see the answer: they adopt it in about"
        f" {adoption.share * 100:.0f} % of the conflicts"
    )


def _count_by_cell(pairs: pl.DataFrame, name: str) -> pl.DataFrame:
    return pairs.group_by(CELL_COLUMNS).agg(pl.len().alias(name))


MARKOV_METHOD = (
    "at most the expected number of such runs (Markov), answers distributed as in the "
    "others of the same cells, times the number of labels"
)
NO_OTHER_REVIEWERS = "no other reviewer to compare with"


@dataclass(frozen=True, slots=True)
class AnswerRun:
    """The least likely run of one reviewer: `longest` times `label` among `answers`.

    `chance` is an upper bound of the chance that a reviewer who answers like the others has a run
    as unlikely; None without other reviewers. Each unit counts once.
    """

    answers: int
    longest: int
    label: str
    chance: float | None
    method: str


NO_RUN = AnswerRun(0, 0, "", None, "no data")


def find_longest_runs(
    records: RecordFrames, facts: pl.DataFrame, policy: Policy
) -> dict[str, AnswerRun]:
    """Return the run of each reviewer on the policy's first lever with single labels.

    Empty without such a lever or any answer.
    """
    lever = next((lever for lever in policy.levers if lever.has_single_labels), None)
    if lever is None:
        return {}
    answers = _order_answers(records, facts, lever)
    if answers.is_empty():
        return {}
    labels = tuple(sorted(answers["label"].unique()))
    coded = _add_codes(answers, labels)
    counts = _count_labels(coded, (coded["cell"].n_unique(), len(labels)))
    return {
        str(name): _find_unlikeliest_run(own_answers, _compute_chances(own_answers, counts), labels)
        for (name,), own_answers in coded.partition_by(
            "reviewer", as_dict=True, maintain_order=True
        ).items()
    }


def _order_answers(records: RecordFrames, facts: pl.DataFrame, lever: Lever) -> pl.DataFrame:
    """Return the first unassisted answer of each reviewer and unit, sorted by time."""
    located = (
        records.decisions.filter(pl.col("exposure").is_in(UNASSISTED_EXPOSURES))
        .select("case_key", "reviewer", "at", label=VALUE_PREFIX + lever.id)
        .drop_nulls("label")
        .join(facts.select("case_key", "unit", "site", "window", "occurred_us"), on="case_key")
        .with_columns(at=pl.coalesce(pl.col("at").dt.epoch("us"), "occurred_us"))
    )
    return (
        located.drop_nulls("at")
        .sort("reviewer", "at", "case_key")
        .unique(["reviewer", "unit"], keep="first", maintain_order=True)
    )


def _add_codes(answers: pl.DataFrame, labels: tuple[str, ...]) -> pl.DataFrame:
    """Return the answers with numbers of their cell and label: cell, code."""
    cells = answers.select("site", "window").unique().with_row_index("cell")
    codes = {label: code for code, label in enumerate(labels)}
    return answers.join(
        cells, on=["site", "window"], nulls_equal=True, maintain_order="left"
    ).with_columns(code=pl.col("label").replace_strict(codes, return_dtype=pl.Int64))


def _count_labels(answers: pl.DataFrame, shape: tuple[int, int]) -> Ints:
    """Return how often each label was given in each cell, shape (cells, labels)."""
    places = answers["cell"].to_numpy().astype(np.int64) * shape[1] + answers["code"].to_numpy()
    return np.bincount(places, minlength=shape[0] * shape[1]).reshape(shape)


def _compute_chances(own_answers: pl.DataFrame, counts: Ints) -> Floats | None:
    """Return the chance of each label in each answer's cell, from other reviewers.

    Shape (answers, labels). Half an answer is added to each label, so that no chance is zero.
    None if no other reviewer decided in any of the cells.

    Args:
        own_answers: of one reviewer, with their codes.
        counts: of all reviewers, shape (cells, labels).
    """
    others = counts - _count_labels(own_answers, counts.shape)
    own_cells, rows = np.unique(own_answers["cell"].to_numpy(), return_inverse=True)
    table = others[own_cells].astype(float)
    table += np.where(table.sum(axis=1, keepdims=True) > 0, 0.0, table.sum(axis=0))
    if not table.sum():
        return None
    table += 0.5
    return np.asarray((table / table.sum(axis=1, keepdims=True))[rows])


def _find_unlikeliest_run(
    own_answers: pl.DataFrame, chances: Floats | None, labels: tuple[str, ...]
) -> AnswerRun:
    runs = own_answers["label"].rle().struct.unnest()
    longest = dict(runs.group_by("value").agg(pl.col("len").max()).iter_rows())
    if chances is None:
        label = max(longest, key=lambda name: (longest[name], name))
        return AnswerRun(own_answers.height, longest[label], label, None, NO_OTHER_REVIEWERS)
    bounds = {
        label: compute_expected_runs(chances[:, labels.index(label)], length)
        for label, length in longest.items()
    }
    label = min(bounds, key=lambda name: (bounds[name], name))
    chance = min(1.0, bounds[label] * len(labels))
    return AnswerRun(own_answers.height, longest[label], label, chance, MARKOV_METHOD)


def compute_expected_runs(chances: Floats, length: int) -> float:
    """Return the expected number of runs of at least `length` in independent trials.

    It is an upper bound of the chance of such a run, and close to it if that is small.

    Args:
        chances: chance of success of each trial, in (0, 1), shape (trials,).
        length: at least 1 and at most the number of trials.

    Five heads in a row among ten coins, where the chance is 0.109:

    >>> round(compute_expected_runs(np.full(10, 0.5), 5), 3)
    0.109
    """
    sums = np.concatenate([[0.0], np.cumsum(np.log(chances))])
    run_chances = np.exp(sums[length:] - sums[:-length])
    start_chances = np.concatenate([[1.0], 1 - chances[: len(run_chances) - 1]])
    return float(np.sum(start_chances * run_chances))


HASTY_SHARE = 0.2  # of the median of all reviewers; faster decisions are hasty
ORDER_METHOD = "order statistics, at least 95 %"
FEW_METHOD = "order statistics; fewer than 6 give no interval"


NO_TIMES = Estimate(None, None, None, 0, NO_DATA)


def build_decision_times(records: RecordFrames) -> pl.DataFrame:
    """Return each timed decision: reviewer, seconds.

    Decisions on gold cases are included. A negative time means a wrong clock and is excluded.
    """
    columns = ["reviewer", "at", "started_at"]
    parts = [records.decisions.select(columns)]
    if not records.gold_decisions.is_empty():
        parts.append(records.gold_decisions.select(columns))
    timed = pl.concat(parts).drop_nulls()
    return timed.select(
        "reviewer", seconds=(pl.col("at") - pl.col("started_at")).dt.total_microseconds() / 1e6
    ).filter(pl.col("seconds") >= 0)


def compute_median_times(times: pl.DataFrame) -> dict[str, Estimate]:
    """Return the median time of each reviewer in seconds."""
    parts = times.sort("seconds").partition_by("reviewer", as_dict=True, maintain_order=True)
    return {
        str(name): compute_median_time(part["seconds"].to_list()) for (name,), part in parts.items()
    }


def compute_median_time(ordered: list[float]) -> Estimate:
    """Return the median of ascending times, with a distribution-free interval.

    Its ends are order statistics: the true median lies below the k-th smallest time with the
    chance of fewer than k heads in n coin flips.

    >>> compute_median_time([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0])
    Estimate(value=4.5, low=1.0, high=8.0, n=8, method='order statistics, at least 95 %')

    Source: David and Nagaraja, Order Statistics, 3rd ed. (2003), section 7.1.
    """
    n = len(ordered)
    if not n:
        return NO_TIMES
    middle = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    k = int(np.sum(scipy.special.bdtr(np.arange(n // 2 + 1), n, 0.5) <= (1 - CONFIDENCE_LEVEL) / 2))
    if not k:
        return Estimate(middle, None, None, n, FEW_METHOD)
    return Estimate(middle, ordered[k - 1], ordered[n - k], n, ORDER_METHOD)


DAY = 86_400_000_000  # microseconds
CHECK_RISK = 0.05  # chance that a reviewer's bound is ever below the true share
ANYTIME_METHOD = "mixture e-value, one-sided, at every look, 95 %"


@dataclass(frozen=True, slots=True)
class ReviewerReliability:
    """Reviewer checks of one reviewer: blind decisions against gold cases and other reviewers.

    Attributes:
        checks: share of checks that agreed.
        at_most: upper bound of agreement, valid at every look; None without checks.
        method: of `at_most`.
    """

    checks: Share
    at_most: float | None
    method: str


NO_SHARE: Final = compute_share(0, 0)
NO_CHECKS: Final = ReviewerReliability(NO_SHARE, None, ANYTIME_METHOD)


@dataclass(frozen=True, slots=True)
class ReviewerHabits:
    """Review quality of one reviewer.

    Attributes:
        reviewer: as in the records.
        blind, assisted: number of blind and of assisted decisions.
        decision_time: decision times.
        hasty: share of timed decisions faster than `ReviewQuality.floor`.
        answer_run: the run of one answer that is least likely by chance.
        gold_cases: share of gold cases with the right answer.
        adjudicated: agreement with adjudications of own blind decisions. Reviewers differed on most
            of these cases, so two equal reviewers would reach half.
        overrides: share of assisted decisions that changed the model's answer.
        reliability: reviewer checks.
        warnings: of `known cases`, `hasty` and `same answer`, those that stand out.
    """

    reviewer: str
    blind: int
    assisted: int
    decision_time: Estimate
    hasty: Share
    answer_run: AnswerRun
    gold_cases: Share
    adjudicated: Share
    overrides: Share
    reliability: ReviewerReliability
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReviewQuality:
    """Review quality of all reviewers.

    Attributes:
        hasty_below: seconds below which a decision is hasty, a fifth of the median of all
            reviewers; None without times.
        known_cases: number of gold cases with a decision; a replay has none.
        reviewers: the reviewers, those with most signs first.
    """

    hasty_below: float | None
    known_cases: int
    reviewers: tuple[ReviewerHabits, ...]


def compute_review_quality(inputs: ReportInputs, cases: pl.DataFrame) -> ReviewQuality:
    """Return the review quality of all reviewers.

    `cases` are the rows of `assign_deciders`.
    """
    records, policy = inputs.records, inputs.policy
    times = build_decision_times(records)
    hasty_limit = HASTY_SHARE * float(times["seconds"].median()) if times.height else None  # type: ignore[arg-type]
    gold_decisions = _find_gold_decisions(records, policy)
    decision_times = compute_median_times(times)
    hasty = _compute_shares(times.with_columns(good=pl.col("seconds") < (hasty_limit or 0.0)))
    runs = find_longest_runs(records, inputs.case_facts, policy)
    gold_cases = _compute_shares(gold_decisions)
    adjudicated = _compute_shares(_find_adjudicated(records, policy))
    overrides = _compute_shares(_find_overrides(records, cases, policy))
    reliability = _compute_reliability(records, policy, inputs.last)
    counts = records.decisions.group_by("reviewer").agg(
        blind=is_blind_decision(policy).sum(), assisted=ASSISTED.sum()
    )
    decision_counts = {str(name): (blind, assisted) for name, blind, assisted in counts.iter_rows()}
    names = sorted({*decision_counts, *gold_decisions["reviewer"]})
    level = 1 - (1 - CONFIDENCE_LEVEL) / max(len(names), 1)
    gold_errors = {name: share.n - share.count for name, share in gold_cases.items()}
    hasty_counts = {name: share.count for name, share in hasty.items()}
    reviewers = []
    for name in names:
        blind, assisted = decision_counts.get(name, (0, 0))
        run = runs.get(name, NO_RUN)
        signs = {
            "known cases": _is_clearly_more(gold_errors, gold_cases, name, level),
            "hasty": _is_clearly_more(hasty_counts, hasty, name, level),
            "same answer": run.chance is not None and run.chance < 1 - level,
        }
        reviewers.append(
            ReviewerHabits(
                reviewer=name,
                blind=blind,
                assisted=assisted,
                decision_time=decision_times.get(name, NO_TIMES),
                hasty=hasty.get(name, NO_SHARE),
                answer_run=run,
                gold_cases=gold_cases.get(name, NO_SHARE),
                adjudicated=adjudicated.get(name, NO_SHARE),
                overrides=overrides.get(name, NO_SHARE),
                reliability=reliability.get(name, NO_CHECKS),
                warnings=tuple(sign for sign, stands_out in signs.items() if stands_out),
            )
        )
    return ReviewQuality(
        hasty_below=hasty_limit,
        known_cases=gold_decisions["case_key"].n_unique(),
        reviewers=tuple(
            sorted(reviewers, key=lambda reviewer: (-len(reviewer.warnings), reviewer.reviewer))
        ),
    )


def _is_clearly_more(
    counts: Mapping[str, float], shares: Mapping[str, Share], name: str, level: float
) -> bool:
    """Return whether a reviewer's count of what is shared is too large to be like the others'."""
    if name not in shares:
        return False
    numbers = (
        shares[name].n,
        counts[name],
        sum(share.n for share in shares.values()),
        sum(counts.values()),
    )
    strata = build_strata_table(*(np.array([int(number)]) for number in numbers))
    return compute_tail_chance(strata) < (1 - level) / 2


def _compute_shares(frame: pl.DataFrame) -> dict[str, Share]:
    """Return the share of `good` by reviewer."""
    counts = frame.group_by("reviewer").agg(good=pl.col("good").sum(), n=pl.len())
    return {
        str(name): compute_share(int(good_count), int(n))
        for name, good_count, n in counts.iter_rows()
    }


def _find_gold_decisions(records: RecordFrames, policy: Policy) -> pl.DataFrame:
    """Return each answered gold decision with whether all its levers are right."""
    if records.gold_decisions.is_empty():
        return pl.DataFrame(
            schema={"reviewer": pl.String, "case_key": pl.String, "good": pl.Boolean}
        )
    parts = [
        records.gold_decisions.select(
            "case_key",
            "reviewer",
            lever=pl.lit(lever.id),
            label=VALUE_PREFIX + lever.id,
            model=GOLD_PREFIX + lever.id,
        )
        .drop_nulls()
        .with_columns(unit="case_key", site=pl.lit(""), window=pl.lit(""))
        for lever in policy.levers
    ]
    comparison = mark_agreement(parts, policy, columns=("case_key", "reviewer"))
    return comparison.group_by("reviewer", "case_key").agg(good=pl.col("agrees").all())


def _find_adjudicated(records: RecordFrames, policy: Policy) -> pl.DataFrame:
    """Return blind decisions on cases adjudicated by others, with whether they agree."""
    blind_decisions = records.decisions.filter(is_blind_decision(policy))
    parts = []
    for lever in policy.levers:
        adjudicated_labels = find_adjudicated_labels(records, lever).rename({"truth": "model"})
        parts.append(
            blind_decisions.select("case_key", "reviewer", label=VALUE_PREFIX + lever.id)
            .drop_nulls()
            .join(adjudicated_labels, on="case_key")
            .filter(pl.col("by") != pl.col("reviewer"))
        )
    return mark_agreement(parts, policy, columns=("reviewer",)).rename({"agrees": "good"})


def _find_overrides(records: RecordFrames, cases: pl.DataFrame, policy: Policy) -> pl.DataFrame:
    """Return each assisted decision with whether it changes the acting version's answer.

    Without a known acting version, the only version with an answer counts as acting.
    """
    columns = [VALUE_PREFIX + lever.id for lever in policy.levers]
    acting_versions = (
        records.predictions.group_by("case_key")
        .agg(only=pl.when(pl.len() == 1).then(pl.col("version").first()))
        .join(cases.select("case_key", "version"), on="case_key", how="left")
        .select("case_key", version=pl.coalesce("version", "only"))
        .drop_nulls()
    )
    proposals = records.predictions.join(acting_versions, on=["case_key", "version"]).drop_nulls(
        columns
    )
    joined = (
        records.decisions.filter(ASSISTED)
        .drop_nulls(columns)
        .join(proposals.select("case_key", *columns), on="case_key", suffix=":model")
    )
    parts = [
        joined.select("case_key", "reviewer", label=column, model=f"{column}:model")
        for column in columns
    ]
    comparison = mark_agreement(parts, policy, columns=("case_key", "reviewer"))
    return comparison.group_by("case_key", "reviewer").agg(good=~pl.col("agrees").all())


def _compute_reliability(
    records: RecordFrames, policy: Policy, last: datetime
) -> dict[str, ReviewerReliability]:
    """Return the reviewer checks by reviewer, of the days up to the end of the report's span."""
    counts = (
        build_reviewer_checks(records, policy)
        .filter(pl.col("at") // DAY * DAY <= to_micros(last))
        .group_by("reviewer")
        .agg(agreed=pl.col("agrees").sum(), differed=(~pl.col("agrees")).sum())
    )
    return {
        str(name): ReviewerReliability(
            checks=compute_share(int(agreed), int(agreed + differed)),
            at_most=1 - compute_lower_bound(int(differed), int(agreed), alpha=CHECK_RISK),
            method=ANYTIME_METHOD,
        )
        for name, agreed, differed in counts.iter_rows()
    }
