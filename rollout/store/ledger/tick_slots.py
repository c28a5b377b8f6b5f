"""The slots of the tick's grid, each claimed by one replica.

A claim only saves work: what makes a unit counted once is the rules of `counting`.
"""

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, func, select, update

from rollout.store.database.bulk import insert_once
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.tables.tables import tick_slots


class Slots:
    """The slots of one rollout."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction = transaction
        self._rollout = rollout

    def claim(self, slot: int, *, owner: str, at: datetime, outlived: timedelta) -> bool:
        """Say whether the slot is `owner`'s to do; of several who ask at once one is told yes.

        A claim that is older than `outlived` and not done goes to whoever asks next; its owner,
        who broke off, may take it up at once.
        """
        row = {"rollout": self._rollout.number, "slot": slot, "owner": owner, "claimed_at": at}
        if insert_once(self._transaction, tick_slots, row):
            return True
        is_stale = (tick_slots.c.claimed_at <= at - outlived) | (tick_slots.c.owner == owner)
        stale_conditions = (tick_slots.c.done_at.is_(None), is_stale)
        statement = update(tick_slots).where(*self._is(slot), *stale_conditions)
        result = self._transaction.execute(statement.values(owner=owner, claimed_at=at))
        return result.rowcount == 1

    def done(self, slot: int, *, at: datetime) -> None:
        """Note that the slot is done; who comes second changes nothing."""
        statement = update(tick_slots).where(*self._is(slot), tick_slots.c.done_at.is_(None))
        self._transaction.execute(statement.values(done_at=at))

    def last_done(self) -> int | None:
        """Return the newest slot that is done, None before the first."""
        query = select(func.max(tick_slots.c.slot)).where(
            tick_slots.c.rollout == self._rollout.number, tick_slots.c.done_at.is_not(None)
        )
        slot: int | None = self._transaction.execute(query).scalar()
        return slot

    def last_claimed(self) -> int | None:
        """Return the newest slot that somebody has begun, None before the first."""
        query = select(func.max(tick_slots.c.slot)).where(
            tick_slots.c.rollout == self._rollout.number
        )
        slot: int | None = self._transaction.execute(query).scalar()
        return slot

    def _is(self, slot: int) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
        return tick_slots.c.rollout == self._rollout.number, tick_slots.c.slot == slot
