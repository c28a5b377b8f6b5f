"""Copies of filled SQLite databases: what fills one the same way again is not run again.

`@filled_once` stands at a function that takes a database first and fills it. On a database that
`databases.fresh` gave, with nothing written to it since but by such functions, the second call with
the same arguments copies what the first one left there. In all other cases the function simply
runs: on PostgreSQL, after any other writing, for arguments that do not tell themselves apart.

A test may patch what stands in the modules of such functions, as a policy's text: then they run
anew. What it patches elsewhere, in the product, is not seen here: patch that after the filling.
"""

import sqlite3
from collections import OrderedDict
from collections.abc import Callable
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import wraps
from itertools import count
from pathlib import Path
from typing import Any

SNAPSHOTS_PER_DOUBLING = 64
"""Databases of a few hundred kilobytes, kept in memory: those that were asked for last."""
EMPTY = 0
IN_MEMORY = b"\x01\x01"
"""The file format's versions without a write-ahead log, which a database in memory can't have."""


@dataclass(slots=True)
class _Watched:
    """A database whose content is known: `content` numbers it until somebody else writes."""

    connection: sqlite3.Connection
    content: int
    version: int = -1

    def look(self) -> int:
        """Return a number that is another one as soon as another connection has written."""
        return self.connection.execute("pragma data_version").fetchone()[0]


@dataclass(frozen=True, slots=True)
class _Snapshot:
    content: int
    data: bytes
    returned: Any


_numbers = count(1)
_watched: dict[str, _Watched] = {}
_snapshots: OrderedDict[tuple[Any, ...], _Snapshot] = OrderedDict()
_modules: dict[str, dict[str, Any]] = {}
"""By module of a filling function, its globals."""


@contextmanager
def watching(path: Path):
    """Watch a database that was just copied from the template, as long as a test has it."""
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as opened:
        watched = _Watched(opened, EMPTY)
        watched.version = watched.look()
        _watched[str(path)] = watched
        try:
            yield
        finally:
            del _watched[str(path)]


def filled_once(fill: Callable[..., Any]) -> Callable[..., Any]:
    """Let a function fill equal databases once, and copy its result afterwards."""
    _modules[fill.__module__] = fill.__globals__

    @wraps(fill)
    def filled(database, *args, **keywords):
        watched = _watched.get(database.engine.url.database)
        arguments_text = repr((args, sorted(keywords.items())))
        if watched is None or watched.look() != watched.version or " at 0x" in arguments_text:
            return fill(database, *args, **keywords)
        key = (watched.content, fill.__module__, fill.__qualname__, arguments_text, _constants())
        if key not in _snapshots:
            returned = fill(database, *args, **keywords)
            data = watched.connection.serialize()
            _keep(key, _Snapshot(next(_numbers), data, returned))
        else:
            _copy(_snapshots[key].data, watched.connection)
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


def _copy(data: bytes, into: sqlite3.Connection) -> None:
    with closing(sqlite3.connect(":memory:")) as memory:
        memory.deserialize(data[:18] + IN_MEMORY + data[20:])
        memory.backup(into)
