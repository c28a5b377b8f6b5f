"""Heartbeats of replicas: the small write by which each shows that it can write."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import delete, insert, select, update

from rollout.store.database.session import Transaction
from rollout.store.tables.tables import replica_heartbeats

RETENTION = timedelta(days=1)  # of replicas that have ended


def record_heartbeat(transaction: Transaction, owner: str, program: str, at: datetime) -> None:
    """Store that a replica wrote at an instant; the first time, delete old replicas."""
    statement = update(replica_heartbeats).where(replica_heartbeats.c.owner == owner)
    if transaction.execute(statement.values(written_at=at)).rowcount:
        return
    old = replica_heartbeats.c.written_at < at - RETENTION
    transaction.execute(delete(replica_heartbeats).where(old))
    transaction.execute(
        insert(replica_heartbeats).values(owner=owner, program=program, written_at=at)
    )


def find_predecessors(transaction: Transaction, program: str, since: datetime) -> Sequence[str]:
    """Return the replicas of other programs that wrote since an instant."""
    query = select(replica_heartbeats.c.owner).where(
        replica_heartbeats.c.program != program, replica_heartbeats.c.written_at >= since
    )
    return transaction.execute(query).scalars().all()
