"""Connections to PostgreSQL that never wait without limit.

A server that is stopped, or behind a broken network, keeps its sockets open and sends nothing.
Server-side time-outs don't help then. So a connection on which nothing arrives for `MAX_SILENCE`
tests whether the server accepts another connection, and is closed if it does not. A long statement
on a server that responds may take as long as its `statement_timeout` allows, and a little more.

Arrays as parameters in PostgreSQL's binary form, with its driver's help only to send them.

It reads them faster than text, and they are made faster than by its driver.
"""

import struct
import time
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from functools import partial
from itertools import chain, repeat
from math import inf
from threading import Lock
from types import NoneType
from typing import Any, Final, NamedTuple, TypeVar

import psycopg
from psycopg.adapt import Dumper
from psycopg.pq import Format


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


MAX_SILENCE: Final = 2.0
"""Seconds without a byte from the server after which it is tested."""
CONNECT_LIMITS: Final = {
    "connect_timeout": 2,
    "tcp_user_timeout": 5000,  # milliseconds until unacknowledged data ends a connection
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
}
"""Limits of libpq; a database URL can name others."""
Result = TypeVar("Result")


class ServerSilentError(psycopg.OperationalError):
    """The server sent nothing and accepts no connection."""


class ServerTest:
    """A test whether a server accepts connections, shared by waiting threads."""

    def __init__(self, parameters: dict[str, Any]) -> None:
        self._parameters = parameters
        self._lock = Lock()
        self._tested_at = float("-inf")
        self._responds = True

    def responds(self) -> bool:
        """Return whether the server responded in the last `MAX_SILENCE` seconds."""
        with self._lock:
            if time.monotonic() - self._tested_at >= MAX_SILENCE:
                self._responds = self._connect()
                self._tested_at = time.monotonic()
            return self._responds

    def _connect(self) -> bool:
        try:
            psycopg.connect(**self._parameters).close()
        except psycopg.OperationalError as error:
            return "FATAL" in str(error)  # the server's own refusal, such as too many connections
        return True


class ArrayDumper(Dumper):
    """Passes arrays on; the statement says their type."""

    format = Format.BINARY

    def dump(self, obj: BinaryArray) -> BinaryArray:
        """Return the array as it is sent."""
        return obj


class LimitedConnection(psycopg.Connection[Any]):
    """A connection that is closed when the server stops responding."""

    server_test: ServerTest | None = None
    max_silence = inf

    def wait(self, gen: Generator[Any, Any, Result], *args: Any, **options: Any) -> Result:
        """Wait for the server's response, at most as long as the server responds."""
        if self.server_test is None:
            return super().wait(gen, *args, **options)
        limited = limit_silence(
            gen, self.server_test.responds, self.pgconn.finish, max_silence=self.max_silence
        )
        return super().wait(limited, *args, **options)


def connect_limited(max_silence: float, parameters: Mapping[str, Any]) -> LimitedConnection:
    """Connect to a server with limits.

    Args:
        max_silence: seconds without a byte after which the connection is closed in any case.
        parameters: of libpq and psycopg.

    Raises:
        psycopg.OperationalError: the server does not respond.
    """
    limited_parameters = {**CONNECT_LIMITS, **parameters}
    connection = LimitedConnection.connect(**limited_parameters)
    connection.max_silence = max_silence
    connection.adapters.register_dumper(BinaryArray, ArrayDumper)
    test_parameters = {
        name: value for name, value in limited_parameters.items() if name != "context"
    }
    connection.server_test = ServerTest(test_parameters)
    return connection


def limit_silence(
    generator: Generator[Any, Any, Result],
    server_responds: Callable[[], bool],
    close: Callable[[], None],
    *,
    max_silence: float,
    read_clock: Callable[[], float] = time.monotonic,
) -> Generator[Any, Any, Result]:
    """Yield what `generator` waits for; close the connection if the server is silent.

    psycopg sends a falsy value every tenth of a second in which nothing arrived.

    Raises:
        ServerSilentError: the server does not respond.
    """
    silent_since = tested_at = read_clock()
    try:
        readiness = next(generator)
        while True:
            ready = yield readiness
            now = read_clock()
            if ready:
                silent_since = tested_at = now
            elif now - tested_at > MAX_SILENCE:
                if now - silent_since > max_silence or not server_responds():
                    close()
                    raise ServerSilentError(
                        f"the server sent nothing for {now - silent_since:.0f} s"
                    )
                tested_at = read_clock()
            readiness = generator.send(ready)
    except StopIteration as end:
        result: Result = end.value
        return result
