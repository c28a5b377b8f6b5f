"""Retention: records older than the policy's are deleted, their counts stay; expired rows go."""

from collections.abc import Collection
from datetime import datetime, timedelta

from rollout.data.access.idempotency_keys import IdempotencyKeys
from rollout.data.access.notification_outbox import NotificationOutbox
from rollout.data.counting.purge import list_old_cases, purge_records
from rollout.data.database.rollouts import list_rollout_names
from rollout.data.database.session import Database
from rollout.data.ledger.ledger import Ledger
from rollout.engine.events import ENGINE, RecordsPurged
from rollout.live.rollout_state import read_rollout, write_rollout

NOTIFICATION_RETENTION = timedelta(days=400)  # longer than a proposal can be open
CASES_PER_BATCH = 2_000  # in one transaction, which delays incoming records
CASES_PER_SEARCH = 50 * CASES_PER_BATCH  # in one read, which delays nothing


def purge_all_rollouts(
    database: Database, at: datetime, *, with_orphans: bool = True
) -> dict[str, int]:
    """Purge each rollout with a retention; return the deleted rows by rollout."""
    rollout_names = list_rollout_names(database)
    deleted_rows = {
        rollout_name: purge_old_records(database, rollout_name, at, with_orphans=with_orphans)
        for rollout_name in rollout_names
    }
    return {rollout_name: rows for rollout_name, rows in deleted_rows.items() if rows}


def purge_old_records(
    database: Database, rollout_name: str, at: datetime, *, with_orphans: bool = True
) -> int:
    """Delete records older than the policy's retention; return the number of rows.

    Each batch is deleted in the transaction that appends its event. Without a retention nothing is
    deleted. With orphans, records whose case never arrived are deleted too: finding them reads all
    records.

    Raises:
        NoSuchRolloutError: there is no such rollout.
    """
    rows, case_count = 0, CASES_PER_SEARCH
    while case_count == CASES_PER_SEARCH:
        old_case_ids = _find_old_cases(database, rollout_name, at, with_orphans=with_orphans)
        batches = [
            old_case_ids[start : start + CASES_PER_BATCH]
            for start in range(0, max(len(old_case_ids), 1), CASES_PER_BATCH)
        ]
        deleted_rows = sum(_purge_batch(database, rollout_name, at, batch) for batch in batches)
        rows, case_count = rows + deleted_rows, len(old_case_ids) if deleted_rows else 0
    if not rows:  # another replica may have deleted what failed here
        database.append_failures.record_success(rollout_name, RecordsPurged.__name__)
    return rows


def _find_old_cases(
    database: Database, rollout_name: str, at: datetime, *, with_orphans: bool
) -> list[int]:
    with read_rollout(database, rollout_name) as (transaction, state):
        age = state.policy.retention.cases
        if age is None:
            return []
        return list_old_cases(
            transaction,
            state.rollout,
            before=at - age,
            limit=CASES_PER_SEARCH,
            with_orphans=with_orphans,
        )


def _purge_batch(
    database: Database, rollout_name: str, at: datetime, case_ids: Collection[int]
) -> int:
    with write_rollout(database, rollout_name) as (transaction, state):
        age = state.policy.retention.cases
        if age is None:
            return 0
        transaction.tally.announce(rollout_name, RecordsPurged.__name__)
        revision = state.scope.revision + 1
        purge = purge_records(
            transaction, state.rollout, before=at - age, case_ids=case_ids, revision=revision
        )
        if not purge.rows:
            return 0
        tables = tuple(sorted(purge.rows))
        counts = tuple(purge.rows[table] for table in tables)
        event = RecordsPurged(
            at=at, by=ENGINE, before=at - age, tables=tables, counts=counts, digest=purge.digest
        )
        Ledger(transaction, state.rollout).append([event], after=state.scope.revision)
        return sum(counts)


def delete_expired(database: Database, at: datetime, *, with_orphans: bool) -> None:
    """Delete old records and notifications, and expired idempotency keys."""
    purge_all_rollouts(database, at, with_orphans=with_orphans)
    with database.begin_write() as transaction:
        IdempotencyKeys(transaction).delete_expired(at=at)
        NotificationOutbox(transaction).delete_old(before=at - NOTIFICATION_RETENTION)
