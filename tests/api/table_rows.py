"""What all tables hold, read again only when somebody has written since."""

import sqlite3
from contextlib import closing, contextmanager

import psycopg

from tests.api.test_schemathesis import everything

WRITTEN = {
    "sqlite": "pragma data_version",
    "postgresql": "select txid_snapshot_xmax(txid_current_snapshot())",
}
"""A number by which each engine tells a connection that others have written."""


def _looking(url):
    """Return a connection that holds no lock: each question is a transaction of its own."""
    if url.get_backend_name() == "sqlite":
        return sqlite3.connect(url.database, isolation_level=None)
    plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
    return psycopg.connect(plain, autocommit=True)


@contextmanager
def read_tables_of(database):
    """Give a function that returns each row of each table."""
    url, rows, last = database.engine.url, None, None
    with closing(_looking(url)) as connection:

        def read_rows():
            nonlocal rows, last
            (now,) = connection.execute(WRITTEN[url.get_backend_name()]).fetchone()
            if now != last:
                rows, last = everything(database), now
            return rows

        yield read_rows
