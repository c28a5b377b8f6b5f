"""Rows of a query as a frame, with the types that the columns have even where there are none."""

from collections.abc import Iterator
from typing import Any

import polars as pl
from sqlalchemy import Boolean, Double, Integer, LargeBinary, Select, Text
from sqlalchemy.types import TypeEngine

from rollout.store.database.session import Transaction
from rollout.store.tables.columns import Instant, Plain
from rollout.tally.frames import INSTANT

KINDS: tuple[tuple[type[TypeEngine[Any]], pl.DataType], ...] = (
    (Instant, INSTANT),
    (Plain, pl.List(pl.Int64())),
    (Boolean, pl.Boolean()),
    (Integer, pl.Int64()),
    (Double, pl.Float64()),
    (LargeBinary, pl.Binary()),
    (Text, pl.String()),
)


def framed(transaction: Transaction, query: Select[Any]) -> pl.DataFrame:
    """Return the rows of a query; its JSON columns are lists of whole numbers."""
    return pl.concat(framed_parts(transaction, query))


def framed_parts(
    transaction: Transaction, query: Select[Any], at_once: int = 5_000
) -> Iterator[pl.DataFrame]:
    """Yield the rows of a query in frames of so many; an empty one where there are none."""
    schema = {column.name: _kind(column.type) for column in query.selected_columns}
    result = transaction.execute(query.execution_options(yield_per=at_once))
    is_empty = True
    for part in result.partitions():
        is_empty = False
        yield pl.DataFrame([tuple(row) for row in part], schema=schema, orient="row")
    if is_empty:
        yield pl.DataFrame(schema=schema)


def _kind(of: TypeEngine[Any]) -> pl.DataType:
    return next(frame_type for stored_type, frame_type in KINDS if isinstance(of, stored_type))
