"""Rejected records: stored as received, with the reason, each once."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from itertools import chain
from json import dumps, loads
from typing import Final

from sqlalchemy import func, or_, select

from rollout.core.policy.fresh_evidence import NO_UNPLACED, UnplacedDecisions
from rollout.core.records.records import NO_PLACE, UNKNOWN_PLACE, RejectedItem
from rollout.store.database.bulk import encode_values, insert_new_rows, select_texts
from rollout.store.database.rollouts import Rollout, match_cases
from rollout.store.database.session import Transaction
from rollout.store.records.erased_keys import find_erased_keys
from rollout.store.records.external_keys import ExternalKeys
from rollout.store.records.record_rows import MAX_KEY_LENGTH
from rollout.store.tables.tables import decisions, rejected_records

UNPLACED_SPAN: Final = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class StoredRejectedRecord:
    """A stored rejected record; `number` rises with time."""

    number: int
    received_at: datetime
    item: RejectedItem


class RejectedRecords:
    """The rejected records of one rollout."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction = transaction
        self._rollout = rollout

    def add(self, items: Iterable[RejectedItem], *, received_at: datetime) -> None:
        """Store records; existing ones stay, and those of erased cases are left out."""
        new_records = list(items)
        spellings = {item.key: {item.key, _read_key(item.key)} for item in new_records}
        erased_keys = find_erased_keys(
            self._transaction, self._rollout, chain.from_iterable(spellings.values())
        )
        rows = [
            self._build_row(item, received_at)
            for item in new_records
            if erased_keys.isdisjoint(spellings[item.key])
        ]
        insert_new_rows(self._transaction, rejected_records, rows)

    def list_after(self, number: int = 0, *, limit: int = 100) -> Sequence[StoredRejectedRecord]:
        """Return records after a number, oldest first."""
        query = (
            select(rejected_records)
            .where(
                rejected_records.c.rollout == self._rollout.number, rejected_records.c.id > number
            )
            .order_by(rejected_records.c.id)
            .limit(limit)
        )
        return [
            StoredRejectedRecord(
                row.id, row.received_at, RejectedItem(row.kind, row.key, row.body, row.reason)
            )
            for row in self._transaction.execute(query)
        ]

    def find_keys(self, keys: Collection[str]) -> set[str]:
        """Return which keys of cases a stored record names, as they are or escaped."""
        engine = self._transaction.engine
        key_of = {escape_key(key): key for key in keys} | {key: key for key in keys}
        query = (
            select(rejected_records.c.key)
            .distinct()
            .where(
                rejected_records.c.rollout == self._rollout.number,
                rejected_records.c.key.in_(select_texts(engine, "keys")),
            )
        )
        parameters = {"keys": encode_values(engine, key_of)}
        return {key_of[row.key] for row in self._transaction.execute(query, parameters)}

    def count_by_reason(self) -> dict[tuple[str, str], int]:
        """Return the number of records by kind and reason."""
        columns = (rejected_records.c.kind, rejected_records.c.reason)
        query = (
            select(*columns, func.count().label("n"))
            .where(rejected_records.c.rollout == self._rollout.number)
            .group_by(*columns)
        )
        return {(row.kind, row.reason): row.n for row in self._transaction.execute(query)}

    def count_unplaced_decisions(self, until: datetime) -> UnplacedDecisions:
        """Return how many cases were decided in the last seven days at no place that is known.

        One whose decision was stored since then has a place.
        """
        table, rollout, since = rejected_records, self._rollout, until - UNPLACED_SPAN
        query = (
            select(table.c.key)
            .distinct()
            .where(
                table.c.rollout == rollout.number,
                table.c.kind == "decision",
                or_(*(table.c.reason.startswith(begin) for begin in (NO_PLACE, UNKNOWN_PLACE))),
                table.c.received_at.between(since, until),
            )
        )
        keys = {_read_key(key) for key in self._transaction.execute(query).scalars()}
        if not keys:
            return NO_UNPLACED
        case_ids = ExternalKeys(self._transaction, rollout).find_ids(keys)
        stored_query = select(decisions.c.case_id).distinct()
        conditions = match_cases(self._transaction, rollout, decisions, set(case_ids.values()))
        stored_ids = set(self._transaction.execute(stored_query.where(*conditions)).scalars())
        unplaced = len(keys) - len(stored_ids & set(case_ids.values()))
        placed_query = select(func.count(decisions.c.case_id.distinct())).where(
            decisions.c.rollout == rollout.number, decisions.c.received_at.between(since, until)
        )
        decided = self._transaction.execute(placed_query).scalar_one()
        return UnplacedDecisions(unplaced, unplaced + decided)

    def _build_row(self, item: RejectedItem, received_at: datetime) -> dict[str, object]:
        content = f"{item.kind}\n{item.key}\n{item.body}"
        return {
            "rollout": self._rollout.number,
            "kind": item.kind,
            "key": item.key,
            "body": item.body,
            "reason": item.reason,
            "received_at": received_at,
            "hash": sha256(content.encode()).digest(),
        }


def escape_key(key: str) -> str:
    """Return a case's key as rejected records have it: in ASCII, for every database."""
    return dumps(key[:MAX_KEY_LENGTH])[1:-1]


def _read_key(key: str) -> str:
    """Return the key that was escaped, or as it is if none was."""
    try:
        return str(loads(f'"{key}"'))
    except ValueError:
        return key
