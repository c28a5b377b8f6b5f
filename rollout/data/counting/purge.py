"""The only way to delete records: opened and closed within one transaction.

Counted units, counts and the ledger stay. Each deleted key leaves a hash, so that a purged record
that arrives again is not new.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Select, delete, exists, select, text

from rollout import faults
from rollout.data.counting.top_losses import StoredLosses
from rollout.data.database.bulk import select_numbers
from rollout.data.database.rollouts import Rollout, match_cases
from rollout.data.database.session import Transaction
from rollout.data.records.external_keys import ExternalKeys
from rollout.data.records.record_rows import ErasedHashes
from rollout.data.tables.record_tables import CLOSE_PURGE, OPEN_PURGE
from rollout.data.tables.tables import (
    actions,
    cases,
    count_queue,
    counted_outcomes,
    counted_records,
    counted_units,
    decisions,
    erased_hashes,
    exposures,
    heartbeats,
    metadata,
    outcomes,
    planted_cases,
    predictions,
    recent_arrivals,
    rejected_records,
    top_losses,
)

CASE_TABLES: Final = (predictions, decisions, actions, outcomes, cases)
STAYING_TABLES: Final = (
    *(counted_units, counted_records, counted_outcomes),  # figures, and a case's number
    *(exposures, planted_cases, erased_hashes),  # the same; a case's key is replaced by a hash
    *(count_queue, recent_arrivals),  # a queued case is not purged, and an erasure empties them
    top_losses,  # deleted by `StoredLosses`
)
"""The tables about cases that `delete_case_rows` leaves; rows of all others go with their case."""
DELETED_TABLES: Final = tuple(
    table
    for table in metadata.sorted_tables
    if "case_id" in table.c and table not in STAYING_TABLES
)


@contextmanager
def open_purge(transaction: Transaction) -> Iterator[None]:
    """Allow this transaction to delete records within the block."""
    transaction.execute(text(OPEN_PURGE))
    yield
    transaction.execute(text(CLOSE_PURGE))


@dataclass(frozen=True, slots=True)
class PurgeResult:
    """The deleted rows by table, and the digest of the hashes that the records had."""

    rows: Mapping[str, int]
    digest: str


def purge_records(
    transaction: Transaction,
    rollout: Rollout,
    *,
    before: datetime,
    case_ids: Collection[int],
    revision: int,
) -> PurgeResult:
    """Delete old records and return their number by table; empty when done.

    Of `case_ids` those are deleted that occurred and were received before `before` and are no
    longer in the count queue, together with their records, review tasks (which hold gold answers
    and decisions), choices for training and what else is about a case. Records of cases that never
    arrived are deleted too. Exposures stay: they contain no answer and name the case by a number.
    Append the result to the ledger in the same transaction, as the event of `revision`.
    """
    ExternalKeys(transaction, rollout).lock_ids(case_ids)  # waits for who is storing such a case
    old_case_ids = list_old_cases(
        transaction, rollout, before=before, candidates=select_numbers(transaction, case_ids)
    )
    digest = ErasedHashes(transaction, rollout).store_cases(old_case_ids, revision=revision)
    with open_purge(transaction):
        deleted_counts = delete_case_rows(transaction, rollout, old_case_ids)
        for table, column in ((rejected_records, "received_at"), (heartbeats, "at")):
            deleted_counts[table.name] = transaction.execute(
                delete(table).where(table.c.rollout == rollout.number, table.c[column] < before)
            ).rowcount
    ExternalKeys(transaction, rollout).purge(old_case_ids)
    faults.reach_point("purge.deleted")
    return PurgeResult({name: n for name, n in deleted_counts.items() if n}, digest)


def delete_case_rows(
    transaction: Transaction, rollout: Rollout, case_ids: Collection[int]
) -> dict[str, int]:
    """Delete what is stored about cases within `open_purge`; return the number by table.

    Counted units, counts and exposures stay; the caller replaces the keys.
    """
    deleted_counts = {
        table.name: transaction.execute(
            delete(table).where(*match_cases(transaction, rollout, table, case_ids))
        ).rowcount
        for table in DELETED_TABLES
    }
    StoredLosses(transaction, rollout).delete(case_ids)
    return deleted_counts


def list_old_cases(
    transaction: Transaction,
    rollout: Rollout,
    *,
    before: datetime,
    candidates: Select[Any] | None = None,
    limit: int | None = None,
    with_orphans: bool = True,
) -> list[int]:
    """Return the first `limit` purgeable cases, of `candidates` if there are any.

    They are found by the index of their receipt. With orphans, also keys whose case never arrived:
    that reads all other records.
    """
    queries = [_select_old_cases(rollout, before)]
    if with_orphans:
        queries += _select_orphans(rollout, before)
    if candidates is not None:
        queries = [query.where(query.selected_columns.case_id.in_(candidates)) for query in queries]
    queued_cases = (
        select(table.c.case_id).where(table.c.rollout == rollout.number)
        for table in (count_queue, recent_arrivals)
    )
    old_cases = queries[0].union(*queries[1:]).subquery()
    unqueued_cases = (
        select(old_cases.c.case_id).except_(*queued_cases).order_by("case_id").limit(limit)
    )
    return list(transaction.execute(unqueued_cases).scalars())


def _select_old_cases(rollout: Rollout, before: datetime) -> Select[Any]:
    newer = cases.alias("newer")
    has_newer = exists().where(
        newer.c.rollout == cases.c.rollout,
        newer.c.case_id == cases.c.case_id,
        (newer.c.received_at >= before) | (newer.c.occurred_at >= before),
    )
    return (
        select(cases.c.case_id)
        .distinct()
        .where(
            cases.c.rollout == rollout.number,
            cases.c.received_at < before,  # follows from the rest, but lets the index find it
            ~has_newer,
        )
    )


def _select_orphans(rollout: Rollout, before: datetime) -> Iterator[Select[Any]]:
    for table in CASE_TABLES[:-1]:
        has_case = exists().where(
            cases.c.rollout == table.c.rollout, cases.c.case_id == table.c.case_id
        )
        yield select(table.c.case_id).where(
            table.c.rollout == rollout.number, table.c.received_at < before, ~has_case
        )
