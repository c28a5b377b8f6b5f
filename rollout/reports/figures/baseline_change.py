"""What is done now against what people did before there was a model here.

A baseline is another period: bears come in spring. So differences stand here with their intervals,
by day where days differ more than chance would have it, and the test for "the mix is still that of
the baseline" is for reports alone: with a baseline of 2,000 cases and no change at all it finds one
within 20,000 cases in 54 of 100 (statistics.md §7).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import sqrt

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rollout.core.policy.levers import Lever
from rollout.core.statistics.evidence import log_e_mix
from rollout.reports.inputs.inputs import Baseline, Inputs
from rollout.reports.inputs.pairs import OTHER_ACTION, single_verdicts
from rollout.reports.statistics.differences import Difference, difference_by_day
from rollout.tally.frames import VALUE

Floats = NDArray[np.float64]

PEOPLE, DONE = "people", "done"
BY_CELL = "Agresti–Caffo cell by cell, each as heavy as its cases now, 95 %"


@dataclass(frozen=True, slots=True)
class ActionThen:
    """One action then and now; `change` is now minus then, per 100 cases."""

    action: str
    then: int
    now: int
    change: Difference


@dataclass(frozen=True, slots=True)
class BaselineChange:
    """What one side does now against the baseline, in one cell or in all that have one.

    Attributes:
        lever: of which.
        site, window: the cell; None for all cells with a baseline together, compared cell by cell.
        who: `people` on cases that they judged unseen, `done` for what was done whoever decided,
            or a version's name for what it would do.
        since, until: the span of the baseline.
        vouched_by: whose word it is.
        then_n, now_n: cases of either.
        actions: every action that was taken in either.
        log_e: evidence that the mix is no longer the baseline's, one case of each unit; None for
            all cells together, and without cases on a side.
    """

    lever: str
    site: str | None
    window: str | None
    who: str
    since: datetime
    until: datetime
    vouched_by: tuple[str, ...]
    then_n: int
    now_n: int
    actions: tuple[ActionThen, ...]
    log_e: float | None


def baseline_changes(inputs: Inputs) -> tuple[BaselineChange, ...]:
    """Return the changes of every lever that has a baseline; none where nobody gave one.

    Per lever and side first all cells together, where there are several, then each.
    """
    lever_ids = {baseline.lever for baseline in inputs.baselines}
    return tuple(
        change
        for lever in inputs.policy.levers
        if lever.number is None and lever.id in lever_ids
        for side, actions in _sides(inputs, lever)
        for change in _of_side(inputs, lever, side, actions)
    )


def _sides(inputs: Inputs, lever: Lever) -> Iterator[tuple[str, pl.DataFrame]]:
    """Yield each side with what it does: case_key, site, window, day, unit, action."""
    cells = inputs.cases.select("case_key", "site", "window", "day", "unit")
    column = VALUE + lever.id
    labels = single_verdicts(inputs.records, column).rename({"human": "label"})
    yield PEOPLE, _acting(lever, labels).join(cells, on="case_key")
    if inputs.actions.height:
        actions = inputs.actions.filter(pl.col("lever") == lever.id)
        yield DONE, actions.select("case_key", "action").join(cells, on="case_key")
    answers = inputs.records.predictions.select("case_key", "version", label=column).drop_nulls()
    for (version,), part in (
        answers.sort("version").partition_by("version", as_dict=True, maintain_order=True).items()
    ):
        yield str(version), _acting(lever, part).join(cells, on="case_key")


def _acting(lever: Lever, said: pl.DataFrame) -> pl.DataFrame:
    actions = dict(zip(lever.labels, lever.actions, strict=True))
    action = pl.col("label").replace_strict(actions, default=OTHER_ACTION, return_dtype=pl.String)
    return said.select("case_key", action=action)


def _of_side(inputs: Inputs, lever: Lever, who: str, now: pl.DataFrame) -> Iterator[BaselineChange]:
    baselines = [baseline for baseline in inputs.baselines if baseline.lever == lever.id]
    cells = list(dict.fromkeys((baseline.site, baseline.window) for baseline in baselines))
    changes = [
        _of_cell(
            lever,
            who,
            [baseline for baseline in baselines if (baseline.site, baseline.window) == cell],
            now.filter((pl.col("site") == cell[0]) & (pl.col("window") == cell[1])),
        )
        for cell in cells
    ]
    if len(changes) > 1:
        yield _together(changes)
    yield from changes


def _of_cell(lever: Lever, who: str, then: Sequence[Baseline], now: pl.DataFrame) -> BaselineChange:
    baseline_counts = _by_span(then)
    days = now.group_by("day", "action").len().sort("day", "action")
    current_counts = _table((str(day), action, n) for day, action, n in days.iter_rows())
    names = _names(lever, {*baseline_counts[0], *current_counts[0]})
    first_cases = now.sort("case_key").unique("unit", keep="first")
    return BaselineChange(
        lever=lever.id,
        site=then[0].site,
        window=then[0].window,
        who=who,
        since=min(baseline.since for baseline in then),
        until=max(baseline.until for baseline in then),
        vouched_by=tuple(sorted({baseline.vouched_by for baseline in then})),
        then_n=int(baseline_counts[1].sum()),
        now_n=now.height,
        actions=tuple(_action(name, baseline_counts, current_counts) for name in names),
        log_e=_log_e(names, baseline_counts, first_cases),
    )


Table = tuple[Mapping[str, Floats], Floats]


def _by_span(then: Sequence[Baseline]) -> Table:
    """Return how often each action was taken in each span: a span that is a day counts as one."""
    return _table(
        (f"{baseline.since:%Y%m%d%H%M%S} {baseline.until}", baseline.action, baseline.n)
        for baseline in then
    )


def _table(rows: Iterator[tuple[str, str, int]]) -> Table:
    """Return counts by action over spans, and all cases of each span."""
    entries = list(rows)
    spans = {span: index for index, span in enumerate(sorted({span for span, _, _ in entries}))}
    counts: dict[str, Floats] = {}
    for span, action, n in entries:
        counts.setdefault(action, np.zeros(len(spans)))[spans[span]] += n
    return counts, np.sum(list(counts.values()), axis=0) if counts else np.zeros(0)


def _names(lever: Lever, taken: set[str]) -> list[str]:
    ordered = [action for action in dict.fromkeys(lever.actions) if action in taken]
    return [*ordered, *sorted(taken - set(ordered))]


def _action(name: str, then: Table, now: Table) -> ActionThen:
    before, after = (table[0].get(name, np.zeros(len(table[1]))) for table in (then, now))
    return ActionThen(
        action=name,
        then=int(before.sum()),
        now=int(after.sum()),
        change=difference_by_day(after, now[1], before, then[1]),
    )


def _log_e(names: Sequence[str], then: Table, now: pl.DataFrame) -> float | None:
    """Return the evidence against the baseline's shares, half a case added to each of them."""
    if not then[1].sum() or now.is_empty() or len(names) < 2:
        return None
    shares = np.array([then[0][name].sum() if name in then[0] else 0.0 for name in names]) + 0.5
    counts = dict(now.group_by("action").len().iter_rows())
    return log_e_mix([counts.get(name, 0) for name in names], list(shares / shares.sum()))


