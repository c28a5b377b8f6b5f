"""Review quality: decision times, runs of equal answers, gold cases, overrides, reviewer checks.

Each figure is a reason to talk with a reviewer. A sign is reported only if its chance of a false
report among all reviewers is at most 5 % (Bonferroni over reviewers).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl

from rollout.core.calendar.instants import to_micros
from rollout.core.policy.policy import Policy
from rollout.core.statistics.evidence import compute_lower_bound
from rollout.reports.figures.answer_patterns import (
    HASTY_SHARE,
    NO_RUN,
    NO_TIMES,
    AnswerRun,
    build_decision_times,
    compute_median_times,
    find_longest_runs,
)
from rollout.reports.figures.reviewer_agreement import mark_agreement
from rollout.reports.inputs.inputs import ReportInputs
from rollout.reports.inputs.pairs import ADJUDICATED, ASSISTED
from rollout.reports.statistics.intervals import (
    CONFIDENCE_LEVEL,
    Estimate,
    Share,
    compute_share,
)
from rollout.reports.statistics.strata import build_strata_table, compute_tail_chance
from rollout.tally.frames import GOLD_PREFIX, VALUE_PREFIX, RecordFrames
from rollout.tally.reviewer_checks import build_reviewer_checks, is_blind_decision

DAY = 86_400_000_000  # microseconds
CHECK_RISK = 0.05  # chance that a reviewer's bound is ever below the true share
ANYTIME_METHOD = "mixture e-value, one-sided, at every look, 95 %"
GOLD_CASES = "known cases"
HASTY_DECISIONS = "hasty"
SAME_ANSWER = "same answer"
"""Signs that a reviewer stands out."""


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
    figures = _ReviewerFigures(
        decision_times=compute_median_times(times),
        hasty=_compute_shares(times.with_columns(good=pl.col("seconds") < (hasty_limit or 0.0))),
        runs=find_longest_runs(records, inputs.case_facts, policy),
        gold_cases=_compute_shares(gold_decisions),
        adjudicated=_compute_shares(_find_adjudicated(records, policy)),
        overrides=_compute_shares(_find_overrides(records, cases, policy)),
        reliability=_compute_reliability(records, policy, inputs.last),
    )
    counts = records.decisions.group_by("reviewer").agg(
        blind=is_blind_decision(policy).sum(), assisted=ASSISTED.sum()
    )
    decision_counts = {str(name): (blind, assisted) for name, blind, assisted in counts.iter_rows()}
    names = sorted({*decision_counts, *gold_decisions["reviewer"]})
    reviewers = [
        _build_reviewer_habits(name, *decision_counts.get(name, (0, 0)), figures, len(names))
        for name in names
    ]
    return ReviewQuality(
        hasty_below=hasty_limit,
        known_cases=gold_decisions["case_key"].n_unique(),
        reviewers=tuple(
            sorted(reviewers, key=lambda reviewer: (-len(reviewer.warnings), reviewer.reviewer))
        ),
    )


@dataclass(frozen=True, slots=True)
class _ReviewerFigures:
    """Figures by reviewer."""

    decision_times: Mapping[str, Estimate]
    hasty: Mapping[str, Share]
    runs: Mapping[str, AnswerRun]
    gold_cases: Mapping[str, Share]
    adjudicated: Mapping[str, Share]
    overrides: Mapping[str, Share]
    reliability: Mapping[str, ReviewerReliability]


def _build_reviewer_habits(
    name: str, blind: int, assisted: int, figures: _ReviewerFigures, reviewer_count: int
) -> ReviewerHabits:
    no_share, level = compute_share(0, 0), 1 - (1 - CONFIDENCE_LEVEL) / max(reviewer_count, 1)
    run = figures.runs.get(name, NO_RUN)
    reliability = figures.reliability.get(name, ReviewerReliability(no_share, None, ANYTIME_METHOD))
    hasty, gold_cases = figures.hasty.get(name, no_share), figures.gold_cases.get(name, no_share)
    signs = {
        GOLD_CASES: _is_below(figures.gold_cases, name, level),
        HASTY_DECISIONS: _is_above(figures.hasty, name, level),
        SAME_ANSWER: run.chance is not None and run.chance < 1 - level,
    }
    return ReviewerHabits(
        reviewer=name,
        blind=blind,
        assisted=assisted,
        decision_time=figures.decision_times.get(name, NO_TIMES),
        hasty=hasty,
        answer_run=run,
        gold_cases=gold_cases,
        adjudicated=figures.adjudicated.get(name, no_share),
        overrides=figures.overrides.get(name, no_share),
        reliability=reliability,
        warnings=tuple(sign for sign, stands_out in signs.items() if stands_out),
    )


def _is_below(shares: Mapping[str, Share], name: str, level: float) -> bool:
    """Return whether a reviewer's share is clearly below that of all others together."""
    errors = {reviewer: share.n - share.count for reviewer, share in shares.items()}
    return _compute_chance(shares, name, errors) < (1 - level) / 2


