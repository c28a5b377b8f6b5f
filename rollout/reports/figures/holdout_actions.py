"""What the model does beside what people do, on cases that a draw parted: the hold-out's actions.

On a stage where the model decides, a drawn share of the cases still goes to people unseen. Whoever
decided, at each moment the same cases come; so if actions are alike, each action was the model's
with the chance of its draw, whatever the season (statistics.md §16).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from rollout.core.policy.levers import Lever
from rollout.reports.inputs.decided_by import MODEL, PERSON
from rollout.reports.inputs.inputs import Inputs
from rollout.reports.inputs.pairs import OTHER_ACTION, single_verdicts
from rollout.reports.statistics.concurrent_change import log_e_concurrent
from rollout.reports.statistics.differences import Difference, period_difference
from rollout.tally.frames import VALUE


@dataclass(frozen=True, slots=True)
class ActionHeldOut:
    """One action: how often the model took it, and people on the cases held out for them.

    `change` is the model minus people, per 100 cases.
    """

    action: str
    by_model: int
    by_people: int
    change: Difference


@dataclass(frozen=True, slots=True)
class HoldOutActions:
    """One lever on one stage on which the model decides and a share goes to people.

    Attributes:
        lever, stage: of what.
        share: of cases that go to people, by the draw.
        model_cases, people_cases: units that the model decided, and that people answered.
        unanswered: units held out for people without an answer; taken as like the others.
        actions: every action that anybody took.
        log_e: evidence that actions are not alike, valid at every look; None where a side has
            no cases.
    """

    lever: str
    stage: str
    share: float
    model_cases: int
    people_cases: int
    unanswered: int
    actions: tuple[ActionHeldOut, ...]
    log_e: float | None


def hold_out_actions(inputs: Inputs, drawn: pl.DataFrame) -> tuple[HoldOutActions, ...]:
    """Return every lever of labels on every stage where the model decides beside a hold-out.

    Args:
        inputs: for answers and verdicts.
        drawn: every case as `audits.drawn_cases` gives it.
    """
    eligible = drawn.filter(pl.col("decides") & pl.col("usable") & (pl.col("blind") > 0))
    sides = eligible.filter(pl.col("decider").is_in([MODEL, PERSON]))
    first_cases = (
        sides.sort("case_key").unique("unit", keep="first").sort("stage", "blind", "case_key")
    )
    stages = first_cases.partition_by("stage", "blind", as_dict=True, maintain_order=True)
    return tuple(
        _of(inputs, lever, str(stage), float(blind_share), part)
        for (stage, blind_share), part in stages.items()
        for lever in inputs.policy.levers
        if lever.number is None
    )


def _of(
    inputs: Inputs, lever: Lever, stage: str, blind: float, cases: pl.DataFrame
) -> HoldOutActions:
    column = VALUE + lever.id
    answers = inputs.records.predictions.select("case_key", "version", label=column)
    by_model = cases.filter(pl.col("decider") == MODEL).join(answers, on=["case_key", "version"])
    held_out = cases.filter(pl.col("decider") == PERSON)
    decisions = single_verdicts(inputs.records, column).rename({"human": "label"})
    by_humans = held_out.join(decisions, on="case_key")
    model_counts, human_counts = _actions(lever, by_model), _actions(lever, by_humans)
    sizes = by_model.height, by_humans.height
    action_names = [
        action
        for action in (*dict.fromkeys(lever.actions), OTHER_ACTION)
        if action in {*model_counts, *human_counts}
    ]
    return HoldOutActions(
        lever=lever.id,
        stage=stage,
        share=blind,
        model_cases=sizes[0],
        people_cases=sizes[1],
        unanswered=held_out.height - sizes[1],
        actions=tuple(_held_out(name, model_counts, human_counts, sizes) for name in action_names),
        log_e=_log_e(action_names, model_counts, human_counts, blind, (held_out.height, sizes[1])),
    )


def _actions(lever: Lever, cases: pl.DataFrame) -> Mapping[str, int]:
    counts: dict[str, int] = {}
    for label, count in cases.group_by("label").len().sort("label").iter_rows():
        action = lever.action(label) or OTHER_ACTION
        counts[action] = counts.get(action, 0) + count
    return counts


def _held_out(
    action: str, model: Mapping[str, int], people: Mapping[str, int], sizes: tuple[int, int]
) -> ActionHeldOut:
    model_count, human_count = model.get(action, 0), people.get(action, 0)
    return ActionHeldOut(
        action,
        model_count,
        human_count,
        period_difference(model_count, sizes[0], human_count, sizes[1]),
    )


def _log_e(
    names: Sequence[str],
    model: Mapping[str, int],
    people: Mapping[str, int],
    blind: float,
    answered: tuple[int, int],
) -> float | None:
    """Return the evidence, the hold-out made smaller by the part of it that nobody answered."""
    held_out_count, answered_count = answered
    if not model or not people:
        return None
    effective_share = blind * answered_count / held_out_count
    return log_e_concurrent(
        [model.get(name, 0) for name in names],
        [people.get(name, 0) for name in names],
        share=(1 - blind) / (1 - blind + effective_share),
    )
