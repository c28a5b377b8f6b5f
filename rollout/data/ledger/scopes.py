"""Stored scopes, so that a long ledger need not be applied from its start.

They are derived: permits are decided on the scope of the full ledger, and stored scopes are
compared with it. Each is bound to the hash of its last ledger row: one of another ledger, such as
of rows that a restore lost, counts as missing. Each part of a scope is written and read by the
types of its fields.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from functools import cache, partial
from hashlib import sha256
from types import MappingProxyType, UnionType
from typing import Any, Final, get_args, get_origin, get_type_hints

from sqlalchemy import Select, delete, func, select

from rollout.data.database.bulk import build_insert
from rollout.data.database.rollouts import Rollout, RolloutRepository
from rollout.data.tables.columns import decode_instant
from rollout.data.tables.tables import ledger, scopes
from rollout.engine.decide.scope import Scope
from rollout.kernel.calendar.instants import to_micros
from rollout.kernel.facts import StoredAlarm, parse_facts, to_facts

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
    if is_dataclass(value) and not isinstance(value, StoredAlarm):
        return [to_plain(getattr(value, field.name)) for field in fields(value)]
    return to_facts(value) if isinstance(value, StoredAlarm) else value


def from_plain(kind: Any, value: Any) -> Any:
    """Return a value of type `kind` from the result of `to_plain`."""
    return _build_reader(kind)(value)


@cache
def _build_reader(kind: Any) -> Callable[[Any], Any]:
    """Return the function that reads values of a type, so that its hints are looked at once."""
    if get_origin(kind) is UnionType:
        read_part = _build_reader(get_args(kind)[0])
        return lambda value: None if value is None else read_part(value)
    if kind is StoredAlarm:
        return partial(parse_facts, StoredAlarm)
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
