"""Idempotency keys: the first response is stored, and a retry with the same key gets it again."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, select

from rollout import faults
from rollout.data.database.bulk import insert_once
from rollout.data.database.session import Repository
from rollout.data.tables.tables import idempotency_keys


@dataclass(frozen=True, slots=True)
class IdempotentResponse:
    """A stored response; `request` is the hash of the request."""

    request: bytes
    status: int
    body: str


class IdempotencyKeys(Repository):
    """The stored responses of all callers."""

    def find(self, principal: str, key: str, *, at: datetime) -> IdempotentResponse | None:
        """Return the stored response of a key, unless expired."""
        query = select(idempotency_keys).where(
            idempotency_keys.c.principal == principal,
            idempotency_keys.c.key == key,
            idempotency_keys.c.expires_at > at,
        )
        return self._transaction.find(
            query,
            lambda row: IdempotentResponse(
                row.request_hash, row.response_status, row.response_body
            ),
        )

    def store(
        self,
        principal: str,
        key: str,
        response: IdempotentResponse,
        *,
        at: datetime,
        until: datetime,
    ) -> None:
        """Store a response; an earlier one stays, unless it has expired."""
        expired = (
            idempotency_keys.c.principal == principal,
            idempotency_keys.c.key == key,
            idempotency_keys.c.expires_at <= at,
        )
        self._transaction.execute(delete(idempotency_keys).where(*expired))
        row = {
            "principal": principal,
            "key": key,
            "request_hash": response.request,
            "response_status": response.status,
            "response_body": response.body,
            "expires_at": until,
        }
        insert_once(self._transaction, idempotency_keys, row)
        faults.reach_point("reply.kept")

    def delete_expired(self, *, at: datetime) -> None:
        """Delete the expired responses."""
        self._transaction.execute(
            delete(idempotency_keys).where(idempotency_keys.c.expires_at <= at)
        )
