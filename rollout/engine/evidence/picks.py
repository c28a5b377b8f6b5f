"""Which revision of a record is evidence, when it counts as known, and how answers are compared.

A case is fixed by its first decision: that of anybody, in any revision, or an outcome. What is
received later could have been made with knowledge of the answer. Times are whole microseconds.

Sets of labels and numbers are compared by narwhals expressions, so they run on Polars, DuckDB and
other engines.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

from rollout.engine.records.records import is_registered
from rollout.engine.records.reviews import fold_name
from rollout.kernel.arrays import nw, pl
from rollout.kernel.calendar.instants import EPOCH, count_micros
from rollout.kernel.units import (
    EMPTY_SET,
    FULL_OVERLAP,
    PAIR_SIGN,
    SEPARATOR,
    SLACK,
    CostRule,
    Lever,
    Margin,
    Number,
)
from rollout.kernel.units import SLACK as NUMBER_SLACK

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from datetime import timedelta

    from rollout.engine.evidence.frames import RecordFrames
    from rollout.kernel.policy.policy import Policy


RowT = TypeVar("RowT")


def find_known_time(received: int, occurred: int, vouched: int | None) -> int:
    """Return the time from which a record counts as known.

    That is its receipt, or if it comes within the time for which its sender is vouched, the time of
    its case.

    >>> (
    ...     find_known_time(900, 100, None),
    ...     find_known_time(900, 100, 800),
    ...     find_known_time(901, 100, 800),
    ... )
    (900, 100, 901)
    """
    if vouched is None or not occurred < received <= occurred + vouched:
        return received
    return occurred


def vouch_for_files(records: RecordFrames, vouched: Mapping[str, timedelta]) -> RecordFrames:
    """Return the records of files with `known_at`, as if a vouched account had sent them.

    Files don't name who sent their cases and predictions. So of several accounts the one with the
    least time counts: no guess is in the model's favour.
    """
    if not vouched:
        return records
    within = min(vouched.values())

    def know(received_at: pl.Expr) -> pl.Expr:
        is_vouched = received_at <= pl.col("occurred_at") + within
        return pl.when(is_vouched).then("occurred_at").otherwise(received_at)

    cases = records.cases.with_columns(known_at=know(pl.col("received_at")))
    times = cases.select("case_key", "occurred_at")
    predictions = records.predictions.join(
        times, on="case_key", how="left", maintain_order="left"
    ).with_columns(known_at=know(pl.coalesce("received_at", "at")))
    planted = records.planted
    return replace(
        records,
        cases=cases,
        predictions=predictions.drop("occurred_at"),
        planted=None if planted is None else vouch_for_files(planted, vouched),
    )


def find_first_decisions(
    decision_rows: Iterable[Any], outcome_rows: Iterable[Any]
) -> dict[int, int]:
    """Return by case the time of its first decision or outcome: the earlier of stated and received.

    The rows are those of all revisions and senders.
    """
    first_decisions: dict[int, int] = {}
    for rows, get_stated in (
        (decision_rows, attrgetter("submitted_at")),
        (outcome_rows, attrgetter("at")),
    ):
        for row in rows:
            stated, received = get_stated(row), row.received_at
            at = received if stated is None else min(stated, received)
            first_decisions[row.case_id] = min(at, first_decisions.get(row.case_id, at))
    return first_decisions


def find_case_receipts(*row_sets: Iterable[Any]) -> dict[int, int]:
    """Return by case when the first of some records was received."""
    receipts: dict[int, int] = {}
    for rows in row_sets:
        for row in rows:
            receipts[row.case_id] = min(row.received_at, receipts.get(row.case_id, row.received_at))
    return receipts


def add_effective_times(cases: pl.DataFrame, records: RecordFrames, policy: Policy) -> pl.DataFrame:
    """Return cases with `effective_us`: the time at which each counts as occurred, in microseconds.

    That is the time it states. A late one that no source of evidence decided in time has only its
    sender's word for it, who could date it before an attempt or a grant: it counts as occurred just
    before such a source decided it, or it was received.
    """
    due = pl.col("occurred_us") + count_micros(policy.evidence.grace)
    if not cases.select((pl.col("received") > due).any()).item():
        return cases.with_columns(effective_us="occurred_us")
    firsts = records.first_decisions.select("case_key", at="sourced_at")
    stated = pl.min_horizontal("at", "received_at").fill_null(EPOCH)  # without a time: its case's
    others = firsts if len(firsts) else records.outcomes.select("case_key", "at")
    sourced = (
        pl.concat([records.decisions.select("case_key", at=stated), others])
        .group_by("case_key")
        .agg(sourced=pl.col("at").dt.epoch("us").min())
    )
    is_vague = (pl.col("received") > due) & (pl.col("sourced") > due).fill_null(value=True)
    latest = pl.max_horizontal("occurred_us", pl.min_horizontal("sourced", "received") - 1)
    return (
        cases.join(sourced, on="case_key", how="left", maintain_order="left")
        .with_columns(effective_us=pl.when(is_vague).then(latest).otherwise("occurred_us"))
        .drop("sourced")
    )


def pick_for_guards(rows: Iterable[RowT], first_decisions: Mapping[int, int]) -> list[RowT]:
    """Return the revisions that guards count instead of one of a sender that registers cases.

    A guard counts a case as it was before its first decision, or else as it came first, whoever
    sent it: what comes later changes nothing. `rows` are cases in the order of revisions.
    """
    revisions_by_case: dict[int, list[Any]] = defaultdict(list)
    for row in rows:
        record: Any = row
        revisions_by_case[record.case_id].append(row)
    picked = []
    for case_id, revisions in revisions_by_case.items():
        if is_registered(revisions[0].revision):
            continue
        decided = first_decisions.get(case_id)
        before = [row for row in revisions if decided is None or row.received_at <= decided]
        row = before[-1] if before else min(revisions, key=attrgetter("received_at"))
        if not is_registered(row.revision):
            picked.append(row)
    return picked


def pick_until_decision(
    rows: Sequence[RowT], key_columns: Sequence[str], first_decisions: Mapping[int, int]
) -> Collection[RowT]:
    """Return each record's last revision that was received before its case's first decision.

    A record that came later altogether is returned in its first revision. `rows` are in the order
    of revisions.
    """
    get_key = attrgetter(*key_columns)
    newest = {get_key(row): row for row in rows}
    if not first_decisions or len(newest) == len(rows):  # mostly there is one revision of each
        return newest.values()
    picked: dict[Any, Any] = {}
    for row in rows:
        record: Any = row
        key, first_decision = get_key(row), first_decisions.get(record.case_id)
        if key not in picked or first_decision is None or record.received_at <= first_decision:
            picked[key] = row
    return picked.values()


def pick_decisions(rows: Iterable[Any]) -> Collection[Any]:
    """Return each reviewer's decision on a case, preferably from a review task.

    Whoever decided under two spellings of a name, by `fold_name`, decided once: the newest counts.
    """
    rows_by_key: dict[tuple[Any, ...], Any] = {}
    fold = cache(fold_name)
    for row in rows:
        key = (row.case_id, fold(row.reviewer))
        previous = rows_by_key.get(key, row)
        is_newest = row.reviewer == previous.reviewer or row.received_at >= previous.received_at
        if (row.review is not None, is_newest) >= (previous.review is not None, True):
            rows_by_key[key] = row
    return rows_by_key.values()


def pick_replaced_decisions(rows: Sequence[Any], picked: Collection[Any]) -> Collection[Any]:
    """Return the newest answers that their reviewer replaced by none, or having seen more.

    Guards count them: an answer that is corrected as blind as it was has never been one, but one
    that the reviewer changes after a look at the model's was.
    """
    if len(picked) == len(rows):
        return ()
    newest = {
        (row.case_id, fold_name(row.reviewer), row.exposure): row for row in rows if not row.unsure
    }
    numbers = set(map(id, picked))
    return [row for row in newest.values() if id(row) not in numbers]


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


NUMBER_PATTERN = r"^\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,2})?\s*$"


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
