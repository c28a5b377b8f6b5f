"""Transactions: atomic, consistent reads, checked settings."""

import time
from contextlib import suppress
from datetime import datetime

import pytest
from sqlalchemy import func, insert, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, StatementError

from rollout.data.database.append_failures import (
    CommitUnknownError,
    DatabaseBusyError,
    UnsafeDatabaseError,
)
from rollout.data.database.rollouts import Rollouts
from rollout.data.database.session import SQLITE_PRAGMAS, Database, limit_lock_waits
from rollout.data.tables.record_tables import OPEN_PURGE
from rollout.data.tables.tables import rollouts
from tests.data.databases import on_postgresql
from tests.factories import NOON


def create(transaction, name):
    return Rollouts(transaction).create(name, salt=bytes(32), at=NOON)


def names(database):
    with database.begin_read() as transaction:
        return [rollout.name for rollout in Rollouts(transaction).list_all()]


def test_a_writing_block_that_ends_is_kept(database):
    with database.begin_write() as transaction:
        create(transaction, "a")
    assert names(database) == ["a"]


def test_a_writing_block_that_fails_leaves_nothing(database):
    with suppress(ZeroDivisionError), database.begin_write() as transaction:
        create(transaction, "a")
        raise ZeroDivisionError
    assert names(database) == []


def test_a_reading_block_cannot_write(database):
    with pytest.raises(DBAPIError), database.begin_read() as transaction:
        create(transaction, "a")
    assert names(database) == []


def test_a_connection_that_wrote_cannot_write_as_it_reads_and_writes_again_after(database):
    for name in ("a", "b"):
        with database.begin_write() as transaction:
            create(transaction, name)
        for _ in range(2):
            with pytest.raises(DBAPIError), database.begin_read() as transaction:
                create(transaction, "c")
    assert sorted(names(database)) == ["a", "b"]


@on_postgresql
def test_what_is_written_is_read_committed_whatever_the_server_prefers(database):
    isolation = text("select current_setting('transaction_isolation')")
    with database.begin_write() as transaction:
        name = transaction.execute(text("select current_database()")).scalar_one()
        wish = "default_transaction_isolation = 'serializable'"
        transaction.execute(text(f"alter database {name} set {wish}"))
    database.close()  # it holds for connections that are made from now on
    for name in ("a", "b"):  # on a new connection, and after something was read by it
        with database.begin_write() as transaction:
            assert transaction.execute(isolation).scalar_one() == "read committed"
            create(transaction, name)
        with database.begin_read() as transaction:
            assert transaction.execute(isolation).scalar_one() == "repeatable read"


def test_a_reading_block_sees_one_instant(database, other):
    with database.begin_read() as transaction:
        assert Rollouts(transaction).list_all() == ()
        with other.begin_write() as writer:
            create(writer, "a")
        assert Rollouts(transaction).list_all() == ()
    assert names(database) == ["a"]


def test_an_instant_without_zone_never_reaches_a_table(database):
    naive = datetime(2027, 6, 1, 12)  # noqa: DTZ001 - that is the point
    row = {"name": "a", "salt": b"", "created_at": naive}
    with pytest.raises(StatementError, match="no time zone"), database.begin_write() as transaction:
        transaction.execute(insert(rollouts).values(row))


def test_an_instant_comes_back_as_it_was_in_utc(database):
    with database.begin_write() as transaction:
        create(transaction, "a")
        assert transaction.execute(select(rollouts.c.created_at)).scalar() == NOON


def test_who_waits_too_long_for_a_lock_is_told_that_nothing_was_done(database, other):
    with database.begin_write() as holder:
        create(holder, "a")
        with pytest.raises(DatabaseBusyError, match="nothing was done"):
            blocked(other)


def blocked(database):
    """Try to write what another transaction holds, for a tenth of a second."""
    with limit_lock_waits(0.1), database.begin_write() as transaction:
        create(transaction, "a")


@pytest.mark.slow
def test_a_limit_of_waits_holds_for_all_of_its_block_and_no_longer(database, other):
    usual = read_lock_wait(other)
    with database.begin_write() as holder:
        create(holder, "a")
        began = time.monotonic()
        with limit_lock_waits(0.4), limit_lock_waits(9):
            for waiting in (other, other, database):
                with pytest.raises(DatabaseBusyError), waiting.begin_write() as transaction:
                    create(transaction, "a")
        assert 0.4 <= time.monotonic() - began < 1.5
    assert read_lock_wait(other) == usual
    with other.begin_write() as transaction:
        create(transaction, "b")


def read_lock_wait(database):
    setting = {"sqlite": "pragma busy_timeout", "postgresql": "show lock_timeout"}
    with database.begin_read() as transaction:
        return transaction.execute(text(setting[transaction.engine])).scalar_one()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://x/y", "rollout.db"])
def test_a_database_that_could_not_keep_anything_is_refused(url):
    with pytest.raises(UnsafeDatabaseError):
        Database(url)


@pytest.fixture
def file(tmp_path):
    made = Database(f"sqlite:///{tmp_path / 'a.db'}")
    yield made
    made.close()


def pragma(connection, name):
    return connection.exec_driver_sql(f"pragma {name}").scalar()


def test_every_sqlite_connection_keeps_what_it_acknowledges(file):
    held = [file.engine.connect() for _ in range(3)]
    for connection in held:
        found = {name: pragma(connection, name) for name in SQLITE_PRAGMAS}
        assert found == {name: expected for name, (_, expected) in SQLITE_PRAGMAS.items()}
        connection.close()


def test_only_a_draft_does_not_wait_for_the_disk(tmp_path):
    draft = Database(f"sqlite:///{tmp_path / 'draft.db'}", is_draft=True)
    for _ in range(2):  # also a connection that comes from the pool again
        with draft.begin_write() as transaction:
            found = {name: pragma(transaction.connection, name) for name in SQLITE_PRAGMAS}
        full = {name: expected for name, (_, expected) in SQLITE_PRAGMAS.items()}
        assert found == full | {"synchronous": 0}
    draft.close()


def test_a_pooled_connection_that_lost_full_is_not_used(file):
    with file.engine.connect() as connection:
        connection.connection.driver_connection.execute("pragma synchronous=normal")
    with pytest.raises(UnsafeDatabaseError, match="synchronous"), file.begin_write():
        pass


def test_a_connection_whose_commit_failed_is_not_used_again(database):
    with pytest.raises(IntegrityError), database.begin_write() as transaction:
        transaction.execute(text(OPEN_PURGE))
    with database.begin_write() as transaction:
        create(transaction, "a")
    assert names(database) == ["a"]


@on_postgresql
def test_after_a_break_while_committing_nobody_knows_what_was_done(database, other):
    with pytest.raises(CommitUnknownError, match="retry"):
        write_while_cut(database, other)
    assert names(database) == []


def write_while_cut(database, other):
    with database.begin_write() as transaction, other.begin_read() as killer:
        create(transaction, "a")
        process = transaction.execute(select(func.pg_backend_pid())).scalar()
        killer.execute(select(func.pg_terminate_backend(process, 5000)))
