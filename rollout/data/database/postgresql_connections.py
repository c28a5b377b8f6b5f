"""Connections to PostgreSQL that never wait without limit.

A server that is stopped, or behind a broken network, keeps its sockets open and sends nothing.
Server-side time-outs don't help then. So a connection on which nothing arrives for `MAX_SILENCE`
tests whether the server accepts another connection, and is closed if it does not. A long statement
on a server that responds may take as long as its `statement_timeout` allows, and a little more.
"""

import time
from collections.abc import Callable, Generator, Mapping
from math import inf
from threading import Lock
from typing import Any, Final, TypeVar

import psycopg
from psycopg.adapt import Dumper
from psycopg.pq import Format

from rollout.data.database.bulk import BinaryArray

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
