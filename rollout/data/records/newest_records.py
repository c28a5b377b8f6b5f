"""The newest records of some cases, for pages that show a case."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import Row, Table, select

from rollout.data.database.rollouts import Rollout, match_cases
from rollout.data.database.session import Transaction
from rollout.data.records.external_keys import EPISODE, ExternalKeys
from rollout.data.records.record_rows import parse_record
from rollout.data.tables.tables import cases, decisions, predictions
from rollout.engine.records.records import Case, Decision, Prediction

RecordT = TypeVar("RecordT", Prediction, Decision)


class NewestRecords:
    """The newest records of one rollout's cases, by case number."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction = transaction
        self._rollout = rollout

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
        times: dict[tuple[int, str], list[datetime]] = {}
        for row in self._load_rows(predictions, case_ids):
            times.setdefault((row.case_id, row.version), []).append(row.received_at)
        return times

    def load_decisions(self, case_ids: Collection[int]) -> Mapping[int, Mapping[str, Decision]]:
        """Return the decisions by case and reviewer."""
        return self._load_by(Decision, decisions, "reviewer", case_ids)

    def _load_by(
        self, kind: type[RecordT], table: Table, column: str, case_ids: Collection[int]
    ) -> Mapping[int, Mapping[str, RecordT]]:
        rows = self._load_rows(table, case_ids)
        keys = self._load_keys({row.case_id for row in rows})
        records: dict[int, dict[str, RecordT]] = {}
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
