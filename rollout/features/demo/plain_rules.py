"""What plain rules would have done with one cell, each opening it once and for good.

The rules look at each decision as it comes, count every case and drop missing decisions.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from rollout.core.calendar.instants import from_micros
from rollout.core.calendar.sites import Cell
from rollout.reports.figures.naive_baselines import (
    build_naive_cases,
    find_block_crossing,
    find_rate_crossing,
)
from rollout.reports.inputs.inputs import ReportInputs

SURE = 0.9
CELL_RULE = "the cell's agreement is at the threshold, from 100 cases on"
BLOCKS_RULE = "three windows of 50 cases in a row are at the threshold"
ROLLOUT_RULE = "the whole rollout's agreement is at the threshold, from 100 cases on"
CONFIDENCE_RULE = "the model decides each case with a confidence of at least 90 %"


@dataclass(frozen=True, slots=True)
class PlainRuleResult:
    """What one plain rule would have done with a version in a cell.

    Attributes:
        rule: its text.
        opened_at: when it opens the cell; None if never.
        cases: that the model would have decided from then on.
        known, wrong: those of them with a known truth, and the wrong actions among them.
        cost: of the wrong actions, in the policy's unit.
        people_known, people_wrong, people_cost: the same for humans, on cases with an outcome.
    """

    rule: str
    opened_at: datetime | None
    cases: int
    known: int
    wrong: int
    cost: float
    people_known: int
    people_wrong: int
    people_cost: float


def compute_plain_rules(
    inputs: ReportInputs, cell: Cell, version: str, threshold: float
) -> tuple[PlainRuleResult, ...]:
    """Return what each plain rule would have done with a version in a cell."""
    predictions = inputs.records.predictions.filter(pl.col("version") == version)
    confidences = predictions.select("case_key", "version", "confidence")
    cases = build_naive_cases(inputs, inputs.pairs, predictions)
    cases = cases.join(confidences, on=["case_key", "version"], how="left")
    in_cell = (pl.col("site") == cell.site) & (pl.col("window") == cell.window)
    cell_cases = cases.filter(in_cell)
    by_agreement = (
        _compute_result(rule, opened_us, cell_cases)
        for rule, opened_us in _find_openings(cases, cell, threshold)
    )
    return (*by_agreement, _compute_confidence_result(cell_cases))


def _find_openings(
    cases: pl.DataFrame, cell: Cell, threshold: float
) -> Iterator[tuple[str, int | None]]:
    """Yield each rule of agreement with the microsecond at which it opens the cell, or None."""
    reviewed = cases.filter(pl.col("agrees").is_not_null())
    agrees, times = reviewed["agrees"].to_numpy(), reviewed["occurred_us"]
    in_cell = ((reviewed["site"] == cell.site) & (reviewed["window"] == cell.window)).to_numpy()
    everywhere = in_cell | True
    crossings: list[tuple[str, Callable[[], int | None]]] = [
        (CELL_RULE, lambda: find_rate_crossing(agrees, in_cell, threshold)),
        (BLOCKS_RULE, lambda: find_block_crossing(agrees, in_cell, threshold)),
        (ROLLOUT_RULE, lambda: find_rate_crossing(agrees, everywhere, threshold)),
    ]
    for rule, find_crossing in crossings:
        index = find_crossing()
        yield rule, None if index is None else int(times[index])


def _compute_result(rule: str, opened_us: int | None, cases: pl.DataFrame) -> PlainRuleResult:
    after = cases.clear() if opened_us is None else cases.filter(pl.col("occurred_us") > opened_us)
    return _sum_cases(rule, opened_us, after)


def _compute_confidence_result(cases: pl.DataFrame) -> PlainRuleResult:
    sure = cases.filter(pl.col("confidence") >= SURE)
    return _sum_cases(CONFIDENCE_RULE, sure["occurred_us"].min(), sure)


def _sum_cases(rule: str, opened_us: object, cases: pl.DataFrame) -> PlainRuleResult:
    with_truth, with_both = cases.filter("known"), cases.filter("people_known")
    return PlainRuleResult(
        rule=rule,
        opened_at=from_micros(opened_us) if isinstance(opened_us, int) else None,
        cases=cases.height,
        known=with_truth.height,
        wrong=int(with_truth["wrong_action"].sum()),
        cost=float(with_truth["cost"].sum()),
        people_known=with_both.height,
        people_wrong=int(with_both["people_wrong_action"].sum()),
        people_cost=float(with_both["people_cost"].sum()),
    )