def _together(found: Sequence[BaselineChange]) -> BaselineChange:
    """Return all cells as one, each as heavy as it is now."""
    names = list(dict.fromkeys(action.action for cell in found for action in cell.actions))
    return BaselineChange(
        lever=found[0].lever,
        site=None,
        window=None,
        who=found[0].who,
        since=min(cell.since for cell in found),
        until=max(cell.until for cell in found),
        vouched_by=tuple(sorted({name for cell in found for name in cell.vouched_by})),
        then_n=sum(cell.then_n for cell in found),
        now_n=sum(cell.now_n for cell in found),
        actions=tuple(_summed(name, found) for name in names),
        log_e=None,
    )


def _summed(name: str, found: Sequence[BaselineChange]) -> ActionThen:
    """Return one action over cells: their differences, weighted by their cases now."""
    parts = [_change_of(name, cell) for cell in found]
    measured = [part for part in parts if part.per_100 is not None]
    total = sum(part.first_n for part in measured)
    weights = [part.first_n / total for part in measured]
    gap = sum(
        weight * (part.per_100 or 0.0) for weight, part in zip(weights, measured, strict=True)
    )
    half_width = sqrt(
        sum((weight * _half(part)) ** 2 for weight, part in zip(weights, measured, strict=True))
    )
    change = Difference(
        first=_mean([part.first for part in measured], weights),
        second=_mean([part.second for part in measured], weights),
        first_n=total,
        second_n=sum(part.second_n for part in measured),
        per_100=gap if measured else None,
        low=gap - half_width if measured else None,
        high=gap + half_width if measured else None,
        method=BY_CELL if measured else parts[0].method,
    )
    actions = [action for cell in found for action in cell.actions if action.action == name]
    return ActionThen(
        name, sum(action.then for action in actions), sum(action.now for action in actions), change
    )


def _change_of(name: str, cell: BaselineChange) -> Difference:
    """Return an action's change in a cell, also where nobody took it there."""
    change = next((action.change for action in cell.actions if action.action == name), None)
    return change or difference_by_day([0], [cell.now_n], [0], [cell.then_n])


def _half(part: Difference) -> float:
    return ((part.high or 0.0) - (part.low or 0.0)) / 2


def _mean(rates: Sequence[float | None], weights: Sequence[float]) -> float | None:
    return (
        sum(weight * (rate or 0.0) for weight, rate in zip(weights, rates, strict=True))
        if rates
        else None
    )
