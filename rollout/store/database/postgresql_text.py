"""Rows as the lines that PostgreSQL's COPY reads, in its text form."""

from collections.abc import Callable, Collection, Mapping, Sequence
from types import NoneType
from typing import Any, Final

NULL: Final = "\\N"
SPECIAL_CHARACTERS: Final = "\\\n\r\t"
"""What ends a cell or a line, or begins an escape."""
ESCAPES: Final = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"})


def format_copied_rows(columns: Collection[Sequence[Any]]) -> str | None:
    r"""Return columns of equal length as lines.

    None if a value has a type that isn't written here: neither a number, a text, bytes nor null.

    >>> format_copied_rows([[1, 2], ["a\tb", None], [b"\x01", b""]])
    '1\ta\\tb\t\\\\x01\n2\t\\N\t\\\\x\n'
    >>> format_copied_rows([[object()]]) is None
    True
    """
    formatted_columns = []
    for cells in columns:
        types = set(map(type, cells)) - {NoneType}
        if not types <= _FORMATTERS.keys():
            return None
        if len(types) == 1 and None not in cells:
            formatted_columns.append(_FORMATTERS[types.pop()](cells))
        else:
            formatted_columns.append(
                [NULL if cell is None else _FORMATTERS[type(cell)]([cell])[0] for cell in cells]
            )
    return "".join(["\t".join(row) + "\n" for row in zip(*formatted_columns, strict=True)])


def _format_numbers(numbers: Sequence[Any]) -> Sequence[str]:
    return list(map(repr, numbers))


def _format_texts(texts: Sequence[str]) -> Sequence[str]:
    joined = "".join(texts)
    if any(character in joined for character in SPECIAL_CHARACTERS):
        return [text.translate(ESCAPES) for text in texts]
    return texts


def _format_bytes(values: Sequence[bytes]) -> Sequence[str]:
    return [f"\\\\x{value.hex()}" for value in values]


_FORMATTERS: Final[Mapping[type, Callable[[Sequence[Any]], Sequence[str]]]] = {
    int: _format_numbers,
    float: _format_numbers,
    bool: _format_numbers,
    str: _format_texts,
    bytes: _format_bytes,
}
