"""Expressions that compare sets of labels: whether a text is a set, and whether two agree.

Written as narwhals expressions, so they run on Polars, DuckDB and other engines.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rollout.kernel.late_modules import LateModule
from rollout.kernel.units import EMPTY_SET, FULL_OVERLAP, PAIR_SIGN, SEPARATOR, SLACK

if TYPE_CHECKING:
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
