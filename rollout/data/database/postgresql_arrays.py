"""Arrays as parameters in PostgreSQL's binary form, with its driver's help only to send them.

It reads them faster than text, and they are made faster than by its driver.
"""

import struct
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from itertools import chain, repeat
from types import NoneType
from typing import Any, Final, NamedTuple


class BinaryArray(bytes):
    """An array as PostgreSQL receives it; the driver sends it unchanged."""

    __slots__ = ()


class ElementType(NamedTuple):
    """A type of elements: its number in PostgreSQL, the types it is made of, and their writer."""

    number: int
    types: frozenset[type]
    write: Callable[[Sequence[Any]], bytes]


HEADER: Final = struct.Struct(">iiIii")
"""Dimensions, whether nulls are there, the elements' type, their number and the first index."""


LENGTH: Final = struct.Struct(">i")


NULL: Final = LENGTH.pack(-1)


NOT_WRITTEN: Final = (struct.error, OverflowError, UnicodeEncodeError)
"""The errors of values that a type can't hold."""


def encode_array(type_name: str, values: Collection[Any]) -> Any:
    r"""Return an array parameter for PostgreSQL; elements have a type, such as `BIGINT`.

    Values that the type can't hold are returned as a list: the driver or PostgreSQL refuses them.

    >>> encode_array("INTEGER", [1, 2])[-16:]
    b'\x00\x00\x00\x04\x00\x00\x00\x01\x00\x00\x00\x04\x00\x00\x00\x02'
    >>> encode_array("TEXT", ["é", None])[-10:]
    b'\x00\x00\x00\x02\xc3\xa9\xff\xff\xff\xff'
    >>> encode_array("INTEGER", [1, "a"])
    [1, 'a']
    """
    items = list(values)
    element_type, types = ELEMENT_TYPES.get(type_name), set(map(type, items))
    if element_type is None or not types - {NoneType} <= element_type.types:
        return items
    try:
        elements = _write_elements(element_type, items, types)
    except NOT_WRITTEN:
        return items
    return BinaryArray(HEADER.pack(1, 0, element_type.number, len(items), 1) + elements)


def _write_elements(element_type: ElementType, items: list[Any], types: set[type]) -> bytes:
    write, count = element_type.write, len(items)
    if NoneType in types:
        return b"".join([NULL if item is None else write([item]) for item in items])
    # not for floats: 0.0 == -0.0, but they differ
    if float not in types and items and items[0] is items[-1] and items.count(items[0]) == count:
        return write(items[:1]) * count
    return write(items)


def _write_numbers(code: str, numbers: Sequence[Any]) -> bytes:
    lengths_and_numbers = zip(repeat(struct.calcsize(f">{code}")), numbers)
    return struct.pack(f">{f'i{code}' * len(numbers)}", *chain.from_iterable(lengths_and_numbers))


def _write_texts(texts: Sequence[str]) -> bytes:
    pack, encoded = LENGTH.pack, {text: text.encode() for text in set(texts)}  # labels are few
    cells = {text: pack(len(content)) + content for text, content in encoded.items()}
    return b"".join(map(cells.__getitem__, texts))


def _write_bytes(values: Sequence[bytes]) -> bytes:
    lengths = set(map(len, values))
    if len(lengths) == 1:  # as of hashes
        length = LENGTH.pack(lengths.pop())
        return length + length.join(values)
    return b"".join([LENGTH.pack(len(value)) + value for value in values])


ELEMENT_TYPES: Final[Mapping[str, ElementType]] = {
    "BIGINT": ElementType(20, frozenset({int}), partial(_write_numbers, "q")),
    "INTEGER": ElementType(23, frozenset({int}), partial(_write_numbers, "i")),
    "DOUBLE PRECISION": ElementType(701, frozenset({float, int}), partial(_write_numbers, "d")),
    "BOOLEAN": ElementType(16, frozenset({bool}), partial(_write_numbers, "?")),
    "TEXT": ElementType(25, frozenset({str}), _write_texts),
    "BYTEA": ElementType(17, frozenset({bytes}), _write_bytes),
}
