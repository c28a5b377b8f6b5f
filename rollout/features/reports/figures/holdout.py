"""The hold-out that humans decide blind above shadow, compared with the model, and feedback loops.

Units are assigned at random, so a difference beyond chance is caused by who decided. If the model
and humans act alike, each action is the model's with the chance of the split, in every season.

Feedback loops: whether the model's actions shape the data of the next version. A model trained on
these records learns where the last one looked (Ensign, Friedler, Neville, Scheidegger and
Venkatasubramanian, Proceedings of Machine Learning Research 81 (2018) 160). There are three checks:
how many training labels the model influenced, whether a random hold-out goes to humans blind, and
whether other outcomes become known with the model than in the hold-out.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import exp, log

import polars as pl

from rollout.engine.evidence.frames import VALUE_PREFIX
from rollout.engine.records.reviews import DROP
from rollout.engine.words.formatting import format_count, format_percent
from rollout.features.reports.figures.label_issues import count_sources
from rollout.features.reports.figures.label_sources import (
    MODEL_INFLUENCED,
    OUTCOME,
    SOURCES,
    build_assignments,
    build_labelled_rows,
    find_human_labels,
)
from rollout.features.reports.inputs.divergence_columns import SourceCount
from rollout.features.reports.inputs.inputs import (
    HUMAN,
    MODEL,
    ReportInputs,
    find_usable_answers,
    join_stages,
)
from rollout.features.reports.inputs.pairs import OTHER_ACTION, LeverFigures, find_single_answers
from rollout.kernel.statistics.differences import (
    ShareDifference,
    compute_concurrent_log_e,
    compute_period_difference,
)
from rollout.kernel.statistics.intervals import Share, clopper_pearson, compute_unit_share
from rollout.kernel.units import Lever

SIDE_COLUMNS = ("case_key", "version", "unit", "site", "occurred_us", "held", "share")
"""Columns of `build_holdout_sides`; `share` is that of units held out."""


def build_holdout_sides(inputs: ReportInputs) -> pl.DataFrame:
    """Return one case of each unit above shadow with its side; empty if all is in shadow.

    A live rollout has assignments. A replay has only exposures: assisted cases are with the model,
    and blind cases after the first assisted one in a cell are the hold-out.
    """
    sides = (
        _build_sides_from_records(inputs)
        if inputs.is_simulated
        else _build_sides_from_assignments(inputs)
    )
    return sides.sort("case_key").unique(["version", "unit"], keep="first").sort("case_key")


def _build_sides_from_assignments(inputs: ReportInputs) -> pl.DataFrame:
    """Return the cases above shadow with a usable answer of the acting version."""
    cases = inputs.decided_cases.filter(pl.col("version").is_not_null() & (pl.col("rung") > 0))
    answered = find_usable_answers(inputs).filter("usable")
    usable = cases.join(answered.select("case_key", "version"), on=["case_key", "version"])
    sides = join_stages(inputs, usable).with_columns(held=pl.col("decider") == HUMAN, share="blind")
    return sides.select(*SIDE_COLUMNS)


def _build_sides_from_records(inputs: ReportInputs) -> pl.DataFrame:
    counts_unknown = inputs.policy.evidence.outside_blind
    exposure = pl.col("exposure")
    is_unassisted = (exposure == "blind") | ((exposure == "unknown") & counts_unknown)
    exposures = inputs.records.decisions.group_by("case_key").agg(
        told=(exposure == "assisted").any(), unseen=is_unassisted.all()
    )
    cases = inputs.cases.join(exposures, on="case_key")
    first_assisted = pl.col("occurred_us").filter("told").min().over("site", "window")
    decided = (
        cases.filter((pl.col("told") | pl.col("unseen")) & (pl.col("occurred_us") > first_assisted))
        .join(inputs.records.predictions.select("case_key", "version"), on="case_key")
        .with_columns(held=~pl.col("told"), rung=pl.lit(1, pl.Int64))  # assisted is the lowest
    )
    return join_stages(inputs, decided).with_columns(share="blind").select(*SIDE_COLUMNS)


@dataclass(frozen=True, slots=True)
class HoldoutActionChange:
    """How often the model took one action, and humans on the hold-out.

    `change` is model minus humans, per 100 cases.
    """

    action: str
    by_model: int
    by_human: int
    change: ShareDifference


@dataclass(frozen=True, slots=True)
class HoldoutActions:
    """Actions on one lever and stage where the model decides beside a hold-out.

    Attributes:
        lever, stage: lever of the actions and stage of the cells.
        share: planned share of the hold-out.
        model_cases, human_cases: units decided by the model, and by humans.
        unanswered: hold-out units without an answer, taken as similar to the others.
        actions: every action taken.
        log_e: evidence that actions differ, valid at every look; None if a side has no cases.
    """

    lever: str
    stage: str
    share: float
    model_cases: int
    human_cases: int
    unanswered: int
    actions: tuple[HoldoutActionChange, ...]
    log_e: float | None


def compute_holdout_actions(
    inputs: ReportInputs, cases: pl.DataFrame
) -> tuple[HoldoutActions, ...]:
    """Return every lever of labels on every stage with a hold-out.

    `cases`: the rows of `build_sampling_frame`.
    """
    stages = (
        cases.filter(pl.col("decides") & pl.col("usable") & (pl.col("blind") > 0))
        .filter(pl.col("decider").is_in([MODEL, HUMAN]))
        .sort("case_key")
        .unique("unit", keep="first")
        .sort("stage", "blind", "case_key")
        .partition_by("stage", "blind", as_dict=True, maintain_order=True)
    )
    return tuple(
        _compare_holdout(inputs, lever, str(stage), float(blind_share), part)
        for (stage, blind_share), part in stages.items()
        for lever in inputs.policy.levers
        if lever.has_single_labels
    )


def _compare_holdout(
    inputs: ReportInputs, lever: Lever, stage: str, blind_share: float, cases: pl.DataFrame
) -> HoldoutActions:
    by_model = cases.filter(pl.col("decider") == MODEL).join(
        inputs.records.predictions.select("case_key", "version", label=VALUE_PREFIX + lever.id),
        on=["case_key", "version"],
    )
    held_out = cases.filter(pl.col("decider") == HUMAN)
    decisions = find_single_answers(inputs.records, lever).rename({"human": "label"})
    by_humans = held_out.join(decisions, on="case_key")
    model_counts, human_counts = _count_actions(lever, by_model), _count_actions(lever, by_humans)
    sizes = by_model.height, by_humans.height
    action_names = [
        action
        for action in (*dict.fromkeys(lever.actions), OTHER_ACTION)
        if action in {*model_counts, *human_counts}
    ]
    return HoldoutActions(
        lever=lever.id,
        stage=stage,
        share=blind_share,
        model_cases=sizes[0],
        human_cases=sizes[1],
        unanswered=held_out.height - sizes[1],
        actions=tuple(
            HoldoutActionChange(
                name,
                model_counts[name],
                human_counts[name],
                compute_period_difference(
                    model_counts[name], sizes[0], human_counts[name], sizes[1]
                ),
            )
            for name in action_names
        ),
        log_e=_compute_log_e(
            action_names, model_counts, human_counts, blind_share, (held_out.height, sizes[1])
        ),
    )


def _count_actions(lever: Lever, cases: pl.DataFrame) -> Counter[str]:
    counts: Counter[str] = Counter()
    for label, count in cases.group_by("label").len().sort("label").iter_rows():
        counts[lever.find_action(label) or OTHER_ACTION] += count
    return counts


def _compute_log_e(
    action_names: Sequence[str],
    model_counts: Counter[str],
    human_counts: Counter[str],
    blind_share: float,
    holdout_sizes: tuple[int, int],
) -> float | None:
    """Return the evidence; unanswered hold-out units reduce its share."""
    held_out_count, answered_count = holdout_sizes
    if not model_counts or not human_counts:
        return None
    effective_share = blind_share * answered_count / held_out_count
    return compute_concurrent_log_e(
        [model_counts[name] for name in action_names],
        [human_counts[name] for name in action_names],
        share=(1 - blind_share) / (1 - blind_share + effective_share),
    )


REQUIRED_LOG_E = -log(0.05)
"""Log e-value that shows a difference: wrong for at most one version and lever in twenty, at every
look."""

NO_OUTCOME = "nothing known"  # a case without an outcome
SHARE_LEVEL = 0.999  # level of the interval that must contain the planned share
METHOD = "a mixture over Dirichlet concentrations, valid at every look"


@dataclass(frozen=True, slots=True)
class OutcomeComparison:
    """How often one outcome became known with the model, and in the hold-out.

    `difference` is with the model minus hold-out, per 100 cases.
    """

    site: str
    label: str
    with_model: int
    holdout: int
    difference: ShareDifference


@dataclass(frozen=True, slots=True)
class FeedbackLoop(LeverFigures):
    """How one version shapes later data, on one lever.

    Attributes:
        version, lever: whose answers.
        stated_effect: how actions shape later cases, as in the policy; "" if not stated.
        sources: training rows by source of their label, on the version's cases.
        model_label_share: share of rows whose label the model made or influenced.
        outcome_label_share: share of rows whose label is an outcome of a case with the model.
        holdout_units, model_units: units in the hold-out, and units with the model (decided or
            assisted).
        untested_units: units with the model on a stage without a hold-out; not tested.
        holdout_shares: hold-out shares of the policy's stages with the model.
        has_planned_size: whether the hold-out has its planned size; None without one.
        outcomes: outcomes on both sides by site, the clearest difference first.
        log_e_outcomes: against "outcomes don't depend on who decides"; None without a test.
        log_e_actions: against "actions don't depend on who decides"; None without a test and for
            numbers. A large value only means that model and humans act differently.
        log_e_needed: log e-value that shows a difference.
        is_shown: whether a feedback loop is shown.
        summary: the result in sentences.
        method: of the two e-values.
    """

    stated_effect: str
    sources: tuple[SourceCount, ...]
    model_label_share: Share
    outcome_label_share: Share
    holdout_units: int
    model_units: int
    untested_units: int
    holdout_shares: tuple[float, ...]
    has_planned_size: bool | None
    outcomes: tuple[OutcomeComparison, ...]
    log_e_outcomes: float | None
    log_e_actions: float | None
    log_e_needed: float
    is_shown: bool
    summary: tuple[str, ...]
    method: str


def compute_feedback(inputs: ReportInputs) -> tuple[FeedbackLoop, ...]:
    """Return how each version shapes later data, by lever."""
    predictions = inputs.records.predictions.select("case_key", "version")
    rows = build_labelled_rows(
        inputs.records, inputs.policy, inputs.cases, build_assignments(inputs), inputs.choices
    )
    training_rows = (
        rows.filter(pl.col("label").is_not_null(), pl.col("cleaned").fill_null("") != DROP)
        .drop("version")
        .join(inputs.cases.select("case_key", "unit"), on="case_key", how="left")
        .with_columns(unit=pl.coalesce("unit", "case_key").rank("dense"))
    )
    parted = build_holdout_sides(inputs)
    versions = predictions["version"].unique().sort().to_list()
    return tuple(
        _compute_version_feedback(
            inputs, version, lever, training_rows.join(version_cases, on="case_key"), parted
        )
        for version in versions
        for version_cases in [predictions.filter(pl.col("version") == version)]
        for lever in inputs.policy.levers
    )


def _compute_version_feedback(
    inputs: ReportInputs,
    version: str,
    lever: Lever,
    training_rows: pl.DataFrame,
    sides: pl.DataFrame,
) -> FeedbackLoop:
    rows = training_rows.filter(pl.col("lever") == lever.id)
    version_units = sides.filter(pl.col("version") == version)
    unit_outcomes = _build_unit_outcomes(inputs, lever, version_units)
    holdout_count = int(version_units["held"].sum())
    is_as_planned = _is_holdout_as_planned(version_units)
    is_testable = bool(is_as_planned)
    outcomes = inputs.records.outcomes.drop_nulls(VALUE_PREFIX + lever.id).height
    log_e_known = (
        _compute_total_log_e(unit_outcomes, ["site", "known"]) if is_testable and outcomes else None
    )
    model_cases = version_units.filter(~pl.col("held")).select("case_key")
    acted_rows = rows.with_columns(hit=pl.col("source") == OUTCOME).join(
        model_cases.with_columns(touched=True), on="case_key", how="left"
    )
    feedback = FeedbackLoop(
        version=version,
        lever=lever.id,
        stated_effect=inputs.policy.charter.feedback,
        sources=tuple(count_sources(rows, SOURCES)),
        model_label_share=compute_unit_share(rows, pl.col("source").is_in(MODEL_INFLUENCED)),
        outcome_label_share=compute_unit_share(
            acted_rows, pl.col("hit") & pl.col("touched").fill_null(value=False)
        ),
        holdout_units=holdout_count,
        model_units=version_units.height - holdout_count,
        untested_units=version_units.filter(pl.col("share").fill_null(0.0) <= 0).height,
        holdout_shares=tuple(version_units["share"].unique().sort().drop_nulls()),
        has_planned_size=is_as_planned,
        outcomes=tuple(_compare_outcomes(unit_outcomes)),
        log_e_outcomes=log_e_known,
        log_e_actions=(
            _compute_total_log_e(unit_outcomes, ["action"])
            if is_testable and lever.has_single_labels
            else None
        ),
        log_e_needed=REQUIRED_LOG_E,
        is_shown=log_e_known is not None and log_e_known >= REQUIRED_LOG_E,
        summary=(),
        method=METHOD,
    )
    return replace(feedback, summary=tuple(_describe_feedback(feedback)))


def _build_unit_outcomes(
    inputs: ReportInputs, lever: Lever, version_units: pl.DataFrame
) -> pl.DataFrame:
    """Return the units of both sides with outcome and action."""
    column = VALUE_PREFIX + lever.id
    policy, records = inputs.policy, inputs.records
    outcomes = records.outcomes.select("case_key", known=column)
    decisions = find_human_labels(records, column, outside_blind=policy.evidence.outside_blind)
    answers = records.predictions.select("case_key", "version", made=column)
    joined = (
        version_units.join(outcomes, on="case_key", how="left")
        .join(decisions, on="case_key", how="left")
        .join(answers, on=["case_key", "version"], how="left")
    )
    by_model = pl.when(~pl.col("held")).then("made")
    answer = pl.coalesce("said", by_model)
    actions = {label: lever.find_action(label) or OTHER_ACTION for label in lever.labels}
    action = answer.replace_strict(actions, default=OTHER_ACTION, return_dtype=pl.String)
    fallback = lever.unanswered or "no answer"
    outcome = pl.col("known") if lever.number is None else pl.lit("a number")
    return joined.with_columns(
        known=pl.when(pl.col("known").is_null()).then(pl.lit(NO_OUTCOME)).otherwise(outcome),
        action=pl.when(answer.is_null()).then(pl.lit(fallback)).otherwise(action),
    )


def _is_holdout_as_planned(version_units: pl.DataFrame) -> bool | None:
    """Return whether the hold-out has its planned share; None without one."""
    with_share = version_units.filter(pl.col("share") > 0)
    if with_share.is_empty():
        return None
    for (share,), part in with_share.partition_by("share", as_dict=True).items():
        low, high = clopper_pearson(int(part["held"].sum()), part.height, SHARE_LEVEL)
        if not low <= float(share) <= high:
            return False
    return True


def _compute_total_log_e(unit_outcomes: pl.DataFrame, columns: list[str]) -> float:
    """Return the log e-value over all units; each share is its own experiment."""
    total = 0.0
    for (share,), part in unit_outcomes.partition_by("share", as_dict=True).items():
        if share is None or not 0 < float(share) < 1:
            continue
        counts = (
            part.group_by(columns)
            .agg(model=(~pl.col("held")).sum(), people=pl.col("held").sum())
            .sort(columns)
        )
        group_counts = (counts["model"].to_list(), counts["people"].to_list())
        total += compute_concurrent_log_e(*group_counts, share=1 - float(share))
    return total


def _compare_outcomes(unit_outcomes: pl.DataFrame) -> Iterator[OutcomeComparison]:
    """Yield the outcomes on both sides by site, the clearest difference first."""
    comparisons = []
    for (site,), part in unit_outcomes.partition_by("site", as_dict=True).items():
        with_model, holdout = part.filter(~pl.col("held")), part.filter("held")
        for label in part["known"].unique().sort():
            if label != NO_OUTCOME and with_model.height and holdout.height:
                model_count, holdout_count = (
                    int((side["known"] == label).sum()) for side in (with_model, holdout)
                )
                difference = compute_period_difference(
                    model_count, with_model.height, holdout_count, holdout.height
                )
                comparisons.append(
                    OutcomeComparison(str(site), label, model_count, holdout_count, difference)
                )
    yield from sorted(comparisons, key=_build_sort_key)


def _build_sort_key(comparison: OutcomeComparison) -> tuple[float, str, str]:
    difference = comparison.difference
    if difference.per_100 is None or difference.low is None or difference.high is None:
        return 0.0, comparison.site, comparison.label
    return (
        -abs(difference.per_100) / (difference.high - difference.low),
        comparison.site,
        comparison.label,
    )


def _describe_feedback(feedback: FeedbackLoop) -> Iterator[str]:
    yield _describe_training_rows(feedback)
    if not feedback.model_units:
        yield "The model has influenced no case so far, so no feedback loop is possible yet."
        return
    if not feedback.holdout_units or feedback.has_planned_size is None:
        yield (
            "No hold-out: no unit gets a blind decision, so the records can't show whether known "
            "outcomes depend on who decided. Give the stage a blind share, as `blind: 10%`."
        )
        return
    if feedback.has_planned_size is False:
        planned = " or ".join(f"{100 * share:g} %" for share in feedback.holdout_shares)
        yield (
            f"The hold-out differs from its plan: {format_count(feedback.holdout_units)} of"
            f" {format_count(feedback.holdout_units + feedback.model_units)} units got a"
            f" blind decision instead of {planned}. Cases are selected, or"
            " decisions are lost; until it follows the plan it proves nothing."
        )
        return
    yield from _describe_loop(feedback)
    if feedback.untested_units:
        yield (
            f"{format_count(feedback.untested_units)} units were on a stage without a hold-out: of"
            " these nothing can be said. Give it a blind share, as `blind: 10%`."
        )


def _describe_training_rows(feedback: FeedbackLoop) -> str:
    influenced_share = feedback.model_label_share
    if influenced_share.rate is None:
        return "No training row so far."
    return (
        f"{format_count(influenced_share.count)} of {format_count(influenced_share.n)} training"
        f" rows ({format_percent(influenced_share.rate)}) have their label from the model, or from"
        " a reviewer who had seen its answer."
    )


def _describe_loop(feedback: FeedbackLoop) -> Iterator[str]:
    if feedback.log_e_outcomes is None:
        yield (
            "No outcomes: the records can't show whether known outcomes depend on who decided. "
            "Send outcomes of the hold-out and of the rest."
        )
        return
    evidence = (
        f"e-value {_format_e_value(feedback.log_e_outcomes)}, reported from"
        f" {_format_e_value(feedback.log_e_needed)} on"
    )
    if not feedback.is_shown:
        yield (
            f"No sign of a loop in {format_count(feedback.holdout_units)} units of the hold-out and"
            f" {format_count(feedback.model_units)} others: known outcomes don't depend on who"
            f" decides ({evidence})."
        )
        return
    yield (
        "Feedback loop: known outcomes depend on whether the model influenced the case "
        f"({evidence}). A version trained on these records learns where this one acted."
    )
    if feedback.outcomes:
        yield _describe_comparison(feedback.outcomes[0])
    yield (
        "Train on the hold-out, or weight each case by one over its sampling chance; don't read "
        "figures of the rest as figures of all cases."
    )


def _describe_comparison(comparison: OutcomeComparison) -> str:
    difference = comparison.difference
    return (
        f"At {comparison.site}, {comparison.label} became known in"
        f" {100 * (difference.first or 0):.0f} of 100 cases that the model influenced and in"
        f" {100 * (difference.second or 0):.0f} of 100 in the hold-out (difference"
        f" {difference.per_100:+.1f}, {difference.low:+.1f} to {difference.high:+.1f},"
        f" {difference.method})."
    )


def _format_e_value(log_e: float) -> str:
    if log_e > log(1e6):
        return "over 1,000,000"
    return "under 0.01" if log_e < log(0.01) else f"{exp(log_e):,.{0 if log_e > log(10) else 2}f}"
