"""Changes in action frequency: the model against humans, on the same cases."""

from dataclasses import dataclass

import polars as pl

from rollout.core.policy.levers import Lever
from rollout.core.policy.policy import Policy
from rollout.core.statistics.evidence import compute_paired_log_e
from rollout.reports.inputs.pairs import Pairs
from rollout.reports.statistics.intervals import (
    PairedChange,
    compute_difference_number,
    compute_paired_change,
)


@dataclass(frozen=True, slots=True)
class ActionFrequencyChange:
    """How often model and humans take one action, on the cases that both decided.

    `change` is model minus humans, per 100 cases. `log_e` is the evidence of a difference, valid
    at every look, over one case of each unit.
    """

    version: str
    lever: str
    action: str
    by_people: int
    by_model: int
    change: PairedChange
    log_e: float


def compute_action_changes(pairs: Pairs, policy: Policy) -> tuple[ActionFrequencyChange, ...]:
    """Return the change of every action in use, for levers with labels."""
    return tuple(
        change
        for version in pairs.predicted
        for lever in policy.levers
        if lever.has_single_labels
        for change in _compute_lever_changes(pairs.select(version, lever.id), version, lever)
    )


def _compute_lever_changes(
    pairs: pl.DataFrame, version: str, lever: Lever
) -> list[ActionFrequencyChange]:
    observed = set(pairs["human_action"]) | set(pairs["model_action"])
    actions = [action for action in dict.fromkeys(lever.actions) if action in observed]
    first_cases = pairs.sort("case_key").unique("unit", keep="first")
    return [
        _compute_action_change(pairs, first_cases, version, lever.id, action) for action in actions
    ]


def _compute_action_change(
    pairs: pl.DataFrame, first_cases: pl.DataFrame, version: str, lever: str, action: str
) -> ActionFrequencyChange:
    human_acts, model_acts = pl.col("human_action") == action, pl.col("model_action") == action
    difference = model_acts.cast(pl.Int64) - human_acts.cast(pl.Int64)
    units = (
        pairs.group_by("unit")
        .agg(
            gap=difference.sum(),
            size=pl.len(),
            square=(difference * difference).sum(),
            people=human_acts.sum(),
            model=model_acts.sum(),
            model_only=(model_acts & ~human_acts).sum(),
            people_only=(human_acts & ~model_acts).sum(),
        )
        .sort("unit")
    )  # a fixed order makes sums reproducible to the last digit
    number = compute_difference_number(
        *(units[name].to_numpy() for name in ("gap", "size", "square"))
    )
    model_only, human_only = int(units["model_only"].sum()), int(units["people_only"].sum())
    return ActionFrequencyChange(
        version=version,
        lever=lever,
        action=action,
        by_people=int(units["people"].sum()),
        by_model=int(units["model"].sum()),
        change=compute_paired_change(model_only, human_only, pairs.height, number),
        log_e=compute_paired_log_e(
            first_cases.filter(model_acts & ~human_acts).height,
            first_cases.filter(human_acts & ~model_acts).height,
        ),
    )
