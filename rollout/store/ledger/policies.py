"""Policies by what they say: also those that wait for approval and have no number yet.

Which one holds, since when and under which number, the ledger says; here is the text to its hash.
"""

from collections.abc import Collection
from datetime import datetime
from hashlib import sha256

from sqlalchemy import select

from rollout.store.database.bulk import insert_once
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.tables.tables import policies


class Policies:
    """The texts of one rollout's policies."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction = transaction
        self._rollout = rollout

    def keep(self, text: str, *, by: str, at: datetime) -> str:
        """Keep a policy's text and return its hash; a text that is known stays as it came."""
        text_hash = sha256(text.encode()).hexdigest()
        row = {
            "rollout": self._rollout.number,
            "hash": text_hash,
            "text": text,
            "received_by": by,
            "received_at": at,
        }
        insert_once(self._transaction, policies, row)
        return text_hash

    def texts(self, hashes: Collection[str]) -> dict[str, str]:
        """Return the texts of those hashes that are known."""
        query = select(policies.c.hash, policies.c.text).where(
            policies.c.rollout == self._rollout.number, policies.c.hash.in_(hashes)
        )
        return {row.hash: row.text for row in self._transaction.execute(query)}
