"""A database that fails: each failure has its error, and an outage is logged once, with a count."""

import sqlite3

import psycopg
import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from rollout.data.database.append_failures import (
    DatabaseBusyError,
    DatabaseUnavailableError,
    StoreError,
    translate_driver_errors,
)
from rollout.data.database.postgresql_connections import (
    MAX_SILENCE,
    ServerSilentError,
    ServerTest,
    limit_silence,
)
from rollout.data.database.session import MAX_ATTEMPT_TIME, RETRY_INTERVAL, Database, OutageMonitor
from tests.data.databases import on_postgresql, on_sqlite


def sqlite_error(code):
    error = sqlite3.OperationalError("failed")
    error.sqlite_errorcode = code
    return driver_error_of(error, sqlite3)


def driver_error_of(error, driver):
    return DBAPIError.instance("select 1", {}, error, driver.Error)


def translated(error, **more):
    with pytest.raises(Exception) as raised, translate_driver_errors(**more):
        raise error
    return raised.value


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (driver_error_of(psycopg.OperationalError("connection refused"), psycopg), "unavailable"),
        (driver_error_of(psycopg.errors.AdminShutdown("stopping"), psycopg), "unavailable"),
        (driver_error_of(psycopg.errors.CannotConnectNow("starting"), psycopg), "unavailable"),
        (driver_error_of(psycopg.errors.LockNotAvailable("lock"), psycopg), "busy"),
        (driver_error_of(psycopg.errors.QueryCanceled("statement timeout"), psycopg), "busy"),
        (driver_error_of(psycopg.errors.DiskFull("disk"), psycopg), "error"),
        (sqlite_error(sqlite3.SQLITE_CANTOPEN), "unavailable"),
        (sqlite_error(sqlite3.SQLITE_IOERR_READ), "unavailable"),
        (sqlite_error(sqlite3.SQLITE_FULL), "error"),
        (sqlite_error(sqlite3.SQLITE_CORRUPT), "error"),
        (PoolTimeoutError(), "busy"),
    ],
)
def test_each_failure_of_a_database_is_a_store_error_of_its_kind(error, expected):
    codes = {
        "unavailable": DatabaseUnavailableError.code,
        "busy": DatabaseBusyError.code,
        "error": StoreError.code,
    }
    raised = translated(error)
    assert isinstance(raised, StoreError)
    assert raised.code == codes[expected]


def test_a_mistake_of_the_program_stays_one():
    wrong = driver_error_of(psycopg.errors.UndefinedTable("no such table"), psycopg)
    assert translated(wrong) is wrong
    assert isinstance(wrong, ProgrammingError)
    read_only = sqlite_error(sqlite3.SQLITE_READONLY)
    assert translated(read_only) is read_only, "a reading transaction that writes"
    assert isinstance(translated(read_only, writes=True), StoreError)


def test_an_outage_is_logged_once_and_counted(caplog):
    now = [100.0]
    outages = OutageMonitor(lambda: now[0])
    outages.begin_attempt()
    for _ in range(50):
        outages.record_failure("connection refused")
    assert outages.is_open
    now[0] += 12
    outages.record_success()
    outages.record_success()
    began, ended = caplog.messages
    assert began.startswith("database outage began (connection refused)")
    assert ended == "database outage ended after 12.0 s: 50 transactions refused"
    assert not outages.is_open


def test_during_an_outage_one_attempt_is_made_now_and_then():
    now = [100.0]
    outages = OutageMonitor(lambda: now[0])
    outages.record_failure("connection refused")
    with pytest.raises(DatabaseUnavailableError, match="retry"):
        outages.begin_attempt()
    now[0] += RETRY_INTERVAL
    outages.begin_attempt()
    now[0] += 2
    with pytest.raises(DatabaseUnavailableError):
        outages.begin_attempt()
    outages.record_failure("connection timeout expired")
    outages.record_refusal()
    with pytest.raises(DatabaseUnavailableError):  # those who waited for the attempt wait no more
        outages.begin_attempt()
    now[0] += RETRY_INTERVAL
    outages.begin_attempt()
    now[0] += MAX_ATTEMPT_TIME
    outages.begin_attempt()


def silent_server(seconds, *, responds, max_silence=100.0):
    """Wait `seconds` for a server in tenths; give what was closed, and the result or error."""
    now, closed = [0.0], []

    def statement():
        while now[0] < seconds:
            yield "readable"
        return "rows"

    waiting = limit_silence(
        statement(),
        lambda: responds,
        lambda: closed.append(now[0]),
        max_silence=max_silence,
        read_clock=lambda: now[0],
    )
    try:
        next(waiting)
        while True:
            now[0] += 0.1
            waiting.send(None)
    except StopIteration as end:
        return closed, end.value
    except ServerSilentError as error:
        return closed, error


def test_a_connection_is_closed_when_the_server_does_not_respond():
    closed, error = silent_server(60, responds=False)
    assert isinstance(error, ServerSilentError)
    assert MAX_SILENCE <= closed[0] < MAX_SILENCE + 0.3


def test_a_long_statement_on_a_server_that_responds_may_go_on_to_its_limit():
    assert silent_server(60, responds=True) == ([], "rows")
    closed, error = silent_server(60, responds=True, max_silence=30)
    assert isinstance(error, ServerSilentError)
    assert 30 <= closed[0] < 30 + MAX_SILENCE + 0.3


@on_postgresql
def test_a_server_that_refuses_a_connection_responds(url, tmp_path):
    host = make_url(url).query["host"]
    assert ServerTest({"host": host, "user": "postgres", "dbname": "no such one"}).responds()
    assert not ServerTest({"host": str(tmp_path), "user": "postgres"}).responds()


@on_postgresql
def test_connections_have_limits(database):
    with database.begin_read() as transaction:
        connection = transaction.connection.connection.driver_connection
        parameters = connection.info.get_parameters()
        limits = transaction.execute(text("show statement_timeout")).scalar_one()
    assert parameters["connect_timeout"] == "2"
    assert parameters["tcp_user_timeout"] == "5000"
    assert limits == "1min"


@on_sqlite
def test_a_file_that_cannot_be_opened_is_an_outage_that_ends_by_itself(database, tmp_path, caplog):
    file = tmp_path / "rollout.db"
    with database.begin_read() as transaction:
        transaction.execute(text("select 1"))
    database.close()
    file.rename(tmp_path / "away.db")
    file.mkdir()
    for _ in range(3):
        with pytest.raises(DatabaseUnavailableError), database.begin_read():
            raise AssertionError("it was opened")
    file.rmdir()
    (tmp_path / "away.db").rename(file)
    with database.begin_read() as transaction:
        transaction.execute(text("select 1"))
    assert ["began" in line or "ended" in line for line in caplog.messages] == [True, True]
    assert caplog.messages[1].endswith("3 transactions refused")


def test_errors_hold_no_values_of_records(tmp_path):
    database = Database(f"sqlite:///{tmp_path / 'values.db'}")
    with pytest.raises(DBAPIError) as raised, database.begin_read() as transaction:
        transaction.execute(text("select * from nowhere where name = :name"), {"name": "Ana Roe"})
    assert "Ana Roe" not in str(raised.value)
    database.close()
