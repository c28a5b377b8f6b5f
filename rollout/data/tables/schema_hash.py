"""The hash of all tables: the revision of a database, until migrations are kept."""

from collections.abc import Iterable, Iterator
from functools import cache
from hashlib import sha256
from typing import Any, Final

from sqlalchemy import (
    CheckConstraint,
    Column,
    Constraint,
    DefaultClause,
    ForeignKeyConstraint,
    Table,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import ColumnCollectionConstraint, CreateIndex

from rollout.data.tables.columns import TRIGGER_FUNCTION, list_triggers
from rollout.data.tables.tables import metadata

HASH_LETTERS: Final = 12
SQLITE: Final = sqlite.dialect()
"""Types and indexes are written for it: PostgreSQL's dialect loads slowly."""


@cache
def compute_schema_hash() -> str:
    """Return a hash of tables, columns, constraints, indexes and triggers, on both engines."""
    return hash_schema(
        metadata.sorted_tables,
        [
            TRIGGER_FUNCTION,
            *list_triggers("sqlite").values(),
            *list_triggers("postgresql").values(),
        ],
    )


def hash_schema(tables: Iterable[Table], statements: Iterable[str]) -> str:
    """Return a hash of tables and of further statements that make a database."""
    texts = [text for table in tables for text in _describe_table(table)]
    lines = "\n".join(" ".join(text.split()) for text in (*texts, *statements))
    return sha256(lines.encode()).hexdigest()[:HASH_LETTERS]


def _describe_table(table: Table) -> Iterator[str]:
    """Yield what a database has of a table: to compile its statements would take 25 ms a start."""
    yield f"{table.name} {sorted(table.dialect_kwargs.items())}"
    for column in table.columns:
        kind = f"{type(column.type).__name__} {column.type.compile(dialect=SQLITE)}"
        key = f"{column.primary_key} {column.autoincrement}"
        yield f"{column.name} {kind} {column.nullable} {key} {_describe_default(column)}"
    yield from sorted(_describe_constraint(constraint) for constraint in table.constraints)
    for index in sorted(table.indexes, key=lambda index: str(index.name)):
        yield f"{CreateIndex(index).compile(dialect=SQLITE)}"


def _describe_default(column: Column[Any]) -> str:
    default = column.server_default
    return f"{default.arg}" if isinstance(default, DefaultClause) else f"{default}"


def _describe_constraint(constraint: Constraint) -> str:
    prefix = f"{type(constraint).__name__} {constraint.name}"
    when = f"{constraint.deferrable} {constraint.initially}"
    if isinstance(constraint, CheckConstraint):
        return f"{prefix} {when} {constraint.sqltext}"
    columns = (
        constraint.columns.keys() if isinstance(constraint, ColumnCollectionConstraint) else ()
    )
    if isinstance(constraint, ForeignKeyConstraint):
        targets = [element.target_fullname for element in constraint.elements]
        return f"{prefix} {when} {columns} {targets} {constraint.ondelete} {constraint.onupdate}"
    return f"{prefix} {when} {columns}"
