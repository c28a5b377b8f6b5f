"""The hold-out: units above shadow decided by humans blind, and its comparison with the model.

Units are assigned at random, so a difference beyond chance is caused by who decided. If the model
and humans act alike, each action is the model's with the chance of the split, in every season.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from rollout.core.policy.levers import Lever
from rollout.reports.figures.label_sources import build_stage_share
from rollout.reports.inputs.decided_by import HUMAN, MODEL, assign_deciders, find_usable_answers
from rollout.reports.inputs.inputs import ReportInputs
from rollout.reports.inputs.pairs import OTHER_ACTION, find_single_answers
from rollout.reports.statistics.concurrent_change import compute_concurrent_log_e
from rollout.reports.statistics.differences import ShareDifference, compute_period_difference
from rollout.tally.frames import VALUE_PREFIX

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
    cases = assign_deciders(inputs).filter(pl.col("version").is_not_null() & (pl.col("rung") > 0))
    answered = find_usable_answers(inputs).filter("usable")
    usable = cases.join(answered.select("case_key", "version"), on=["case_key", "version"])
    return usable.with_columns(
        held=pl.col("decider") == HUMAN, share=build_stage_share(inputs, lambda stage: stage.blind)
    ).select(*SIDE_COLUMNS)


def _build_sides_from_records(inputs: ReportInputs) -> pl.DataFrame:
    counts_unknown = inputs.policy.evidence.outside_blind
    exposure = pl.col("exposure")
    is_unassisted = (exposure == "blind") | ((exposure == "unknown") & counts_unknown)
    exposures = inputs.records.decisions.group_by("case_key").agg(
        told=(exposure == "assisted").any(), unseen=is_unassisted.all()
    )
    cases = inputs.cases.join(exposures, on="case_key")
    first_assisted = pl.col("occurred_us").filter("told").min().over("site", "window")
    eligible = cases.filter(
        (pl.col("told") | pl.col("unseen")) & (pl.col("occurred_us") > first_assisted)
    )
    predictions = inputs.records.predictions.select("case_key", "version")
    return (
        eligible.join(predictions, on="case_key")
        .with_columns(held=~pl.col("told"), rung=pl.lit(1))  # assisted is the lowest stage
        .with_columns(share=build_stage_share(inputs, lambda stage: stage.blind))
        .select(*SIDE_COLUMNS)
    )


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
    eligible = cases.filter(pl.col("decides") & pl.col("usable") & (pl.col("blind") > 0))
    sides = eligible.filter(pl.col("decider").is_in([MODEL, HUMAN]))
    first_cases = (
        sides.sort("case_key").unique("unit", keep="first").sort("stage", "blind", "case_key")
    )
    stages = first_cases.partition_by("stage", "blind", as_dict=True, maintain_order=True)
    return tuple(
        _compare_holdout(inputs, lever, str(stage), float(blind_share), part)
        for (stage, blind_share), part in stages.items()
        for lever in inputs.policy.levers
        if lever.has_single_labels
    )


def _compare_holdout(
    inputs: ReportInputs, lever: Lever, stage: str, blind_share: float, cases: pl.DataFrame
) -> HoldoutActions:
    column = VALUE_PREFIX + lever.id
    answers = inputs.records.predictions.select("case_key", "version", label=column)
    by_model = cases.filter(pl.col("decider") == MODEL).join(answers, on=["case_key", "version"])
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
            _build_action_change(name, model_counts, human_counts, sizes) for name in action_names
        ),
        log_e=_compute_log_e(
            action_names, model_counts, human_counts, blind_share, (held_out.height, sizes[1])
        ),
    )


def _count_actions(lever: Lever, cases: pl.DataFrame) -> Mapping[str, int]:
    counts: dict[str, int] = {}
    for label, count in cases.group_by("label").len().sort("label").iter_rows():
        action = lever.find_action(label) or OTHER_ACTION
        counts[action] = counts.get(action, 0) + count
    return counts


def _build_action_change(
    action: str,
    model_counts: Mapping[str, int],
    human_counts: Mapping[str, int],
    sizes: tuple[int, int],
) -> HoldoutActionChange:
    model_count, human_count = model_counts.get(action, 0), human_counts.get(action, 0)
    return HoldoutActionChange(
        action,
        model_count,
        human_count,
        compute_period_difference(model_count, sizes[0], human_count, sizes[1]),
    )


def _compute_log_e(
    action_names: Sequence[str],
    model_counts: Mapping[str, int],
    human_counts: Mapping[str, int],
    blind_share: float,
    holdout_sizes: tuple[int, int],
) -> float | None:
    """Return the evidence; unanswered hold-out units reduce its share."""
    held_out_count, answered_count = holdout_sizes
    if not model_counts or not human_counts:
        return None
    effective_share = blind_share * answered_count / held_out_count
    return compute_concurrent_log_e(
        [model_counts.get(name, 0) for name in action_names],
        [human_counts.get(name, 0) for name in action_names],
        share=(1 - blind_share) / (1 - blind_share + effective_share),
    )
