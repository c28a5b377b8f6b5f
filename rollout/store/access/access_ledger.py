"""The house: one writer at a time changes people, rights and keys, each change in its chain."""

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import select

from rollout.core.scope.events import Event
from rollout.store.database.rollouts import HOUSE_CHAIN, Rollouts
from rollout.store.database.session import Transaction
from rollout.store.ledger.ledger import Ledger
from rollout.store.tables.tables import ledger_heads


@dataclass(frozen=True, slots=True)
class HouseHead:
    """The last row of the house chain."""

    revision: int | None
    hash: str


class House:
    """The house chain, held from here to the end of the writing transaction."""

    def __init__(self, transaction: Transaction) -> None:
        """Wait for whoever changes people now, so that what is read next is what holds."""
        Rollouts(transaction).open_house()
        self._ledger = Ledger(transaction, HOUSE_CHAIN)
        lock_query = select(ledger_heads.c.revision).where(
            ledger_heads.c.rollout == HOUSE_CHAIN.number
        )
        self.revision: int = transaction.execute(lock_query.with_for_update()).scalar_one()

    def append(self, events: Iterable[Event]) -> int:
        """Write what was changed in the same transaction; return the chain's revision then."""
        rows = self._ledger.append(events, after=self.revision)
        self.revision += len(rows)
        return self.revision


def house_head(transaction: Transaction) -> HouseHead:
    """Return where the house chain is; no revision where nothing is in it."""
    query = select(ledger_heads).where(ledger_heads.c.rollout == HOUSE_CHAIN.number)
    row = transaction.execute(query).one_or_none()
    return HouseHead(None, "") if row is None else HouseHead(row.revision or None, row.hash)
