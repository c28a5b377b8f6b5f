"""Column types for instants, integers and JSON, and the names of constraints.

Instants are stored as whole microseconds since 1970, UTC, on every engine: exact, sortable and
narrow. SQLite would store 26 letters of text and return it without its zone.

Triggers that keep the rows of append-only tables as they were written.

An update is refused, except of the tables in `ERASABLE`, where an erasure replaces names and texts.
That and a delete are refused unless a purge, an erasure or a correction of the clock, which takes
back what was counted ahead, has put a row into `purging` in the same transaction. That row refers,
deferred, to a row that can't exist, so no transaction can commit while it has the row, and no other
transaction sees it. SQLite's `insert or replace` deletes
too, and fires delete triggers only on connections with `recursive_triggers`; the ledger therefore
also refuses inserts over an existing revision.

The owner of a table can still drop its triggers. On PostgreSQL let the service connect as a role
that does not own them (`rollout.data.database.migrations`).
"""

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, Text, TextClause
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

from rollout.kernel.calendar.instants import EPOCH, from_micros, to_instant_micros

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
    return to_instant_micros(at)


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


APPEND_ONLY: Mapping[str, bool] = MappingProxyType(
    {
        "policies": False,
        "versions": False,
        "ledger": False,
        "cases": True,
        "predictions": True,
        "decisions": True,
        "actions": True,
        "outcomes": True,
        "heartbeats": True,
        "rejected_records": True,
        "cleanings": True,
        "baselines": False,
        "counted_units": True,
        "counted_records": True,
        "counted_outcomes": True,
        "exposures": False,
        "reports": False,
        "erased_hashes": False,
        "planted_cases": False,
    }
)
"""The append-only tables, and whether their rows may be deleted within `purging`."""

ERASABLE: Final = frozenset(
    {
        "baselines",
        "cleanings",
        "counted_units",
        "decisions",
        "exposures",
        "policies",
        "reports",
    }
)
"""The append-only tables in which an erasure may replace names and texts."""

OPEN_PURGE = "insert into purging (id, closed) values (1, 0)"
CLOSE_PURGE = "delete from purging"

TRIGGER_FUNCTION = """\
create or replace function refuse_change() returns trigger language plpgsql as $$
begin
    if tg_op = 'DELETE' and tg_argv[0] = 'purgeable' then
        if exists (select from purging) then
            return old;
        end if;
    end if;
    if tg_op = 'UPDATE' and tg_argv[1] = 'erasable' then
        if exists (select from purging) then
            return new;
        end if;
    end if;
    raise exception '% is append-only: % refused', tg_table_name, lower(tg_op)
        using errcode = 'restrict_violation';
end $$"""
"""The function that PostgreSQL's triggers call; create it before them."""


def list_triggers(engine: str) -> Mapping[str, str]:
    """Return the statements that create all triggers, by trigger name."""
    return {
        name: statement
        for table in APPEND_ONLY
        for name, statement in build_triggers(engine, table).items()
    }


def build_triggers(engine: str, table: str) -> Mapping[str, str]:
    """Return the statements that create a table's triggers, by trigger name."""
    build = _build_sqlite_triggers if engine == "sqlite" else _build_postgresql_triggers
    return dict(build(table, APPEND_ONLY[table], table in ERASABLE))


def _build_sqlite_triggers(
    table: str, purgeable: bool, erasable: bool
) -> Iterator[tuple[str, str]]:
    unless_open = " when not exists (select 1 from purging)"
    yield _build_refusal(table, "update", "update", unless_open if erasable else "")
    yield _build_refusal(table, "delete", "delete", unless_open if purgeable else "")
    if table == "ledger":
        existing_row = (
            "select 1 from ledger where rollout = new.rollout and revision = new.revision"
        )
        yield _build_refusal(table, "insert", "replace", f" when exists ({existing_row})")


def _build_refusal(table: str, event: str, operation: str, condition: str) -> tuple[str, str]:
    name = f"{table}_refuses_{operation}"
    statement = f"select raise(abort, '{table} is append-only: {operation} refused')"
    return (
        name,
        f"create trigger {name} before {event} on {table}{condition} begin {statement}; end",
    )


def _build_postgresql_triggers(
    table: str, purgeable: bool, erasable: bool
) -> Iterator[tuple[str, str]]:
    arguments = "'purgeable'" if purgeable else "'kept'"
    arguments += ", 'erasable'" if erasable else ""
    for events, each in (("update or delete", "row"), ("truncate", "statement")):
        name = f"{table}_refuses_{events.replace(' ', '_')}"
        statement = f"create trigger {name} before {events} on {table} for each {each}"
        yield name, f"{statement} execute function refuse_change({arguments})"
