"""Stored records as the frames that counting, replay and reports read.

Of each record its highest revision is used. A record whose case is not known yet stays out: it
waits for it.

From the moment at which somebody has judged a case in their seat its evidence is fixed: what is
corrected or predicted later, whatever time it names, was sent by whoever could have read the
verdict. And what a person said in their seat is what they said, whatever is sent in their name.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import polars as pl
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Row,
    Table,
    func,
    select,
    type_coerce,
    union,
)

from rollout.core.calendar.instants import MICROSECOND
from rollout.core.records.reviews import SEEDED
from rollout.store.database import value_lists
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.records.external_keys import CASE, EPISODE, CallerKeys
from rollout.store.tables.columns import instant_of, stored
from rollout.store.tables.tables import cases, decisions, heartbeats, outcomes, predictions, reviews
from rollout.tally.frames import (
    ATTRIBUTE,
    REMARK_SCHEMA,
    RIGHT,
    VALUE,
    Records,
    Schema,
    cases_schema,
    decisions_schema,
    known_schema,
    outcomes_schema,
    predictions_schema,
)

Plain = dict[str, Any]


class StoredHistory:
    """The records of one rollout, read for its policy's levers and attributes."""

    def __init__(
        self,
        transaction: Transaction,
        rollout: Rollout,
        *,
        levers: Sequence[str],
        attributes: Sequence[str] = (),
    ) -> None:
        self._transaction = transaction
        self._rollout = rollout
        self._levers = levers
        self._attributes = attributes

    def records(self, case_ids: Collection[int] | None = None) -> Records:
        """Return the records of some cases, by default of all."""
        return self._records(case_ids)

    def checked(self) -> Records:
        """Return the cases that several people judged or whose answer is known, for checks alone.

        They come without predictions: what a model says has no part in how people stand.
        """
        condition = decisions.c.rollout == self._rollout.number
        several_reviewers = (
            select(decisions.c.case_id).where(condition).group_by(decisions.c.case_id)
        )
        several_reviewers = several_reviewers.having(
            func.count(decisions.c.reviewer.distinct()) > 1
        )
        gold_cases = select(reviews.c.case_id).where(*self._seeded())
        case_ids = self._transaction.execute(union(several_reviewers, gold_cases)).scalars()
        return self._records(set(case_ids), predicted=False)

    def judged_before(self, at: datetime) -> tuple[int, int]:
        """Return how many verdicts, and how many on known cases, were given before an instant.

        Records are only ever added, or purged: while these numbers stay, so does what was said.
        """
        given_at = func.coalesce(
            type_coerce(decisions.c.submitted_at, BigInteger),
            type_coerce(decisions.c.received_at, BigInteger),
        )
        condition = decisions.c.rollout == self._rollout.number
        decision_count = (
            select(func.count()).select_from(decisions).where(condition, given_at < stored(at))
        )
        gold_count = select(func.count()).select_from(reviews).where(*self._seeded())
        gold_before = gold_count.where(reviews.c.closed_at < at)
        return tuple(
            self._transaction.execute(query).scalar_one() for query in (decision_count, gold_before)
        )

    def _records(self, case_ids: Collection[int] | None, *, predicted: bool = True) -> Records:
        first_decisions = self._judged(case_ids)
        case_rows = self._fixed(cases, ("case_id",), case_ids, first_decisions)
        keys = self._keys(CASE, (row.case_id for row in case_rows))
        episodes = self._keys(EPISODE, (row.episode for row in case_rows if row.episode))
        no_remarks = pl.DataFrame(schema=REMARK_SCHEMA)

        def frame(
            found: Iterable[Row[Any]], plain: Callable[[Row[Any]], Plain], schema: Schema
        ) -> pl.DataFrame:
            rows = [
                {"case_key": keys[row.case_id], **plain(row)}
                for row in found
                if row.case_id in keys
            ]
            return pl.DataFrame(rows, schema=schema)

        def prediction(row: Row[Any]) -> Plain:
            prediction, first_decision = self._prediction(row), first_decisions.get(row.case_id)
            is_late = first_decision is not None and row.received_at > first_decision
            return {**prediction, "at": row.received_at} if is_late else prediction

        return Records(
            cases=pl.DataFrame(
                [self._case(row, keys, episodes) for row in case_rows],
                schema=cases_schema(self._attributes),
            ),
            predictions=frame(
                self._fixed(predictions, ("case_id", "version"), case_ids, first_decisions)
                if predicted
                else (),
                prediction,
                predictions_schema(self._levers),
            ),
            decisions=frame(
                self._decided(case_ids), self._decision, decisions_schema(self._levers)
            ),
            outcomes=frame(
                self._newest(outcomes, ("case_id",), case_ids).values(),
                self._outcome,
                outcomes_schema(self._levers),
            ),
            set_aside=no_remarks,
            notes=no_remarks,
            read={},
            known=frame(self._known(case_ids), self._verdict, known_schema(self._levers)),
        )

    def with_episodes(self, case_ids: Collection[int]) -> set[int]:
        """Return the cases together with all others of the same episodes."""
        episodes = (
            select(cases.c.episode)
            .where(cases.c.rollout == self._rollout.number)
            .where(cases.c.case_id.in_(value_lists.numbers(self._transaction, case_ids)))
        )  # none for the null of those without: to ask for it would read all by the other index
        query = select(cases.c.case_id).where(
            cases.c.rollout == self._rollout.number, cases.c.episode.in_(episodes)
        )
        return {*case_ids, *self._transaction.execute(query).scalars()}

    def with_spans(self, case_ids: Collection[int], span: timedelta) -> set[int]:
        """Return the cases that name no episode, with all others of their site and clock span."""
        own_cases, other_cases = cases.alias("mine"), cases.alias("other")
        span_micros = span // MICROSECOND
        span_start = (type_coerce(own_cases.c.occurred_at, BigInteger) // span_micros) * span_micros
        occurred_micros = type_coerce(other_cases.c.occurred_at, BigInteger)
        query = select(other_cases.c.case_id).where(
            own_cases.c.rollout == self._rollout.number,
            own_cases.c.case_id.in_(value_lists.numbers(self._transaction, case_ids)),
            own_cases.c.episode.is_(None),
            other_cases.c.rollout == own_cases.c.rollout,
            other_cases.c.site == own_cases.c.site,
            occurred_micros >= span_start,
            occurred_micros < span_start + span_micros,
            other_cases.c.episode.is_(None),
        )
        return set(self._transaction.execute(query).scalars())

    def confidences(self, case_ids: Collection[int]) -> Mapping[tuple[int, str], float | None]:
        """Return by case and version how sure it was, of the prediction that `records` gives."""
        key_columns, first_decisions = ("case_id", "version"), self._judged(case_ids)
        rows = self._fixed(predictions, key_columns, case_ids, first_decisions)
        return {(row.case_id, row.version): row.confidence for row in rows}

    def recent(self, since: datetime) -> set[int]:
        """Return the cases of which something happened from an instant on, by its own time."""
        times_by_table = (
            (cases, cases.c.occurred_at),
            (predictions, predictions.c.at),
            (decisions, decisions.c.submitted_at),
            (outcomes, outcomes.c.at),
        )
        queries = (
            select(table.c.case_id).where(table.c.rollout == self._rollout.number, at >= since)
            for table, at in times_by_table
        )
        return set(self._transaction.execute(union(*queries)).scalars())

    def last_heard(self) -> dict[str, datetime]:
        """Return by site when its last case occurred."""
        query = (
            select(cases.c.site, func.max(cases.c.occurred_at).label("at"))
            .where(cases.c.rollout == self._rollout.number)
            .group_by(cases.c.site)
        )
        return {row.site: row.at for row in self._transaction.execute(query)}

    def heartbeats(self, site: str, *, after: datetime | None = None) -> Sequence[datetime]:
        """Return when a site gave a sign of life, after an instant where one is given."""
        query = select(heartbeats.c.at).where(
            heartbeats.c.rollout == self._rollout.number, heartbeats.c.site == site
        )
        if after is not None:
            query = query.where(heartbeats.c.at > after)
        return self._transaction.execute(query.order_by(heartbeats.c.at)).scalars().all()

    def _newest(
        self, table: Table, by: Sequence[str], case_ids: Collection[int] | None
    ) -> dict[tuple[Any, ...], Row[Any]]:
        """Return each record's highest revision, in the order of cases."""
        rows = self._rows(table, by, case_ids)
        return {tuple(getattr(row, name) for name in by): row for row in rows}

    def _rows(
        self, table: Table, by: Sequence[str], case_ids: Collection[int] | None
    ) -> Iterable[Row[Any]]:
        query = select(table).where(table.c.rollout == self._rollout.number)
        if case_ids is not None:
            case_id_query = value_lists.numbers(self._transaction, case_ids)
            query = query.where(table.c.case_id.in_(case_id_query))
        query = query.order_by(*(table.c[name] for name in by), table.c.revision)
        return self._transaction.execute(query)

    def _judged(self, case_ids: Collection[int] | None) -> dict[int, datetime]:
        """Return when somebody first judged a case in their seat, by the case."""
        first_received = type_coerce(
            func.min(decisions.c.received_at), decisions.c.received_at.type
        )
        query = select(decisions.c.case_id, first_received.label("first")).where(
            decisions.c.rollout == self._rollout.number, decisions.c.review.is_not(None)
        )
        if case_ids is not None:
            case_id_query = value_lists.numbers(self._transaction, case_ids)
            query = query.where(decisions.c.case_id.in_(case_id_query))
        rows = self._transaction.execute(query.group_by(decisions.c.case_id))
        return {row.case_id: row.first for row in rows}

    def _fixed(
        self,
        table: Table,
        by: Sequence[str],
        case_ids: Collection[int] | None,
        judged: Mapping[int, datetime],
    ) -> Collection[Row[Any]]:
        """Return of each record the highest revision that came before its case was judged here.

        One that came later altogether is given as it came first.
        """
        if not judged:
            return self._newest(table, by, case_ids).values()
        rows_by_key: dict[tuple[Any, ...], Row[Any]] = {}
        for row in self._rows(table, by, case_ids):
            key, first_decision = tuple(getattr(row, name) for name in by), judged.get(row.case_id)
            if (
                key not in rows_by_key
                or first_decision is None
                or row.received_at <= first_decision
            ):
                rows_by_key[key] = row
        return rows_by_key.values()

    def _decided(self, case_ids: Collection[int] | None) -> Collection[Row[Any]]:
        """Return what each person said of a case: in their seat, or, without one, elsewhere."""
        rows_by_key: dict[tuple[Any, ...], Row[Any]] = {}
        for row in self._rows(decisions, ("case_id", "reviewer"), case_ids):
            previous = rows_by_key.get((row.case_id, row.reviewer))
            if previous is None or previous.review is None or row.review is not None:
                rows_by_key[row.case_id, row.reviewer] = row
        return rows_by_key.values()

    def _seeded(self) -> tuple[ColumnElement[bool], ...]:
        own_rollout = reviews.c.rollout == self._rollout.number
        return own_rollout, reviews.c.kind == SEEDED, reviews.c.gold_decision.is_not(None)

    def _known(self, case_ids: Collection[int] | None) -> Iterable[Row[Any]]:
        """Return the verdicts on known cases, in the order of cases."""
        query = select(reviews).where(*self._seeded())
        if case_ids is not None:
            case_id_query = value_lists.numbers(self._transaction, case_ids)
            query = query.where(reviews.c.case_id.in_(case_id_query))
        return self._transaction.execute(query.order_by(reviews.c.case_id, reviews.c.reviewer))

    def _keys(self, kind: str, numbers: Iterable[int]) -> Mapping[int, str]:
        return CallerKeys(self._transaction, self._rollout, kind).keys_of(set(numbers))

    def _case(self, row: Row[Any], keys: Mapping[int, str], episodes: Mapping[int, str]) -> Plain:
        return {
            "case_key": keys[row.case_id],
            "site": row.site,
            "occurred_at": row.occurred_at,
            "occurred_text": row.occurred_at.isoformat(),
            "hour_written": row.occurred_at.hour,
            "episode": episodes.get(row.episode),
            "received_at": row.received_at,
            **{ATTRIBUTE + name: row.attributes.get(name) for name in self._attributes},
        }

    def _answers(self, row: Row[Any]) -> Plain:
        return {VALUE + lever: row.answers.get(lever) for lever in self._levers}

    def _prediction(self, row: Row[Any]) -> Plain:
        return {
            "version": row.version,
            **self._answers(row),
            "confidence": row.confidence,
            "at": row.at,
            "latency_ms": row.latency_ms,
            "error": row.error,
        }

    def _decision(self, row: Row[Any]) -> Plain:
        answers = self._answers(row)
        return {
            "reviewer": row.reviewer,
            **answers,
            "unsure": row.unsure or None in answers.values(),
            "exposure": row.exposure,
            "seat": row.task_number,
            "at": row.submitted_at or row.received_at,
            "started_at": row.started_at if row.submitted_at else None,
        }

    def _verdict(self, row: Row[Any]) -> Plain:
        """Return a verdict on a known case beside the answer that is known."""
        started_at = row.gold_decision["started_at"]
        answers = {VALUE + lever: row.gold_decision["answers"].get(lever) for lever in self._levers}
        return {
            "reviewer": row.reviewer,
            **answers,
            **{RIGHT + lever: row.gold_answers.get(lever) for lever in self._levers},
            "unsure": row.gold_decision["unsure"] or None in answers.values(),
            "at": instant_of(row.gold_decision["submitted_at"]),
            "started_at": None if started_at is None else instant_of(started_at),
        }

    def _outcome(self, row: Row[Any]) -> Plain:
        return {**self._answers(row), "harm": row.harm, "at": row.at}
