"""Values in the text forms that PostgreSQL reads: arrays as parameters, rows as lines of COPY.

Both are made faster here than by its driver.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from types import NoneType
from typing import Any, Final

NULL: Final = "\\N"
SPECIAL_CHARACTERS: Final = "\\\n\r\t"
"""What ends a cell or a line of COPY, or begins an escape."""
ESCAPES: Final = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"})


def encode_array(values: Collection[Any]) -> Any:
    r"""Return an array parameter for PostgreSQL as text.

    Values of mixed or unsupported types are returned as a list for the driver.

    >>> encode_array([1, None, 2])
    '{1,null,2}'
    >>> print(encode_array(["a", 'b "c"']))
    {"a","b \"c\""}
    >>> encode_array([1, "a"])
    [1, 'a']
    """
    items = list(values)
    types = set(map(type, items))
    writers = {_ARRAY_FORMATTERS.get(item_type) for item_type in types - {NoneType}}
    formatter = writers.pop() if len(writers) == 1 else None
    if formatter is None:
        return items
    if NoneType in types:
        texts: Iterable[str] = ("null" if item is None else formatter([item]) for item in items)
    elif float not in types and items[0] is items[-1] and items.count(items[0]) == len(items):
        texts = [formatter(items[:1])] * len(
            items
        )  # not for floats: 0.0 == -0.0, but their texts differ
    else:
        texts = [formatter(items)]
    return f"{{{','.join(texts)}}}"


def _join_numbers(numbers: list[Any]) -> str:
    return repr(numbers)[1:-1]


def _join_texts(texts: list[str]) -> str:
    joined = "".join(texts)
    if '"' in joined or "\\" in joined:
        texts = [text_value.replace("\\", "\\\\").replace('"', '\\"') for text_value in texts]
    return '"' + '","'.join(texts) + '"'


def _join_bytes(values: list[bytes]) -> str:
    return '"\\\\x' + '","\\\\x'.join([value.hex() for value in values]) + '"'


_ARRAY_FORMATTERS: Final[Mapping[type, Callable[[list[Any]], str]]] = {
    int: _join_numbers,
    float: _join_numbers,
    bool: _join_numbers,
    str: _join_texts,
    bytes: _join_bytes,
}


def format_copied_rows(columns: Collection[Sequence[Any]]) -> str | None:
    r"""Return columns of equal length as the lines of COPY.

    None if a value has a type that isn't written here: neither a number, a text, bytes nor null.

    >>> format_copied_rows([[1, 2], ["a\tb", None], [b"\x01", b""]])
    '1\ta\\tb\t\\\\x01\n2\t\\N\t\\\\x\n'
    >>> format_copied_rows([[object()]]) is None
    True
    """
    formatted_columns = []
    for cells in columns:
        types = set(map(type, cells)) - {NoneType}
        if not types <= _CELL_FORMATTERS.keys():
            return None
        if len(types) == 1 and None not in cells:
            formatted_columns.append(_CELL_FORMATTERS[types.pop()](cells))
        else:
            formatted_columns.append(
                [
                    NULL if cell is None else _CELL_FORMATTERS[type(cell)]([cell])[0]
                    for cell in cells
                ]
            )
    return "".join(["\t".join(row) + "\n" for row in zip(*formatted_columns, strict=True)])


def _format_cell(cell: Any) -> str:
    return NULL if cell is None else _CELL_FORMATTERS[type(cell)]([cell])[0]


def _format_numbers(numbers: Sequence[Any]) -> Sequence[str]:
    return list(map(repr, numbers))


def _format_texts(texts: Sequence[str]) -> Sequence[str]:
    joined = "".join(texts)
    if any(character in joined for character in SPECIAL_CHARACTERS):
        return [text.translate(ESCAPES) for text in texts]
    return texts


def _format_bytes(values: Sequence[bytes]) -> Sequence[str]:
    return [f"\\\\x{value.hex()}" for value in values]


_CELL_FORMATTERS: Final[Mapping[type, Callable[[Sequence[Any]], Sequence[str]]]] = {
    int: _format_numbers,
    float: _format_numbers,
    bool: _format_numbers,
    str: _format_texts,
    bytes: _format_bytes,
}
