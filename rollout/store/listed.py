"""Many values as one parameter: the engine's own way to read a list as rows."""

import json
from collections.abc import Collection
from typing import Any

from sqlalchemy import BigInteger, BindParameter, Select, Text, bindparam, cast, func, select
from sqlalchemy.dialects.postgresql import ARRAY

from rollout.store.session import Transaction


def texts(engine: str, parameter: str) -> Select[Any]:
    """Return a query whose rows are a parameter's values, which `given` wraps up."""
    return _rows(engine, bindparam(parameter), Text)


def numbers(transaction: Transaction, values: Collection[int]) -> Select[Any]:
    """Return a query whose rows are the values."""
    wrapped: BindParameter[Any] = bindparam(None, given(transaction.engine, values), unique=True)
    return _rows(transaction.engine, wrapped, BigInteger)


def given(engine: str, values: Collection[Any]) -> Any:
    """Return values as the one parameter that they are."""
    return json.dumps(list(values)) if engine == "sqlite" else list(values)


def _rows(engine: str, values: BindParameter[Any], kind: type[Text | BigInteger]) -> Select[Any]:
    if engine == "sqlite":
        rows = func.json_each(values).table_valued("value", joins_implicitly=True)
        return select(rows.c.value)
    return select(func.unnest(cast(values, ARRAY(kind))).column_valued("value"))
