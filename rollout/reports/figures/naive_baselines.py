"""What plain rules would have done: for comparison, never for a decision.

Three rules that people write first, on every verdict as it comes, each case a record, missing
verdicts dropped: they look good because they look often (statistics.md §1).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rollout.core.calendar.sites import Cell
from rollout.core.scope.events import TakenOver, Widened
from rollout.reports.figures.model_cost import weighed
from rollout.reports.inputs.inputs import Inputs, Key
from rollout.reports.inputs.pairs import Pairs
from rollout.reports.statistics.intervals import Share, share
from rollout.tally.slots import EPOCH, MICROSECOND

Bools = NDArray[np.bool_]

LEAST, BLOCK, IN_A_ROW = 100, 50, 3
RATE = "the cell's rate reaches the line, from 100 cases on"
BLOCKS = "three times 50 cases in a row reach the line"
SITE_RATE = "the site's rate reaches the line, from 100 cases on"


@dataclass(frozen=True, slots=True)
class NaiveOpening:
    """Where a plain rule opens a cell that the engine opens later, or never.

    Attributes:
        site, window, version: what is opened.
        rule: in words; the line is that of the first gate's agreement.
        opened_at, after: when, and after how many judged cases of the cell.
        engine_at: when the engine widened the cell for this version; None: never.
        wrong: all cases between the two, also those that nobody judged, as far as it is known
            what was right; and those on which the model does something else.
        people_wrong: the same of people, where outcomes are known.
    """

    site: str
    window: str
    version: str
    rule: str
    opened_at: datetime
    after: int
    engine_at: datetime | None
    wrong: Share
    people_wrong: Share


def naive_openings(inputs: Inputs, pairs: Pairs) -> tuple[NaiveOpening, ...]:
    """Return every opening by a plain rule before the engine's, in the order of the cells."""
    cases = _cases(inputs, pairs)
    order = {cell: index for index, cell in enumerate(inputs.policy.cells)}
    keys = sorted(inputs.sights, key=lambda key: (order[key[0]], key[1]))
    return tuple(opening for key in keys for opening in _of(key, cases, inputs))


def _cases(inputs: Inputs, pairs: Pairs) -> pl.DataFrame:
    """Return every predicted case with what was right, in order of time; `agrees` where judged."""
    case_times = inputs.cases.select("case_key", "site", "window", "t")
    predicted = case_times.join(
        inputs.records.predictions.select("case_key", "version"), on="case_key"
    )
    lever_pairs = pairs.frame.filter(pl.col("lever") == inputs.policy.whole)
    agreements = lever_pairs.select("case_key", "version", "agrees")
    cases = predicted.join(agreements, on=["case_key", "version"], how="left")
    return weighed(inputs, cases).sort("t", "case_key")


def _of(key: Key, cases: pl.DataFrame, inputs: Inputs) -> Iterator[NaiveOpening]:
    cell, version = key
    threshold = _line(cell, inputs)
    if threshold is None:
        return
    site_cases = cases.filter((pl.col("site") == cell.site) & (pl.col("version") == version))
    reviewed = site_cases.filter(pl.col("agrees").is_not_null())
    in_cell = (reviewed["window"] == cell.window).to_numpy()
    agrees = reviewed["agrees"].to_numpy()
    engine_at = _engine_at(key, inputs)
    for rule, find_opening in _rules(threshold, in_cell):
        index = find_opening(agrees)
        at = None if index is None else EPOCH + int(reviewed["t"][index]) * MICROSECOND
        if index is not None and at is not None and (engine_at is None or at < engine_at):
            later_cases = site_cases.filter(
                (pl.col("window") == cell.window) & (pl.col("t") > int(reviewed["t"][index]))
            )
            later_cases = (
                later_cases if engine_at is None else later_cases.filter(_before(engine_at))
            )
            yield NaiveOpening(
                site=cell.site,
                window=cell.window,
                version=version,
                rule=rule,
                opened_at=at,
                after=int(in_cell[: index + 1].sum()),
                engine_at=engine_at,
                wrong=_wrong(later_cases, "known", "wrong_action"),
                people_wrong=_wrong(later_cases, "people_known", "people_wrong_action"),
            )


def _line(cell: Cell, inputs: Inputs) -> float | None:
    """Return the line of the agreement that the cell's first gate asks for, if it does."""
    conditions = inputs.policy.required(1, cell)
    return next(
        (
            condition.line
            for condition in conditions
            if condition.measure == "agreement" and condition.lever is None
        ),
        None,
    )


def _engine_at(key: Key, inputs: Inputs) -> datetime | None:
    return next(
        (
            event.at
            for event in inputs.events
            if isinstance(event, Widened | TakenOver) and (event.cell, event.version) == key
        ),
        None,
    )


def _before(at: datetime) -> pl.Expr:
    return pl.col("t") < (at - EPOCH) // MICROSECOND


def _wrong(cases: pl.DataFrame, known: str, wrong: str) -> Share:
    known_cases = cases.filter(known)
    return share(int(known_cases[wrong].sum()), known_cases.height)


def _rules(line: float, here: Bools) -> list[tuple[str, Callable[[Bools], int | None]]]:
    """Return each rule with the function that finds the case at which it opens."""
    everywhere = np.ones(len(here), dtype=bool)
    return [
        (RATE, lambda agrees: rate_reaches(agrees, here, line)),
        (BLOCKS, lambda agrees: blocks_reach(agrees, here, line)),
        (SITE_RATE, lambda agrees: rate_reaches(agrees, everywhere, line)),
    ]


def rate_reaches(agrees: Bools, among: Bools, line: float) -> int | None:
    """Return the first place at which the running rate is at the line, None if it never is."""
    indices = np.flatnonzero(among)
    agreeing = np.cumsum(agrees[indices])
    n = np.arange(1, len(indices) + 1)
    crossings = np.flatnonzero((n >= LEAST) & (agreeing >= line * n))
    return int(indices[crossings[0]]) if len(crossings) else None


def blocks_reach(agrees: Bools, among: Bools, line: float) -> int | None:
    """Return the last place of the first three blocks in a row that reach the line."""
    indices = np.flatnonzero(among)
    block_count = len(indices) // BLOCK
    block_passes = (
        agrees[indices[: block_count * BLOCK]].reshape(block_count, BLOCK).sum(axis=1)
        >= line * BLOCK
    )
    for last in range(IN_A_ROW - 1, block_count):
        if block_passes[last - IN_A_ROW + 1 : last + 1].all():
            return int(indices[(last + 1) * BLOCK - 1])
    return None
