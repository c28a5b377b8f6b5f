"""Cases as people look through them, newest first, and all that is kept of one."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, Table, and_, exists, select

from rollout.core.records.records import Action, Outcome, Record
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.records.record_rows import record_of
from rollout.store.tables.tables import (
    actions,
    cases,
    count_classes,
    count_series,
    counted_units,
    decisions,
    outcomes,
    predictions,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which cases; what is left out does not matter. `sites` None is all of them."""

    sites: Collection[str] | None = None
    window: str | None = None
    version: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    differs: bool = False


@dataclass(frozen=True, slots=True)
class Count:
    """Where a unit was counted, and as what, on one lever."""

    version: str
    track: str
    slot: int
    site: str
    window: str
    attempt: int
    definition: str
    lever: str
    predicted: str
    decided: str
    reviewer: str | None
    excluded: str | None


class CasePages:
    """The cases of one rollout."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction = transaction
        self._rollout = rollout

    def page(
        self, wanted: Filter, *, before: int | None = None, limit: int = 100
    ) -> Mapping[int, datetime]:
        """Return cases that fit, newest first: their numbers, and when they were received.

        Args:
            wanted: which; with `differs` also some whose texts differ while they mean the same.
            before: the number after which the page before ended.
            limit: how many at most.
        """
        query = self._newest().where(*self._fits(wanted))
        if before is not None:
            query = query.where(cases.c.case_id < before)
        rows = self._transaction.execute(query.order_by(cases.c.case_id.desc()).limit(limit))
        return {row.case_id: row.received_at for row in rows}

    def received_at(self, case_id: int) -> datetime | None:
        """Return when the newest revision of a case was received, None where there is none."""
        query = self._newest().where(cases.c.case_id == case_id)
        row = self._transaction.execute(query).one_or_none()
        return None if row is None else row.received_at

    def actions(self, case_id: int, key: str) -> Sequence[Action]:
        """Return what was done about a case, each lever's newest revision."""
        records = self._records(Action, actions, case_id, key)
        newest = {record.lever: record for record in records if isinstance(record, Action)}
        return list(newest.values())

    def outcomes(self, case_id: int, key: str) -> Sequence[Outcome]:
        """Return what turned out to be true of a case: its newest revision."""
        records = self._records(Outcome, outcomes, case_id, key)
        return [record for record in records if isinstance(record, Outcome)][-1:]

    def counts(self, case_id: int) -> Sequence[Count]:
        """Return where a case was counted, as the unit itself or as its episode's."""
        query = (
            select(counted_units, *(count_series.c[name] for name in ("site", "window", "attempt")))
            .add_columns(count_series.c.definition)
            .join(count_series, count_series.c.id == counted_units.c.series_id)
            .where(
                counted_units.c.rollout == self._rollout.number, counted_units.c.case_id == case_id
            )
            .order_by(counted_units.c.slot, counted_units.c.track, counted_units.c.version)
        )
        rows = self._transaction.execute(query).all()
        classes = self._kinds({class_id for row in rows for class_id in row.class_ids})
        return [_count(row, classes[class_id]) for row in rows for class_id in row.class_ids]

    def _kinds(self, numbers: Collection[int]) -> Mapping[int, Row[Any]]:
        query = select(count_classes).where(count_classes.c.id.in_(numbers))
        return {row.id: row for row in self._transaction.execute(query)}

    def _newest(self) -> Any:
        later = cases.alias("later")
        is_corrected = exists().where(
            later.c.rollout == cases.c.rollout,
            later.c.case_id == cases.c.case_id,
            later.c.revision > cases.c.revision,
        )
        query = select(cases.c.case_id, cases.c.received_at)
        return query.where(cases.c.rollout == self._rollout.number, ~is_corrected)

    def _fits(self, wanted: Filter) -> list[ColumnElement[bool]]:
        conditions: list[ColumnElement[bool]] = []
        if wanted.sites is not None:
            conditions.append(cases.c.site.in_(sorted(wanted.sites)))
        if wanted.window is not None:
            conditions.append(cases.c.window == wanted.window)
        if wanted.since is not None:
            conditions.append(cases.c.occurred_at >= wanted.since)
        if wanted.until is not None:
            conditions.append(cases.c.occurred_at < wanted.until)
        if wanted.version is not None:
            conditions.append(self._of_case(predictions, predictions.c.version == wanted.version))
        if wanted.differs:
            conditions.append(self._differ())
        return conditions

    def _differ(self) -> ColumnElement[bool]:
        """Say that a prediction and a verdict of the case are written differently."""
        differing_answers = select(predictions.c.case_id).join(
            decisions,
            and_(
                decisions.c.rollout == predictions.c.rollout,
                decisions.c.case_id == predictions.c.case_id,
                decisions.c.answers != predictions.c.answers,
            ),
        )
        same_case = (
            predictions.c.rollout == cases.c.rollout,
            predictions.c.case_id == cases.c.case_id,
        )
        return differing_answers.where(*same_case).correlate(cases).exists()

    def _of_case(self, table: Table, *further: ColumnElement[bool]) -> ColumnElement[bool]:
        same_case = (table.c.rollout == cases.c.rollout, table.c.case_id == cases.c.case_id)
        return exists().where(*same_case, *further)

    def _records(
        self, kind: type[Record], table: Table, case_id: int, key: str
    ) -> Sequence[Record]:
        conditions = (table.c.rollout == self._rollout.number, table.c.case_id == case_id)
        query = select(table).where(*conditions).order_by(table.c.revision)
        return [record_of(kind, row, key=key) for row in self._transaction.execute(query)]


def _count(row: Row[Any], kind: Row[Any]) -> Count:
    return Count(
        version=row.version,
        track=row.track,
        slot=row.slot,
        site=row.site,
        window=row.window,
        attempt=row.attempt,
        definition=row.definition,
        lever=kind.lever,
        predicted=kind.predicted,
        decided=kind.decided,
        reviewer=row.reviewer,
        excluded=row.exclusion_reason,
    )
