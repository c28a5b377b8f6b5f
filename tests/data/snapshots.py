"""Copies of filled databases: what fills one the same way again is not run again.

`@filled_once` stands at a function that takes a database first and fills it. On a database that
`databases.fresh` gave, with nothing written to it since but by such functions, the second call with
the same arguments copies what the first one left there: on SQLite the file, on PostgreSQL the rows
of all tables and where their numbers go on. In all other cases the function simply runs: after any
other writing (on PostgreSQL to any database of the server), for arguments that do not tell
themselves apart.

A test may patch what stands in the modules of such functions, as a policy's text: then they run
anew. What it patches elsewhere, in the product, is not seen here: patch that after the filling.
"""

import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import wraps
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import make_url

SNAPSHOTS_PER_DOUBLING = 64
"""Databases of a few hundred kilobytes, kept in memory: those that were asked for last."""
EMPTY = 0
WITHOUT_TRIGGERS = ("set local lock_timeout = '2s'", "set local session_replication_role = replica")
IN_MEMORY = b"\x01\x01"
"""The file format's versions without a write-ahead log, which a database in memory can't have."""


class WatchedFile:
    """A SQLite database whose content is known: `content` numbers it until somebody else writes."""

    def __init__(self, path: Path) -> None:
        """Take its path."""
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self.content: int = EMPTY
        self.version: object = None

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def look(self) -> object:
        """Return what is another value as soon as another connection has written."""
        return self._connection.execute("pragma data_version").fetchone()

    def read(self) -> bytes:
        """Return the file."""
        return self._connection.serialize()

    def copy(self, data: bytes) -> None:
        """Replace the file."""
        with closing(sqlite3.connect(":memory:")) as memory:
            memory.deserialize(data[:18] + IN_MEMORY + data[20:])
            memory.backup(self._connection)


class WatchedRows:
    """A PostgreSQL database whose content is known until a transaction on the server has written.

    It has all rows of its tables, and where the numbers of its sequences go on. Nobody is connected
    with it between the steps: some tests replace a database, or count who is.
    """

    def __init__(self, url: str, tables: Sequence[str], look: Callable[[], object]) -> None:
        """Take its URL, its tables in the order of their references, and a look at the server."""
        address = make_url(url).set(drivername="postgresql")
        self._address = address.render_as_string(hide_password=False)
        self._tables = tables
        self.look = look
        deletes = (f"delete from {name}" for name in tables)  # noqa: S608 - our own tables
        self._emptying = ";".join([*WITHOUT_TRIGGERS, *deletes])
        self.content: int = EMPTY
        self.version: object = None

    def read(self) -> tuple[dict[str, bytes], str]:
        """Return the rows of each table that has some, and what sets the sequences."""
        questions = (f"select '{n}' where exists (select from {n})" for n in self._tables)  # noqa: S608
        with psycopg.connect(self._address, autocommit=True) as connection:
            filled = connection.execute(" union all ".join(questions)).fetchall()
            sequences = connection.execute(
                "select format('select setval(%L, %s)', sequencename, last_value)"
                " from pg_sequences where last_value is not null"
            )
            set_numbers = ";".join(text for (text,) in sequences)
            return {name: _read_table(connection, name) for (name,) in filled}, set_numbers

    def copy(self, data: tuple[dict[str, bytes], str]) -> None:
        """Replace the rows of all tables."""
        rows_of_tables, set_numbers = data
        with psycopg.connect(self._address) as connection:
            connection.execute(self._emptying)
            for name, rows in rows_of_tables.items():
                statement = f"copy {name} from stdin (format binary)"
                with connection.cursor().copy(statement) as copied:
                    copied.write(rows)
            connection.execute(set_numbers)

    def empty(self) -> None:
        """Delete all rows in one text without parameters, which the server takes in one step."""
        with psycopg.connect(self._address) as connection:
            connection.execute(self._emptying)


def _read_table(connection: psycopg.Connection, name: str) -> bytes:
    with connection.cursor().copy(f"copy {name} to stdout (format binary)") as rows:
        return b"".join(rows)


@dataclass(frozen=True, slots=True)
class _Snapshot:
    content: int
    data: Any
    returned: Any


_numbers = count(1)
_watched: dict[str, WatchedFile | WatchedRows] = {}
_snapshots: OrderedDict[tuple[Any, ...], _Snapshot] = OrderedDict()
_modules: dict[str, dict[str, Any]] = {}
"""By module of a filling function, its globals."""


@contextmanager
def watching(name: str, watched: WatchedFile | WatchedRows):
    """Watch an empty database, as long as a test has it; its name is that in the URL."""
    watched.content, watched.version = EMPTY, watched.look()
    _watched[name] = watched
    try:
        yield
    finally:
        del _watched[name]


def filled_once(fill: Callable[..., Any]) -> Callable[..., Any]:
    """Let a function fill equal databases once, and copy its result afterwards."""
    _modules[fill.__module__] = fill.__globals__

    @wraps(fill)
    def filled(database, *args, **keywords):
        watched = _watched.get(database.engine.url.database)
        arguments_text = repr((args, sorted(keywords.items())))
        if watched is None or watched.look() != watched.version or " at 0x" in arguments_text:
            return fill(database, *args, **keywords)
        kind = database.engine.dialect.name
        key = (
            kind,
            watched.content,
            fill.__module__,
            fill.__qualname__,
            arguments_text,
            _constants(),
        )
        if key not in _snapshots:
            returned = fill(database, *args, **keywords)
            _keep(key, _Snapshot(next(_numbers), watched.read(), returned))
        else:
            watched.copy(_snapshots[key].data)
        snapshot = _snapshots[key]
        _snapshots.move_to_end(key)
        watched.content, watched.version = snapshot.content, watched.look()
        return snapshot.returned

    return filled


def _constants() -> int:
    """Return a number for the texts that filling functions find beside them."""
    texts = [
        (module, name, value)
        for module, names in _modules.items()
        for name, value in names.items()
        if isinstance(value, str)
    ]
    return hash(tuple(texts))


def _keep(key: tuple[Any, ...], snapshot: _Snapshot) -> None:
    _snapshots[key] = snapshot
    if len(_snapshots) > SNAPSHOTS_PER_DOUBLING:
        _snapshots.popitem(last=False)
