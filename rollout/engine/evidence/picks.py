"""Which revision of a record is evidence, and from when on it counts as known.

A case is fixed by its first decision: that of anybody, in any revision, or an outcome. What is
received later could have been made with knowledge of the answer. Times are whole microseconds.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

from rollout.engine.records.records import is_registered
from rollout.kernel.late_modules import LateModule

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from datetime import timedelta

    import polars as pl

    from rollout.engine.evidence.frames import RecordFrames
else:
    pl = LateModule("polars")

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
