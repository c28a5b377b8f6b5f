"""Rows of a query as a frame, with the types that the columns have even where there are none."""

from typing import Any

import polars as pl
from sqlalchemy import Boolean, Double, Integer, LargeBinary, Select, Text
from sqlalchemy.types import TypeEngine

from rollout.store.columns import Instant, Plain
from rollout.store.session import Transaction
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
    schema = {column.name: _kind(column.type) for column in query.selected_columns}
    rows = [tuple(row) for row in transaction.execute(query)]
    return pl.DataFrame(rows, schema=schema, orient="row")


def _kind(of: TypeEngine[Any]) -> pl.DataType:
    return next(kind for stored, kind in KINDS if isinstance(of, stored))
