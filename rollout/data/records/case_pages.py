"""Cases as pages show them: newest first, records of one or some, and how many came lately."""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from msgspec.structs import replace
from sqlalchemy import (
    ColumnElement,
    Exists,
    Row,
    Select,
    Table,
    and_,
    exists,
    false,
    func,
    or_,
    select,
)

from rollout.data.database.rollouts import Rollout, RolloutRepository, match_cases
from rollout.data.database.session import Transaction
from rollout.data.records.external_keys import EPISODE, ExternalKeys
from rollout.data.records.record_rows import parse_record
from rollout.data.tables.tables import (
    actions,
    cases,
    count_classes,
    count_series,
    counted_units,
    decisions,
    outcomes,
    predictions,
    rollouts,
    tick_slots,
)
from rollout.engine.records.records import (
    Action,
    Case,
    Decision,
    Outcome,
    Prediction,
    RecordT,
)
from rollout.kernel.calendar.instants import to_instant
from rollout.kernel.policy.evidence_sources import (
    ACCOUNT,
    name_sender,
)
from rollout.kernel.units import group_pairs


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseFilter:
    """A filter of cases; a field with its default matches all."""

    sites: Collection[str] | None = None
    window: str | None = None
    version: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    differs: bool = False
    harmed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseCount:
    """Where a case's unit was counted on one lever; `slot` is the time of the counting tick."""

    version: str
    track: str
    slot: datetime
    site: str
    window: str
    attempt: int
    definition: str
    lever: str
    predicted: str
    decided: str
    reviewer: str | None
    excluded: str | None


class CasePages(RolloutRepository):
    """The cases of one rollout."""

    def list_page(
        self, case_filter: CaseFilter, *, before: int | None = None, limit: int = 100
    ) -> Mapping[int, datetime]:
        """Return matching cases with the time of receipt, newest first.

        `before` is the last case number of the previous page. With `differs` the result also
        contains cases whose stored answers differ in form only.
        """
        query = self._select_newest().where(*self._build_conditions(case_filter))
        if before is not None:
            query = query.where(cases.c.case_id < before)
        return {
            row.case_id: row.received_at
            for row in self._transaction.execute(
                query.order_by(cases.c.case_id.desc()).limit(limit)
            )
        }

    def list_site_cases(self, site: str, *, since: datetime, has_late: bool = False) -> set[int]:
        """Return the cases of which a revision occurred at a site after an instant.

        `has_late` adds those of which one was received after it.
        """
        query = select(cases.c.case_id).where(
            cases.c.rollout == self._rollout.number,
            cases.c.site == site,
            or_(cases.c.occurred_at > since, cases.c.received_at > since if has_late else false()),
        )
        return set(self._transaction.execute(query).scalars())

    def list_unpredicted_cases(
        self, sites: Collection[str], versions: Collection[str], *, since: datetime
    ) -> Mapping[str, Sequence[tuple[int, datetime]]]:
        """Return by site the cases without a prediction that came from an instant on, and when.

        They occurred or were received then. `versions` are the names of one version.
        """
        is_predicted = exists().where(
            predictions.c.rollout == cases.c.rollout,
            predictions.c.case_id == cases.c.case_id,
            predictions.c.version.in_(versions),
        )
        times = (cases.c.occurred_at, cases.c.received_at)
        query = select(cases.c.site, cases.c.case_id, *times).where(
            cases.c.rollout == self._rollout.number,
            cases.c.site.in_(sites),
            or_(*(at >= since for at in times)),
            ~is_predicted,
        )
        cases_by_site: dict[str, list[tuple[int, datetime]]] = defaultdict(list)
        for site, case_id, *came in map(tuple, self._transaction.execute(query)):
            cases_by_site[site].append((case_id, max(came)))
        return cases_by_site

    def find_received_at(self, case_id: int) -> datetime | None:
        """Return when a case's newest revision was received, or None."""
        return self._transaction.find(
            self._select_newest().where(cases.c.case_id == case_id), lambda row: row.received_at
        )

    def find_registrar(self, case_id: int) -> str | None:
        """Return who sent a case's first registered revision, an id or a kind; None if unknown."""
        query = select(cases.c.sender).where(
            cases.c.rollout == self._rollout.number,
            cases.c.case_id == case_id,
            cases.c.revision > 0,
        )
        rows = self._transaction.execute(query.order_by(cases.c.revision).limit(1))
        return next((name_sender(row.sender, is_review=False) for row in rows if row.sender), None)

    def list_actions(self, case_id: int, key: str) -> Sequence[Action]:
        """Return the newest revision of a case's action on each lever."""
        records = self._load_records(Action, actions, case_id, key)
        return list({record.lever: record for record in records}.values())

    def list_outcomes(self, case_id: int, key: str) -> Sequence[Outcome]:
        """Return the newest revision of a case's outcome, or nothing.

        Values that it does not name are those of earlier revisions.
        """
        revisions = self._load_records(Outcome, outcomes, case_id, key)
        values = {name: value for each in revisions for name, value in each.values.items()}
        return [replace(newest, values=values) for newest in revisions[-1:]]

    def list_counted(self, case_id: int, tick: timedelta) -> Sequence[CaseCount]:
        """Return the counts of a case's unit, which may be its episode, by ticks `tick` apart."""
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
        classes = self._load_classes({class_id for row in rows for class_id in row.class_ids})
        return [
            _build_count(row, classes[class_id], tick) for row in rows for class_id in row.class_ids
        ]

    def _load_classes(self, numbers: Collection[int]) -> Mapping[int, Row[Any]]:
        return {
            row.id: row
            for row in self._transaction.execute(
                select(count_classes).where(count_classes.c.id.in_(numbers))
            )
        }

    def _select_newest(self) -> Select[Any]:
        return select(cases.c.case_id, cases.c.received_at).where(
            cases.c.rollout == self._rollout.number, ~has_later_revision()
        )

    def _build_conditions(self, case_filter: CaseFilter) -> list[ColumnElement[bool]]:
        conditions: list[ColumnElement[bool]] = []
        if case_filter.sites is not None:
            conditions.append(cases.c.site.in_(sorted(case_filter.sites)))
        if case_filter.window is not None:
            conditions.append(cases.c.window == case_filter.window)
        if case_filter.since is not None:
            conditions.append(cases.c.occurred_at >= case_filter.since)
        if case_filter.until is not None:
            conditions.append(cases.c.occurred_at < case_filter.until)
        if case_filter.version is not None:
            conditions.append(
                self._match_case(predictions, predictions.c.version == case_filter.version)
            )
        if case_filter.differs:
            conditions.append(self._match_differing())
        if case_filter.harmed:
            conditions.append(self._match_case(outcomes, outcomes.c.harm.is_not(None)))
        return conditions

    def _match_differing(self) -> ColumnElement[bool]:
        """Return the condition for a prediction and a decision with different answers."""
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

    def _match_case(self, table: Table, *conditions: ColumnElement[bool]) -> ColumnElement[bool]:
        same_case = (table.c.rollout == cases.c.rollout, table.c.case_id == cases.c.case_id)
        return exists().where(*same_case, *conditions)

    def _load_records(
        self, kind: type[RecordT], table: Table, case_id: int, key: str
    ) -> Sequence[RecordT]:
        conditions = (table.c.rollout == self._rollout.number, table.c.case_id == case_id)
        query = select(table).where(*conditions).order_by(table.c.revision)
        return [parse_record(kind, row, key=key) for row in self._transaction.execute(query)]


