"""Actions now, compared with the manual baseline from before the model.

A baseline is another period, and seasons differ. Differences therefore have intervals, with days as
units. The test for an unchanged mix is for reports only: with a baseline
of 2,000 cases and no change it rejects within 20,000 cases in 54 of 100 rollouts.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from math import sqrt

import numpy as np
import polars as pl

from rollout.engine.evidence.frames import VALUE_PREFIX
from rollout.engine.records.records import BaselineCount
from rollout.features.reports.inputs.inputs import ReportInputs
from rollout.features.reports.inputs.pairs import OTHER_ACTION, find_single_answers
from rollout.kernel.arrays import Floats
from rollout.kernel.statistics.differences import (
    MIN_DAYS,
    ShareDifference,
    compute_daily_share,
    compute_difference_by_day,
    compute_period_difference,
)
from rollout.kernel.statistics.evidence import compute_action_mix_log_e
from rollout.kernel.statistics.intervals import NO_DATA, Share
from rollout.kernel.units import EMPTY_SET, Lever, split_label_set

HUMANS, ACTUAL = "human", "taken"


@dataclass(frozen=True, slots=True)
class BaselineActionChange:
    """Frequency of one action then and now; `change` is now minus then, per 100 cases.

    `baseline_share` and `current_share` have intervals of their own; None for all cells together.
    """

    action: str
    baseline: int
    current: int
    change: ShareDifference
    baseline_share: Share | None = None
    current_share: Share | None = None


@dataclass(frozen=True, slots=True)
class BaselineChange:
    """Actions of one side now, compared with the baseline, in one or all cells.

    Attributes:
        lever: the lever of the actions.
        site, window: the cell; None for all cells with a baseline, compared cell by cell.
        side: `people` for unassisted human decisions, `done` for the actions taken, or the version
            whose answers are counted.
        since, until: the span of the baseline.
        vouched_by: who imported it.
        baseline_n, current_n: cases of the baseline and of now.
        actions: every action in either.
        log_e: evidence that the mix has changed, one case per unit; None for all cells together,
            for sets, of which there are too many kinds, and without cases on a side.
        has_sets: whether `actions` are labels of sets, of which a case may have several or none.
    """

    lever: str
    site: str | None
    window: str | None
    side: str
    since: datetime
    until: datetime
    vouched_by: tuple[str, ...]
    baseline_n: int
    current_n: int
    actions: tuple[BaselineActionChange, ...]
    log_e: float | None
    has_sets: bool = False


def compute_baseline_changes(inputs: ReportInputs) -> tuple[BaselineChange, ...]:
    """Return the changes of every lever with a baseline.

    For each lever and side, several cells are first combined, then listed one by one.
    """
    lever_ids = {baseline.lever for baseline in inputs.baselines}
    return tuple(
        change
        for lever in inputs.policy.levers
        if lever.number is None and lever.id in lever_ids
        for side, actions in _build_sides(inputs, lever)
        for change in _compute_side_changes(inputs, lever, side, actions)
    )


def _build_sides(inputs: ReportInputs, lever: Lever) -> Iterator[tuple[str, pl.DataFrame]]:
    """Yield each side with its actions: case_key, site, window, day, unit, action."""
    cells = inputs.cases.select("case_key", "site", "window", "day", "unit")
    column = VALUE_PREFIX + lever.id
    labels = find_single_answers(inputs.records, lever).rename({"human": "label"})
    yield HUMANS, _map_to_actions(lever, labels).join(cells, on="case_key")
    if inputs.actions.height:
        actions = inputs.actions.filter(pl.col("lever") == lever.id)
        yield ACTUAL, actions.select("case_key", "action").join(cells, on="case_key")
    answers = inputs.records.predictions.select("case_key", "version", label=column).drop_nulls()
    for (version,), part in (
        answers.sort("version").partition_by("version", as_dict=True, maintain_order=True).items()
    ):
        yield str(version), _map_to_actions(lever, part).join(cells, on="case_key")


def _map_to_actions(lever: Lever, labels: pl.DataFrame) -> pl.DataFrame:
    actions = {text: lever.find_action(text) or OTHER_ACTION for text in labels["label"].unique()}
    action = pl.col("label").replace_strict(actions, default=OTHER_ACTION, return_dtype=pl.String)
    return labels.select("case_key", action=action)


def _compute_side_changes(
    inputs: ReportInputs, lever: Lever, side: str, actions: pl.DataFrame
) -> Iterator[BaselineChange]:
    baselines = [baseline for baseline in inputs.baselines if baseline.lever == lever.id]
    cells = list(dict.fromkeys((baseline.site, baseline.window) for baseline in baselines))
    changes = [
        _compute_cell_change(
            lever,
            side,
            [baseline for baseline in baselines if (baseline.site, baseline.window) == cell],
            actions.filter((pl.col("site") == cell[0]) & (pl.col("window") == cell[1])),
        )
        for cell in cells
    ]
    if len(changes) > 1:
        yield _merge_cells(changes)
    yield from changes


def _compute_cell_change(
    lever: Lever, side: str, baselines: Sequence[BaselineCount], actions: pl.DataFrame
) -> BaselineChange:
    baseline_counts = _build_count_table(
        (
            (f"{baseline.since:%Y%m%d%H%M%S} {baseline.until}", baseline.action, baseline.n)
            for baseline in baselines
        ),
        lever,
    )
    days = actions.group_by("day", "action").len().sort("day", "action")
    current_counts = _build_count_table(
        ((str(day), action, n) for day, action, n in days.iter_rows()), lever
    )
    names = _order_actions(lever, {*baseline_counts[0], *current_counts[0]})
    first_cases = actions.sort("case_key").unique("unit", keep="first")
    return BaselineChange(
        lever=lever.id,
        site=baselines[0].site,
        window=baselines[0].window,
        side=side,
        since=min(baseline.since for baseline in baselines),
        until=max(baseline.until for baseline in baselines),
        vouched_by=tuple(sorted({baseline.imported_by for baseline in baselines})),
        baseline_n=int(baseline_counts[1].sum()),
        current_n=actions.height,
        actions=tuple(_compare_action(name, baseline_counts, current_counts) for name in names),
        log_e=None if lever.many else _compute_log_e(names, baseline_counts, first_cases),
        has_sets=lever.many,
    )


CountTable = tuple[Mapping[str, Floats], Floats]


def _list_parts(lever: Lever, action: str) -> Sequence[str]:
    """Return what an action counts as: itself, a set as each of its labels."""
    if not lever.many or action == OTHER_ACTION:
        return (action,)
    return sorted(split_label_set(action)) or (EMPTY_SET,)


def _build_count_table(rows: Iterator[tuple[str, str, int]], lever: Lever) -> CountTable:
    """Return counts by action, or label of sets, and span, and the cases of each span."""
    entries = list(rows)
    spans = {span: index for index, span in enumerate(sorted({span for span, _, _ in entries}))}
    counts: dict[str, Floats] = {}
    totals = np.zeros(len(spans))
    for span, action, n in entries:
        totals[spans[span]] += n
        for part in _list_parts(lever, action):
            counts.setdefault(part, np.zeros(len(spans)))[spans[span]] += n
    return counts, totals


def _order_actions(lever: Lever, observed: set[str]) -> list[str]:
    order = lever.labels if lever.many else lever.actions
    ordered = [action for action in dict.fromkeys(order) if action in observed]
    return [*ordered, *sorted(observed - set(ordered))]


def _compare_action(
    name: str, baseline_counts: CountTable, current_counts: CountTable
) -> BaselineActionChange:
    before, after = (
        table[0].get(name, np.zeros(len(table[1]))) for table in (baseline_counts, current_counts)
    )
    change = compute_difference_by_day(after, current_counts[1], before, baseline_counts[1])
    spans = len(baseline_counts[1])
    if change.per_100 is None and change.method != NO_DATA and spans < MIN_DAYS:
        # One span for a whole month hides how days vary.
        change = replace(
            change, method=f"too few days in the baseline ({spans}): import its counts by day"
        )
    then_share = compute_daily_share(before, baseline_counts[1])
    now_share = compute_daily_share(after, current_counts[1])
    return BaselineActionChange(
        name, int(before.sum()), int(after.sum()), change, then_share, now_share
    )


def _compute_log_e(
    names: Sequence[str], baseline_counts: CountTable, cases: pl.DataFrame
) -> float | None:
    """Return the evidence against the baseline's shares, each with half a case added."""
    if not baseline_counts[1].sum() or cases.is_empty() or len(names) < 2:
        return None
    shares = (
        np.array(
            [
                baseline_counts[0][name].sum() if name in baseline_counts[0] else 0.0
                for name in names
            ]
        )
        + 0.5
    )
    counts = dict(cases.group_by("action").len().iter_rows())
    return compute_action_mix_log_e(
        [counts.get(name, 0) for name in names], list(shares / shares.sum())
    )


