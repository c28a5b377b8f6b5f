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


def array(values: Collection[Any]) -> Any:
    """Return an array for PostgreSQL: as the text that it reads, which its driver takes longer for.

    What needs care, as a text with a quotation mark or a null, is left to the driver.

    >>> array([1, 2])
    '{1,2}'
    >>> array(["a", "b c"])
    '{"a","b c"}'
    >>> array(["a", None])
    ['a', None]
    """
    kinds = set(map(type, values))
    if kinds == {int}:
        return f"{{{','.join(map(str, values))}}}"
    if kinds == {str}:
        text = '","'.join(values)
        if "\\" not in text and text.count('"') == 2 * (len(values) - 1):
            return f'{{"{text}"}}'
    return list(values)


def _rows(engine: str, values: BindParameter[Any], kind: type[Text | BigInteger]) -> Select[Any]:
    if engine == "sqlite":
        rows = func.json_each(values).table_valued("value", joins_implicitly=True)
        return select(rows.c.value)
    return select(func.unnest(cast(values, ARRAY(kind))).column_valued("value"))
