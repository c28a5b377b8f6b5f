"""What is known of some cases, newest revision of each record: for whoever is shown a case."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import Row, Table, select

from rollout.core.records.records import Case, Decision, Prediction
from rollout.store.database import value_lists
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.records.external_keys import EPISODE, CallerKeys
from rollout.store.records.record_rows import record_of
from rollout.store.tables.tables import cases, decisions, predictions

R = TypeVar("R", Prediction, Decision)


class Newest:
    """The records of one rollout's cases, by the cases' numbers."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction = transaction
        self._rollout = rollout

    def cases(self, case_ids: Collection[int]) -> Mapping[int, Case]:
        """Return the cases that are there."""
        rows = {row.case_id: row for row in self._rows(cases, case_ids)}
        keys = self._keys(rows)
        episode_ids = {row.episode for row in rows.values() if row.episode is not None}
        episodes = CallerKeys(self._transaction, self._rollout, EPISODE).keys_of(episode_ids)
        cases_by_id = {}
        for number, row in rows.items():
            case = record_of(Case, row, key=keys[number], episode=episodes.get(row.episode))
            assert isinstance(case, Case)  # noqa: S101 - it was made as such
            cases_by_id[number] = case
        return cases_by_id

    def received(self, case_ids: Collection[int]) -> Mapping[int, datetime]:
        """Return when the newest revision of each case came in."""
        return {row.case_id: row.received_at for row in self._rows(cases, case_ids)}

    def revisions(self, case_ids: Collection[int]) -> set[tuple[int, int]]:
        """Return the revisions that are there, each beside its case's number."""
        return {(row.case_id, row.revision) for row in self._rows(cases, case_ids)}

    def predictions(self, case_ids: Collection[int]) -> Mapping[int, Mapping[str, Prediction]]:
        """Return what each version said, by case and version."""
        return self._said(Prediction, predictions, "version", case_ids)

    def decisions(self, case_ids: Collection[int]) -> Mapping[int, Mapping[str, Decision]]:
        """Return what each person said, by case and reviewer."""
        return self._said(Decision, decisions, "reviewer", case_ids)

    def _said(
        self, kind: type[R], table: Table, by: str, case_ids: Collection[int]
    ) -> Mapping[int, Mapping[str, R]]:
        rows = self._rows(table, case_ids)
        keys = self._keys({row.case_id for row in rows})
        records: dict[int, dict[str, R]] = {}
        for row in rows:  # in the order of revisions: the newest stays
            record = record_of(kind, row, key=keys[row.case_id])
            assert isinstance(record, kind)  # noqa: S101 - it was made as such
            previous = records.setdefault(row.case_id, {}).get(getattr(row, by))
            if not _in_seat(previous) or _in_seat(record):
                records[row.case_id][getattr(row, by)] = record
        return records

    def _rows(self, table: Table, case_ids: Collection[int]) -> Sequence[Row[Any]]:
        if not case_ids:
            return []
        query = select(table).where(
            table.c.rollout == self._rollout.number,
            table.c.case_id.in_(value_lists.numbers(self._transaction, case_ids)),
        )
        return self._transaction.execute(query.order_by(table.c.revision)).all()

    def _keys(self, case_ids: Collection[int]) -> Mapping[int, str]:
        return CallerKeys(self._transaction, self._rollout).keys_of(case_ids)


def _in_seat(said: Prediction | Decision | None) -> bool:
    """Say whether somebody said it in their seat here: nothing sent in their name replaces it."""
    return isinstance(said, Decision) and said.review is not None
