"""Resets of passwords and second factors by others than their user."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import insert, select

from rollout.store.access.users import StoredUser
from rollout.store.database.session import Transaction
from rollout.store.tables.tables import credential_resets


@dataclass(frozen=True, slots=True)
class CredentialReset:
    """A reset; `reset_by` is the number of the user who made it, 0 if unknown."""

    user_id: int
    reset_by: int
    credential: str
    reset_at: datetime


class CredentialResets:
    """All resets since they are recorded."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def add(
        self, user: StoredUser, by: StoredUser | None, credential: str, *, at: datetime
    ) -> None:
        """Store a reset of a user's credential."""
        row = {
            "user_id": user.number,
            "reset_by": 0 if by is None else by.number,
            "credential": credential,
            "reset_at": at,
        }
        self._transaction.execute(insert(credential_resets).values(row))

    def list_all(self) -> Sequence[CredentialReset]:
        """Return all resets, oldest first."""
        query = select(credential_resets).order_by(credential_resets.c.id)
        return [
            CredentialReset(row.user_id, row.reset_by, row.credential, row.reset_at)
            for row in self._transaction.execute(query)
        ]
