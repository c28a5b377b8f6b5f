"""What was counted of one version when its cases closed, the newest first, some at a time.

A row a unit of the gate track, evidence or not: what people and the version said stands in its
classes. Who reads them reads no record of a case that fits not, and never more than it asks for.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from sqlalchemy import Text, bindparam, exists, select, tuple_, type_coerce

from rollout.core.calendar.sites import Cell
from rollout.store.database import value_lists
from rollout.store.database.driver_statements import fetched
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.records.history import StoredHistory
from rollout.store.tables.counting_tables import GATE, OF_GATE
from rollout.store.tables.tables import (
    cases,
    count_classes,
    count_series,
    counted_units,
    predictions,
)

PASSED: Final = 10  # for each unit that is asked for so many of other places are passed over

Said = tuple[str, str]
"""What people said and what the version said, as it was counted."""


class Unit(NamedTuple):
    """A closed unit of a version.

    Attributes:
        case_id: the case that stands for it.
        series: the number of where and in which attempt it was counted.
        kinds: its classes, one a lever, as the text that the store has.
        reviewer: whose verdict was the first, None without one.
        site: the case's, as it is known now.
        attributes: the case's, as the text that the store has.
    """

    case_id: int
    series: int
    kinds: str
    reviewer: str | None
    site: str
    attributes: str


class Compared:
    """The closed units of one version."""

    def __init__(self, transaction: Transaction, rollout: Rollout, version: str) -> None:
        self._transaction = transaction
        self._rollout = rollout
        self._version = version

    def places(self) -> Mapping[int, Cell]:
        """Return where units were counted, by the number of the series."""
        query = select(count_series.c.id, count_series.c.site, count_series.c.window).where(
            count_series.c.rollout == self._rollout.number,
            count_series.c.track == GATE,
            count_series.c.version == self._version,
        )
        return {row.id: Cell(row.site, row.window) for row in self._transaction.execute(query)}

    def classes(self, lever: str) -> Mapping[int, Said]:
        """Return what is said in each class of a lever, by the number of the class."""
        query = select(
            count_classes.c.id, count_classes.c.decided, count_classes.c.predicted
        ).where(count_classes.c.rollout == self._rollout.number, count_classes.c.lever == lever)
        return {row.id: (row.decided, row.predicted) for row in self._transaction.execute(query)}

    def newest(
        self, series: Collection[int], slots: range, most: int
    ) -> tuple[list[int], int | None]:
        """Return units that occurred in some slots, the newest first, and how far back they reach.

        That is a slot, before which there may be more; None where these are all.

        Args:
            series: of these alone; others are passed over, though not for ever.
            slots: when they occurred.
            most: how many at most.
        """
        units: list[tuple[int, int]] = []
        for rows in self._parts(slots, most):
            units += [(slot, unit) for slot, unit, unit_series in rows if unit_series in series]
            if len(units) > most:
                return [unit for _, unit in units[:most]], units[most - 1][0]
            if len(rows) < most:
                return [unit for _, unit in units], None
        return [unit for _, unit in units], rows[-1][0]

    def _parts(self, slots: range, at_once: int) -> Iterator[Sequence[tuple[int, int, int]]]:
        parameters = {"rollout": self._rollout.number, "version": self._version}
        parameters |= {"first": slots.start, "at_once": at_once}
        occurred, unit = slots.stop, 0
        for _ in range(PASSED):
            position = {"last_occurred": occurred, "last_unit": unit}
            rows = fetched(self._transaction, NEWEST, parameters | position)
            yield rows
            if len(rows) < at_once:
                return
            occurred, unit, _ = rows[-1]

    def closed(
        self, units: Collection[int], since: datetime, until: datetime, came_by: datetime
    ) -> list[Unit]:
        """Return those of some units whose cases are there, occurred in a span and have closed.

        Args:
            units: their numbers.
            since: when the span begins.
            until: when it ends, outside.
            came_by: a case that occurred or was sent later may be open.
        """
        newer = cases.alias("newer")
        is_corrected = exists().where(
            newer.c.rollout == cases.c.rollout,
            newer.c.case_id == cases.c.case_id,
            newer.c.revision > cases.c.revision,
        )
        query = select(*OF_UNIT).where(
            counted_units.c.rollout == self._rollout.number,
            counted_units.c.unit.in_(value_lists.numbers(self._transaction, units)),
            counted_units.c.version == self._version,
            counted_units.c.track == GATE,
            cases.c.rollout == counted_units.c.rollout,
            cases.c.case_id == counted_units.c.case_id,
            cases.c.occurred_at >= since,
            cases.c.occurred_at < until,
            cases.c.occurred_at <= came_by,
            cases.c.received_at <= came_by,
            ~is_corrected,
        )
        return [Unit._make(row) for row in self._transaction.execute(query).all()]

    def confidences(self, case_ids: Collection[int]) -> Mapping[int, float | None]:
        """Return how sure the version was of some cases, by the prediction that counts."""
        query = select(predictions.c.case_id, predictions.c.confidence).where(
            predictions.c.rollout == self._rollout.number,
            predictions.c.case_id.in_(value_lists.numbers(self._transaction, case_ids)),
            predictions.c.version == self._version,
        )
        confidences: dict[int, float | None] = {}
        corrected_cases: set[int] = set()
        for row in self._transaction.execute(query):
            if row.case_id in confidences:
                corrected_cases.add(row.case_id)
            confidences[row.case_id] = row.confidence
        return {**confidences, **self._fixed(corrected_cases)} if corrected_cases else confidences

    def _fixed(self, case_ids: Collection[int]) -> Mapping[int, float | None]:
        """Return it of cases whose prediction was corrected: not every revision counts."""
        history = StoredHistory(self._transaction, self._rollout, levers=())
        confidences = history.confidences(case_ids)
        return {number: confidences.get((number, self._version)) for number in case_ids}


NEWEST: Final = (
    select(counted_units.c.occurred, counted_units.c.unit, counted_units.c.series_id)
    .where(
        counted_units.c.rollout == bindparam("rollout"),
        counted_units.c.version == bindparam("version"),
        OF_GATE,
        counted_units.c.occurred >= bindparam("first"),
        tuple_(counted_units.c.occurred, counted_units.c.unit)
        < tuple_(bindparam("last_occurred"), bindparam("last_unit")),
    )
    .order_by(counted_units.c.occurred.desc(), counted_units.c.unit.desc())
    .limit(bindparam("at_once"))
)
OF_UNIT: Final = (
    counted_units.c.case_id,
    counted_units.c.series_id,
    type_coerce(counted_units.c.class_ids, Text),
    counted_units.c.reviewer,
    cases.c.site,
    type_coerce(cases.c.attributes, Text),
)
