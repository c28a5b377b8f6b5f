"""Many values as one parameter: the engine's own way to read a list as rows."""

import json
from collections.abc import Collection
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Select, Text, cast, func, select
from sqlalchemy.dialects.postgresql import ARRAY

from rollout.store.session import Transaction


def texts(transaction: Transaction, values: Collection[str]) -> Select[Any]:
    """Return a query whose rows are the values."""
    if transaction.engine == "sqlite":
        return select(_elements(values))
    return select(func.unnest(cast(list(values), ARRAY(Text))).column_valued("value"))


def numbers(transaction: Transaction, values: Collection[int]) -> Select[Any]:
    """Return a query whose rows are the values."""
    if transaction.engine == "sqlite":
        return select(_elements(values))
    return select(func.unnest(cast(list(values), ARRAY(BigInteger))).column_valued("value"))


def _elements(values: Collection[Any]) -> ColumnElement[Any]:
    rows = func.json_each(json.dumps(list(values))).table_valued("value", joins_implicitly=True)
    return rows.c.value
