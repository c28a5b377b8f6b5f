"""Records leave when the policy's age for them is reached; what was counted from them stays."""

from collections.abc import Collection
from datetime import datetime

from rollout.core.events import RecordsPurged
from rollout.core.scope import ENGINE
from rollout.services.standing import standing
from rollout.store.ledger import Ledger
from rollout.store.purging import old_cases, purge
from rollout.store.rollouts import Rollouts
from rollout.store.session import Database

BATCH = 2_000  # cases in one transaction: ingest waits for no more
LOOKED = 50 * BATCH  # cases found by one look: it reads all there are, and nobody waits for it


def purge_all(database: Database, at: datetime) -> dict[str, int]:
    """Purge each rollout whose policy says an age, and return the rows deleted by rollout."""
    with database.reading() as transaction:
        names = [known.name for known in Rollouts(transaction).all()]
    gone = {name: purge_old(database, name, at) for name in names}
    return {name: rows for name, rows in gone.items() if rows}


def purge_old(database: Database, name: str, at: datetime) -> int:
    """Delete what is older than the policy in force says; return how many rows.

    Each batch is deleted in the transaction that notes it in the ledger. Without an age in the
    policy nothing is ever deleted.

    Raises:
        UnknownRollout: there is no such rollout.
    """
    rows, found = 0, LOOKED
    while found == LOOKED:
        old = _old(database, name, at)
        parts = [old[start : start + BATCH] for start in range(0, max(len(old), 1), BATCH)]
        gone = sum(_batch(database, name, at, part) for part in parts)
        rows, found = rows + gone, len(old) if gone else 0
    return rows


def _old(database: Database, name: str, at: datetime) -> list[int]:
    with database.reading() as transaction:
        stood = standing(transaction, name)
        age = stood.policy.retention
        if age is None:
            return []
        return old_cases(transaction, stood.rollout, before=at - age, limit=LOOKED)


def _batch(database: Database, name: str, at: datetime, case_ids: Collection[int]) -> int:
    with database.writing() as transaction:
        stood = standing(transaction, name)
        age = stood.policy.retention
        if age is None:
            return 0
        gone = purge(transaction, stood.rollout, before=at - age, case_ids=case_ids)
        if not gone:
            return 0
        tables = tuple(sorted(gone))
        counts = tuple(gone[table] for table in tables)
        event = RecordsPurged(at=at, by=ENGINE, before=at - age, tables=tables, counts=counts)
        Ledger(transaction, stood.rollout).append([event], after=stood.scope.revision)
        return sum(counts)
