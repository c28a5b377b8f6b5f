"""What would be done otherwise: actions by the model against those by people, on the same cases."""

from dataclasses import dataclass

import polars as pl

from rollout.core.policy.levers import Lever
from rollout.core.policy.policy import Policy
from rollout.core.statistics.evidence import log_e_paired
from rollout.reports.inputs.pairs import Pairs
from rollout.reports.statistics.intervals import Change, independent_share, paired_change


@dataclass(frozen=True, slots=True)
class ActionChange:
    """One action: how often model and people take it, on the cases that both decided.

    `change` is by how many more of 100 cases the model acts so. `log_e` weighs the difference
    against chance, valid at every look, over one case of each unit: bursts are no evidence.
    """

    version: str
    lever: str
    action: str
    by_people: int
    by_model: int
    change: Change
    log_e: float


def action_changes(pairs: Pairs, policy: Policy) -> tuple[ActionChange, ...]:
    """Return the change of every action that anybody took; numbers are their own action: none."""
    return tuple(
        change
        for version in pairs.predicted
        for lever in policy.levers
        if lever.number is None
        for change in _of_lever(pairs.of(version, lever.id), version, lever)
    )


def _of_lever(pairs: pl.DataFrame, version: str, lever: Lever) -> list[ActionChange]:
    observed = set(pairs["human_action"]) | set(pairs["model_action"])
    actions = [action for action in dict.fromkeys(lever.actions) if action in observed]
    return [_of_action(pairs, version, lever.id, action) for action in actions]


def _of_action(pairs: pl.DataFrame, version: str, lever: str, action: str) -> ActionChange:
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
    )  # in another order the sums would differ in their last digit
    effective = independent_share(*(units[name].to_numpy() for name in ("gap", "size", "square")))
    model_only, human_only = int(units["model_only"].sum()), int(units["people_only"].sum())
    first_cases = pairs.sort("case_key").unique("unit", keep="first")
    return ActionChange(
        version=version,
        lever=lever,
        action=action,
        by_people=int(units["people"].sum()),
        by_model=int(units["model"].sum()),
        change=paired_change(model_only, human_only, pairs.height, effective),
        log_e=log_e_paired(
            first_cases.filter(model_acts & ~human_acts).height,
            first_cases.filter(human_acts & ~model_acts).height,
        ),
    )
