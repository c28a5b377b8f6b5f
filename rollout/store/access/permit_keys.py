"""The secrets that permits are signed with: the same for every replica, two while they turn."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import insert, select

from rollout.store.database.session import Transaction
from rollout.store.tables.tables import permit_keys

VALID = 2


@dataclass(frozen=True, slots=True)
class PermitKey:
    """One secret, and the number by which permits name it."""

    number: int
    secret: bytes = field(repr=False)


class PermitKeys:
    """The keys of one database, newest first."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def valid(self) -> Sequence[PermitKey]:
        """Return the keys that a permit may be signed with; new ones are signed with the first."""
        query = select(permit_keys).order_by(permit_keys.c.id.desc()).limit(VALID)
        return [PermitKey(row.id, row.secret) for row in self._transaction.execute(query)]

    def turn(self, secret: bytes, *, at: datetime) -> None:
        """Sign with a new secret from now on; the one before stays valid until the next turn."""
        self._transaction.execute(insert(permit_keys).values(secret=secret, created_at=at))
