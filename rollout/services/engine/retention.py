"""Records leave when the policy's age for them is reached; what was counted from them stays."""

from collections.abc import Collection
from datetime import datetime

from rollout.core.scope.events import RecordsPurged
from rollout.core.scope.scope import ENGINE
from rollout.services.engine.rollout_state import standing
from rollout.store.counting.purge import old_cases, purge
from rollout.store.database.idempotency_keys import Replies
from rollout.store.database.rollouts import Rollouts
from rollout.store.database.session import Database
from rollout.store.ledger.ledger import Ledger

BATCH = 2_000  # cases in one transaction: ingest waits for no more
LOOKED = 50 * BATCH  # cases found by one look: it reads all there are, and nobody waits for it


def purge_all(database: Database, at: datetime) -> dict[str, int]:
    """Purge each rollout whose policy says an age, and return the rows deleted by rollout."""
    with database.reading() as transaction:
        rollout_names = [rollout.name for rollout in Rollouts(transaction).all()]
    deleted_rows = {
        rollout_name: purge_old(database, rollout_name, at) for rollout_name in rollout_names
    }
    return {rollout_name: rows for rollout_name, rows in deleted_rows.items() if rows}


def purge_old(database: Database, name: str, at: datetime) -> int:
    """Delete what is older than the policy in force says; return how many rows.

    Each batch is deleted in the transaction that notes it in the ledger. Without an age in the
    policy nothing is ever deleted.

    Raises:
        UnknownRollout: there is no such rollout.
    """
    rows, found_count = 0, LOOKED
    while found_count == LOOKED:
        old_case_ids = _old(database, name, at)
        batches = [
            old_case_ids[start : start + BATCH]
            for start in range(0, max(len(old_case_ids), 1), BATCH)
        ]
        deleted_rows = sum(_batch(database, name, at, batch) for batch in batches)
        rows, found_count = rows + deleted_rows, len(old_case_ids) if deleted_rows else 0
    return rows


def _old(database: Database, name: str, at: datetime) -> list[int]:
    with database.reading() as transaction:
        state = standing(transaction, name)
        age = state.policy.retention
        if age is None:
            return []
        return old_cases(transaction, state.rollout, before=at - age, limit=LOOKED)


def _batch(database: Database, name: str, at: datetime, case_ids: Collection[int]) -> int:
    with database.writing() as transaction:
        state = standing(transaction, name)
        age = state.policy.retention
        if age is None:
            return 0
        deleted_by_table = purge(transaction, state.rollout, before=at - age, case_ids=case_ids)
        if not deleted_by_table:
            return 0
        tables = tuple(sorted(deleted_by_table))
        counts = tuple(deleted_by_table[table] for table in tables)
        event = RecordsPurged(at=at, by=ENGINE, before=at - age, tables=tables, counts=counts)
        Ledger(transaction, state.rollout).append([event], after=state.scope.revision)
        return sum(counts)


def tidy(database: Database, at: datetime) -> None:
    """Delete what has expired by `at`."""
    purge_all(database, at)
    with database.writing() as transaction:
        Replies(transaction).forget(at=at)
