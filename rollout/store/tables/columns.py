"""Column types for instants, integers and JSON, and the names of constraints.

Instants are stored as whole microseconds since 1970, UTC, on every engine: exact, sortable and
narrow. SQLite would store 26 letters of text and return it without its zone.
"""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, Text, TextClause
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

from rollout.core.calendar.instants import EPOCH, from_micros, to_micros

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_CONDITION = "condition"
"""The key of a partial index's condition in its `info`."""

SerialType = BigInteger().with_variant(Integer(), "sqlite")
"""A rising number from the database: SQLite's row number or PostgreSQL's identity."""


def encode_instant(at: datetime) -> int:
    """Return an instant in its stored form.

    Raises:
        ValueError: `at` has no time zone.
    """
    if at.utcoffset() is None:
        raise ValueError(f"{at.isoformat()} has no time zone; give an aware datetime")
    return to_micros(at)


def decode_instant(number: int) -> datetime:
    """Return the UTC instant of a stored number."""
    return from_micros(number)


def _decode_optional(number: int | None) -> datetime | None:
    return None if number is None else EPOCH + timedelta(0, 0, number)


class InstantType(TypeDecorator[datetime]):
    """An aware datetime, stored in whole microseconds and returned in UTC."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: Dialect) -> int | None:
        """Return the stored form; raise for an instant without a time zone."""
        return None if value is None else encode_instant(value)

    def result_processor(
        self, _dialect: Dialect, _coltype: object
    ) -> Callable[[int | None], datetime | None]:
        """Return what decodes a column; one call a value, since histories read millions."""
        return _decode_optional


class JsonType(TypeDecorator[Any]):
    """Lists, mappings, texts and numbers as one line of JSON."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, _dialect: Dialect) -> str | None:
        """Return the JSON; equal values give equal texts."""
        return None if value is None else encode_json(value)

    def process_result_value(self, value: str | None, _dialect: Dialect) -> Any:
        """Return the value of stored JSON."""
        return None if value is None else json.loads(value)


_ENCODER = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
)


def encode_json(value: Any) -> str:
    """Return JSON without spaces, with sorted keys.

    Raises:
        ValueError: the value contains NaN or an infinity.

    >>> encode_json({"b": [1, None], "a": "ä"})
    '{"a":"ä","b":[1,null]}'
    """
    return _ENCODER.encode(value)


def build_record_hash_columns() -> tuple[Column[Any], ...]:
    """Return the columns of a record's own hash and of its random bytes; erased ones are null."""
    return (
        Column("salt", LargeBinary, nullable=True),
        Column("record_hash", LargeBinary, nullable=False),
    )


def rollout_column() -> Column[int]:
    """Return the first column of every key: the rollout's number."""
    return Column("rollout", Integer, primary_key=True, autoincrement=False)


def key_column(name: str, kind: Any = BigInteger) -> Column[Any]:
    """Return a key column whose value comes from the caller."""
    return Column(name, kind, primary_key=True, autoincrement=False)


def id_column(name: str = "id") -> Column[int]:
    """Return a key column that the database counts up."""
    return Column(name, SerialType, primary_key=True)


def required_column(name: str, kind: Any = Text, **options: Any) -> Column[Any]:
    """Return a column that is never null."""
    return Column(name, kind, nullable=False, **options)


def optional_column(name: str, kind: Any = Text, **options: Any) -> Column[Any]:
    """Return a column that may be null."""
    return Column(name, kind, nullable=True, **options)


def build_partial_index(name: str | None, *columns: str, where: TextClause) -> Index:
    """Return an index of those rows that meet a condition.

    The condition for PostgreSQL is added by `complete_partial_indexes`: SQLAlchemy loads the whole
    dialect for it, which no command on SQLite needs.
    """
    return Index(name, *columns, sqlite_where=where, info={_CONDITION: where})


def complete_partial_indexes() -> None:
    """Add the conditions for PostgreSQL, before indexes are created or compared with `metadata`."""
    for table in metadata.tables.values():
        for index in table.indexes:
            if _CONDITION in index.info:
                index.dialect_kwargs["postgresql_where"] = index.info[_CONDITION]
