"""A failed append counts until one of its kind succeeds; heartbeats leave one row a replica."""

import sqlite3
from contextlib import nullcontext

import pytest
from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

from rollout.data.database.append_failures import (
    APPEND,
    CHARACTERS_PER_ROW,
    RECORDS,
    SMALL_APPEND,
    STOP,
    TICK,
    AppendFailure,
    AppendFailures,
    CommitUnknownError,
    DatabaseBusyError,
    DatabaseUnavailableError,
    StoreError,
    is_damage,
    is_failure_of_size,
)
from rollout.data.database.bulk import delete_keys, insert_columns, insert_missing, upsert_sums
from rollout.data.database.migrations import record_heartbeat
from rollout.data.database.session import Database, Transaction
from rollout.data.tables.record_tables import encode_instant
from rollout.data.tables.tables import replica_heartbeats
from rollout.kernel.errors import RefusalError
from tests.factories import DAY, HOUR, NOON


def fail(failures, kind, error=None):
    failed = StoreError("full\nin detail") if error is None else error
    with pytest.raises(type(failed)), failures.watch("bears", kind):
        raise failed


def append(failures, kind, *, is_appended=True):
    with failures.watch("bears", kind) as attempt:
        attempt.is_appended = is_appended


def test_only_an_append_of_the_kind_ends_a_failure():
    failures = AppendFailures()
    fail(failures, STOP)
    fail(failures, APPEND)
    full = AppendFailure("StoreError: full")
    assert failures.failures == {("bears", STOP): full, ("bears", APPEND): full}
    append(failures, STOP, is_appended=False)
    append(failures, APPEND)
    assert list(failures.failures) == [("bears", STOP)]
    append(failures, STOP)
    assert failures.failures == {}


@pytest.mark.parametrize("error", [RefusalError("no"), KeyError("a fault of the program")])
def test_what_the_database_did_not_fail_is_no_failure(error):
    failures = AppendFailures()
    fail(failures, STOP, error)
    assert failures.failures == {}


def build_error(error_type, *, result_code=None):
    """Return an error whose cause is one of SQLite's driver, if it has a result code."""
    error = error_type("failed")
    if result_code is not None:
        driver_error = sqlite3.OperationalError("failed")
        driver_error.sqlite_errorcode = result_code
        error.__cause__ = DBAPIError("commit", None, driver_error)
    return error


def fail_write(failures, error, rows=SMALL_APPEND + 1):
    with pytest.raises(type(error)):
        write(failures, rows, error)


def write(failures, rows, error=None):
    with failures.watch_transaction() as tally:
        tally.announce("bears", RECORDS)
        tally.rows = rows
        if error is not None:
            raise error


def test_a_block_within_an_operation_ends_no_part_of_it():
    failures = AppendFailures()
    with failures.watch("bears", TICK):
        for kind in (APPEND, TICK):
            append(failures, kind, is_appended=False)
        fail_write(failures, StoreError("full"))
        with failures.watch("bears", APPEND):
            fail_write(failures, StoreError("full"))
    assert failures.failures == {}  # the tick made up for it
    fail_write(failures, StoreError("full"))
    assert list(failures.failures) == [("bears", RECORDS)]


def test_parts_end_a_large_failure_when_they_add_up_to_it():
    failures = AppendFailures()
    fail_write(failures, StoreError("full"), rows=300)
    for _ in range(5):
        write(failures, SMALL_APPEND)
    write(failures, 100)
    fail_write(failures, StoreError("full"), rows=100)  # a part, which changes no other
    assert failures.failures["bears", RECORDS].repeated_rows == 200
    fail_write(failures, StoreError("full"), rows=300)  # all of it
    for _ in range(2):
        write(failures, 100)
    assert failures.failures["bears", RECORDS].repeated_rows == 200
    write(failures, 100)
    assert failures.failures == {}
    fail_write(failures, StoreError("full"), rows=300)
    write(failures, 150)  # half of it, as some rows may be there
    assert failures.failures == {}