def has_later_revision() -> Exists:
    """Return the condition for a row of `cases` that was corrected."""
    later = cases.alias("later")
    return exists().where(
        later.c.rollout == cases.c.rollout,
        later.c.case_id == cases.c.case_id,
        later.c.revision > cases.c.revision,
    )


def _build_count(row: Row[Any], class_row: Row[Any], tick: timedelta) -> CaseCount:
    return CaseCount(
        version=row.version,
        track=row.track,
        slot=to_instant(row.slot, tick),
        site=row.site,
        window=row.window,
        attempt=row.attempt,
        definition=row.definition,
        lever=class_row.lever,
        predicted=class_row.predicted,
        decided=class_row.decided,
        reviewer=row.reviewer,
        excluded=row.exclusion_reason,
    )


NewestT = TypeVar("NewestT", Prediction, Decision)


class NewestRecords(RolloutRepository):
    """The newest records of one rollout's cases, by case number."""

    def load_cases(self, case_ids: Collection[int]) -> Mapping[int, Case]:
        """Return the cases that exist."""
        rows = {row.case_id: row for row in self._load_rows(cases, case_ids)}
        keys = self._load_keys(rows)
        episode_ids = {row.episode for row in rows.values() if row.episode is not None}
        episodes = ExternalKeys(self._transaction, self._rollout, EPISODE).find_keys(episode_ids)
        return {
            number: parse_record(Case, row, key=keys[number], episode=episodes.get(row.episode))
            for number, row in rows.items()
        }

    def load_received_times(self, case_ids: Collection[int]) -> Mapping[int, datetime]:
        """Return when the newest revision of each case was received."""
        return {row.case_id: row.received_at for row in self._load_rows(cases, case_ids)}

    def load_revisions(self, case_ids: Collection[int]) -> set[tuple[int, int]]:
        """Return (case, revision) of all stored revisions."""
        return {(row.case_id, row.revision) for row in self._load_rows(cases, case_ids)}

    def load_predictions(self, case_ids: Collection[int]) -> Mapping[int, Mapping[str, Prediction]]:
        """Return the predictions by case and version."""
        return self._load_by(Prediction, predictions, "version", case_ids)

    def load_prediction_revisions(
        self, case_ids: Collection[int]
    ) -> Mapping[str, Mapping[str, Sequence[Prediction]]]:
        """Return all revisions of the predictions, oldest first, by case key and version."""
        rows = self._load_rows(predictions, case_ids)
        keys = self._load_keys({row.case_id for row in rows})
        revisions: dict[str, dict[str, list[Prediction]]] = {}
        for row in rows:
            record = parse_record(Prediction, row, key=keys[row.case_id])
            revisions.setdefault(record.key, {}).setdefault(record.version, []).append(record)
        return revisions

    def load_prediction_times(
        self, case_ids: Collection[int]
    ) -> Mapping[tuple[int, str], Sequence[datetime]]:
        """Return when each revision of the predictions came, by case and version."""
        return group_pairs(
            ((row.case_id, row.version), row.received_at)
            for row in self._load_rows(predictions, case_ids)
        )

    def load_decisions(self, case_ids: Collection[int]) -> Mapping[int, Mapping[str, Decision]]:
        """Return the decisions by case and reviewer."""
        return self._load_by(Decision, decisions, "reviewer", case_ids)

    def find_own_decisions(self, case_ids: Collection[int]) -> set[tuple[int, str]]:
        """Return cases and reviewers of decisions that an account sent which predicted the case."""
        conditions = match_cases(self._transaction, self._rollout, decisions, case_ids)
        is_own = exists().where(
            predictions.c.rollout == decisions.c.rollout,
            predictions.c.case_id == decisions.c.case_id,
            predictions.c.sender == decisions.c.sender,
        )
        query = select(decisions.c.case_id, decisions.c.reviewer).where(
            *conditions, decisions.c.source == ACCOUNT, is_own
        )
        return {(row.case_id, row.reviewer) for row in self._transaction.execute(query)}

    def _load_by(
        self, kind: type[NewestT], table: Table, column: str, case_ids: Collection[int]
    ) -> Mapping[int, Mapping[str, NewestT]]:
        rows = self._load_rows(table, case_ids)
        keys = self._load_keys({row.case_id for row in rows})
        records: dict[int, dict[str, NewestT]] = {}
        for row in rows:  # ordered by revision: the newest stays
            record = parse_record(kind, row, key=keys[row.case_id])
            previous = records.setdefault(row.case_id, {}).get(getattr(row, column))
            if not _is_from_review(previous) or _is_from_review(record):
                records[row.case_id][getattr(row, column)] = record
        return records

    def _load_rows(self, table: Table, case_ids: Collection[int]) -> Sequence[Row[Any]]:
        if not case_ids:
            return []
        query = select(table).where(
            *match_cases(self._transaction, self._rollout, table, case_ids),
        )
        return self._transaction.execute(query.order_by(table.c.revision)).all()

    def _load_keys(self, case_ids: Collection[int]) -> Mapping[int, str]:
        return ExternalKeys(self._transaction, self._rollout).find_keys(case_ids)


