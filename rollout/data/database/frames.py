"""Query results as frames, with the column types also where there are no rows."""

from collections.abc import Iterator
from typing import Any

import polars as pl
from sqlalchemy import (
    Boolean,
    ColumnElement,
    Double,
    Integer,
    LargeBinary,
    Select,
    Text,
    type_coerce,
)
from sqlalchemy.types import TypeEngine

from rollout.data.database.session import Transaction
from rollout.data.tables.record_tables import InstantType, JsonType
from rollout.engine.evidence.frames import INSTANT

COLUMN_TYPES: tuple[tuple[type[TypeEngine[Any]], pl.DataType], ...] = (
    (InstantType, INSTANT),
    (JsonType, pl.List(pl.Int64())),
    (Boolean, pl.Boolean()),
    (Integer, pl.Int64()),
    (Double, pl.Float64()),
    (LargeBinary, pl.Binary()),
    (Text, pl.String()),
)


def load_frame(transaction: Transaction, query: Select[Any]) -> pl.DataFrame:
    """Return the rows of a query; JSON columns are lists of integers."""
    return pl.concat(load_frame_parts(transaction, query))


def load_frame_parts(
    transaction: Transaction, query: Select[Any], at_once: int = 5_000
) -> Iterator[pl.DataFrame]:
    """Yield the rows of a query in frames, at least one."""
    columns = list(query.selected_columns)
    schema = {column.name: _find_type(column.type) for column in columns}
    json_columns = [column.name for column in columns if isinstance(column.type, JsonType)]
    stored_schema = schema | dict.fromkeys(json_columns, pl.String())
    decoded = [pl.col(name).str.json_decode(schema[name]) for name in json_columns]
    query = query.with_only_columns(*map(_select_json_as_text, columns))
    result = transaction.execute(query.execution_options(yield_per=at_once))
    is_empty = True
    for part in result.partitions():
        is_empty = False
        cells = zip(schema, zip(*part, strict=True), strict=True)  # rows take twice the time
        yield pl.DataFrame(dict(cells), schema=stored_schema).with_columns(decoded)
    if is_empty:
        yield pl.DataFrame(schema=schema)


def _select_json_as_text(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return a column, JSON as stored: a list for each row is slow to make, twice."""
    if isinstance(column.type, JsonType):
        return type_coerce(column, Text).label(column.name)
    return column


def _find_type(column_type: TypeEngine[Any]) -> pl.DataType:
    return next(
        frame_type
        for stored_type, frame_type in COLUMN_TYPES
        if isinstance(column_type, stored_type)
    )
