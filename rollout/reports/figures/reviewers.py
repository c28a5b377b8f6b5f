"""How people judge: how fast, how evenly, how well where it can be checked, and how independently.

Each figure is a reason to talk with somebody, not a verdict on them. A sign is named only where it
is so clear that among all people looked at the chance of naming anybody wrongly by that sign is at
most 5 % (Bonferroni over people). The one exception is what the policy asks: whoever fails it is
named by the rule that leaves their verdicts out, at 5 % each.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from rollout.core.policy.policy import Policy
from rollout.core.statistics.evidence import lower_bound
from rollout.reports.figures.answer_runs import NO_RUN, Run, longest_runs
from rollout.reports.figures.decision_times import HASTY, NO_TIMES, Spent, spent_by, times_spent
from rollout.reports.figures.reviewer_agreement import agreeing
from rollout.reports.inputs.inputs import Inputs
from rollout.reports.inputs.unblinded import ASSISTED, SETTLED
from rollout.reports.statistics.intervals import LEVEL, Share, clopper_pearson, share
from rollout.tally.frames import RIGHT, VALUE, Records
from rollout.tally.reviewer_checks import (
    DAY,
    RISK,
    asked_of,
    checks_of,
    mark_left_out,
    seen_blind,
    standings,
)
from rollout.tally.slots import EPOCH, MICROSECOND

EVERY_LOOK = "mixture e-value, one-sided, at every look, 95 %"
KNOWN, IN_HASTE, RUN, CHECKS = "known cases", "hasty", "same answer", "checks"
"""Signs by which somebody stands out."""


@dataclass(frozen=True, slots=True)
class Relied:
    """How somebody stands for evidence: blind verdicts held against known answers and others.

    Attributes:
        checks: of how many checks they agreed, at a fixed number.
        at_most: what their agreement is at most, at every look; None without checks.
        method: of `at_most`.
        failing_since: from when on verdicts are left out of evidence; None where they count.
        left_out: how many of their blind verdicts are left out, in all.
    """

    checks: Share
    at_most: float | None
    method: str
    failing_since: datetime | None
    left_out: int


@dataclass(frozen=True, slots=True)
class Habits:
    """One person.

    Attributes:
        name: as the records call the person.
        blind, assisted: verdicts that were given unseen, and with the proposal in sight.
        spent: how long they took.
        hasty: share of the timed verdicts that took less than `Health.floor`.
        run: the run of one answer that is least likely by chance.
        known: share of the known cases that they got right.
        settled: agreement with adjudications of cases that they had judged blind. Most of those
            are cases on which people differed: half is what two equals would reach.
        overrides: share of the proposals that they changed.
        relied: how they stand for evidence.
        signs: by what they stand out: `known cases`, `hasty`, `same answer`, `checks`.
    """

    name: str
    blind: int
    assisted: int
    spent: Spent
    hasty: Share
    run: Run
    known: Share
    settled: Share
    overrides: Share
    relied: Relied
    signs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Health:
    """All people who judged anything, those first who stand out by most signs.

    Attributes:
        asked: the agreement that the policy asks of reviewers; None where it asks none.
        floor: seconds under which a verdict is hasty: a fifth of everybody's median; None where
            nobody noted when a verdict was begun.
        known_cases: how many known cases were judged; a replay of files has none.
        people: whoever they are, by name among those with as many signs.
    """

    asked: float | None
    floor: float | None
    known_cases: int
    people: tuple[Habits, ...]


def health_of(inputs: Inputs, placed: pl.DataFrame) -> Health:
    """Return how people judge.

    Args:
        inputs: of the report.
        placed: every case with the version that acted, of `standing.standing`.
    """
    records, policy = inputs.records, inputs.policy
    times = times_spent(records)
    hasty_limit = HASTY * float(times["seconds"].median()) if times.height else None  # type: ignore[arg-type]
    gold_decisions = _known(records, policy)
    figures = _Found(
        spent=spent_by(times),
        hasty=_shares(times.with_columns(good=pl.col("seconds") < (hasty_limit or 0.0))),
        runs=longest_runs(records, inputs.cases, policy),
        known=_shares(gold_decisions),
        settled=_shares(_settled(records, policy)),
        overrides=_shares(_overrides(records, placed, policy)),
        relied=_relied(records, policy, inputs.last),
    )
    counts = records.decisions.group_by("reviewer").agg(
        blind=seen_blind(policy).sum(), assisted=ASSISTED.sum()
    )
    decision_counts = {str(name): (blind, assisted) for name, blind, assisted in counts.iter_rows()}
    names = sorted({*decision_counts, *gold_decisions["reviewer"]})
    reviewers = [
        _person(name, *decision_counts.get(name, (0, 0)), figures, len(names)) for name in names
    ]
    return Health(
        asked=policy.evidence.min_reviewer_agreement,
        floor=hasty_limit,
        known_cases=gold_decisions["case_key"].n_unique(),
        people=tuple(sorted(reviewers, key=lambda reviewer: (-len(reviewer.signs), reviewer.name))),
    )


@dataclass(frozen=True, slots=True)
class _Found:
    """Figures by person."""

    spent: Mapping[str, Spent]
    hasty: Mapping[str, Share]
    runs: Mapping[str, Run]
    known: Mapping[str, Share]
    settled: Mapping[str, Share]
    overrides: Mapping[str, Share]
    relied: Mapping[str, Relied]


def _person(name: str, blind: int, assisted: int, found: _Found, people: int) -> Habits:
    no_share, level = share(0, 0), 1 - (1 - LEVEL) / max(people, 1)
    run = found.runs.get(name, NO_RUN)
    reliability = found.relied.get(name, Relied(no_share, None, EVERY_LOOK, None, 0))
    hasty, gold_cases = found.hasty.get(name, no_share), found.known.get(name, no_share)
    signs = {
        KNOWN: _below(gold_cases, _others(found.known, name), level),
        IN_HASTE: _above(hasty, _others(found.hasty, name), level),
        RUN: run.chance is not None and run.chance < 1 - level,
        CHECKS: reliability.failing_since is not None,
    }
    return Habits(
        name=name,
        blind=blind,
        assisted=assisted,
        spent=found.spent.get(name, NO_TIMES),
        hasty=hasty,
        run=run,
        known=gold_cases,
        settled=found.settled.get(name, no_share),
        overrides=found.overrides.get(name, no_share),
        relied=reliability,
        signs=tuple(sign for sign, stands_out in signs.items() if stands_out),
    )


def _others(shares: Mapping[str, Share], name: str) -> float | None:
    """Return the pooled rate of everybody else."""
    others = [share for reviewer, share in shares.items() if reviewer != name]
    n = sum(share.n for share in others)
    return sum(share.count for share in others) / n if n else None


def _below(own: Share, others: float | None, level: float) -> bool:
    return others is not None and clopper_pearson(own.count, own.n, level)[1] < others


def _above(own: Share, others: float | None, level: float) -> bool:
    return others is not None and clopper_pearson(own.count, own.n, level)[0] > others


def _shares(frame: pl.DataFrame) -> dict[str, Share]:
    """Return the share of `good` by reviewer."""
    counts = frame.group_by("reviewer").agg(good=pl.col("good").sum(), n=pl.len())
    return {str(name): share(int(good_count), int(n)) for name, good_count, n in counts.iter_rows()}


def _known(records: Records, policy: Policy) -> pl.DataFrame:
    """Return each answered verdict on a known case, with whether all that is known is right."""
    if records.known.is_empty():
        return pl.DataFrame(
            schema={"reviewer": pl.String, "case_key": pl.String, "good": pl.Boolean}
        )
    parts = [
        records.known.select(
            "case_key",
            "reviewer",
            lever=pl.lit(lever.id),
            label=VALUE + lever.id,
            model=RIGHT + lever.id,
        )
        .drop_nulls()
        .with_columns(unit="case_key", site=pl.lit(""), window=pl.lit(""))
        for lever in policy.levers
    ]
    comparison = agreeing(parts, policy, keep=("case_key", "reviewer"))
    return comparison.group_by("reviewer", "case_key").agg(good=pl.col("agrees").all())


def _settled(records: Records, policy: Policy) -> pl.DataFrame:
    """Return each blind verdict on a case that somebody else settled, with whether they agree."""
    blind_decisions = records.decisions.filter(seen_blind(policy))
    adjudications = records.decisions.filter(SETTLED)
    parts = []
    for lever in policy.levers:
        ordered = adjudications.drop_nulls(VALUE + lever.id).sort("at", "reviewer", nulls_last=True)
        first_labels = ordered.unique("case_key", keep="first", maintain_order=True)
        adjudicated_labels = first_labels.select("case_key", by="reviewer", model=VALUE + lever.id)
        decisions = blind_decisions.select(
            "case_key", "reviewer", label=VALUE + lever.id
        ).drop_nulls()
        parts.append(
            decisions.join(adjudicated_labels, on="case_key").filter(
                pl.col("by") != pl.col("reviewer")
            )
        )
    return agreeing(parts, policy, keep=("reviewer",)).rename({"agrees": "good"})


def _overrides(records: Records, placed: pl.DataFrame, policy: Policy) -> pl.DataFrame:
    """Return each assisted verdict with whether it changes what the acting version proposed.

    Where the history does not say which version acted, it is the only one that answered.
    """
    columns = [VALUE + lever.id for lever in policy.levers]
    single_versions = records.predictions.group_by("case_key").agg(
        only=pl.when(pl.len() == 1).then(pl.col("version").first())
    )
    acting_versions = single_versions.join(
        placed.select("case_key", "version"), on="case_key", how="left"
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
    comparison = agreeing(parts, policy, keep=("case_key", "reviewer"))
    return comparison.group_by("case_key", "reviewer").agg(good=~pl.col("agrees").all())


def _relied(records: Records, policy: Policy, last: datetime) -> dict[str, Relied]:
    """Return how everybody stands who was checked, at the end of the report's span."""
    check_results = asked_of(records, policy)
    if check_results is None:
        check_results = standings(checks_of(records, policy), 0.0)
    check_results = check_results.filter(pl.col("day") * DAY <= (last - EPOCH) // MICROSECOND)
    times = records.cases.select("case_key", "occurred_at")
    blind_decisions = records.decisions.filter(seen_blind(policy)).join(times, on="case_key")
    at = pl.coalesce("at", "occurred_at").dt.epoch("us")
    marked = mark_left_out(blind_decisions.with_columns(at=at).drop_nulls("at"), check_results)
    excluded_counts = dict(marked.group_by("reviewer").agg(pl.col("left_out").sum()).iter_rows())
    return {
        str(name): _stands(part, int(excluded_counts.get(name, 0)))
        for (name,), part in check_results.partition_by(
            "reviewer", as_dict=True, maintain_order=True
        ).items()
    }


def _stands(days: pl.DataFrame, left_out: int) -> Relied:
    agreeing, differing = int(days["agreed"][-1]), int(days["differed"][-1])
    failing_since = None
    if days["failing"][-1]:
        passed_days = days.filter(~pl.col("failing"))["day"]
        failing_days = days.filter(pl.col("day") > (passed_days[-1] if len(passed_days) else -1))
        failing_since = EPOCH + int(failing_days["day"][0] + 1) * DAY * MICROSECOND
    return Relied(
        checks=share(agreeing, agreeing + differing),
        at_most=1 - lower_bound(differing, agreeing, alpha=RISK),
        method=EVERY_LOOK,
        failing_since=failing_since,
        left_out=left_out,
    )
