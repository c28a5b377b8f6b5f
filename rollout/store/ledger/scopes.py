"""The folded scope, kept now and then: so that a long history is not folded from its beginning.

It is derived: who decides whether a model may act folds the chain, and these are compared with
it. Every part of a scope is written by the types of its fields.
"""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from types import MappingProxyType, UnionType
from typing import Any, Final, get_args, get_origin, get_type_hints

from sqlalchemy import Row, Select, delete, func, select

from rollout.core.calendar.instants import micros
from rollout.core.scope.scope import Scope
from rollout.store.database.bulk import inserting
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.tables.columns import instant_of
from rollout.store.tables.tables import scopes

EVERY: Final = 200
"""Revisions between two that are kept."""


class Scopes:
    """The kept scopes of one rollout."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction = transaction
        self._rollout = rollout

    def keep(self, scope: Scope) -> bool:
        """Keep a scope if `EVERY` revisions have passed since the last one; say if it was."""
        last_query = select(func.max(scopes.c.revision)).where(
            scopes.c.rollout == self._rollout.number
        )
        newest = self._transaction.execute(last_query).scalar_one() or 0
        if scope.at is None or scope.revision - newest < EVERY:
            return False
        row = {
            "rollout": self._rollout.number,
            "revision": scope.revision,
            "at": scope.at,
            "body": to_plain(scope),
        }
        statement = inserting(self._transaction.engine, scopes).on_conflict_do_nothing()
        # the row as a parameter: a value in a statement stays in SQLAlchemy's cache, here 25 MiB
        result = self._transaction.execute(statement.returning(scopes.c.revision), row)
        return result.first() is not None

    def newest(self, *, until: int | None = None) -> Scope:
        """Return the last kept scope, at most at revision `until`; the empty one without any.

        One that an older program kept, with other parts, is as good as none.
        """
        query = self._own() if until is None else self._own().where(scopes.c.revision <= until)
        row = self._newest(query)
        field_count = len(fields(Scope))
        return from_plain(Scope, row.body) if row and len(row.body) == field_count else Scope()

    def forget(self) -> None:
        """Delete what is kept; it is made again as the ledger grows."""
        self._transaction.execute(delete(scopes).where(scopes.c.rollout == self._rollout.number))

    def _own(self) -> Select[Any]:
        return select(scopes).where(scopes.c.rollout == self._rollout.number)

    def _newest(self, query: Select[Any]) -> Row[Any] | None:
        last = query.order_by(scopes.c.revision.desc()).limit(1)
        return self._transaction.execute(last).one_or_none()


def to_plain(value: Any) -> Any:
    """Return a scope, or a part of one, as lists, text, numbers, booleans and null."""
    if is_dataclass(value):
        return [to_plain(getattr(value, field.name)) for field in fields(value)]
    match value:
        case datetime():
            return micros(value)
        case Mapping():
            return [[to_plain(k), to_plain(v)] for k, v in value.items()]
        case frozenset():
            return sorted(to_plain(item) for item in value)
        case tuple():
            return [to_plain(item) for item in value]
    return value


def from_plain(kind: Any, value: Any) -> Any:
    """Return what `to_plain` was given, by its type."""
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
        return _collection(get_origin(kind), get_args(kind), value)
    return instant_of(value) if kind is datetime else value


def _collection(kind: Any, inner: tuple[Any, ...], value: list[Any]) -> Any:
    if kind is frozenset:
        return frozenset(from_plain(inner[0], item) for item in value)
    if kind is tuple:
        types = inner[:1] * len(value) if inner[1:] == (Ellipsis,) else inner
        return tuple(from_plain(key, item) for key, item in zip(types, value, strict=True))
    mapping = {
        from_plain(inner[0], key): from_plain(inner[1], value_part) for key, value_part in value
    }
    return mapping if kind is dict else MappingProxyType(mapping)
