"""Expressions that compare sets of labels: whether a text is a set, and whether two agree.

Written as narwhals expressions, so they run on Polars, DuckDB and other engines.

Expressions that compare numbers: tolerance, range and cost.

Written as narwhals expressions, so they run on Polars, DuckDB and other engines.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rollout.kernel.late_modules import LateModule
from rollout.kernel.policy.levers import SLACK as NUMBER_SLACK
from rollout.kernel.policy.levers import CostRule, Lever, Margin, Number
from rollout.kernel.units import EMPTY_SET, FULL_OVERLAP, PAIR_SIGN, SEPARATOR, SLACK

if TYPE_CHECKING:
    from collections.abc import Sequence

    import narwhals as nw
    import polars as pl

    from rollout.kernel.policy.levers import Lever
else:
    nw = LateModule("narwhals")


def is_set_text(lever: Lever, answer: nw.Expr) -> nw.Expr:
    """Return whether a text is the canonical text of a set of the lever's labels."""
    end = f"(?:{SEPARATOR}|$)"
    parts = "".join(f"(?:{re.escape(label)}{end})?" for label in sorted(lever.labels))
    is_sorted = answer.str.contains(f"^{parts}$") & answer.str.contains(f"[^{SEPARATOR}]$")
    return (answer == EMPTY_SET) | is_sorted


def pair_sets(lever: Lever, answer: nw.Expr, model: nw.Expr, human: nw.Expr) -> nw.Expr:
    """Return `answer`, or the text of both sides where different sets agree."""
    if lever.overlap >= FULL_OVERLAP:
        return answer
    is_pair = is_set_text(lever, model) & is_set_text(lever, human) & (model != human)
    does_agree = is_pair & _overlaps_enough(lever, model, human)
    pair = nw.concat_str(human, nw.lit(PAIR_SIGN), model)
    return nw.when(does_agree.fill_null(value=False)).then(pair).otherwise(answer)


def do_set_texts_agree(lever: Lever, first: pl.Expr, second: pl.Expr) -> pl.Expr:
    """Return whether the sets of two Polars columns agree; the text of no label is its own part."""
    first_set, second_set = first.str.split(SEPARATOR), second.str.split(SEPARATOR)
    common = first_set.list.set_intersection(second_set).list.len()
    either = first_set.list.set_union(second_set).list.len()
    return (first == second) | (common >= either * (lever.overlap - SLACK))


def _overlaps_enough(lever: Lever, model: nw.Expr, human: nw.Expr) -> nw.Expr:
    """Return whether the Jaccard index reaches the lever's."""
    sides = [(_has_label(model, label), _has_label(human, label)) for label in lever.labels]
    common = nw.sum_horizontal(*((x & y).cast(nw.Int64) for x, y in sides))
    either = nw.sum_horizontal(*((x | y).cast(nw.Int64) for x, y in sides))
    return common >= either * (lever.overlap - SLACK)


def _has_label(answer: nw.Expr, label: str) -> nw.Expr:
    return answer.str.contains(f"(?:^|{SEPARATOR}){re.escape(label)}(?:{SEPARATOR}|$)")


NUMBER_PATTERN = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,2})?\s*$"


def parse_number(answer: nw.Expr) -> nw.Expr:
    """Return the number of a text, or null."""
    return (
        nw.when(answer.str.contains(NUMBER_PATTERN)).then(answer.str.strip_chars()).cast(nw.Float64)
    )


def is_in_range(number: Number, value: nw.Expr) -> nw.Expr:
    """Return whether a value is in the lever's range; null for null."""
    return (value >= number.low) & (value <= number.high)


def is_within_tolerance(number: Number, model: nw.Expr, human: nw.Expr) -> nw.Expr:
    """Return whether the model's number is within the tolerance; null for null."""
    return (model - human).abs() <= _compute_margin(number.tolerance, human)


def compute_number_cost(lever: Lever, model: nw.Expr, human: nw.Expr) -> nw.Expr:
    """Return the cost of the model's number; that of the first matching row, else 0."""
    costs = [float(rule.cost) for rule in lever.costs]
    return _select_by_row(lever, model, human, costs, 0.0, 0.0)


def find_cost_row(lever: Lever, model: nw.Expr, human: nw.Expr) -> nw.Expr:
    """Return the number of the matching cost row from 1, 0 within the tolerance.

    A number beyond the tolerance that no row matches has the number after the last.
    """
    rows = len(lever.costs)
    return _select_by_row(lever, model, human, range(1, rows + 1), 0, rows + 1)


def _select_by_row(
    lever: Lever,
    model: nw.Expr,
    human: nw.Expr,
    values: Sequence[float],
    within: float,
    unmatched: float,
) -> nw.Expr:
    """Return the value of the first matching cost row."""
    assert lever.number is not None  # noqa: S101 - called for number levers only
    expr: nw.Expr = nw.lit(unmatched)
    for rule, value in reversed(list(zip(lever.costs, values, strict=True))):
        expr = nw.when(_exceeds_rule(rule, model, human)).then(nw.lit(value)).otherwise(expr)
    is_close = is_within_tolerance(lever.number, model, human)
    return nw.when(is_close).then(nw.lit(within)).otherwise(expr)


def _compute_margin(margin: Margin, human: nw.Expr) -> nw.Expr:
    if margin.relative:
        return human.abs() * (margin.amount + NUMBER_SLACK)
    return human.abs() * NUMBER_SLACK + margin.amount


def _exceeds_rule(rule: CostRule, model: nw.Expr, human: nw.Expr) -> nw.Expr:
    exceeded_sides = [
        human - model > _compute_margin(rule.under, human) if rule.under is not None else None,
        model - human > _compute_margin(rule.over, human) if rule.over is not None else None,
        (model - human).abs() > _compute_margin(rule.off, human) if rule.off is not None else None,
    ]
    given_sides = [side for side in exceeded_sides if side is not None]
    return nw.any_horizontal(*given_sides, ignore_nulls=True) if given_sides else nw.lit(value=True)
