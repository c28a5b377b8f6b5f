"""Connections of a pool that the server closed while nobody used them.

A server that ends or restarts closes its sockets. So a connection that has something to read before
its next transaction is tested, and replaced if it does not respond: no request meets it. A server
that vanished without a word shows only in a test, which idle connections get too.
"""

import select
from functools import partial
from time import monotonic
from typing import Any, Final

from sqlalchemy import Engine, event
from sqlalchemy.exc import InvalidatePoolError

IDLE_BEFORE_PING: Final = 5.0
"""Seconds without use after which a connection is tested; each test is a round trip."""
RETURNED_AT: Final = "returned_at"


def replace_closed_connections(engine: Engine) -> None:
    """Test connections of a PostgreSQL pool before use where that may matter."""
    event.listen(engine, "checkin", _record_return)
    event.listen(engine, "checkout", partial(_test_connection, engine))


def _record_return(_connection: object, record: Any) -> None:
    record.info[RETURNED_AT] = monotonic()


def _test_connection(engine: Engine, connection: Any, record: Any, _proxy: object) -> None:
    """Test a connection that is idle or has something to read.

    Raises:
        InvalidatePoolError: it does not respond; the pool replaces it and older ones.
    """
    returned_at = record.info.get(RETURNED_AT)
    if returned_at is None:  # it is new
        return
    is_idle = monotonic() - returned_at >= IDLE_BEFORE_PING
    if not is_idle and not connection.closed and not _has_input(connection):
        return
    try:
        engine.dialect.do_ping(connection)
    except engine.dialect.loaded_dbapi.Error as error:
        raise InvalidatePoolError("the server closed the connection") from error


def _has_input(connection: Any) -> bool:
    poll = select.poll()
    poll.register(connection.pgconn.socket, select.POLLIN)
    return bool(poll.poll(0))
