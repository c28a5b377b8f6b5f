"""How far evidence has been read, and what was read of each measure.

`through` is the last slot whose tallies are evidence. It moves by compare-and-set, and nothing
is ever added to a slot at or before it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from typing import Any

from sqlalchemy import delete, select, update

from rollout.core.errors import StaleRevision
from rollout.store.database.bulk import inserting
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.tables.columns import plain
from rollout.store.tables.tables import evidence, evidence_heads


@dataclass(frozen=True, slots=True)
class Reading:
    """What is known of one measure of a version in a cell, through a slot.

    `body` holds counts and the state of detectors: whatever the next reading starts from.
    """

    version: str
    site: str
    window: str
    measure: str
    definition: str
    attempt: int
    body: Any
    through: int


class Evidence:
    """The evidence of one rollout."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction = transaction
        self._rollout = rollout

    def through(self, *, hold: bool = False) -> int:
        """Return the last slot that is evidence; `hold` keeps it there until we end."""
        query = select(evidence_heads.c.through).where(self._head)
        if hold:
            query = query.with_for_update()
        return int(self._transaction.execute(query).scalar_one())

    def move(self, *, after: int, to: int) -> None:
        """Make `to` the last slot that is evidence, if `after` still is.

        Sum tallies after this, in the same transaction: from here on no slot up to `to` grows.

        Raises:
            StaleRevision: somebody else has moved it; read it again.
            ValueError: `to` does not lie after `after`.
        """
        if to <= after:
            raise ValueError(f"evidence moves forward; {to} is not after {after}")
        statement = update(evidence_heads).where(self._head, evidence_heads.c.through == after)
        if self._transaction.execute(statement.values(through=to)).rowcount != 1:
            raise StaleRevision(f"evidence has moved on from slot {after}; read it again")

    def keep(self, readings: Iterable[Reading]) -> None:
        """Put readings in the place of the earlier ones of the same cells and measures."""
        rows = [self._row(reading) for reading in readings]
        if not rows:
            return
        statement = inserting(self._transaction.engine, evidence)
        new_values = {c.name: statement.excluded[c.name] for c in evidence.c if not c.primary_key}
        key = [column.name for column in evidence.primary_key]
        self._transaction.execute(
            statement.on_conflict_do_update(index_elements=key, set_=new_values), rows
        )

    def all(self) -> Sequence[Reading]:
        """Return every reading."""
        columns = (evidence.c[field.name] for field in fields(Reading))
        query = select(*columns).where(evidence.c.rollout == self._rollout.number)
        return [Reading(**row._asdict()) for row in self._transaction.execute(query)]

    def broken(self) -> list[Reading]:
        """Return the readings that are not what their hash says, or go on after evidence ends."""
        last_slot = self.through()
        query = select(evidence).where(evidence.c.rollout == self._rollout.number)
        broken_readings = []
        for row in self._transaction.execute(query):
            reading = Reading(**{field.name: getattr(row, field.name) for field in fields(Reading)})
            if reading.through > last_slot or row.hash != _hash(reading):
                broken_readings.append(reading)
        return broken_readings

    def drop(self, readings: Iterable[Reading]) -> None:
        """Delete readings: they are made again from the tallies."""
        key = [column.name for column in evidence.primary_key][1:]
        for reading in readings:
            key_conditions = (evidence.c[name] == getattr(reading, name) for name in key)
            conditions = (evidence.c.rollout == self._rollout.number, *key_conditions)
            self._transaction.execute(delete(evidence).where(*conditions))

    def _row(self, reading: Reading) -> dict[str, Any]:
        return {**asdict(reading), "rollout": self._rollout.number, "hash": _hash(reading)}

    @property
    def _head(self) -> Any:
        return evidence_heads.c.rollout == self._rollout.number


def _hash(reading: Reading) -> bytes:
    return sha256(plain(asdict(reading)).encode()).digest()
