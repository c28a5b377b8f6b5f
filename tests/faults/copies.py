"""Copies of a database at a moment: a trial starts from one, and nobody else sees what it does."""

import os
import shutil
import sqlite3
from itertools import count
from pathlib import Path

import psycopg
from sqlalchemy import make_url

from tests.data.databases import _sqlite_template, server


class SqliteCopies:
    """Files of one folder."""

    engine = "sqlite"

    def __init__(self, folder):
        self.folder = Path(folder)
        self._numbers = count()

    def fresh(self):
        """Return a copy with empty tables."""
        return self.copy(f"sqlite:///{_sqlite_template()}")

    def empty(self):
        """Return a database without tables."""
        return f"sqlite:///{self.folder / f'{os.getpid()}-{next(self._numbers)}.db'}"

    def copy(self, url):
        """Return the URL of a copy of a database that nobody is connected to."""
        path = self.folder / f"{os.getpid()}-{next(self._numbers)}.db"
        shutil.copy(make_url(url).database, path)
        return f"sqlite:///{path}"

    def drop(self, url):
        """Delete a copy."""
        for end in ("", "-wal", "-shm"):
            Path(make_url(url).database + end).unlink(missing_ok=True)

    def close(self):
        """Leave the copies to the deletion of the folder."""

    def do(self, url, statement):
        """Change a copy by hand."""
        with sqlite3.connect(make_url(url).database) as connection:
            connection.execute(statement)
        connection.close()


class PostgresqlCopies:
    """Databases of one server, each made from another as its template."""

    engine = "postgresql"

    def __init__(self, _folder):
        self.url = server().url
        self.template = server().template
        server()._admin.dispose()  # a fork must not inherit a connection
        self._numbers = count()
        self._ours = f"rollout_fault_{os.getpid()}_"

    def fresh(self):
        """Return a copy with empty tables."""
        return self.copy(self._format_url(self.template))

    def empty(self):
        """Return a database without tables."""
        return self.copy(self._format_url("template0"))

    def copy(self, url):
        """Return the URL of a copy of a database that nobody is connected to."""
        name = f"{self._ours}{os.getpid()}_{next(self._numbers)}"
        self._admin(f"create database {name} template {make_url(url).database}")
        return self._format_url(name)

    def drop(self, url):
        """Drop a copy, even with open connections."""
        self._admin(f"drop database if exists {make_url(url).database} with (force)")

    def close(self):
        """Drop every copy, also those of processes that were killed."""
        ours = f"select datname from pg_database where starts_with(datname, '{self._ours}')"  # noqa: S608 - a name of ours
        for (name,) in self._run(self.url, ours):
            self._admin(f"drop database if exists {name} with (force)")

    def do(self, url, statement):
        """Change a copy by hand."""
        self._run(make_url(url), statement)

    def _format_url(self, name):
        return self.url.set(database=name).render_as_string(hide_password=False)

    def _admin(self, statement):
        self._run(self.url, statement)

    def _run(self, url, statement):
        plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(plain, autocommit=True) as connection:
            rows = connection.execute(statement)
            return rows.fetchall() if rows.description else []


COPIES = {"sqlite": SqliteCopies, "postgresql": PostgresqlCopies}
