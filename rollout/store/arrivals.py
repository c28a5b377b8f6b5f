"""How far back the newest cases reach, by when they came in: without reading them all."""

from datetime import datetime

from sqlalchemy import select

from rollout.store.rollouts import Rollout
from rollout.store.session import Transaction
from rollout.store.tables import cases


def occurred_before(transaction: Transaction, rollout: Rollout, count: int) -> datetime | None:
    """Return when the case occurred after which `count` others came in; None for fewer cases."""
    query = (
        select(cases.c.occurred_at)
        .where(cases.c.rollout == rollout.number)
        .order_by(cases.c.case_id.desc(), cases.c.revision.desc())
        .offset(count)
        .limit(1)
    )
    found: datetime | None = transaction.execute(query).scalar()
    return found
