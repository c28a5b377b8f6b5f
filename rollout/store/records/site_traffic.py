"""Cases by site and span of time, and how many of them the model decided."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Exists,
    FromClause,
    Table,
    and_,
    case,
    exists,
    func,
    literal_column,
    or_,
    select,
    true,
    type_coerce,
)

from rollout.core.calendar.instants import count_micros, to_micros
from rollout.store.database.bulk import encode_driver_values, select_texts
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.records.case_pages import has_later_revision
from rollout.store.tables.tables import actions, cases, heartbeats, predictions


class SiteSignStore:
    """The cases and heartbeats of one rollout's sites."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction, self._rollout = transaction, rollout

    def find_site_cases(self, site: str, since: datetime) -> set[int]:
        """Return the cases that occurred at a site since a time."""
        query = select(cases.c.case_id).where(
            cases.c.rollout == self._rollout.number,
            cases.c.site == site,
            cases.c.occurred_at >= since,
        )
        return set(self._transaction.execute(query).scalars())

    def load_case_spans(self, sites: Collection[str]) -> dict[str, tuple[datetime, datetime]]:
        """Return by site when its first and last cases occurred, planted ones aside.

        The index gives both ends of each site; a group-by would read all cases.
        """
        listed_sites = select_texts(self._transaction.engine, "sites").subquery("listed_sites")
        own_cases = (
            select(cases.c.occurred_at)
            .where(cases.c.rollout == self._rollout.number, cases.c.planted.is_(None))
            .where(cases.c.site == listed_sites.c.value)
            .limit(literal_column("1"))
        )
        ends = [
            own_cases.order_by(order).correlate(listed_sites).scalar_subquery().label(name)
            for name, order in (
                ("first", cases.c.occurred_at),
                ("last", cases.c.occurred_at.desc()),
            )
        ]
        engine = self._transaction.engine
        texts = encode_driver_values(engine, sites)
        rows = self._transaction.execute(select(listed_sites.c.value, *ends), {"sites": texts})
        return {row.value: (row.first, row.last) for row in rows if row.first is not None}

    def load_last_heartbeat(self, site: str) -> datetime | None:
        """Return the time of a site's last heartbeat, or None."""
        query = select(func.max(heartbeats.c.at)).where(
            heartbeats.c.rollout == self._rollout.number, heartbeats.c.site == site
        )
        at: datetime | None = self._transaction.execute(query).scalar_one()
        return at

    def load_heartbeats(self, site: str, *, after: int | None = None) -> Sequence[int]:
        """Return the times of a site's heartbeats, optionally after a time; in microseconds."""
        at = type_coerce(heartbeats.c.at, BigInteger)
        query = select(at).where(
            heartbeats.c.rollout == self._rollout.number, heartbeats.c.site == site
        )
        if after is not None:
            query = query.where(at > after)
        return self._transaction.execute(query.order_by(at)).scalars().all()


MODEL: Final = "model"
OUTSIDE: Final = -1
"""The number of no span."""


class SiteSpans(NamedTuple):
    """Spans of some sites, numbered from 0: each ends where the next one begins."""

    sites: tuple[str, ...]
    edges: tuple[datetime, ...]


class TrafficCount(NamedTuple):
    """Cases of a site in a span.

    Attributes:
        site, span: where, and the number of the span.
        cases: all of them.
        decided: those with a stored decider, in whole batches at batched sites.
        decided_by_model: how many of them the model decided.
    """

    site: str
    span: int
    cases: int
    decided: int
    decided_by_model: int


class ClosedBatches(NamedTuple):
    """How deciders are counted where single cases must not be told apart.

    Only cases that closed count, in whole batches of `size` by the time of closing. A case closes
    when it occurred and arrived `grace` ago; a record that arrives later changes nothing.
    """

    sites: frozenset[str]
    size: int
    grace: timedelta


