"""What is stored beside a ledger: scopes, snapshots of evidence, stops, damage, slots of ticks.

Scopes are stored so that a long ledger need not be applied from its start. They are derived:
permits are decided on the scope of the full ledger, and stored scopes are compared with it. Each is
bound to the hash of its last ledger row: one of another ledger, such as of rows that a restore
lost, counts as missing. Each part of a scope is written and read by the types of its fields.

Snapshots are of counted evidence and of guards' observations. They are derived from counted units
and outcomes, or from records, and only save time. A snapshot is bound to the ledger entry that it
was made at, and no longer valid after an event of `ENDING_KINDS`: another policy compares units
anew, an erasure renames or removes values, and a correction of the clock takes units back. Nor is
it after the incident that evidence changed. Such an event deletes it in its own transaction.
`through` is the last slot whose counts are evidence. It advances by compare-and-set, and no count
at or before it grows.

Every replica obeys the stops that the ledger lacks. Damage names rollouts whose rows can't be read.

Slots of the tick's grid: each is claimed by one replica. A claim only saves work;
`rollout.data.counting.counter` ensures that each unit counts once.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime, timedelta
from functools import cache, partial
from hashlib import sha256
from types import MappingProxyType, UnionType
from typing import Any, Final, NamedTuple, get_args, get_origin, get_type_hints

from sqlalchemy import (
    ColumnElement,
    Select,
    Table,
    and_,
    case,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    update,
)

from rollout.data.database.bulk import build_insert, insert_once
from rollout.data.database.rollouts import Rollout, RolloutRepository
from rollout.data.database.session import Transaction
from rollout.data.tables.record_tables import decode_instant
from rollout.data.tables.tables import (
    damages,
    evidence_heads,
    evidence_snapshots,
    guard_snapshots,
    ledger,
    ledger_heads,
    pending_stops,
    replica_heartbeats,
    scopes,
    tick_slots,
)
from rollout.engine.decide.commands import Actor
from rollout.engine.decide.incident_kinds import INCIDENT_KINDS
from rollout.engine.decide.scope import Scope
from rollout.engine.decide.stops import StopOrder
from rollout.engine.events import EVENT_TYPES, IncidentOpened, LedgerEvent
from rollout.kernel.calendar.instants import Cell, to_micros
from rollout.kernel.facts import StoredAlarm, Trigger, parse_facts, to_facts

REVISIONS_BETWEEN: Final = 200
"""Revisions between two stored scopes."""


class StoredScopes(RolloutRepository):
    """The stored scopes of one rollout."""

    def store_if_due(self, scope: Scope) -> bool:
        """Store a scope every `REVISIONS_BETWEEN` revisions; return whether it was stored."""
        last_query = select(func.max(scopes.c.revision)).where(
            scopes.c.rollout == self._rollout.number
        )
        newest = self._transaction.execute(last_query).scalar_one() or 0
        if scope.at is None or scope.revision - newest < REVISIONS_BETWEEN:
            return False
        row_hash = self._transaction.execute(
            select(ledger.c.hash).where(
                ledger.c.rollout == self._rollout.number, ledger.c.revision == scope.revision
            )
        ).scalar_one()
        row = {
            "rollout": self._rollout.number,
            "revision": scope.revision,
            "at": scope.at,
            "body": encode_scope(scope, row_hash),
        }
        statement = build_insert(self._transaction.engine, scopes).on_conflict_do_nothing()
        # as a parameter, because SQLAlchemy's cache would keep a value in the statement (25 MiB)
        result = self._transaction.execute(statement.returning(scopes.c.revision), row)
        return result.first() is not None

    def load_newest(self, *, until: int | None = None) -> Scope:
        """Return the last stored scope up to `until`, or an empty one.

        A scope that is bound to another row, or stored by a program with other fields, counts as
        missing.
        """
        query = select_scopes(self._rollout)
        if until is not None:
            query = query.where(scopes.c.revision <= until)
        query = query.order_by(scopes.c.revision.desc()).limit(1)
        row = self._transaction.execute(query).one_or_none()
        return (decode_scope(row.body, row.hash) if row else None) or Scope()

    def delete_all(self) -> None:
        """Delete the stored scopes; they are stored again as the ledger grows."""
        self._transaction.execute(delete(scopes).where(scopes.c.rollout == self._rollout.number))


def select_scopes(rollout: Rollout) -> Select[Any]:
    """Return a query for a rollout's stored scopes with the hashes of their ledger rows.

    The hash is None where the ledger has no such row.
    """
    is_same_row = (scopes.c.rollout == ledger.c.rollout) & (scopes.c.revision == ledger.c.revision)
    joined = scopes.outerjoin(ledger, is_same_row)
    columns = (scopes.c.revision, scopes.c.at, scopes.c.body, ledger.c.hash)
    return select(*columns).select_from(joined).where(scopes.c.rollout == rollout.number)


def _list_fields(kind: Any) -> Any:
    """Return the names of a type's fields and of all its parts."""
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        return [(field.name, _list_fields(hints[field.name])) for field in fields(kind)]
    return [_list_fields(part) for part in get_args(kind)]


