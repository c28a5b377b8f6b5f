"""Units of a version in a cell with a blind decision, as guards count them."""

import json
from collections.abc import Collection
from datetime import datetime
from typing import Final, NamedTuple

from sqlalchemy import BigInteger, Text, select, type_coerce

from rollout.core.calendar.sites import Cell
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.records.case_pages import has_later_revision
from rollout.store.tables.tables import cases, count_classes, count_series, counted_units

GUARD: Final = "guard"
MAX_READ_CASES: Final = 5_000


class JudgedUnit(NamedTuple):
    """A unit that counted when its first blind decision arrived.

    Attributes:
        case_id: the unit's judged case.
        slot: of the count.
        occurred: microseconds of the case.
        day: its local day number.
        classes: its class numbers, as stored JSON.
        reviewer: who decided first.
        attributes: of the case, as stored JSON.
    """

    case_id: int
    slot: int
    occurred: int
    day: int
    classes: str
    reviewer: str | None
    attributes: str


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
        self._version = version
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

    def list_slots(self, *, until: int) -> list[int]:
        """Return the slot of each unit counted up to a slot, in order."""
        query = select(counted_units.c.slot).where(*self._conditions, counted_units.c.slot <= until)
        return sorted(self._transaction.execute(query).scalars())

    def find_slot_before_cases(self, case_ids: Collection[int], *, until: int) -> int:
        """Return the last slot up to `until` that is before the count of any of some cases."""
        query = select(counted_units.c.slot, counted_units.c.case_id).where(
            *self._conditions, counted_units.c.slot <= until
        )
        rows = self._transaction.execute(query)
        return min((row.slot - 1 for row in rows if row.case_id in case_ids), default=until)

    def list_occurred(self, since: datetime, until: datetime, *, slots: range) -> list[JudgedUnit]:
        """Return the units whose cases occurred in a span and counted in `slots`, by time.

        Units whose case was deleted are left out.
        """
        query = (
            select(
                *(counted_units.c.case_id, counted_units.c.slot),
                type_coerce(cases.c.occurred_at, BigInteger),
                counted_units.c.day,
                type_coerce(counted_units.c.class_ids, Text),
                counted_units.c.reviewer,
                type_coerce(cases.c.attributes, Text),
            )
            .where(
                *self._conditions,
                counted_units.c.slot >= slots.start,
                counted_units.c.slot < slots.stop,
                cases.c.rollout == counted_units.c.rollout,
                cases.c.case_id == counted_units.c.case_id,
                cases.c.occurred_at >= since,
                cases.c.occurred_at < until,
                ~has_later_revision(),
            )
            .order_by(cases.c.occurred_at, cases.c.case_id)
        )
        return [JudgedUnit._make(row) for row in self._transaction.execute(query).all()]

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