def count_site_traffic(
    transaction: Transaction, rollout: Rollout, spans: Sequence[SiteSpans], batches: ClosedBatches
) -> list[TrafficCount]:
    """Return the cases of each site and span that has any, and their deciders; one query.

    An action says who decided, or else the assignment that is stored with the prediction. The last
    span ends now.
    """
    closing = _build_closing(batches.grace)
    until = max(part.edges[-1] for part in spans)
    newest = (
        select(
            *(cases.c.site, cases.c.case_id, closing.label("closing")),
            _build_span(spans).label("span"),
            _build_is_model(batches.sites, closing).label("is_model"),
            case((closing <= to_micros(until), 1), else_=0).label("is_closed"),
        )
        .where(
            cases.c.rollout == rollout.number,
            cases.c.site.in_([site for part in spans for site in part.sites]),
            cases.c.occurred_at >= min(part.edges[0] for part in spans),
            cases.c.occurred_at < until,
            ~has_later_revision(),
        )
        .subquery("newest")
    )
    group = (newest.c.site, newest.c.span, newest.c.is_closed)
    batched = (*group, newest.c.is_model.is_(None))  # a batch has cases with a known decider alone
    order = func.row_number().over(
        partition_by=batched, order_by=(newest.c.closing, newest.c.case_id)
    )
    total = func.count().over(partition_by=batched)
    rows = (
        select(*group, newest.c.is_model, order.label("place"), total.label("total"))
        .where(newest.c.span != OUTSIDE)
        .subquery("ranked")
    )
    is_in_whole_batch = rows.c.place <= rows.c.total - rows.c.total % batches.size
    is_counted = or_(
        rows.c.site.not_in(sorted(batches.sites)), and_(rows.c.is_closed == 1, is_in_whole_batch)
    )
    query = select(
        rows.c.site,
        rows.c.span,
        func.count(),
        func.count(case((is_counted, rows.c.is_model))),
        func.count(case((and_(is_counted, rows.c.is_model == 1), 1))),
    ).group_by(rows.c.site, rows.c.span)
    return [TrafficCount._make(row) for row in transaction.execute(query).all()]


def _build_closing(grace: timedelta) -> ColumnElement[int]:
    """Return the instant at which a case closes, in microseconds."""
    occurred = type_coerce(cases.c.occurred_at, BigInteger)
    received = type_coerce(cases.c.received_at, BigInteger)
    return case((occurred > received, occurred), else_=received) + count_micros(grace)


def _build_span(spans: Sequence[SiteSpans]) -> ColumnElement[int]:
    """Return the number of the span in which a case occurred."""
    return case(
        *(
            (
                cases.c.site.in_(part.sites),
                case(
                    *(
                        (cases.c.occurred_at < edge, number)
                        for number, edge in enumerate(part.edges, OUTSIDE)
                    ),
                    else_=OUTSIDE,
                ),
            )
            for part in spans
        ),
        else_=OUTSIDE,
    )


def _build_is_model(
    batched_sites: Collection[str], closing: ColumnElement[int]
) -> ColumnElement[int | None]:
    """Return 1 for a case that the model decided, 0 for a human, null if nothing says who."""

    def is_in_time(table: FromClause) -> ColumnElement[bool]:
        if not batched_sites:
            return true()
        received = type_coerce(table.c.received_at, BigInteger)
        return or_(cases.c.site.not_in(sorted(batched_sites)), received < closing)

    def has_row(table: Table, *conditions: ColumnElement[bool]) -> Exists:
        return exists().where(
            table.c.rollout == cases.c.rollout,
            table.c.case_id == cases.c.case_id,
            is_in_time(table),
            *conditions,
        )

    later = actions.alias("later_action")
    is_newest = ~(
        exists()
        .where(
            later.c.rollout == actions.c.rollout,
            later.c.case_id == actions.c.case_id,
            later.c.lever == actions.c.lever,
            later.c.revision > actions.c.revision,
            is_in_time(later),
        )
        .correlate(actions, cases)
    )
    return case(
        (has_row(actions, actions.c.by == MODEL, is_newest), 1),
        (has_row(actions), 0),
        (has_row(predictions, predictions.c.decider == MODEL), 1),
        (has_row(predictions, predictions.c.decider.is_not(None)), 0),
        else_=None,
    )
