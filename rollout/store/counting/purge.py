"""The one door through which records leave: opened within a transaction, shut before its end.

What was counted stays counted: marks, tallies and the ledger are never touched, and a key leaves
a hash behind, so that a record that comes once more is not taken for a new one.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Select, Table, delete, exists, select, text

from rollout import faults
from rollout.store.counting.top_losses import Losses
from rollout.store.database import value_lists
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.records.external_keys import CallerKeys
from rollout.store.tables.append_only import CLOSE, OPEN
from rollout.store.tables.tables import (
    actions,
    cases,
    cleanings,
    count_queue,
    decisions,
    heartbeats,
    outcomes,
    predictions,
    rejected_records,
    reviews,
)

OF_CASES: Final = (predictions, decisions, actions, outcomes, cases)


@contextmanager
def opened(transaction: Transaction) -> Iterator[None]:
    """Let this transaction delete records within the block; nobody else, and never an update."""
    transaction.execute(text(OPEN))
    yield
    transaction.execute(text(CLOSE))


def old_cases(
    transaction: Transaction, rollout: Rollout, *, before: datetime, limit: int
) -> list[int]:
    """Return what `purge` would take, by its numbers, the first `limit`; it reads every case."""
    return _old(transaction, rollout, before, limit=limit)


def purge(
    transaction: Transaction, rollout: Rollout, *, before: datetime, case_ids: Collection[int]
) -> Mapping[str, int]:
    """Delete records from before an instant, and return how many by table; empty when done.

    Of `case_ids` those that occurred and were received before it, with all that was said of
    them; one that still waits to be counted stays. What waited for a case that never came leaves
    too. Reviews go with their cases: they hold what known cases are and what people said of
    them; so do choices for training, and what was kept of pairs that differ. What was shown to
    whom stays: it names no answer, and the case by a number alone. Write what is returned into
    the ledger in the same transaction.
    """
    old_case_ids = _old(
        transaction, rollout, before, among=value_lists.numbers(transaction, case_ids)
    )
    deleted_counts: dict[str, int] = {}
    with opened(transaction):
        for table in (*OF_CASES, reviews, cleanings):
            deleted_counts[table.name] = _delete(transaction, rollout, table, old_case_ids)
        for table, column in ((rejected_records, "received_at"), (heartbeats, "at")):
            conditions = (table.c.rollout == rollout.number, table.c[column] < before)
            deleted_counts[table.name] = transaction.execute(
                delete(table).where(*conditions)
            ).rowcount
    Losses(transaction, rollout).forget(old_case_ids)
    CallerKeys(transaction, rollout).purge(old_case_ids)
    faults.point("purge.deleted")
    return {name: n for name, n in deleted_counts.items() if n}


def _old(
    transaction: Transaction,
    rollout: Rollout,
    before: datetime,
    *,
    among: Select[Any] | None = None,
    limit: int | None = None,
) -> list[int]:
    queries = [_occurred(rollout, before), *_waiting_in_vain(rollout, before)]
    if among is not None:
        queries = [query.where(query.selected_columns.case_id.in_(among)) for query in queries]
    queued_cases = select(count_queue.c.case_id).where(count_queue.c.rollout == rollout.number)
    old_cases = queries[0].union(*queries[1:]).subquery()
    unqueued_cases = (
        select(old_cases.c.case_id).except_(queued_cases).order_by("case_id").limit(limit)
    )
    return list(transaction.execute(unqueued_cases).scalars())


def _occurred(rollout: Rollout, before: datetime) -> Select[Any]:
    newer = cases.alias("newer")
    has_newer = exists().where(
        newer.c.rollout == cases.c.rollout,
        newer.c.case_id == cases.c.case_id,
        (newer.c.received_at >= before) | (newer.c.occurred_at >= before),
    )
    return select(cases.c.case_id).distinct().where(cases.c.rollout == rollout.number, ~has_newer)


def _waiting_in_vain(rollout: Rollout, before: datetime) -> Iterator[Select[Any]]:
    for table in OF_CASES[:-1]:
        has_case = exists().where(
            cases.c.rollout == table.c.rollout, cases.c.case_id == table.c.case_id
        )
        yield select(table.c.case_id).where(
            table.c.rollout == rollout.number, table.c.received_at < before, ~has_case
        )


def _delete(
    transaction: Transaction, rollout: Rollout, table: Table, case_ids: Collection[int]
) -> int:
    statement = delete(table).where(
        table.c.rollout == rollout.number,
        table.c.case_id.in_(value_lists.numbers(transaction, case_ids)),
    )
    return transaction.execute(statement).rowcount
