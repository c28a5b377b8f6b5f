"""Connections that the server closed are replaced before their next transaction, unseen."""

from contextlib import ExitStack

import psycopg
import pytest
from sqlalchemy import make_url, text

from rollout.data.database import session
from tests.data.databases import on_postgresql

pytestmark = on_postgresql


@pytest.fixture
def statements(monkeypatch):
    """Return the list of all statements that the driver sends."""
    sent = []
    execute = psycopg.Cursor.execute

    def listen(cursor, query, *more, **options):
        sent.append(query)
        return execute(cursor, query, *more, **options)

    monkeypatch.setattr(psycopg.Cursor, "execute", listen)
    return sent


def use_connections(database, count=1):
    """Read with some connections at once; return what their servers call them."""
    with ExitStack() as stack:
        transactions = [stack.enter_context(database.begin_read()) for _ in range(count)]
        query = text("select pg_backend_pid()")
        return [transaction.execute(query).scalar_one() for transaction in transactions]


def end_server_processes(url, numbers):
    """End the server's side of connections, as a restart does."""
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True) as admin:
        for number in numbers:
            admin.execute("select pg_terminate_backend(%s, 5000)", (number,))


def test_a_connection_in_use_is_not_tested(database, statements):
    use_connections(database)
    statements.clear()
    use_connections(database)
    assert statements == ["select pg_backend_pid()"]


def test_an_idle_connection_is_tested(database, statements, monkeypatch):
    use_connections(database)
    monkeypatch.setattr(session, "IDLE_BEFORE_PING", 0.0)
    statements.clear()
    use_connections(database)
    assert len(statements) == 2


def test_no_read_meets_a_connection_that_the_server_closed(database, url):
    before = use_connections(database, 3)
    end_server_processes(url, before)
    after = [use_connections(database)[0] for _ in range(3)]
    assert not set(before) & set(after)
    assert len(use_connections(database, 3)) == 3
    assert not database.outages.is_open


def test_no_write_meets_a_connection_that_the_server_closed(database, url):
    end_server_processes(url, use_connections(database))
    with database.begin_write() as transaction:
        transaction.execute(text("select 1"))
    assert not database.outages.is_open
