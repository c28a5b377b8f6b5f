"""Cases that went to humans because the acting version was not familiar with them."""

from dataclasses import dataclass

import polars as pl

from rollout.reports.figures.model_cost import add_costs
from rollout.reports.inputs.decided_by import MODEL
from rollout.reports.inputs.inputs import ReportInputs
from rollout.reports.statistics.intervals import Share, compute_unit_share


@dataclass(frozen=True, slots=True)
class UnfamiliarCases:
    """The cases of one cell and version with the same unfamiliar values.

    They are evidence for no gate and no guard.

    Attributes:
        values: the unfamiliar values, in words.
        cases: how many.
        share: of the cell's cases while the version acted.
        agreement: the version's label against the known truth: the outcome, else the first
            unassisted decision.
        by_outcome: those of these cases whose truth is an outcome.
        model_cases: cases that the stage alone would have given to the model.
        prevented: of these, cases with a known truth and another action of the model.
    """

    site: str
    window: str
    version: str
    values: str
    cases: int
    share: float
    agreement: Share
    by_outcome: int
    model_cases: int
    prevented: int


def compute_unfamiliar_cases(
    inputs: ReportInputs, decided_cases: pl.DataFrame
) -> tuple[UnfamiliarCases, ...]:
    """Return the unfamiliar cases by cell, version and values, most first.

    `decided_cases` are the rows of `assign_deciders`.
    """
    acting = decided_cases.filter(pl.col("version").is_not_null())
    if acting["unfamiliar"].null_count() == acting.height:
        return ()
    key = ["site", "window", "version"]
    totals = acting.group_by(key).agg(total=pl.len())
    unfamiliar = add_costs(inputs, acting.filter(pl.col("unfamiliar").is_not_null()))
    unfamiliar = unfamiliar.join(totals, on=key).with_columns(right=~pl.col("wrong"))
    parts = unfamiliar.partition_by([*key, "unfamiliar"], as_dict=True, maintain_order=True)
    rows = [_count_part(names, part) for names, part in parts.items()]
    return tuple(sorted(rows, key=lambda row: (-row.cases, row.site, row.window, row.values)))


def _count_part(names: tuple[object, ...], part: pl.DataFrame) -> UnfamiliarCases:
    site, window, version, values = map(str, names)
    by_model = part.filter(pl.col("stage_decider") == MODEL)
    return UnfamiliarCases(
        site=site,
        window=window,
        version=version,
        values=values,
        cases=part.height,
        share=part.height / int(part["total"][0]),
        agreement=compute_unit_share(part.filter("known"), "right"),
        by_outcome=int(part["by_outcome"].sum()),
        model_cases=by_model.height,
        prevented=int(by_model.filter("known")["wrong_action"].sum()),
    )
