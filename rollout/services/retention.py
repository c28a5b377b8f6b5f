"""Records leave when the policy's age for them is reached; what was counted from them stays."""

from datetime import datetime

from rollout.core.events import Purged
from rollout.core.scope import ENGINE
from rollout.services.standing import standing
from rollout.store.ledger import Ledger
from rollout.store.purging import purge
from rollout.store.rollouts import Rollouts
from rollout.store.session import Database

BATCH = 2_000  # cases in one transaction: ingest waits for no more


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
    rows, batch = 0, _batch(database, name, at)
    while batch:
        rows += batch
        batch = _batch(database, name, at)
    return rows


def _batch(database: Database, name: str, at: datetime) -> int:
    with database.writing() as transaction:
        stood = standing(transaction, name)
        age = stood.policy.retention
        if age is None:
            return 0
        gone = purge(transaction, stood.rollout, before=at - age, limit=BATCH)
        if not gone:
            return 0
        tables = tuple(sorted(gone))
        counts = tuple(gone[table] for table in tables)
        event = Purged(at=at, by=ENGINE, before=at - age, tables=tables, counts=counts)
        Ledger(transaction, stood.rollout).append([event], after=stood.scope.revision)
        return sum(counts)
