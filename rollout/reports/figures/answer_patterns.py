"""How reviewers answer: runs of one answer, and time taken."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
import scipy
from numpy.typing import NDArray

from rollout.core.policy.levers import Lever
from rollout.core.policy.policy import Policy
from rollout.reports.inputs.pairs import UNASSISTED_EXPOSURES, Pairs
from rollout.reports.statistics.differences import (
    AdoptionRate,
    ShareDifference,
    build_side,
    compute_adoption,
    compute_difference,
)
from rollout.reports.statistics.intervals import (
    CONFIDENCE_LEVEL,
    NO_DATA,
    Estimate,
    Share,
    WeightedShare,
    compute_unit_share,
    compute_weighted_share,
)
from rollout.tally.frames import VALUE_PREFIX, RecordFrames

CELL_COLUMNS = ["site", "window"]


@dataclass(frozen=True, slots=True)
class Anchoring:
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

    version: str
    lever: str
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
            _select_version(assisted_pairs, version, lever),
            version,
            lever,
        )
        for version in pairs.predicted
        for lever in levers
    )
    return tuple(item for item in figures if item.assisted.n)


def _select_version(pairs: pl.DataFrame, version: str, lever: str) -> pl.DataFrame:
    return pairs.filter((pl.col("version") == version) & (pl.col("lever") == lever))


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
        f" {adoption.share:.0%} of the conflicts"
    ).replace("%", " %")


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
    places = facts.select("case_key", "unit", "site", "window", "occurred_us")
    unassisted = records.decisions.filter(pl.col("exposure").is_in(UNASSISTED_EXPOSURES))
    answers = unassisted.select(
        "case_key", "reviewer", "at", label=VALUE_PREFIX + lever.id
    ).drop_nulls("label")
    located = answers.join(places, on="case_key").with_columns(
        at=pl.coalesce(pl.col("at").dt.epoch("us"), "occurred_us")
    )
    ordered = located.drop_nulls("at").sort("reviewer", "at", "case_key")
    return ordered.unique(["reviewer", "unit"], keep="first", maintain_order=True)


def _add_codes(answers: pl.DataFrame, labels: tuple[str, ...]) -> pl.DataFrame:
    """Return the answers with numbers of their cell and label: cell, code."""
    cells = answers.select("site", "window").unique().with_row_index("cell")
    codes = {label: code for code, label in enumerate(labels)}
    return answers.join(
        cells, on=["site", "window"], nulls_equal=True, maintain_order="left"
    ).with_columns(code=pl.col("label").replace_strict(codes, return_dtype=pl.Int64))


def _count_labels(answers: pl.DataFrame, shape: tuple[int, int]) -> NDArray[np.int64]:
    """Return how often each label was given in each cell, shape (cells, labels)."""
    places = answers["cell"].to_numpy().astype(np.int64) * shape[1] + answers["code"].to_numpy()
    return np.bincount(places, minlength=shape[0] * shape[1]).reshape(shape)


def _compute_chances(
    own_answers: pl.DataFrame, counts: NDArray[np.int64]
) -> NDArray[np.float64] | None:
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
    own_answers: pl.DataFrame, chances: NDArray[np.float64] | None, labels: tuple[str, ...]
) -> AnswerRun:
    longest = dict(_find_longest(own_answers["label"]))
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


def _find_longest(answers: pl.Series) -> Iterator[tuple[str, int]]:
    """Yield each answer with the length of its longest run."""
    runs = answers.rle().struct.unnest()
    yield from runs.group_by("value").agg(pl.col("len").max()).iter_rows()


def compute_expected_runs(chances: NDArray[np.float64], length: int) -> float:
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
    seconds = (pl.col("at") - pl.col("started_at")).dt.total_microseconds() / 1e6
    return timed.select("reviewer", seconds=seconds).filter(pl.col("seconds") >= 0)


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
