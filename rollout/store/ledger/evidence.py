"""Stored evidence: its last slot, and a reading of each measure.

`through` is the last slot whose counts are evidence. It advances by compare-and-set, and no count
at or before it grows.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from typing import Any

from sqlalchemy import delete, select, update

from rollout.core.errors import StaleRevisionError
from rollout.store.database.bulk import build_insert
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.tables.columns import encode_json
from rollout.store.tables.tables import evidence, evidence_heads


@dataclass(frozen=True, slots=True)
class StoredReading:
    """A stored measure of a version in a cell, through a slot.

    `body` holds counts and detector state, from which the next reading starts.
    """

    version: str
    site: str
    window: str
    measure: str
    definition: str
    attempt: int
    body: Any
    through: int


class EvidenceStore:
    """The evidence of one rollout."""

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

    def store(self, readings: Iterable[StoredReading]) -> None:
        """Store readings; they replace earlier ones of the same cells and measures."""
        rows = [self._build_row(reading) for reading in readings]
        if not rows:
            return
        statement = build_insert(self._transaction.engine, evidence)
        new_values = {c.name: statement.excluded[c.name] for c in evidence.c if not c.primary_key}
        key = [column.name for column in evidence.primary_key]
        self._transaction.execute(
            statement.on_conflict_do_update(index_elements=key, set_=new_values), rows
        )

    def list_all(self) -> Sequence[StoredReading]:
        """Return all readings."""
        columns = (evidence.c[field.name] for field in fields(StoredReading))
        query = select(*columns).where(evidence.c.rollout == self._rollout.number)
        return [StoredReading(**row._asdict()) for row in self._transaction.execute(query)]

    def list_broken(self) -> list[StoredReading]:
        """Return readings with a wrong hash or beyond the last slot."""
        last_slot = self.get_last_slot()
        query = select(evidence).where(evidence.c.rollout == self._rollout.number)
        broken_readings = []
        for row in self._transaction.execute(query):
            reading = StoredReading(
                **{field.name: getattr(row, field.name) for field in fields(StoredReading)}
            )
            if reading.through > last_slot or row.hash != _hash_reading(reading):
                broken_readings.append(reading)
        return broken_readings

    def delete(self, readings: Iterable[StoredReading]) -> None:
        """Delete readings, which are rebuilt from the counts."""
        key = [column.name for column in evidence.primary_key][1:]
        for reading in readings:
            key_conditions = (evidence.c[name] == getattr(reading, name) for name in key)
            conditions = (evidence.c.rollout == self._rollout.number, *key_conditions)
            self._transaction.execute(delete(evidence).where(*conditions))

    def _build_row(self, reading: StoredReading) -> dict[str, Any]:
        return {**asdict(reading), "rollout": self._rollout.number, "hash": _hash_reading(reading)}

    @property
    def _own_head(self) -> Any:
        return evidence_heads.c.rollout == self._rollout.number


def _hash_reading(reading: StoredReading) -> bytes:
    return sha256(encode_json(asdict(reading)).encode()).digest()