def _is_above(shares: Mapping[str, Share], name: str, level: float) -> bool:
    """Return whether a reviewer's share is clearly above that of all others together."""
    hits = {reviewer: share.count for reviewer, share in shares.items()}
    return _compute_chance(shares, name, hits) < (1 - level) / 2


def _compute_chance(shares: Mapping[str, Share], name: str, counts: Mapping[str, float]) -> float:
    """Return the chance of so large a count if the reviewer were like the others; 1 without."""
    if name not in shares:
        return 1.0
    numbers = (
        shares[name].n,
        counts[name],
        sum(share.n for share in shares.values()),
        sum(counts.values()),
    )
    return compute_tail_chance(build_strata_table(*(np.array([int(it)]) for it in numbers)))


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
    adjudications = records.decisions.filter(ADJUDICATED)
    parts = []
    for lever in policy.levers:
        ordered = adjudications.drop_nulls(VALUE_PREFIX + lever.id).sort(
            "at", "reviewer", nulls_last=True
        )
        first_labels = ordered.unique("case_key", keep="first", maintain_order=True)
        adjudicated_labels = first_labels.select(
            "case_key", by="reviewer", model=VALUE_PREFIX + lever.id
        )
        decisions = blind_decisions.select(
            "case_key", "reviewer", label=VALUE_PREFIX + lever.id
        ).drop_nulls()
        parts.append(
            decisions.join(adjudicated_labels, on="case_key").filter(
                pl.col("by") != pl.col("reviewer")
            )
        )
    return mark_agreement(parts, policy, columns=("reviewer",)).rename({"agrees": "good"})


def _find_overrides(records: RecordFrames, cases: pl.DataFrame, policy: Policy) -> pl.DataFrame:
    """Return each assisted decision with whether it changes the acting version's answer.

    Without a known acting version, the only version with an answer counts as acting.
    """
    columns = [VALUE_PREFIX + lever.id for lever in policy.levers]
    single_versions = records.predictions.group_by("case_key").agg(
        only=pl.when(pl.len() == 1).then(pl.col("version").first())
    )
    acting_versions = single_versions.join(
        cases.select("case_key", "version"), on="case_key", how="left"
    )
    acting_versions = acting_versions.select(
        "case_key", version=pl.coalesce("version", "only")
    ).drop_nulls()
    proposals = records.predictions.join(acting_versions, on=["case_key", "version"]).drop_nulls(
        columns
    )
    decisions = records.decisions.filter(ASSISTED).drop_nulls(columns)
    joined = decisions.join(proposals.select("case_key", *columns), on="case_key", suffix=":model")
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
    checks = build_reviewer_checks(records, policy).filter(
        pl.col("at") // DAY * DAY <= to_micros(last)
    )
    counts = checks.group_by("reviewer").agg(
        agreed=pl.col("agrees").sum(), differed=(~pl.col("agrees")).sum()
    )
    return {
        str(name): ReviewerReliability(
            checks=compute_share(int(agreed), int(agreed + differed)),
            at_most=1 - compute_lower_bound(int(differed), int(agreed), alpha=CHECK_RISK),
            method=ANYTIME_METHOD,
        )
        for name, agreed, differed in counts.iter_rows()
    }
