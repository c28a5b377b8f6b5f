"""Rollouts: their numbers, names and salts."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from sqlalchemy import Row, select

from rollout.core.ledger.ledger import FORM
from rollout.store.database.bulk import insert_once
from rollout.store.database.session import Transaction
from rollout.store.tables.tables import ACCESS_LEDGER, evidence_heads, ledger_heads, rollouts


@dataclass(frozen=True, slots=True)
class Rollout:
    """A rollout as the store knows it: the number that keys begin with, and the name in hashes."""

    number: int
    name: str
    salt: bytes = field(default=b"", repr=False)


HOUSE_CHAIN: Final = Rollout(ACCESS_LEDGER, ":house")
"""Whose ledger is that of people, rights and keys; no rollout may have its name."""


class Rollouts:
    """The rollouts of one database."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def create(self, name: str, *, salt: bytes, at: datetime) -> Rollout:
        """Return the rollout of that name, made with an empty ledger if there is none.

        Asking again is safe: who comes second gets the first one's salt.
        """
        row = {"name": name, "salt": salt, "created_at": at}
        insert_once(self._transaction, rollouts, row)
        rollout = self.find(name)
        assert rollout is not None  # noqa: S101 - it was inserted, by us or by somebody before
        self._open_chain(rollout)
        insert_once(self._transaction, evidence_heads, {"rollout": rollout.number, "through": 0})
        return rollout

    def open_house(self) -> Rollout:
        """Return the chain of people, rights and keys, made if there is none."""
        self._open_chain(HOUSE_CHAIN)
        return HOUSE_CHAIN

    def find(self, name: str) -> Rollout | None:
        """Return the rollout of that name, None where there is none."""
        query = select(rollouts).where(rollouts.c.name == name)
        row = self._transaction.execute(query).one_or_none()
        return None if row is None else _rollout(row)

    def all(self) -> tuple[Rollout, ...]:
        """Return every rollout, oldest first."""
        rows = self._transaction.execute(select(rollouts).order_by(rollouts.c.id))
        return tuple(_rollout(row) for row in rows)

    def _open_chain(self, rollout: Rollout) -> None:
        head = {"rollout": rollout.number, "revision": 0, "hash": "", "form": FORM}
        insert_once(self._transaction, ledger_heads, head)


def _rollout(row: Row[tuple[object, ...]]) -> Rollout:
    return Rollout(row.id, row.name, row.salt)
