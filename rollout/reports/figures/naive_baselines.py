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
    order = {cell: number for number, cell in enumerate(inputs.policy.cells)}
    keys = sorted(inputs.sights, key=lambda key: (order[key[0]], key[1]))
    return tuple(found for key in keys for found in _of(key, cases, inputs))


def _cases(inputs: Inputs, pairs: Pairs) -> pl.DataFrame:
    """Return every predicted case with what was right, in order of time; `agrees` where judged."""
    placed = inputs.cases.select("case_key", "site", "window", "t")
    asked = placed.join(inputs.records.predictions.select("case_key", "version"), on="case_key")
    whole = pairs.frame.filter(pl.col("lever") == inputs.policy.whole)
    judged = whole.select("case_key", "version", "agrees")
    cases = asked.join(judged, on=["case_key", "version"], how="left")
    return weighed(inputs, cases).sort("t", "case_key")


def _of(key: Key, cases: pl.DataFrame, inputs: Inputs) -> Iterator[NaiveOpening]:
    cell, version = key
    line = _line(cell, inputs)
    if line is None:
        return
    site = cases.filter((pl.col("site") == cell.site) & (pl.col("version") == version))
    judged = site.filter(pl.col("agrees").is_not_null())
    here = (judged["window"] == cell.window).to_numpy()
    agrees = judged["agrees"].to_numpy()
    engine_at = _engine_at(key, inputs)
    for rule, opens in _rules(line, here):
        place = opens(agrees)
        at = None if place is None else EPOCH + int(judged["t"][place]) * MICROSECOND
        if place is not None and at is not None and (engine_at is None or at < engine_at):
            after = site.filter(
                (pl.col("window") == cell.window) & (pl.col("t") > int(judged["t"][place]))
            )
            after = after if engine_at is None else after.filter(_before(engine_at))
            yield NaiveOpening(
                site=cell.site,
                window=cell.window,
                version=version,
                rule=rule,
                opened_at=at,
                after=int(here[: place + 1].sum()),
                engine_at=engine_at,
                wrong=_wrong(after, "known", "wrong_action"),
                people_wrong=_wrong(after, "people_known", "people_wrong_action"),
            )


def _line(cell: Cell, inputs: Inputs) -> float | None:
    """Return the line of the agreement that the cell's first gate asks for, if it does."""
    asked = inputs.policy.required(1, cell)
    return next((c.line for c in asked if c.measure == "agreement" and c.lever is None), None)


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
    counted = cases.filter(known)
    return share(int(counted[wrong].sum()), counted.height)


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
    places = np.flatnonzero(among)
    good = np.cumsum(agrees[places])
    n = np.arange(1, len(places) + 1)
    met = np.flatnonzero((n >= LEAST) & (good >= line * n))
    return int(places[met[0]]) if len(met) else None


def blocks_reach(agrees: Bools, among: Bools, line: float) -> int | None:
    """Return the last place of the first three blocks in a row that reach the line."""
    places = np.flatnonzero(among)
    whole = len(places) // BLOCK
    blocks = agrees[places[: whole * BLOCK]].reshape(whole, BLOCK).sum(axis=1) >= line * BLOCK
    for last in range(IN_A_ROW - 1, whole):
        if blocks[last - IN_A_ROW + 1 : last + 1].all():
            return int(places[(last + 1) * BLOCK - 1])
    return None
