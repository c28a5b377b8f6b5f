"""Closed units of a version, for lists of pairs or as guards count them; cases of a period.

Each unit on the gate track is a row, evidence or not; its classes hold the human's and the
version's answers. So a page of pairs reads records only of the cases that it shows.

Guards count the units of a version in a cell that have a blind decision.

Reports and lists read of a period, besides records: cases, actions, open reviews, last arrivals.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

import polars as pl
from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    Double,
    Integer,
    LargeBinary,
    Select,
    Text,
    bindparam,
    case,
    func,
    literal_column,
    select,
    tuple_,
    type_coerce,
)
from sqlalchemy.types import TypeEngine

from rollout.data.counting.unit_records import NO_ALIASES
from rollout.data.database.bulk import fetch_rows, select_numbers
from rollout.data.database.rollouts import Rollout, RolloutRepository, match_cases
from rollout.data.database.session import Transaction
from rollout.data.records.case_pages import has_later_revision
from rollout.data.records.external_keys import ExternalKeys
from rollout.data.records.history import StoredHistory
from rollout.data.records.records import UNPLACED_SPAN, RejectedRecords
from rollout.data.reviews.reviews import OPEN
from rollout.data.tables.record_tables import GATE, OF_GATE, InstantType, JsonType, encode_instant
from rollout.data.tables.tables import (
    actions,
    cases,
    count_classes,
    count_series,
    counted_units,
    decisions,
    heartbeats,
    predictions,
    reviews,
)
from rollout.engine.evidence.frames import INSTANT
from rollout.engine.records.reviews import BLIND_KINDS, SEEDED
from rollout.kernel.calendar.instants import Cell, from_micros
from rollout.kernel.policy.gates import UnplacedDecisions

MAX_PASSES: Final = 10  # parts read at most

AnswerPair = tuple[str, str]
"""The human's answer and the version's answer, as counted."""


class ClosedUnit(NamedTuple):
    """A closed unit of a version.

    Attributes:
        case_id: the unit's representative case.
        series: number of the series of counts (cell and attempt).
        kinds: its classes, one a lever, as stored JSON.
        reviewer: who decided first; None without a decision.
        site: the site of the case's last revision.
        attributes: the case's attributes, as stored JSON.
    """

    case_id: int
    series: int
    kinds: str
    reviewer: str | None
    site: str
    attributes: str


def load_answer_pairs(
    transaction: Transaction, rollout: Rollout, lever: str
) -> dict[int, AnswerPair]:
    """Return the human's and the version's answer of each class of a lever, by class number."""
    query = select(count_classes.c.id, count_classes.c.decided, count_classes.c.predicted).where(
        count_classes.c.rollout == rollout.number, count_classes.c.lever == lever
    )
    return {row.id: (row.decided, row.predicted) for row in transaction.execute(query)}


class ClosedUnits(RolloutRepository):
    """The closed units of one version."""

    def __init__(
        self,
        transaction: Transaction,
        rollout: Rollout,
        version: str,
        first_names: Mapping[str, str] = NO_ALIASES,
    ) -> None:
        super().__init__(transaction, rollout)
        self._version = version
        self._first_names = first_names
        aliases = (alias for alias, name in first_names.items() if name == version)
        self._names = (version, *aliases)

    def load_cells(self) -> Mapping[int, Cell]:
        """Return the cells in which units were counted, by series."""
        query = select(count_series.c.id, count_series.c.site, count_series.c.window).where(
            count_series.c.rollout == self._rollout.number,
            count_series.c.track == GATE,
            count_series.c.version == self._version,
        )
        return {row.id: Cell(row.site, row.window) for row in self._transaction.execute(query)}

    def list_newest(
        self, series: Collection[int], slots: range, limit: int
    ) -> tuple[list[int], int | None]:
        """Return units that occurred in `slots`, newest first, and a slot.

        Units before this slot were not read; None means that no others exist. Units of other
        `series` are skipped, at most `MAX_PASSES` times the limit.
        """
        units: list[tuple[int, int]] = []
        for rows in self._load_parts(slots, limit):
            units += [(slot, unit) for slot, unit, unit_series in rows if unit_series in series]
            if len(units) > limit:
                return [unit for _, unit in units[:limit]], units[limit - 1][0]
            if len(rows) < limit:
                return [unit for _, unit in units], None
        return [unit for _, unit in units], rows[-1][0]

    def _load_parts(self, slots: range, at_once: int) -> Iterator[Sequence[tuple[int, int, int]]]:
        parameters = {"rollout": self._rollout.number, "version": self._version}
        parameters |= {"first": slots.start, "at_once": at_once}
        occurred, unit = slots.stop, 0
        for _ in range(MAX_PASSES):
            position = {"last_occurred": occurred, "last_unit": unit}
            rows = fetch_rows(self._transaction, NEWEST_QUERY, parameters | position)
            yield rows
            if len(rows) < at_once:
                return
            occurred, unit, _ = rows[-1]

    def load_closed(
        self, unit_ids: Collection[int], since: datetime, until: datetime, received_until: datetime
    ) -> list[ClosedUnit]:
        """Return the units whose cases occurred in a span and have closed.

        Units without a case are omitted. A case that occurred or arrived after `received_until` may
        still be open.
        """
        # SQLite looks every unit up for each case received if it uses the index of receipts
        received_at = type_coerce(cases.c.received_at, BigInteger) + literal_column("0", BigInteger)
        query = select(*UNIT_COLUMNS).where(
            counted_units.c.rollout == self._rollout.number,
            counted_units.c.unit.in_(select_numbers(self._transaction, unit_ids)),
            counted_units.c.version == self._version,
            counted_units.c.track == GATE,
            cases.c.rollout == counted_units.c.rollout,
            cases.c.case_id == counted_units.c.case_id,
            cases.c.occurred_at >= since,
            cases.c.occurred_at < until,
            cases.c.occurred_at <= received_until,
            received_at <= encode_instant(received_until),
            ~has_later_revision(),
        )
        return [ClosedUnit._make(row) for row in self._transaction.execute(query).all()]

    def load_confidences(self, case_ids: Collection[int]) -> Mapping[int, float | None]:
        """Return the version's confidence by case, of the prediction that counts."""
        query = select(predictions.c.case_id, predictions.c.confidence).where(
            *match_cases(self._transaction, self._rollout, predictions, case_ids),
            predictions.c.version.in_(self._names),
        )
        confidences: dict[int, float | None] = {}
        corrected_cases: set[int] = set()
        for row in self._transaction.execute(query):
            if row.case_id in confidences:
                corrected_cases.add(row.case_id)
            confidences[row.case_id] = row.confidence
        return (
            confidences | self._load_corrected(corrected_cases) if corrected_cases else confidences
        )

    def _load_corrected(self, case_ids: Collection[int]) -> dict[int, float | None]:
        """Return the confidences of corrected predictions: not every revision counts."""
        confidences = StoredHistory(
            self._transaction, self._rollout, levers=(), first_names=self._first_names
        ).load_confidences(case_ids)
        return {number: confidences.get((number, self._version)) for number in case_ids}