FORM: Final = sha256(repr(_list_fields(Scope)).encode()).hexdigest()[:16]
"""Follows a stored scope, so that no other program reads it as its own."""


def encode_scope(scope: Scope, row_hash: str) -> list[Any]:
    """Return the body of a stored scope, bound to the hash of its last ledger row."""
    return [*to_plain(scope), row_hash, FORM]


def decode_scope(body: list[Any], row_hash: str | None) -> Scope | None:
    """Return a stored scope, None if it is of another row or form."""
    if row_hash is None or body[-2:] != [row_hash, FORM]:
        return None
    scope: Scope = from_plain(Scope, body[:-2])
    return scope


FACT_KINDS: Final = (StoredAlarm, Trigger)
"""Stored as the ledger has them."""


def to_plain(value: Any) -> Any:
    """Return a scope, or a part of one, as JSON values."""
    match value:
        case datetime():
            return to_micros(value)
        case Mapping():
            return [[to_plain(k), to_plain(v)] for k, v in value.items()]
        case frozenset():
            return sorted(to_plain(item) for item in value)
        case tuple():
            return [to_plain(item) for item in value]
    if is_dataclass(value) and not isinstance(value, FACT_KINDS):
        return [to_plain(getattr(value, field.name)) for field in fields(value)]
    return to_facts(value) if isinstance(value, FACT_KINDS) else value


def from_plain(kind: Any, value: Any) -> Any:
    """Return a value of type `kind` from the result of `to_plain`."""
    return _build_reader(kind)(value)


@cache
def _build_reader(kind: Any) -> Callable[[Any], Any]:
    """Return the function that reads values of a type, so that its hints are looked at once."""
    if get_origin(kind) is UnionType:
        read_part = _build_reader(get_args(kind)[0])
        return lambda value: None if value is None else read_part(value)
    if kind in FACT_KINDS:
        return partial(parse_facts, kind)
    if is_dataclass(kind):
        return _build_record_reader(kind)
    if get_args(kind):
        return _build_collection_reader(get_origin(kind), get_args(kind))
    if kind is datetime:
        return lambda value: None if value is None else decode_instant(value)
    return lambda value: value


def _build_record_reader(kind: Any) -> Callable[[Any], Any]:
    hints = get_type_hints(kind)
    readers = {field.name: _build_reader(hints[field.name]) for field in fields(kind)}

    def read_record(values: Any) -> Any:
        parts = zip(readers.items(), values, strict=True)
        return kind(**{name: read_part(value) for (name, read_part), value in parts})

    return read_record


