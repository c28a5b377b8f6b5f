"""What it cost that the model decided: how often it was wrong, and people on the same cases."""

from dataclasses import dataclass

import polars as pl

from rollout.core.policy.levers import Lever
from rollout.reports.inputs.decided_by import MODEL
from rollout.reports.inputs.inputs import Inputs
from rollout.reports.inputs.pairs import UNSEEN, compared
from rollout.reports.statistics.intervals import Share, clustered_share
from rollout.tally.frames import VALUE


@dataclass(frozen=True, slots=True)
class Price:
    """The cases that the model decided: nobody looked before anything was done.

    Attributes:
        cases, audited: how many, and how many of them a person judged afterwards.
        known: cases whose truth is known: the outcome, else the unseen verdict of a person.
        by_outcome: of these, the ones whose outcome is known.
        wrong: known cases on which the model's label was wrong.
        wrong_action: known cases on which something else was done than was right.
        cost: what the wrong ones cost, in the policy's unit.
        people_known: cases with both an outcome and an unseen verdict.
        people_wrong, people_wrong_action, people_cost: people on these; None without outcomes.
    """

    cases: int
    audited: int
    known: int
    by_outcome: int
    wrong: Share
    wrong_action: Share
    cost: float | None
    people_known: int
    people_wrong: int | None
    people_wrong_action: int | None
    people_cost: float | None


@dataclass(frozen=True, slots=True)
class CellPrice:
    """The price in one cell, by one version."""

    site: str
    window: str
    version: str
    price: Price


def priced_cases(inputs: Inputs, placed: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of `standing` that the model decided, with what was right."""
    return weighed(inputs, placed.filter(pl.col("decider") == MODEL)).sort("t", "case_key")


def weighed(inputs: Inputs, cases: pl.DataFrame) -> pl.DataFrame:
    """Return cases with what doing as a version said would have cost, and people beside it.

    Args:
        inputs: for the records and the policy.
        cases: columns case_key, version and any others.

    Returns:
        The same rows with known, by_outcome, wrong, wrong_action, cost, people_known,
        people_wrong, people_wrong_action, people_cost; a case is wrong when it is on any lever.
    """
    levers = [_of_lever(inputs, cases, lever) for lever in inputs.policy.levers]
    combined = (
        pl.concat(levers)
        .group_by("case_key", "version")
        .agg(
            pl.col("known", "by_outcome", "people_known").all(),
            pl.col("wrong", "wrong_action", "people_wrong", "people_wrong_action").any(),
            pl.col("cost", "people_cost").sum(),
        )
    )
    return cases.join(combined, on=["case_key", "version"], how="left")


def _of_lever(inputs: Inputs, asked: pl.DataFrame, lever: Lever) -> pl.DataFrame:
    column = VALUE + lever.id
    records = inputs.records
    answers = records.predictions.select("case_key", "version", model=column)
    outcomes = records.outcomes.select("case_key", outcome=column)
    decisions = _first_verdicts(inputs, column)
    cases = asked.select("case_key", "version").join(answers, on=["case_key", "version"])
    cases = cases.join(outcomes, on="case_key", how="left").join(
        decisions, on="case_key", how="left"
    )
    cases = cases.with_columns(right=pl.coalesce("outcome", "verdict"))
    by_model = _judged(lever, cases, "right", "model")
    by_humans = _judged(lever, cases, "outcome", "verdict")
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


def _first_verdicts(inputs: Inputs, column: str) -> pl.DataFrame:
    """Return the first unseen answer to each case: case_key, verdict."""
    unassisted = inputs.records.decisions.filter(pl.col("exposure").is_in(UNSEEN))
    first = unassisted.drop_nulls(column).sort("seat", "at", "reviewer", nulls_last=True)
    return first.unique("case_key", keep="first").select("case_key", verdict=column)


def _judged(lever: Lever, cases: pl.DataFrame, right: str, said: str) -> pl.DataFrame:
    """Return for each case whether `said` was wrong, in label and in action, and its cost."""
    answers = cases.select("case_key", human=right, model=said)
    comparison = compared(lever, answers.drop_nulls())
    joined = answers.join(comparison, on=["human", "model"], how="left", maintain_order="left")
    return joined.select(
        wrong=~pl.col("agrees"), wrong_action=~pl.col("same_action"), cost=pl.col("cost")
    )


def price_of(cases: pl.DataFrame) -> Price:
    """Return the price of the given rows of `priced_cases`."""
    with_truth, with_both = cases.filter("known"), cases.filter("people_known")
    has_both = with_both.height > 0
    return Price(
        cases=cases.height,
        audited=int(cases["audited"].sum()),
        known=with_truth.height,
        by_outcome=int(cases["by_outcome"].sum()),
        wrong=_share(with_truth, "wrong"),
        wrong_action=_share(with_truth, "wrong_action"),
        cost=float(with_truth["cost"].sum()) if with_truth.height else None,
        people_known=with_both.height,
        people_wrong=int(with_both["people_wrong"].sum()) if has_both else None,
        people_wrong_action=int(with_both["people_wrong_action"].sum()) if has_both else None,
        people_cost=float(with_both["people_cost"].sum()) if has_both else None,
    )


def _share(known: pl.DataFrame, column: str) -> Share:
    units = known.group_by("unit").agg(pl.col(column).sum(), size=pl.len()).sort("unit")
    return clustered_share(units[column].to_numpy(), units["size"].to_numpy())


def cell_prices(cases: pl.DataFrame) -> tuple[CellPrice, ...]:
    """Return the price of every cell and version in which the model decided anything."""
    parts = cases.sort("site", "window", "version").partition_by(
        "site", "window", "version", as_dict=True, maintain_order=True
    )
    return tuple(
        CellPrice(str(site), str(window), str(version), price_of(part))
        for (site, window, version), part in parts.items()
    )
