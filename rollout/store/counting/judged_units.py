"""Units of a version in a cell with a blind decision, as guards count them."""

import json
from collections.abc import Collection
from datetime import datetime
from typing import Final

import polars as pl
from sqlalchemy import BigInteger, Text, bindparam, case, func, select, type_coerce

from rollout.core.calendar.sites import Cell
from rollout.store.database.bulk import fetch_rows, select_numbers
from rollout.store.database.frames import load_frame
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.records.case_pages import has_later_revision
from rollout.store.tables.columns import encode_instant
from rollout.store.tables.tables import cases, count_classes, count_series, counted_units

GUARD: Final = "guard"
MAX_READ_CASES: Final = 5_000
OCCURRED_SCHEMA: Final = {
    "case_id": pl.Int64(),
    "occurred": pl.Int64(),
    "slot": pl.Int64(),
    "day": pl.Int64(),
    "classes": pl.String(),
    "reviewer": pl.String(),
    "attributes": pl.String(),
}
OCCURRED_QUERY: Final = select(
    counted_units.c.case_id,
    type_coerce(cases.c.occurred_at, BigInteger),
    counted_units.c.slot,
    counted_units.c.day,
    type_coerce(counted_units.c.class_ids, Text),
    counted_units.c.reviewer,
    type_coerce(cases.c.attributes, Text),
).where(
    counted_units.c.rollout == bindparam("rollout"),
    counted_units.c.track == GUARD,
    counted_units.c.version == bindparam("version"),
    counted_units.c.series_id.in_(
        select(count_series.c.id).where(
            count_series.c.rollout == bindparam("rollout"),
            count_series.c.track == GUARD,
            count_series.c.version == bindparam("version"),
            count_series.c.site == bindparam("site"),
            count_series.c.window == bindparam("window"),
        )
    ),
    counted_units.c.exclusion_reason.is_(None),
    counted_units.c.slot >= bindparam("first_slot"),
    counted_units.c.slot < bindparam("end_slot"),
    cases.c.rollout == counted_units.c.rollout,
    cases.c.case_id == counted_units.c.case_id,
    cases.c.occurred_at >= bindparam("since"),
    cases.c.occurred_at < bindparam("until"),
    ~has_later_revision(),
)
"""Read without SQLAlchemy's rows, which cost as much as the search: a cell may have 100,000."""


def list_counted_cases(
    transaction: Transaction, rollout: Rollout, cell: Cell, version: str, *, until: int
) -> set[int]:
    """Return the judged cases of a version in a cell that counted up to a slot."""
    series = select(count_series.c.id).where(
        count_series.c.rollout == rollout.number,
        count_series.c.version == version,
        count_series.c.site == cell.site,
        count_series.c.window == cell.window,
    )
    query = select(counted_units.c.case_id).where(
        counted_units.c.rollout == rollout.number,
        counted_units.c.version == version,
        counted_units.c.series_id.in_(list(transaction.execute(series).scalars())),
        counted_units.c.slot <= until,
    )
    return set(transaction.execute(query).scalars())


class JudgedUnitStore:
    """The judged units of one version in one cell, those that are evidence."""

    def __init__(
        self, transaction: Transaction, rollout: Rollout, cell: Cell, version: str
    ) -> None:
        self._transaction, self._rollout = transaction, rollout
        self._cell, self._version = cell, version
        query = select(count_series.c.id).where(
            count_series.c.rollout == rollout.number,
            count_series.c.track == GUARD,
            count_series.c.version == version,
            count_series.c.site == cell.site,
            count_series.c.window == cell.window,
        )
        self._conditions = (
            counted_units.c.rollout == rollout.number,
            counted_units.c.track == GUARD,
            counted_units.c.version == version,
            counted_units.c.series_id.in_(list(transaction.execute(query).scalars())),
            counted_units.c.exclusion_reason.is_(None),
        )

    def load_closed_slots(self, open_case_ids: Collection[int], *, until: int) -> pl.Series:
        """Return the slot of each unit counted up to a slot, in order.

        Slots from the first one on that counted any of the open cases are left out.
        """
        slot, case_id = counted_units.c.slot, counted_units.c.case_id
        is_open = case_id.in_(select_numbers(self._transaction, open_case_ids))
        query = select(
            slot,
            func.count().label("n"),
            func.max(case((is_open, 1), else_=0)).label("open"),
        ).where(*self._conditions, slot <= until)
        slots = load_frame(self._transaction, query.group_by(slot)).sort("slot")
        closed = slots.filter(pl.col("open").cum_max() == 0)
        return closed.select(pl.col("slot").repeat_by("n").explode()).to_series().drop_nulls()

    def load_occurred(self, since: datetime, until: datetime, *, slots: range) -> pl.DataFrame:
        """Return the units whose cases occurred in a span and counted in `slots`, in no order.

        Units whose case was deleted are left out. Columns: case_id, the unit's judged case;
        occurred, microseconds of the case; slot, in which the unit counted; day, the case's local
        day number; classes, its class numbers as stored JSON; reviewer, who decided first;
        attributes of the case, as stored JSON; site and window.
        """
        parameters = {
            "rollout": self._rollout.number,
            "version": self._version,
            "site": self._cell.site,
            "window": self._cell.window,
            "since": encode_instant(since),
            "until": encode_instant(until),
            "first_slot": slots.start,
            "end_slot": slots.stop,
        }
        rows = fetch_rows(self._transaction, OCCURRED_QUERY, parameters)
        units = pl.DataFrame(rows, schema=OCCURRED_SCHEMA, orient="row")
        return units.with_columns(site=pl.lit(self._cell.site), window=pl.lit(self._cell.window))

    def find_first_case(
        self, cell: Cell, attribute: str, value: str, since: datetime, until: datetime
    ) -> int | None:
        """Return microseconds of the cell's first case with a value in a span, None without any.

        It need not be judged. Only the span's first cases are read, at most `MAX_READ_CASES`.
        """
        occurred = type_coerce(cases.c.occurred_at, BigInteger)
        query = (
            select(occurred.label("occurred"), type_coerce(cases.c.attributes, Text).label("text"))
            .where(
                cases.c.rollout == self._rollout.number,
                cases.c.site == cell.site,
                cases.c.window == cell.window,
                cases.c.occurred_at > since,
                cases.c.occurred_at < until,
                cases.c.planted.is_(None),
                ~has_later_revision(),
            )
            .order_by(cases.c.occurred_at)
            .limit(MAX_READ_CASES)
        )
        rows = self._transaction.execute(query)
        return next((r.occurred for r in rows if json.loads(r.text).get(attribute) == value), None)

    def load_answers(self, lever: str) -> dict[int, tuple[str, str]]:
        """Return the human's and the version's answer of each class of a lever."""
        query = select(
            count_classes.c.id, count_classes.c.decided, count_classes.c.predicted
        ).where(count_classes.c.rollout == self._rollout.number, count_classes.c.lever == lever)
        return {row.id: (row.decided, row.predicted) for row in self._transaction.execute(query)}