def _build_collection_reader(kind: Any, item_types: tuple[Any, ...]) -> Callable[[Any], Any]:
    readers = tuple(_build_reader(item) for item in item_types if item is not Ellipsis)
    read_first = readers[0]
    if kind is frozenset:
        return lambda values: frozenset(map(read_first, values))
    if kind is tuple and item_types[1:] == (Ellipsis,):
        return lambda values: tuple(map(read_first, values))
    if kind is tuple:
        return lambda values: tuple(
            read_part(value) for read_part, value in zip(readers, values, strict=True)
        )
    read_second = readers[1]
    freeze = dict if kind is dict else MappingProxyType
    return lambda pairs: freeze({read_first(key): read_second(value) for key, value in pairs})


ALL_ROLLOUTS = ""
"""The rollout of damage that can't be told apart."""


@dataclass(frozen=True, slots=True)
class UnwrittenOrder:
    """A stop or narrowing on its way to the ledger.

    Attributes:
        cells: (), which holds all, until `order` can be resolved.
        order: what was asked; in memory and files only.
    """

    id: str
    rollout: str
    cells: tuple[Cell, ...]
    by: Actor
    reason: str
    at: datetime
    access_head: int | None = None
    order: StopOrder | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingStop(UnwrittenOrder):
    """A stop on its way to the ledger."""

    drill: bool


@dataclass(frozen=True, slots=True)
class Damage:
    """Rows of a rollout, or of all, that can't be read."""

    rollout: str
    reason: str
    found_at: datetime


@dataclass(frozen=True, slots=True)
class SafetyRows:
    """Pending stops, and damage by rollout."""

    stops: tuple[PendingStop, ...] = ()
    damages: tuple[Damage, ...] = ()

    def select_rollout(self, rollout_name: str) -> "SafetyRows":
        """Return the rows that concern a rollout."""
        if not self.stops and not self.damages:
            return self
        return SafetyRows(
            tuple(stop for stop in self.stops if stop.rollout == rollout_name),
            tuple(row for row in self.damages if row.rollout in {ALL_ROLLOUTS, rollout_name}),
        )


NO_SAFETY_ROWS: Final = SafetyRows()


def load_safety_rows(transaction: Transaction) -> SafetyRows:
    """Return all pending stops and all damage."""
    stop_rows = transaction.execute(select(pending_stops).order_by(pending_stops.c.id))
    damage_rows = transaction.execute(select(damages).order_by(damages.c.rollout))
    return SafetyRows(
        tuple(
            PendingStop(
                row.id,
                row.rollout,
                parse_cells(row.cells),
                parse_actor(row.actor),
                row.reason,
                row.at,
                row.access_head,
                drill=bool(row.drill),
            )
            for row in stop_rows
        ),
        tuple(Damage(row.rollout, row.reason, row.found_at) for row in damage_rows),
    )


def store_pending_stop(transaction: Transaction, stop: PendingStop) -> None:
    """Store a stop, which every replica then obeys; repeating it is safe."""
    delete_pending_stop(transaction, stop.id)
    transaction.execute(
        insert(pending_stops).values(
            id=stop.id,
            rollout=stop.rollout,
            cells=format_cells(stop.cells),
            actor=format_actor(stop.by),
            reason=stop.reason,
            drill=int(stop.drill),
            at=stop.at,
            access_head=stop.access_head,
        )
    )


def delete_pending_stop(transaction: Transaction, stop_id: str) -> bool:
    """Delete a stop that the ledger has; return whether it was there."""
    query = delete(pending_stops).where(pending_stops.c.id == stop_id)
    return bool(transaction.execute(query).rowcount)


def store_damage(transaction: Transaction, damage: Damage) -> None:
    """Store that a rollout's rows can't be read; an earlier finding stays."""
    query = select(damages.c.rollout).where(damages.c.rollout == damage.rollout)
    if transaction.execute(query).first() is None:
        values = {"rollout": damage.rollout, "reason": damage.reason, "found_at": damage.found_at}
        transaction.execute(insert(damages).values(values))


