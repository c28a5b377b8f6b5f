"""The last slot of evidence.

`through` is the last slot whose counts are evidence. It advances by compare-and-set, and no count
at or before it grows.
"""

from typing import Any

from sqlalchemy import select, update

from rollout.core.errors import StaleRevisionError
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.tables.tables import evidence_heads


class EvidenceStore:
    """The last slot of evidence of one rollout."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction = transaction
        self._rollout = rollout

    def get_last_slot(self, *, lock: bool = False) -> int:
        """Return the last slot of evidence; `lock` blocks advancing it."""
        query = select(evidence_heads.c.through).where(self._own_head)
        if lock:
            query = query.with_for_update()
        return int(self._transaction.execute(query).scalar_one())

    def advance(self, *, after: int, to: int) -> None:
        """Make `to` the last slot of evidence, if `after` still is.

        Sum the counts after this call, in the same transaction: from here on no slot up to `to`
        grows.

        Raises:
            StaleRevisionError: another process advanced it; read it again.
            ValueError: `to` is not after `after`.
        """
        if to <= after:
            raise ValueError(f"evidence only advances; {to} is not after {after}")
        statement = update(evidence_heads).where(self._own_head, evidence_heads.c.through == after)
        if self._transaction.execute(statement.values(through=to)).rowcount != 1:
            raise StaleRevisionError(f"evidence is no longer at slot {after}; read it again")

    def rewind(self, to: int) -> None:
        """Make `to` the last slot of evidence, after later units were taken back."""
        self._transaction.execute(update(evidence_heads).where(self._own_head).values(through=to))

    @property
    def _own_head(self) -> Any:
        return evidence_heads.c.rollout == self._rollout.number
