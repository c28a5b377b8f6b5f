"""What is deleted because its time is over: kept replies, and records at the policy's age."""

from datetime import datetime

from rollout.services.retention import purge_all
from rollout.store.replies import Replies
from rollout.store.session import Database


def tidy(database: Database, at: datetime) -> None:
    """Delete what has expired by `at`."""
    purge_all(database, at)
    with database.writing() as transaction:
        Replies(transaction).forget(at=at)
