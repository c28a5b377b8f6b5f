"""First answers to idempotency keys: whoever asks again with the same key gets the same answer."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, select

from rollout import faults
from rollout.store.database.bulk import insert_once
from rollout.store.database.session import Transaction
from rollout.store.tables.tables import idempotency_keys


@dataclass(frozen=True, slots=True)
class Reply:
    """What was answered; `request` is the hash of what was asked."""

    request: bytes
    status: int
    body: str


class Replies:
    """The kept answers of everybody."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def find(self, principal: str, key: str, *, at: datetime) -> Reply | None:
        """Return what was answered under a key; None where nothing was, or it has expired."""
        query = select(idempotency_keys).where(
            idempotency_keys.c.principal == principal,
            idempotency_keys.c.key == key,
            idempotency_keys.c.expires_at > at,
        )
        row = self._transaction.execute(query).one_or_none()
        return (
            None if row is None else Reply(row.request_hash, row.response_status, row.response_body)
        )

    def keep(
        self, principal: str, key: str, reply: Reply, *, at: datetime, until: datetime
    ) -> None:
        """Keep an answer; the first one under a key stays, unless it has expired."""
        expired = (
            idempotency_keys.c.principal == principal,
            idempotency_keys.c.key == key,
            idempotency_keys.c.expires_at <= at,
        )
        self._transaction.execute(delete(idempotency_keys).where(*expired))
        row = {
            "principal": principal,
            "key": key,
            "request_hash": reply.request,
            "response_status": reply.status,
            "response_body": reply.body,
            "expires_at": until,
        }
        insert_once(self._transaction, idempotency_keys, row)
        faults.point("reply.kept")

    def forget(self, *, at: datetime) -> None:
        """Delete what has expired."""
        self._transaction.execute(
            delete(idempotency_keys).where(idempotency_keys.c.expires_at <= at)
        )
