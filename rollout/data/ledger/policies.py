"""Policy texts by hash, also of policies that wait for approval and have no number yet.

The ledger has the policy in force, its start and its number; this table has the text of its hash.
"""

from collections.abc import Collection
from datetime import datetime
from hashlib import sha256

from sqlalchemy import select

from rollout.data.database.bulk import insert_once
from rollout.data.database.rollouts import Rollout
from rollout.data.database.session import Transaction
from rollout.data.tables.tables import policies


class PolicyTexts:
    """The policy texts of one rollout."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction = transaction
        self._rollout = rollout

    def store_text(self, text: str, *, by: str, at: datetime) -> str:
        """Store a policy's text and return its hash; an existing text stays."""
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

    def load_texts(self, hashes: Collection[str]) -> dict[str, str]:
        """Return the stored texts of these hashes; without any nothing is read.

        Raises:
            ValueError: a text was changed, so it is not what was approved.
        """
        if not hashes:
            return {}
        query = select(policies.c.hash, policies.c.text).where(
            policies.c.rollout == self._rollout.number, policies.c.hash.in_(hashes)
        )
        texts = {row.hash: row.text for row in self._transaction.execute(query)}
        for text_hash, text in texts.items():
            if sha256(text.encode()).hexdigest() != text_hash:
                raise ValueError(f"the policy {text_hash[:12]}… is not the text of its hash")
        return texts
