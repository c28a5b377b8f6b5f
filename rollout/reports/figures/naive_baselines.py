"""When three plain rules would have widened each cell; for comparison only.

The rules look at each decision as it comes, count every case and drop missing decisions. They
repeat a fixed-sample comparison at every look, so their error rate is not controlled.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rollout.core.calendar.instants import from_micros, to_micros
from rollout.core.calendar.sites import Cell
from rollout.reports.figures.model_cost import add_costs
from rollout.reports.inputs.evidence_inputs import CellVersion
from rollout.reports.inputs.inputs import ReportInputs
from rollout.reports.inputs.pairs import Pairs
from rollout.reports.statistics.intervals import Share, compute_unit_share

Bools = NDArray[np.bool_]

MIN_CASES, BLOCK_SIZE, BLOCKS_IN_A_ROW = 100, 50, 3
RATE_RULE = "the cell's agreement is at the threshold, from 100 cases on"
BLOCKS_RULE = "three times 50 cases in a row are at the threshold"
SITE_RATE_RULE = "the site's agreement is at the threshold, from 100 cases on"


@dataclass(frozen=True, slots=True)
class NaiveOpening:
    """A cell that a plain rule widens before the engine does.

    Attributes:
        site, window, version: the cell and the version.
        rule: its text; the threshold is that of the first gate's agreement.
        opened_at, decided_cases: when, and after how many decided cases of the cell.
        engine_opened_at: when the engine widened the cell for this version; None if never.
        wrong: wrong actions of the model among cases with known truth between the two times.
        by_outcome: those of these cases whose truth is an outcome.
        human_wrong: the same for humans, on cases with known outcome.
    """

    site: str
    window: str
    version: str
    rule: str
    opened_at: datetime
    decided_cases: int
    engine_opened_at: datetime | None
    wrong: Share
    by_outcome: int
    human_wrong: Share


def find_naive_openings(inputs: ReportInputs, pairs: Pairs) -> tuple[NaiveOpening, ...]:
    """Return every opening by a plain rule before the engine's, by cell."""
    cases = build_naive_cases(inputs, pairs, inputs.records.predictions)
    return tuple(
        opening for key in inputs.cell_versions for opening in _find_openings(key, cases, inputs)
    )


def build_naive_cases(
    inputs: ReportInputs, pairs: Pairs, predictions: pl.DataFrame
) -> pl.DataFrame:
    """Return the cases of predictions with errors and `agrees`, sorted by time."""
    unit = pl.col("unit").rank("dense")
    case_times = inputs.cases.lazy().select("case_key", "site", "window", "occurred_us", unit)
    predicted = case_times.join(predictions.lazy().select("case_key", "version"), on="case_key")
    lever_pairs = pairs.frame.lazy().filter(pl.col("lever") == inputs.policy.whole_unit_lever)
    agreements = lever_pairs.select("case_key", "version", "agrees")
    cases = predicted.join(agreements, on=["case_key", "version"], how="left").collect()
    return add_costs(inputs, cases).sort("occurred_us", "case_key")


def _find_openings(
    key: CellVersion, cases: pl.DataFrame, inputs: ReportInputs
) -> Iterator[NaiveOpening]:
    cell, version = key
    threshold = _find_threshold(cell, inputs)
    if threshold is None:
        return
    site_cases = cases.filter((pl.col("site") == cell.site) & (pl.col("version") == version))
    reviewed = site_cases.filter(pl.col("agrees").is_not_null())
    in_cell = (reviewed["window"] == cell.window).to_numpy()
    agrees = reviewed["agrees"].to_numpy()
    engine_at = _find_engine_opening(key, inputs)
    for rule, find_opening in _build_rules(threshold, in_cell):
        index = find_opening(agrees)
        at = None if index is None else from_micros(int(reviewed["occurred_us"][index]))
        if index is not None and at is not None and (engine_at is None or at < engine_at):
            later_cases = site_cases.filter(
                (pl.col("window") == cell.window)
                & (pl.col("occurred_us") > int(reviewed["occurred_us"][index]))
            )
            later_cases = (
                later_cases
                if engine_at is None
                else later_cases.filter(_build_before_expression(engine_at))
            )
            yield NaiveOpening(
                site=cell.site,
                window=cell.window,
                version=version,
                rule=rule,
                opened_at=at,
                decided_cases=int(in_cell[: index + 1].sum()),
                engine_opened_at=engine_at,
                wrong=_compute_wrong_share(later_cases, "known", "wrong_action"),
                by_outcome=int(later_cases["by_outcome"].sum()),
                human_wrong=_compute_wrong_share(
                    later_cases, "people_known", "people_wrong_action"
                ),
            )


def _find_threshold(cell: Cell, inputs: ReportInputs) -> float | None:
    """Return the threshold of agreement of the cell's first gate, if any."""
    conditions = inputs.policy.list_conditions(1, cell)  # no gain: no stage below has arms
    return next(
        (condition.threshold for condition in conditions if condition.is_whole_agreement),
        None,
    )


def _find_engine_opening(key: CellVersion, inputs: ReportInputs) -> datetime | None:
    return next(
        (event.at for event in inputs.events if event.opened_key == key),
        None,
    )


def _build_before_expression(at: datetime) -> pl.Expr:
    return pl.col("occurred_us") < to_micros(at)


def _compute_wrong_share(cases: pl.DataFrame, known_column: str, wrong_column: str) -> Share:
    return compute_unit_share(cases.filter(known_column), wrong_column)


def _build_rules(
    threshold: float, in_cell: Bools
) -> list[tuple[str, Callable[[Bools], int | None]]]:
    """Return each rule with the function that finds its opening case."""
    everywhere = np.ones(len(in_cell), dtype=bool)
    return [
        (RATE_RULE, lambda agrees: find_rate_crossing(agrees, in_cell, threshold)),
        (BLOCKS_RULE, lambda agrees: find_block_crossing(agrees, in_cell, threshold)),
        (SITE_RATE_RULE, lambda agrees: find_rate_crossing(agrees, everywhere, threshold)),
    ]


def find_rate_crossing(agrees: Bools, selection: Bools, threshold: float) -> int | None:
    """Return the first index where the running rate reaches the threshold, or None."""
    indices = np.flatnonzero(selection)
    agreeing = np.cumsum(agrees[indices])
    n = np.arange(1, len(indices) + 1)
    crossings = np.flatnonzero((n >= MIN_CASES) & (agreeing >= threshold * n))
    return int(indices[crossings[0]]) if len(crossings) else None


def find_block_crossing(agrees: Bools, selection: Bools, threshold: float) -> int | None:
    """Return the last index of the first three consecutive blocks at the threshold."""
    indices = np.flatnonzero(selection)
    block_count = len(indices) // BLOCK_SIZE
    block_passes = (
        agrees[indices[: block_count * BLOCK_SIZE]].reshape(block_count, BLOCK_SIZE).sum(axis=1)
        >= threshold * BLOCK_SIZE
    )
    for last in range(BLOCKS_IN_A_ROW - 1, block_count):
        if block_passes[last - BLOCKS_IN_A_ROW + 1 : last + 1].all():
            return int(indices[(last + 1) * BLOCK_SIZE - 1])
    return None