def build_postgresql_error(error_type, state):
    driver_error = Exception("failed")
    driver_error.sqlstate = state
    error = error_type("failed")
    error.__cause__ = DBAPIError("insert", None, driver_error)
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (build_error(StoreError, result_code=sqlite3.SQLITE_FULL), RECORDS),
        (build_error(DatabaseUnavailableError, result_code=sqlite3.SQLITE_IOERR_WRITE), RECORDS),
        (build_error(StoreError, result_code=sqlite3.SQLITE_READONLY), RECORDS),
        (build_postgresql_error(StoreError, "53100"), RECORDS),
        (build_postgresql_error(DatabaseUnavailableError, "57P01"), APPEND),
        (build_postgresql_error(CommitUnknownError, "08006"), APPEND),
        (build_postgresql_error(DatabaseBusyError, "57014"), APPEND),  # a time-out
        (build_postgresql_error(DatabaseBusyError, "40P01"), None),  # a deadlock
        (build_postgresql_error(DatabaseBusyError, "40001"), None),
        (build_postgresql_error(DatabaseBusyError, "55P03"), None),  # waited for a lock
        (DatabaseBusyError("other writers"), None),
        (IntegrityError("insert", None, Exception("unique")), None),
        (DataError("insert", None, Exception("nul")), None),
        (RefusalError("no"), None),
    ],
)
def test_only_what_a_database_could_not_write_is_a_failed_write(error, kind):
    failures = AppendFailures()
    fail_write(failures, error)
    assert list(failures.failures) == ([("bears", kind)] if kind else [])


def test_a_key_that_is_there_already_is_no_failed_write(database):
    statement = insert(replica_heartbeats).values(owner="a", written_at=NOON, program="p")
    for refusal in (nullcontext(), pytest.raises(IntegrityError)):
        with refusal, database.begin_write() as transaction:
            transaction.tally.announce("bears", RECORDS)
            transaction.execute(statement)
    assert database.append_failures.failures == {}


def test_an_announced_append_that_never_came_ends_nothing():
    failures = AppendFailures()
    for is_appended in (False, True):
        failures.record_failure("bears", "CasesErased", "full", 60)
        with failures.watch_transaction() as tally:
            tally.announce("bears", "CasesErased")
            tally.rows = 60
            if is_appended:
                tally.appends["bears"] = "CasesErased"
        assert bool(failures.failures) is not is_appended


def test_a_file_that_is_no_database_is_a_sign_of_damage(tmp_path):
    file = tmp_path / "rollout.db"
    file.write_bytes(b"no database at all, and long enough to be read as a header" * 20)
    database = Database(f"sqlite:///{file}")
    with pytest.raises(Exception, match="not a database") as found, database.begin_read():
        pass
    assert is_damage(found.value)
    assert "not a database" in database.damage_signs.text
    database.close()


def test_a_replica_has_one_heartbeat_and_old_replicas_are_forgotten(database):
    for owner, at in (
        ("old", NOON),
        ("a", NOON + HOUR),
        ("a", NOON + 2 * HOUR),
        ("b", NOON + 2 * DAY),
    ):
        with database.begin_write() as transaction:
            record_heartbeat(transaction, owner, "p", at)
    with database.begin_read() as transaction:
        rows = transaction.execute(select(replica_heartbeats)).all()
    assert [tuple(row) for row in rows] == [("b", NOON + 2 * DAY, "p")]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (build_error(StoreError), True),
        (build_error(StoreError, result_code=sqlite3.SQLITE_FULL), True),
        (build_error(CommitUnknownError, result_code=sqlite3.SQLITE_FULL), True),
        (build_error(DatabaseUnavailableError, result_code=sqlite3.SQLITE_IOERR_WRITE), True),
        (build_error(DatabaseUnavailableError), False),
        (build_error(CommitUnknownError), False),
        (build_error(DatabaseBusyError, result_code=sqlite3.SQLITE_BUSY), False),
    ],
)
def test_a_lock_or_a_lost_connection_shows_nothing_about_size(error, expected):
    assert is_failure_of_size(error) is expected


def test_every_statement_counts_the_rows_that_it_writes(database):
    table, at, names = replica_heartbeats, encode_instant(NOON), ["a", "b", "c"]
    rows, long_name = [(name, at, "p") for name in names], "x" * 2 * CHARACTERS_PER_ROW
    named_rows = [{"owner": name, "written_at": NOON, "program": "p"} for name in names]
    writes = (
        (3, insert_columns, table, {"owner": names, "written_at": [at] * 3, "program": ["p"] * 3}),
        (3, insert_missing, table, rows),
        (3, upsert_sums, table, rows, "written_at"),
        (3, Transaction.execute, update(table).values(written_at=NOON)),
        (3, delete_keys, table, [(name,) for name in names]),
        (3, Transaction.execute, insert(table), named_rows),
        (3, Transaction.execute, delete(table)),
        (
            3,
            Transaction.execute,
            insert(table),
            {"owner": long_name, "written_at": NOON, "program": "p"},
        ),
        (0, Transaction.execute, select(table)),
    )
    for expected, write, *arguments in writes:
        with database.begin_write() as transaction:
            write(transaction, *arguments)
            assert transaction.tally.rows == expected, write
