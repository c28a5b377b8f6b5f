"""The last slot of evidence, and the newest snapshots of counted evidence and guards' observations.

`through` is the last slot whose counts are evidence. It advances by compare-and-set, and no count
at or before it grows.

Snapshots are derived from counted units and outcomes, or from records, and only save time. A
snapshot is bound to the ledger entry that it was made at, and no longer valid after an event of
`ENDING_KINDS`: another policy compares units anew, an erasure renames or removes values, and a
correction of the clock takes units back. Nor is it after the incident that evidence changed. Such
an event deletes it in its own transaction.
"""

from collections.abc import Iterable
from hashlib import sha256
from typing import Any, Final, NamedTuple

from sqlalchemy import Table, and_, delete, or_, select, update

from rollout.data.database.bulk import build_insert
from rollout.data.database.rollouts import Rollout, RolloutRepository
from rollout.data.database.session import Transaction
from rollout.data.tables.tables import (
    evidence_heads,
    evidence_snapshots,
    guard_snapshots,
    ledger,
    ledger_heads,
)
from rollout.engine.decide.incident_kinds import INCIDENT_KINDS
from rollout.engine.events import EVENT_TYPES, IncidentOpened, LedgerEvent

ENDING_KINDS: Final = frozenset(n for n, kind in EVENT_TYPES.items() if kind.ends_snapshots)
CHANGED_BODIES: Final = tuple(
    f'"kind":"{kind.name}"' for kind in INCIDENT_KINDS.values() if kind.discards_evidence
)
"""Only such an incident's body has it: within a text of a body quotes are escaped."""


class EvidenceSnapshot(NamedTuple):
    """Encoded evidence of all counts up to a slot, as of a revision of the ledger."""

    revision: int
    slot: int
    body: bytes


class EvidenceSnapshots(RolloutRepository):
    """The stored snapshot of one rollout."""

    def __init__(
        self, transaction: Transaction, rollout: Rollout, table: Table = evidence_snapshots
    ) -> None:
        """Use the snapshot of evidence, or that of guards, `guard_snapshots`."""
        super().__init__(transaction, rollout)
        self._table = table

    def load(self, *, until: int) -> EvidenceSnapshot | None:
        """Return the snapshot; None if it is later than a revision, damaged or no longer valid."""
        query = select(self._table).where(
            self._table.c.rollout == self._rollout.number,
            self._table.c.revision <= until,
        )
        row = self._transaction.execute(query).one_or_none()
        if row is None:
            return None
        snapshot = EvidenceSnapshot(row.revision, row.slot, bytes(row.body))
        is_bound = bytes(row.hash) == self._compute_hash(snapshot)
        return snapshot if is_bound and self._is_valid(snapshot) else None

    def load_hash(self) -> bytes | None:
        """Return the hash beside the stored snapshot, whatever it is; None without one."""
        own = self._table.c.rollout == self._rollout.number
        stored = self._transaction.execute(select(self._table.c.hash).where(own)).scalar()
        return None if stored is None else bytes(stored)

    def load_slot(self) -> int | None:
        """Return the slot of the stored snapshot, whatever else it is; None without one."""
        own = self._table.c.rollout == self._rollout.number
        slot: int | None = self._transaction.execute(select(self._table.c.slot).where(own)).scalar()
        return slot

    def store(self, snapshot: EvidenceSnapshot) -> bool:
        """Replace the stored snapshot, unless an event has ended this one already."""
        self._lock_ledger()  # so that an erasure comes before, or after and deletes it
        snapshot_hash = self._compute_hash(snapshot)
        if snapshot_hash is None or not self._is_valid(snapshot):
            return False
        row = {"rollout": self._rollout.number, **snapshot._asdict(), "hash": snapshot_hash}
        statement = build_insert(self._transaction.engine, self._table)
        columns = (column.name for column in self._table.c if not column.primary_key)
        new_values = {name: statement.excluded[name] for name in columns}
        # as a parameter, because SQLAlchemy's cache would keep a value in the statement
        self._transaction.execute(
            statement.on_conflict_do_update(index_elements=["rollout"], set_=new_values), row
        )
        return True

    def delete(self) -> None:
        """Delete the snapshot; a later tick writes another."""
        own = self._table.c.rollout == self._rollout.number
        self._transaction.execute(delete(self._table).where(own))

    def _lock_ledger(self) -> None:
        own_head = ledger_heads.c.rollout == self._rollout.number
        self._transaction.execute(select(ledger_heads.c.revision).where(own_head).with_for_update())

    def _is_valid(self, snapshot: EvidenceSnapshot) -> bool:
        """Return whether no later event ends it; a program that lacks the table deletes none."""
        query = select(ledger.c.revision).where(
            ledger.c.rollout == self._rollout.number,
            ledger.c.revision > snapshot.revision,
            or_(
                ledger.c.kind.in_(ENDING_KINDS),
                and_(
                    ledger.c.kind == IncidentOpened.__name__,
                    or_(*map(ledger.c.body.contains, CHANGED_BODIES)),
                ),
            ),
        )
        return self._transaction.execute(query.limit(1)).first() is None

    def _compute_hash(self, snapshot: EvidenceSnapshot) -> bytes | None:
        """Return the hash of a snapshot with its ledger entry's; None without that entry."""
        query = select(ledger.c.hash).where(
            ledger.c.rollout == self._rollout.number, ledger.c.revision == snapshot.revision
        )
        entry_hash = self._transaction.execute(query).scalar()
        if entry_hash is None:
            return None
        head = f"{self._rollout.number} {snapshot.revision} {entry_hash} {snapshot.slot}\n"
        return sha256(head.encode() + snapshot.body).digest()


def delete_ended_snapshots(
    transaction: Transaction, rollout: Rollout, events: Iterable[LedgerEvent]
) -> None:
    """Delete the snapshots if one of these new events ends them; the ledger is locked."""
    if any(event.ends_snapshots or event.discards_evidence for event in events):
        for table in (evidence_snapshots, guard_snapshots):
            EvidenceSnapshots(transaction, rollout, table).delete()


class EvidenceStore(RolloutRepository):
    """The last slot of evidence of one rollout."""

    def get_last_slot(self, *, lock: bool = False) -> int:
        """Return the last slot of evidence; `lock` blocks advancing it."""
        query = select(evidence_heads.c.through).where(self._own_head)
        if lock:
            query = query.with_for_update()
        return int(self._transaction.execute(query).scalar_one())

    def advance(self, to: int) -> None:
        """Make `to` the last slot of evidence, unless a later one is.

        Sum the counts after this call, in the same transaction: from here on no slot up to `to`
        grows.
        """
        statement = update(evidence_heads).where(self._own_head, evidence_heads.c.through < to)
        self._transaction.execute(statement.values(through=to))

    def rewind(self, to: int) -> None:
        """Make `to` the last slot of evidence, after later units were taken back."""
        self._transaction.execute(update(evidence_heads).where(self._own_head).values(through=to))

    @property
    def _own_head(self) -> Any:
        return evidence_heads.c.rollout == self._rollout.number
