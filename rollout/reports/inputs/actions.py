"""Changes in action frequency: the model against humans, on the same cases."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rollout.core.policy.levers import Lever
from rollout.core.policy.policy import Policy
from rollout.core.statistics.evidence import compute_paired_log_e
from rollout.reports.inputs.pairs import Pairs
from rollout.reports.statistics.intervals import (
    PairedChange,
    compute_case_difference_number,
    compute_paired_change,
)

Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class CountedActionChange:
    """How often model and humans take one action, on the cases that both decided.

    `change` is model minus humans, per 100 cases.
    """

    version: str
    lever: str
    action: str
    by_human: int
    by_model: int
    change: PairedChange


@dataclass(frozen=True, slots=True)
class ActionFrequencyChange(CountedActionChange):
    """How often model and humans take one action, and the evidence of a difference.

    `log_e` is valid at every look, over one case of each unit.
    """

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
    human_acts, model_acts = _find_action(pairs, action)
    difference = model_acts.astype(np.int64) - human_acts
    number = compute_case_difference_number(pairs["unit"], difference)
    model_only, human_only = int(np.sum(difference > 0)), int(np.sum(difference < 0))
    first_human, first_model = _find_action(first_cases, action)
    return ActionFrequencyChange(
        version=version,
        lever=lever,
        action=action,
        by_human=int(human_acts.sum()),
        by_model=int(model_acts.sum()),
        change=compute_paired_change(model_only, human_only, pairs.height, number),
        log_e=compute_paired_log_e(
            int(np.sum(first_model & ~first_human)), int(np.sum(first_human & ~first_model))
        ),
    )


def _find_action(pairs: pl.DataFrame, action: str) -> tuple[Bools, Bools]:
    """Return on which cases humans, and the model, take an action."""
    human_acts, model_acts = pairs["human_action"] == action, pairs["model_action"] == action
    return human_acts.to_numpy(), model_acts.to_numpy()
