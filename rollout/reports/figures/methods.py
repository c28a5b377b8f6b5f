"""Human decisions, the model's decisions and its errors under other ways to open cells.

The ways are a gate for each confidence floor, one gate for each whole cell, and a plain threshold
of confidence, which needs no evidence. All are about the same cases.
"""

from dataclasses import dataclass

import polars as pl

from rollout.core.policy.confidence_floors import format_floor, list_floors
from rollout.reports.figures.model_cost import (
    ModelCost,
    add_costs,
    build_model_cases,
    compute_model_cost,
)
from rollout.reports.inputs.decided_by import assign_deciders
from rollout.reports.inputs.inputs import ReportInputs
from rollout.tally.frames import VALUE_PREFIX

FLOORS, WHOLE_CELL, PLAIN = "floors", "whole cell", "plain threshold"


@dataclass(frozen=True, slots=True)
class MethodOutcome:
    """What one way to open cells gives, over all cases in cells.

    Attributes:
        kind: `floors`, `whole cell` or `plain threshold`.
        floor: of a plain threshold, the confidence from which on the model decides; else "".
        human_decisions: cases that a human decides, confirms or audits.
        model_cost: the cases that the model decides, and its errors.
    """

    kind: str
    floor: str
    human_decisions: int
    model_cost: ModelCost


def compare_methods(
    inputs: ReportInputs, decided_cases: pl.DataFrame, model_cases: pl.DataFrame
) -> tuple[MethodOutcome, ...]:
    """Return the ways to open cells; () without a replay that has one gate for each cell.

    `decided_cases` are the rows of `assign_deciders`, `model_cases` those of `build_model_cases`.
    """
    whole = inputs.whole_cells
    if whole is None:
        return ()
    whole_cases = assign_deciders(whole)
    total, answers = decided_cases.height, _find_newest_answers(inputs, decided_cases)
    return (
        _sum_method(FLOORS, total, model_cases),
        _sum_method(WHOLE_CELL, total, build_model_cases(whole, whole_cases)),
        *(
            _sum_method(
                PLAIN,
                total,
                add_costs(inputs, answers.filter(pl.col("confidence") >= floor)),
                floor=format_floor(floor),
            )
            for floor in list_floors(inputs.policy.evidence)
            if floor
        ),
    )


def _sum_method(
    kind: str,
    total: int,
    model_cases: pl.DataFrame,
    *,
    floor: str = "",
) -> MethodOutcome:
    price = compute_model_cost(model_cases)
    return MethodOutcome(kind, floor, total - price.cases + price.audited, price)


def _find_newest_answers(inputs: ReportInputs, decided_cases: pl.DataFrame) -> pl.DataFrame:
    """Return the whole answer of each case's newest version: what a plain threshold reads.

    The newest version is the one whose first case is the latest; nothing is audited.
    """
    columns = [VALUE_PREFIX + lever.id for lever in inputs.policy.levers]
    answers = inputs.records.predictions.drop_nulls(columns).select(
        "case_key", "version", "confidence"
    )
    cases = decided_cases.drop("version", "audited").join(answers, on="case_key")
    first_us = pl.col("occurred_us").min().over("version")
    newest = cases.sort(first_us, "version").unique("case_key", keep="last", maintain_order=True)
    return newest.with_columns(audited=pl.lit(value=False)).sort("occurred_us", "case_key")