def _merge_cells(cells: Sequence[BaselineChange]) -> BaselineChange:
    """Return all cells combined, weighted by their current cases."""
    names = list(dict.fromkeys(action.action for cell in cells for action in cell.actions))
    return BaselineChange(
        lever=cells[0].lever,
        site=None,
        window=None,
        side=cells[0].side,
        since=min(cell.since for cell in cells),
        until=max(cell.until for cell in cells),
        vouched_by=tuple(sorted({name for cell in cells for name in cell.vouched_by})),
        baseline_n=sum(cell.baseline_n for cell in cells),
        current_n=sum(cell.current_n for cell in cells),
        actions=tuple(_sum_action(name, cells) for name in names),
        log_e=None,
        has_sets=cells[0].has_sets,
    )


def _sum_action(name: str, cells: Sequence[BaselineChange]) -> BaselineActionChange:
    """Return one action over cells, weighted by their current cases."""
    parts = [_find_change(name, cell) for cell in cells]
    refused = [part for part in parts if part.per_100 is None and part.method != NO_DATA]
    measured = [part for part in parts if part.per_100 is not None and not refused]
    total = sum(part.first_n for part in measured)
    weights = [part.first_n / total for part in measured]
    gap = sum(
        weight * (part.per_100 or 0.0) for weight, part in zip(weights, measured, strict=True)
    )
    half_width = sqrt(
        sum(
            (weight * ((part.high or 0.0) - (part.low or 0.0)) / 2) ** 2
            for weight, part in zip(weights, measured, strict=True)
        )
    )
    change = ShareDifference(
        first=_compute_weighted_mean([part.first for part in measured], weights),
        second=_compute_weighted_mean([part.second for part in measured], weights),
        first_n=total,
        second_n=sum(part.second_n for part in measured),
        per_100=gap if measured else None,
        low=gap - half_width if measured else None,
        high=gap + half_width if measured else None,
        method="Agresti–Caffo cell by cell, each as heavy as its cases now, 95 %"
        if measured
        else (refused or parts)[0].method,
    )
    actions = [action for cell in cells for action in cell.actions if action.action == name]
    return BaselineActionChange(
        name,
        sum(action.baseline for action in actions),
        sum(action.current for action in actions),
        change,
    )


def _find_change(name: str, cell: BaselineChange) -> ShareDifference:
    """Return the change of an action in a cell, also if the cell never had it."""
    change = next((action.change for action in cell.actions if action.action == name), None)
    return change or compute_period_difference(0, cell.current_n, 0, cell.baseline_n)


def _compute_weighted_mean(rates: Sequence[float | None], weights: Sequence[float]) -> float | None:
    return (
        sum(weight * (rate or 0.0) for weight, rate in zip(weights, rates, strict=True))
        if rates
        else None
    )
