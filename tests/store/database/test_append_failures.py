"""A failed append counts until one of its kind succeeds; heartbeats leave one row a replica."""

import pytest
from sqlalchemy import select

from rollout.core.errors import RefusalError
from rollout.store.database.append_failures import APPEND, STOP, AppendFailures, is_damage
from rollout.store.database.errors import StoreError
from rollout.store.database.replica_heartbeats import record_heartbeat
from rollout.store.database.session import Database
from rollout.store.tables.tables import replica_heartbeats
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
    assert failures.failures == {
        ("bears", STOP): "StoreError: full",
        ("bears", APPEND): "StoreError: full",
    }
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
            record_heartbeat(transaction, owner, at)
    with database.begin_read() as transaction:
        rows = transaction.execute(select(replica_heartbeats)).all()
    assert [tuple(row) for row in rows] == [("b", NOON + 2 * DAY)]