def delete_damages(transaction: Transaction) -> None:
    """Delete all damage, once it was checked."""
    transaction.execute(delete(damages))


def format_cells(cells: tuple[Cell, ...]) -> list[list[str]]:
    """Return cells as JSON values."""
    return [[cell.site, cell.window] for cell in cells]


def parse_cells(values: list[list[str]]) -> tuple[Cell, ...]:
    """Return cells from JSON values."""
    return tuple(Cell(site, window) for site, window in values)


def format_actor(actor: Actor) -> dict[str, object]:
    """Return an actor as JSON values."""
    return {
        "name": actor.name,
        "groups": list(actor.groups),
        "is_service_account": actor.is_service_account,
    }


def parse_actor(values: Mapping[str, object]) -> Actor:
    """Return an actor from JSON values."""
    groups = values["groups"]
    assert isinstance(groups, list)  # noqa: S101 - as written
    return Actor(str(values["name"]), tuple(map(str, groups)), bool(values["is_service_account"]))


DEAD_AFTER: Final = timedelta(seconds=10)
"""Without a heartbeat; they come every second, and clocks of replicas differ by at most 5 s."""


class TickSlots(RolloutRepository):
    """The tick slots of one rollout."""

    def claim(self, slot: int, *, owner: str, at: datetime, stale_after: timedelta) -> bool:
        """Claim a slot for `owner`; of concurrent calls exactly one returns True.

        A claim that is not done can be taken after `stale_after`, by its own owner at once, and
        from a replica whose heartbeats ended `DEAD_AFTER` ago. None is possible once this slot or
        a later one is done.
        """
        later = tick_slots.alias()
        is_later_done = exists().where(
            later.c.rollout == self._rollout.number,
            later.c.slot >= slot,
            later.c.done_at.is_not(None),
        )
        row = {"rollout": self._rollout.number, "slot": slot, "owner": owner, "claimed_at": at}
        if insert_once(self._transaction, tick_slots, row, unless=is_later_done):
            return True
        heartbeat = replica_heartbeats.c.owner == tick_slots.c.owner
        is_dead = exists().where(heartbeat, replica_heartbeats.c.written_at <= at - DEAD_AFTER)
        is_old = tick_slots.c.claimed_at <= at - stale_after
        is_stale = is_old | (tick_slots.c.owner == owner) | is_dead
        statement = update(tick_slots).where(*self._match_slot(slot), ~is_later_done, is_stale)
        return self._transaction.execute(statement.values(owner=owner, claimed_at=at)).rowcount == 1

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

    def load_slots_and_stops(self) -> tuple[int | None, int | None, bool]:
        """Return the newest slot that is done, the newest claimed, and whether a stop is pending.

        A slot is None without one.
        """
        slot, done_at = tick_slots.c.slot, tick_slots.c.done_at
        query = select(
            func.max(case((done_at.is_not(None), slot))).label("done"),
            func.max(slot).label("claimed"),
            exists().where(pending_stops.c.rollout == self._rollout.name).label("is_stopping"),
        ).where(tick_slots.c.rollout == self._rollout.number)
        row = self._transaction.execute(query).one()
        return row.done, row.claimed, bool(row.is_stopping)

    def load_last_claim(self) -> tuple[int, datetime] | None:
        """Return the newest slot that was claimed, and when last, or None."""
        query = select(tick_slots.c.slot, tick_slots.c.claimed_at).where(
            tick_slots.c.rollout == self._rollout.number
        )
        newest_first = query.order_by(tick_slots.c.slot.desc()).limit(1)
        return self._transaction.find(newest_first, lambda row: (row.slot, row.claimed_at))

    def _match_slot(self, slot: int) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
        return tick_slots.c.rollout == self._rollout.number, tick_slots.c.slot == slot


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