NEWEST_QUERY: Final = (
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
UNIT_COLUMNS: Final = (
    counted_units.c.case_id,
    counted_units.c.series_id,
    type_coerce(counted_units.c.class_ids, Text),
    counted_units.c.reviewer,
    cases.c.site,
    type_coerce(cases.c.attributes, Text),
)


SLOT_QUERY: Final = select(
    counted_units.c.occurred,
    counted_units.c.slices,
    type_coerce(cases.c.occurred_at, BigInteger),
).where(
    counted_units.c.rollout == bindparam("rollout"),
    counted_units.c.version == bindparam("version"),
    counted_units.c.track == literal_column(f"'{GATE}'"),
    # SQLite reads all units of the rollout for an equal slot, without statistics
    counted_units.c.occurred >= bindparam("slot"),
    counted_units.c.occurred <= bindparam("slot"),
    counted_units.c.series_id.in_(
        select(count_series.c.id).where(
            count_series.c.rollout == bindparam("rollout"),
            count_series.c.track == GATE,
            count_series.c.version == bindparam("version"),
            count_series.c.site == bindparam("site"),
            count_series.c.window == bindparam("window"),
        )
    ),
    counted_units.c.exclusion_reason.is_(None),
    counted_units.c.slices.is_not(None),
    cases.c.rollout == counted_units.c.rollout,
    cases.c.case_id == counted_units.c.case_id,
    ~has_later_revision(),
)


def list_units_of_slots(
    transaction: Transaction, rollout: Rollout, cell: Cell, slots: Collection[int]
) -> list[tuple[int, str, datetime]]:
    """Return the cell's closed units that occurred in some slots and have values, in no order.

    Each has its slot, its case's values as stored JSON, and when the case occurred. Units without a
    case are omitted.
    """
    versions = select(count_series.c.version).where(
        count_series.c.rollout == rollout.number,
        count_series.c.track == GATE,
        count_series.c.site == cell.site,
        count_series.c.window == cell.window,
    )
    parameters = {"rollout": rollout.number, "site": cell.site, "window": cell.window}
    return [
        (occurred, text, from_micros(at))
        for version in transaction.execute(versions.distinct()).scalars().all()
        for slot in slots
        for occurred, text, at in fetch_rows(
            transaction, SLOT_QUERY, {**parameters, "version": version, "slot": slot}
        )
    ]


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


class JudgedUnitStore(RolloutRepository):
    """The judged units of one version in one cell, those that are evidence."""

    def __init__(
        self, transaction: Transaction, rollout: Rollout, cell: Cell, version: str
    ) -> None:
        super().__init__(transaction, rollout)
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


ACTION_COLUMNS = ("lever", "action", "by", "version", "at", "authorization", "permit_kind")


@dataclass(frozen=True, slots=True)
class UnplacedHistory:
    """Decisions that belonged to no cell, and the others, as ticks of a period counted them.

    Each has the sorted instants at which a case began and ceased to count.
    """

    unplaced: tuple[pl.Series, pl.Series]
    placed: tuple[pl.Series, pl.Series]

    def count_at(self, at: datetime) -> UnplacedDecisions:
        """Return what `RejectedRecords.count_unplaced_decisions` returned at an instant."""
        unplaced, placed = (
            int(starts.search_sorted(at, side="right") - ends.search_sorted(at, side="right"))
            for starts, ends in (self.unplaced, self.placed)
        )
        return UnplacedDecisions(unplaced, unplaced + placed)


def _list_spans(frame: pl.DataFrame) -> tuple[pl.Series, pl.Series]:
    """Return when cases begin and cease to count: for a week, until placed or received again."""
    week = pl.col("received_at") + UNPLACED_SPAN + timedelta.resolution  # its last instant counts
    again = pl.col("received_at").shift(-1).over("case_id", order_by="received_at")
    placed = [name for name in frame.columns if name == "placed_at"]
    spans = frame.with_columns(ended_at=pl.min_horizontal(week, again, *placed))
    spans = spans.filter(pl.col("ended_at") > pl.col("received_at"))
    return spans["received_at"].sort(), spans["ended_at"].sort()


class PeriodRecords(RolloutRepository):
    """Cases, actions and reviews of one rollout in a period."""

    def list_cases(self, since: datetime, until: datetime) -> set[int]:
        """Return the cases that occurred in a period; its end is excluded.

        A corrected case belongs to the period of each of its revisions; the caller picks the last
        one.
        """
        query = select(cases.c.case_id).where(
            cases.c.rollout == self._rollout.number,
            cases.c.occurred_at >= since,
            cases.c.occurred_at < until,
        )
        return set(self._transaction.execute(query).scalars())

    def list_blind_cases(self, at: datetime, *, with_gold: bool = True) -> set[int]:
        """Return the cases that a reviewer may still decide blind."""
        query = select(reviews.c.case_id).where(
            reviews.c.rollout == self._rollout.number,
            reviews.c.state == OPEN,
            reviews.c.kind.in_([kind for kind in BLIND_KINDS if with_gold or kind != SEEDED]),
            (reviews.c.due_at.is_(None)) | (reviews.c.due_at > at),
        )
        return set(self._transaction.execute(query).scalars())

    def list_attributes(self, case_ids: Collection[int]) -> list[str]:
        """Return the sorted names of all attributes of some cases."""
        query = select(cases.c.attributes).where(
            *match_cases(self._transaction, self._rollout, cases, case_ids),
        )
        attribute_maps = self._transaction.execute(query).scalars()
        return sorted({name for attributes in attribute_maps for name in attributes})

    def load_actions(
        self, case_ids: Collection[int], schema: Mapping[str, pl.DataType]
    ) -> pl.DataFrame:
        """Return the last action on each lever of some cases.

        `schema` has case_key first, then the columns of `ACTION_COLUMNS`.
        """
        rows = self._transaction.execute(
            select(actions)
            .where(*match_cases(self._transaction, self._rollout, actions, case_ids))
            .order_by(actions.c.case_id, actions.c.lever, actions.c.revision)
        )
        newest_rows = {(row.case_id, row.lever): row for row in rows}
        keys = ExternalKeys(self._transaction, self._rollout).find_keys({n for n, _ in newest_rows})
        values = [
            (keys[case_id], *(getattr(row, name) for name in ACTION_COLUMNS))
            for (case_id, _), row in newest_rows.items()
            if case_id in keys
        ]
        return pl.DataFrame(values, schema=dict(schema), orient="row")

    def load_unplaced(self, since: datetime, until: datetime) -> UnplacedHistory | None:
        """Return the decisions of a period that belonged to no cell; None without any."""
        since -= UNPLACED_SPAN
        rejected = RejectedRecords(self._transaction, self._rollout).list_unplaced(since, until)
        if not rejected:
            return None
        ids = ExternalKeys(self._transaction, self._rollout).find_ids({key for key, _ in rejected})
        placed_query = (
            select(decisions.c.case_id, func.min(decisions.c.received_at).label("at"))
            .where(*match_cases(self._transaction, self._rollout, decisions, set(ids.values())))
            .group_by(decisions.c.case_id)
        )
        placed_at = {row.case_id: row.at for row in self._transaction.execute(placed_query)}
        rows = [(key, at, placed_at.get(ids.get(key, 0))) for key, at in rejected]
        schema = {"case_id": pl.String(), "received_at": INSTANT, "placed_at": INSTANT}
        query = select(decisions.c.case_id, decisions.c.received_at).where(
            decisions.c.rollout == self._rollout.number,
            decisions.c.received_at.between(since, until),
        )
        return UnplacedHistory(
            unplaced=_list_spans(pl.DataFrame(rows, schema=schema, orient="row")),
            placed=_list_spans(load_frame(self._transaction, query)),
        )

    def count_open_reviews(
        self, since: datetime, at: datetime, soon_until: datetime
    ) -> list[tuple[str, int, int, int, datetime | None]]:
        """Return by site the reviews open, overdue and due soon.

        Rows are (site, open, overdue since `since`, due by `soon_until`, opening time of the oldest
        open one). Sites without any of them are omitted.
        """
        due_at = reviews.c.due_at
        is_wanted = due_at.is_(None) | (due_at > at)
        is_overdue = (due_at >= since) & (due_at <= at)
        query = self._group_by_site(
            {
                "open": is_wanted,
                "overdue": is_overdue,
                "expiring": is_wanted & (due_at <= soon_until),
            },
            is_wanted,
        )
        rows = self._transaction.execute(query)
        counts_by_site = [(r.site, r.open, r.overdue, r.expiring, r.oldest) for r in rows]
        return [row for row in counts_by_site if any(row[1:4])]

    def _group_by_site(
        self, counts: Mapping[str, ColumnElement[bool]], is_wanted: ColumnElement[bool]
    ) -> Select[Any]:
        oldest = func.min(case((is_wanted, reviews.c.opened_at)))
        return (
            select(
                reviews.c.site,
                *(
                    func.sum(case((condition, 1), else_=0)).label(name)
                    for name, condition in counts.items()
                ),
                type_coerce(oldest, InstantType).label("oldest"),
            )
            .where(reviews.c.rollout == self._rollout.number, reviews.c.state == OPEN)
            .group_by(reviews.c.site)
            .order_by(reviews.c.site)
        )

    def load_last_received(self) -> dict[str, datetime]:
        """Return by site when its last case or heartbeat was received, planted cases aside."""
        last_received: dict[str, datetime] = {}
        for table in (cases, heartbeats):
            last_received_at = type_coerce(func.max(table.c.received_at), InstantType).label("at")
            is_natural = (cases.c.planted.is_(None),) if table is cases else ()
            query = (
                select(table.c.site, last_received_at)
                .where(table.c.rollout == self._rollout.number, *is_natural)
                .group_by(table.c.site)
            )
            for row in self._transaction.execute(query):
                last_received[row.site] = max(row.at, last_received.get(row.site, row.at))
        return dict(sorted(last_received.items()))


COLUMN_TYPES: tuple[tuple[type[TypeEngine[Any]], pl.DataType], ...] = (
    (InstantType, INSTANT),
    (JsonType, pl.List(pl.Int64())),
    (Boolean, pl.Boolean()),
    (Integer, pl.Int64()),
    (Double, pl.Float64()),
    (LargeBinary, pl.Binary()),
    (Text, pl.String()),
)


def load_frame(transaction: Transaction, query: Select[Any]) -> pl.DataFrame:
    """Return the rows of a query; JSON columns are lists of integers."""
    return pl.concat(load_frame_parts(transaction, query))


def load_frame_parts(
    transaction: Transaction, query: Select[Any], at_once: int = 5_000
) -> Iterator[pl.DataFrame]:
    """Yield the rows of a query in frames, at least one."""
    columns = list(query.selected_columns)
    schema = {column.name: _find_type(column.type) for column in columns}
    json_columns = [column.name for column in columns if isinstance(column.type, JsonType)]
    stored_schema = schema | dict.fromkeys(json_columns, pl.String())
    decoded = [pl.col(name).str.json_decode(schema[name]) for name in json_columns]
    query = query.with_only_columns(*map(_select_json_as_text, columns))
    result = transaction.execute(query.execution_options(yield_per=at_once))
    is_empty = True
    for part in result.partitions():
        is_empty = False
        cells = zip(schema, zip(*part, strict=True), strict=True)  # rows take twice the time
        yield pl.DataFrame(dict(cells), schema=stored_schema).with_columns(decoded)
    if is_empty:
        yield pl.DataFrame(schema=schema)


def _select_json_as_text(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return a column, JSON as stored: a list for each row is slow to make, twice."""
    if isinstance(column.type, JsonType):
        return type_coerce(column, Text).label(column.name)
    return column


def _find_type(column_type: TypeEngine[Any]) -> pl.DataType:
    return next(
        frame_type
        for stored_type, frame_type in COLUMN_TYPES
        if isinstance(column_type, stored_type)
    )
