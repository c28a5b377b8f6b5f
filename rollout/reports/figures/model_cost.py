"""Cost of the model's decisions, compared with humans on the same cases."""

from dataclasses import dataclass

import polars as pl

from rollout.core.policy.levers import Lever
from rollout.reports.inputs.decided_by import MODEL
from rollout.reports.inputs.inputs import ReportInputs
from rollout.reports.inputs.pairs import UNASSISTED_EXPOSURES, compare_pairs
from rollout.reports.statistics.intervals import Share, compute_unit_share
from rollout.tally.frames import VALUE_PREFIX


@dataclass(frozen=True, slots=True)
class ModelCost:
    """Errors and cost of the cases that the model decided.

    Attributes:
        cases, audited: all such cases, and those with an audit.
        known_cases: cases with a known truth: the outcome, else the first unassisted decision.
        by_outcome: cases with a known outcome.
        wrong: known cases on which the model's label was wrong.
        wrong_action: known cases on which the wrong action was taken.
        cost: cost of the wrong actions, in the policy's unit.
        human_known_cases: cases with both an outcome and an unassisted decision.
        human_wrong, human_wrong_action, human_cost: humans on these; None without outcomes.
    """

    cases: int
    audited: int
    known_cases: int
    by_outcome: int
    wrong: Share
    wrong_action: Share
    cost: float | None
    human_known_cases: int
    human_wrong: int | None
    human_wrong_action: int | None
    human_cost: float | None


@dataclass(frozen=True, slots=True)
class CellModelCost:
    """The model's cost in one cell, by version."""

    site: str
    window: str
    version: str
    cost: ModelCost


def build_model_cases(inputs: ReportInputs, cases: pl.DataFrame) -> pl.DataFrame:
    """Return the cases that the model decided, with errors and costs."""
    return add_costs(inputs, cases.filter(pl.col("decider") == MODEL)).sort(
        "occurred_us", "case_key"
    )


def add_costs(inputs: ReportInputs, cases: pl.DataFrame) -> pl.DataFrame:
    """Return cases with the errors and costs of a version and of humans.

    `cases`: columns case_key, version and any others.

    Returns:
        The same rows with known, by_outcome, wrong, wrong_action, cost, people_known,
        people_wrong, people_wrong_action, people_cost; wrong means wrong on any lever.
    """
    levers = [_compute_lever_costs(inputs, cases, lever) for lever in inputs.policy.levers]
    combined = (
        pl.concat(levers)
        .lazy()
        .group_by("case_key", "version")
        .agg(
            pl.col("known", "by_outcome", "people_known").all(),
            pl.col("wrong", "wrong_action", "people_wrong", "people_wrong_action").any(),
            pl.col("cost", "people_cost").sum(),
        )
    )
    return cases.lazy().join(combined, on=["case_key", "version"], how="left").collect()


def _compute_lever_costs(
    inputs: ReportInputs, case_frame: pl.DataFrame, lever: Lever
) -> pl.DataFrame:
    column = VALUE_PREFIX + lever.id
    records = inputs.records
    answers = records.predictions.lazy().select("case_key", "version", model=column)
    outcomes = records.outcomes.lazy().select("case_key", outcome=column)
    decisions = _find_first_decisions(inputs, column)
    keys = case_frame.lazy().select("case_key", "version")
    cases = (
        keys.join(answers, on=["case_key", "version"])
        .join(outcomes, on="case_key", how="left")
        .join(decisions, on="case_key", how="left")
        .with_columns(right=pl.coalesce("outcome", "verdict"))
        .collect()
    )
    by_model = _compute_errors(lever, cases, "right", "model")
    by_humans = _compute_errors(lever, cases, "outcome", "verdict")
    return cases.select(
        "case_key",
        "version",
        known=pl.col("right").is_not_null(),
        by_outcome=pl.col("outcome").is_not_null(),
        wrong=by_model["wrong"],
        wrong_action=by_model["wrong_action"],
        cost=by_model["cost"],
        people_known=pl.col("outcome").is_not_null() & pl.col("verdict").is_not_null(),
        people_wrong=by_humans["wrong"],
        people_wrong_action=by_humans["wrong_action"],
        people_cost=by_humans["cost"],
    )


def _find_first_decisions(inputs: ReportInputs, column: str) -> pl.LazyFrame:
    """Return the first unassisted answer to each case: case_key, verdict."""
    decisions = inputs.records.decisions.lazy()
    unassisted = decisions.filter(pl.col("exposure").is_in(UNASSISTED_EXPOSURES))
    first = unassisted.drop_nulls(column).sort("seat", "at", "reviewer", nulls_last=True)
    return first.unique("case_key", keep="first").select("case_key", verdict=column)


def _compute_errors(
    lever: Lever, cases: pl.DataFrame, truth_column: str, answer_column: str
) -> pl.DataFrame:
    """Return for each case the errors of `answer_column` and their cost."""
    answers = cases.select("case_key", human=truth_column, model=answer_column)
    comparison = compare_pairs(lever, answers.drop_nulls())
    joined = answers.join(comparison, on=["human", "model"], how="left", maintain_order="left")
    return joined.select(
        wrong=~pl.col("agrees"), wrong_action=~pl.col("same_action"), cost=pl.col("cost")
    )


def compute_model_cost(cases: pl.DataFrame) -> ModelCost:
    """Return the cost of rows of `build_model_cases`."""
    with_truth, with_both = cases.filter("known"), cases.filter("people_known")
    has_both = with_both.height > 0
    return ModelCost(
        cases=cases.height,
        audited=int(cases["audited"].sum()),
        known_cases=with_truth.height,
        by_outcome=int(cases["by_outcome"].sum()),
        wrong=compute_unit_share(with_truth, "wrong"),
        wrong_action=compute_unit_share(with_truth, "wrong_action"),
        cost=float(with_truth["cost"].sum()) if with_truth.height else None,
        human_known_cases=with_both.height,
        human_wrong=int(with_both["people_wrong"].sum()) if has_both else None,
        human_wrong_action=int(with_both["people_wrong_action"].sum()) if has_both else None,
        human_cost=float(with_both["people_cost"].sum()) if has_both else None,
    )


def compute_cell_costs(cases: pl.DataFrame) -> tuple[CellModelCost, ...]:
    """Return the model's cost in every cell and version with a decision of it."""
    parts = cases.sort("site", "window", "version").partition_by(
        "site", "window", "version", as_dict=True, maintain_order=True
    )
    return tuple(
        CellModelCost(str(site), str(window), str(version), compute_model_cost(part))
        for (site, window, version), part in parts.items()
    )
