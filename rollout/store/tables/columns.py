"""What columns hold: instants, whole numbers, plain JSON; and how constraints are named.

Instants are stored as whole microseconds since 1970, UTC, on every engine: the form that the
ledger, slots and tallies count in, exact, sortable and narrow, where SQLite would keep text of 26
letters and give it back without its zone.
"""

import json
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Column, Integer, MetaData, Text
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

from rollout.core.calendar.instants import EPOCH, MICROSECOND, micros

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

Serial = BigInteger().with_variant(Integer(), "sqlite")
"""A number that the database gives, rising: SQLite's own row number, PostgreSQL's identity."""


def stored(at: datetime) -> int:
    """Return an instant as it is stored.

    Raises:
        ValueError: `at` has no zone, so nobody knows which instant it is.
    """
    if at.utcoffset() is None:
        raise ValueError(f"{at.isoformat()} has no time zone; give an aware datetime")
    return micros(at)


def instant_of(number: int) -> datetime:
    """Return the instant that a stored number stands for, in UTC."""
    return EPOCH + number * MICROSECOND


class Instant(TypeDecorator[datetime]):
    """An instant: aware datetimes in, UTC out, whole microseconds between."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: Dialect) -> int | None:
        """Refuse an instant without a zone."""
        return None if value is None else stored(value)

    def process_result_value(self, value: int | None, _dialect: Dialect) -> datetime | None:
        """Give the instant back in UTC."""
        return None if value is None else instant_of(value)


class Plain(TypeDecorator[Any]):
    """Lists, mappings, text and numbers as one line of JSON with sorted keys."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, _dialect: Dialect) -> str | None:
        """Write one text for one content."""
        return None if value is None else plain(value)

    def process_result_value(self, value: str | None, _dialect: Dialect) -> Any:
        """Read it back."""
        return None if value is None else json.loads(value)


_ENCODER = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
)


def plain(value: Any) -> str:
    """Return JSON without spaces, keys sorted.

    Raises:
        ValueError: NaN or an infinity is in it.

    >>> plain({"b": [1, None], "a": "ä"})
    '{"a":"ä","b":[1,null]}'
    """
    return _ENCODER.encode(value)


def of_rollout() -> Column[int]:
    """Return the first column of every key: the rollout's number."""
    return Column("rollout", Integer, primary_key=True, autoincrement=False)


def key_part(name: str, kind: Any = BigInteger) -> Column[Any]:
    """Return a further column of a key; its value comes from the caller."""
    return Column(name, kind, primary_key=True, autoincrement=False)


def numbered(name: str = "id") -> Column[int]:
    """Return a key that the database counts up."""
    return Column(name, Serial, primary_key=True)


def needed(name: str, kind: Any = Text, **more: Any) -> Column[Any]:
    """Return a column that is never null."""
    return Column(name, kind, nullable=False, **more)


def maybe(name: str, kind: Any = Text, **more: Any) -> Column[Any]:
    """Return a column that may be null."""
    return Column(name, kind, nullable=True, **more)
