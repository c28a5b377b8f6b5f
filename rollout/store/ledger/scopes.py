"""Stored scopes, so that a long ledger need not be applied from its start.

They are derived: permits are decided on the scope of the full ledger, and stored scopes are
compared with it. Each part of a scope is written by the types of its fields.
"""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from hashlib import sha256
from types import MappingProxyType, UnionType
from typing import Any, Final, get_args, get_origin, get_type_hints

from sqlalchemy import delete, func, select

from rollout.core.calendar.instants import to_micros
from rollout.core.scope.scope import Scope
from rollout.store.database.bulk import build_insert
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.tables.columns import decode_instant
from rollout.store.tables.tables import scopes

REVISIONS_BETWEEN: Final = 200
"""Revisions between two stored scopes."""


class StoredScopes:
    """The stored scopes of one rollout."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction = transaction
        self._rollout = rollout

    def store_if_due(self, scope: Scope) -> bool:
        """Store a scope every `REVISIONS_BETWEEN` revisions; return whether it was stored."""
        last_query = select(func.max(scopes.c.revision)).where(
            scopes.c.rollout == self._rollout.number
        )
        newest = self._transaction.execute(last_query).scalar_one() or 0
        if scope.at is None or scope.revision - newest < REVISIONS_BETWEEN:
            return False
        row = {
            "rollout": self._rollout.number,
            "revision": scope.revision,
            "at": scope.at,
            "body": encode_scope(scope),
        }
        statement = build_insert(self._transaction.engine, scopes).on_conflict_do_nothing()
        # as a parameter, because SQLAlchemy's cache would keep a value in the statement (25 MiB)
        result = self._transaction.execute(statement.returning(scopes.c.revision), row)
        return result.first() is not None

    def load_newest(self, *, until: int | None = None) -> Scope:
        """Return the last stored scope up to `until`, or an empty one.

        A scope stored by a program with other fields counts as missing.
        """
        query = select(scopes).where(scopes.c.rollout == self._rollout.number)
        if until is not None:
            query = query.where(scopes.c.revision <= until)
        query = query.order_by(scopes.c.revision.desc()).limit(1)
        row = self._transaction.execute(query).one_or_none()
        return (decode_scope(row.body) if row else None) or Scope()

    def delete_all(self) -> None:
        """Delete the stored scopes; they are stored again as the ledger grows."""
        self._transaction.execute(delete(scopes).where(scopes.c.rollout == self._rollout.number))


def _list_fields(kind: Any) -> Any:
    """Return the names of a type's fields and of all its parts."""
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        return [(field.name, _list_fields(hints[field.name])) for field in fields(kind)]
    return [_list_fields(part) for part in get_args(kind)]


FORM: Final = sha256(repr(_list_fields(Scope)).encode()).hexdigest()[:16]
"""Follows a stored scope, so that no other program reads it as its own."""


def encode_scope(scope: Scope) -> list[Any]:
    """Return the body of a stored scope."""
    return [*to_plain(scope), FORM]


def decode_scope(body: list[Any]) -> Scope | None:
    """Return a stored scope, None if a program with other fields stored it."""
    if body[-1:] != [FORM]:
        return None
    scope: Scope = from_plain(Scope, body[:-1])
    return scope


def to_plain(value: Any) -> Any:
    """Return a scope, or a part of one, as JSON values."""
    if is_dataclass(value):
        return [to_plain(getattr(value, field.name)) for field in fields(value)]
    match value:
        case datetime():
            return to_micros(value)
        case Mapping():
            return [[to_plain(k), to_plain(v)] for k, v in value.items()]
        case frozenset():
            return sorted(to_plain(item) for item in value)
        case tuple():
            return [to_plain(item) for item in value]
    return value


def from_plain(kind: Any, value: Any) -> Any:
    """Return a value of type `kind` from the result of `to_plain`."""
    if value is None:
        return None
    if get_origin(kind) is UnionType:
        return from_plain(get_args(kind)[0], value)
    if is_dataclass(kind):
        hints, names = get_type_hints(kind), [field.name for field in fields(kind)]
        values_by_name = zip(names, value, strict=True)
        constructor: Any = kind
        return constructor(
            **{name: from_plain(hints[name], plain_value) for name, plain_value in values_by_name}
        )
    if get_args(kind):
        return _parse_collection(get_origin(kind), get_args(kind), value)
    return decode_instant(value) if kind is datetime else value


def _parse_collection(kind: Any, item_types: tuple[Any, ...], value: list[Any]) -> Any:
    if kind is frozenset:
        return frozenset(from_plain(item_types[0], item) for item in value)
    if kind is tuple:
        types = item_types[:1] * len(value) if item_types[1:] == (Ellipsis,) else item_types
        return tuple(from_plain(key, item) for key, item in zip(types, value, strict=True))
    mapping = {
        from_plain(item_types[0], key): from_plain(item_types[1], value_part)
        for key, value_part in value
    }
    return mapping if kind is dict else MappingProxyType(mapping)
