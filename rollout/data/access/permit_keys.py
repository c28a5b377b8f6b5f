"""The secrets that sign permits: the same for all replicas, two of them valid."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import insert, select

from rollout.data.database.session import Transaction
from rollout.data.tables.tables import permit_keys

VALID_KEYS = 2


@dataclass(frozen=True, slots=True)
class PermitKey:
    """A signing secret, and the number by which permits name it."""

    number: int
    secret: bytes = field(repr=False)


class PermitKeys:
    """The signing keys of one database."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def list_valid(self) -> Sequence[PermitKey]:
        """Return the valid keys, newest first; the first one signs new permits."""
        query = select(permit_keys).order_by(permit_keys.c.id.desc()).limit(VALID_KEYS)
        return [PermitKey(row.id, row.secret) for row in self._transaction.execute(query)]

    def rotate(self, secret: bytes, *, at: datetime) -> None:
        """Add a new signing key; the previous one stays valid."""
        self._transaction.execute(insert(permit_keys).values(secret=secret, created_at=at))
