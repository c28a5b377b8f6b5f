"""Heartbeats of replicas: the small write by which each shows that it can write."""

from datetime import datetime, timedelta

from sqlalchemy import delete, insert, update

from rollout.store.database.session import Transaction
from rollout.store.tables.tables import replica_heartbeats

RETENTION = timedelta(days=1)  # of replicas that have ended


def record_heartbeat(transaction: Transaction, owner: str, at: datetime) -> None:
    """Store that a replica wrote at an instant; the first time, delete old replicas."""
    statement = update(replica_heartbeats).where(replica_heartbeats.c.owner == owner)
    if transaction.execute(statement.values(written_at=at)).rowcount:
        return
    old = replica_heartbeats.c.written_at < at - RETENTION
    transaction.execute(delete(replica_heartbeats).where(old))
    transaction.execute(insert(replica_heartbeats).values(owner=owner, written_at=at))
