"""The slots of the tick's grid, each claimed by one replica.

A claim only saves work; `rollout.data.counting.counter` ensures that each unit counts once.
"""

from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import ColumnElement, delete, exists, func, select, update

from rollout.data.database.bulk import insert_once
from rollout.data.database.rollouts import RolloutRepository
from rollout.data.tables.tables import replica_heartbeats, tick_slots

DEAD_AFTER: Final = timedelta(seconds=10)
"""Without a heartbeat; they come every second, and clocks of replicas differ by at most 5 s."""


class TickSlots(RolloutRepository):
    """The tick slots of one rollout."""

    def claim(self, slot: int, *, owner: str, at: datetime, stale_after: timedelta) -> bool:
        """Claim a slot for `owner`; of concurrent calls exactly one returns True.

        A claim that is not done can be taken after `stale_after`, by its own owner at once, and
        from a replica whose heartbeats ended `DEAD_AFTER` ago.
        """
        row = {"rollout": self._rollout.number, "slot": slot, "owner": owner, "claimed_at": at}
        if insert_once(self._transaction, tick_slots, row):
            return True
        heartbeat = replica_heartbeats.c.owner == tick_slots.c.owner
        is_dead = exists().where(heartbeat, replica_heartbeats.c.written_at <= at - DEAD_AFTER)
        is_old = tick_slots.c.claimed_at <= at - stale_after
        is_stale = is_old | (tick_slots.c.owner == owner) | is_dead
        stale_conditions = (tick_slots.c.done_at.is_(None), is_stale)
        statement = update(tick_slots).where(*self._match_slot(slot), *stale_conditions)
        result = self._transaction.execute(statement.values(owner=owner, claimed_at=at))
        return result.rowcount == 1

    def complete(self, slot: int, *, at: datetime) -> None:
        """Store that a slot is done; the first time stays."""
        statement = update(tick_slots).where(
            *self._match_slot(slot), tick_slots.c.done_at.is_(None)
        )
        self._transaction.execute(statement.values(done_at=at))

    def delete_from(self, slot: int) -> None:
        """Delete this slot and later ones, which a clock that was ahead claimed."""
        is_later = tick_slots.c.rollout == self._rollout.number, tick_slots.c.slot >= slot
        self._transaction.execute(delete(tick_slots).where(*is_later))

    def load_last_done(self) -> int | None:
        """Return the newest slot that is done, or None."""
        query = select(func.max(tick_slots.c.slot)).where(
            tick_slots.c.rollout == self._rollout.number, tick_slots.c.done_at.is_not(None)
        )
        slot: int | None = self._transaction.execute(query).scalar()
        return slot

    def load_last_done_at(self) -> datetime | None:
        """Return when the newest slot that is done was, or None."""
        query = select(tick_slots.c.done_at).where(
            tick_slots.c.rollout == self._rollout.number, tick_slots.c.done_at.is_not(None)
        )
        newest_first = query.order_by(tick_slots.c.slot.desc()).limit(1)
        at: datetime | None = self._transaction.execute(newest_first).scalar()
        return at

    def load_last_claimed(self) -> int | None:
        """Return the newest slot that was claimed, or None."""
        query = select(func.max(tick_slots.c.slot)).where(
            tick_slots.c.rollout == self._rollout.number
        )
        slot: int | None = self._transaction.execute(query).scalar()
        return slot

    def load_last_claim(self) -> tuple[int, datetime] | None:
        """Return the newest slot that was claimed, and when last, or None."""
        query = select(tick_slots.c.slot, tick_slots.c.claimed_at).where(
            tick_slots.c.rollout == self._rollout.number
        )
        newest_first = query.order_by(tick_slots.c.slot.desc()).limit(1)
        return self._transaction.find(newest_first, lambda row: (row.slot, row.claimed_at))

    def _match_slot(self, slot: int) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
        return tick_slots.c.rollout == self._rollout.number, tick_slots.c.slot == slot
