"""Many values as one parameter: the engine's own way to read a list as rows."""

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from types import NoneType
from typing import Any, Final

from sqlalchemy import BigInteger, BindParameter, Select, Text, bindparam, cast, func, select
from sqlalchemy.dialects.postgresql import ARRAY

from rollout.store.database.session import Transaction


def texts(engine: str, parameter: str) -> Select[Any]:
    """Return a query whose rows are a parameter's values, which `given` wraps up."""
    return _rows(engine, bindparam(parameter), Text)


def numbers(transaction: Transaction, values: Collection[int]) -> Select[Any]:
    """Return a query whose rows are the values."""
    parameter: BindParameter[Any] = bindparam(None, given(transaction.engine, values), unique=True)
    return _rows(transaction.engine, parameter, BigInteger)


def given(engine: str, values: Collection[Any]) -> Any:
    """Return values as the one parameter that they are."""
    return json.dumps(list(values)) if engine == "sqlite" else list(values)


def array(values: Collection[Any]) -> Any:
    r"""Return an array for PostgreSQL: as its text, which its driver takes longer to write.

    Values of several kinds, or of others than these, are left to the driver.

    >>> array([1, None, 2])
    '{1,null,2}'
    >>> print(array(["a", 'b "c"']))
    {"a","b \"c\""}
    >>> array([1, "a"])
    [1, 'a']
    """
    items = list(values)
    types = set(map(type, items))
    writers = {_WRITTEN.get(item_type) for item_type in types - {NoneType}}
    formatter = writers.pop() if len(writers) == 1 else None
    if formatter is None:
        return items
    if NoneType in types:
        texts: Iterable[str] = ("null" if item is None else formatter([item]) for item in items)
    elif float not in types and items[0] is items[-1] and items.count(items[0]) == len(items):
        texts = [formatter(items[:1])] * len(items)  # 0.0 is -0.0, but isn't written so
    else:
        texts = [formatter(items)]
    return f"{{{','.join(texts)}}}"


def _plainly(numbers: list[Any]) -> str:
    return repr(numbers)[1:-1]


def _quoted(texts: list[str]) -> str:
    joined = "".join(texts)
    if '"' in joined or "\\" in joined:
        texts = [text_value.replace("\\", "\\\\").replace('"', '\\"') for text_value in texts]
    return '"' + '","'.join(texts) + '"'


def _in_hex(values: list[bytes]) -> str:
    return '"\\\\x' + '","\\\\x'.join([value.hex() for value in values]) + '"'


_WRITTEN: Final[Mapping[type, Callable[[list[Any]], str]]] = {
    int: _plainly,
    float: _plainly,
    bool: _plainly,
    str: _quoted,
    bytes: _in_hex,
}


def _rows(engine: str, values: BindParameter[Any], kind: type[Text | BigInteger]) -> Select[Any]:
    if engine == "sqlite":
        rows = func.json_each(values).table_valued("value", joins_implicitly=True)
        return select(rows.c.value)
    return select(func.unnest(cast(values, ARRAY(kind))).column_valued("value"))