def _is_from_review(record: Prediction | Decision | None) -> bool:
    """Return whether this is a decision from a review task."""
    return isinstance(record, Decision) and record.review is not None


MAX_RECENT_CASES = 100
"""Maximum of counted cases a rollout; a page shows it as "or more"."""


@dataclass(frozen=True, slots=True)
class RolloutActivity:
    """Recent activity of a rollout; None before the first slot or case.

    Attributes:
        last_slot: the newest slot that is done.
        last_case_at: when the newest case was received.
        recent_cases: cases received since a time, at most `MAX_RECENT_CASES`.
    """

    last_slot: int | None
    last_case_at: datetime | None
    recent_cases: int


def load_rollout_activities(
    transaction: Transaction, since: datetime
) -> dict[int, RolloutActivity]:
    """Return the activity of each rollout since a time, by number."""
    is_natural = (cases.c.rollout == rollouts.c.id, cases.c.planted.is_(None))
    newest_cases = select(cases.c.received_at).where(*is_natural).order_by(cases.c.case_id.desc())
    recent = newest_cases.limit(MAX_RECENT_CASES).correlate(rollouts).subquery()
    query = select(
        rollouts.c.id,
        select(func.max(tick_slots.c.slot))
        .where(tick_slots.c.rollout == rollouts.c.id, tick_slots.c.done_at.is_not(None))
        .scalar_subquery()
        .label("last_done"),
        newest_cases.limit(1).scalar_subquery().label("last_case"),
        select(func.count())
        .select_from(recent)
        .where(recent.c.received_at > since)
        .scalar_subquery()
        .label("recent"),
    )
    rows = transaction.execute(query)
    return {row.id: RolloutActivity(row.last_done, row.last_case, row.recent) for row in rows}


def count_case_records(
    transaction: Transaction, rollout: Rollout, case_ids: Collection[int]
) -> Counter[int]:
    """Return by case how many records are stored, in all revisions.

    Records are only added, or all deleted with their case: as many as before are the same ones.
    """
    row_counts: Counter[int] = Counter()
    for table in (cases, predictions, decisions, outcomes):
        query = select(table.c.case_id, func.count().label("n")).group_by(table.c.case_id)
        conditions = match_cases(transaction, rollout, table, case_ids)
        for row in transaction.execute(query.where(*conditions)).all():
            row_counts[row.case_id] += row.n
    return row_counts
