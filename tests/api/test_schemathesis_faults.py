"""Generated requests while the database fails: 503 with Retry-After, and no other server error.

The faults are SQLite's own: every connection is read-only, or no connection can be opened. The
short form of `tests/faults` for all operations; once the fault is over, so are the server errors.
"""

import sqlite3
from contextlib import contextmanager

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import OperationalError

from rollout.data.database.append_failures import NARROWING
from rollout.features.process.replica_safety import ReplicaSafety
from tests.api import test_schemathesis as fuzz
from tests.api.conftest import Asking
from tests.api.test_schemathesis import app
from tests.data.databases import on_sqlite

__all__ = ["app"]

pytestmark = pytest.mark.exhaustive
SERVER_ERROR, UNAVAILABLE = 500, 503


@contextmanager
def read_only(database):
    """Refuse each write, as a disk that is mounted read-only."""

    def refuse_writes(connection):
        connection.exec_driver_sql("pragma query_only = on")

    with listening(database, "begin", refuse_writes):
        with pytest.raises(OperationalError, match="readonly"), database.engine.begin() as probe:
            probe.execute(text("create table fault_probe (id integer)"))
        yield


@contextmanager
def gone(database):
    """Refuse each connection, as a server or a disk that is away."""

    def refuse_connections(*_):
        sqlite3.connect(database.file.parent / "away" / "rollout.db")

    with listening(database, "do_connect", refuse_connections):
        with pytest.raises(OperationalError, match="unable to open"):
            database.engine.connect()
        yield


@contextmanager
def listening(database, name, action):
    """Run an action at an event of the engines, with fresh connections before and after."""
    database.close()
    for engine in database.engines:
        event.listen(engine, name, action)
    try:
        yield
    finally:
        for engine in database.engines:
            event.remove(engine, name, action)
        database.close()


def play(app):
    """Send a request of each form to each operation; return the answers."""
    schema = fuzz.schemathesis.openapi.from_asgi("/openapi.json", app)
    headers = {"Authorization": "Bearer every"}
    return [(case, case.call(headers=headers)) for case in fuzz.requests(schema, 1)]


def list_wrong(answers):
    """Return the server errors that tell a client neither to wait nor how long."""
    return [
        (case.operation.label, answer.status_code, answer.text[:200])
        for case, answer in answers
        if answer.status_code >= SERVER_ERROR and not is_told_to_wait(answer)
    ]


def is_told_to_wait(answer):
    headers = {name.lower(): value for name, value in answer.headers.items()}
    seconds = "".join(headers.get("retry-after", ""))
    return answer.status_code == UNAVAILABLE and seconds.isdigit()


@on_sqlite
@pytest.mark.parametrize("fault", [read_only, gone], ids=lambda fault: fault.__name__)
def test_a_fault_brings_503_with_retry_after_and_no_other_server_error(
    app, service, database, fault
):
    with Asking(app, raise_server_exceptions=False) as client:
        fuzz.send_cases(client)
        with fault(database):
            answers = play(app)
        statuses = [answer.status_code for _, answer in answers]
        assert list_wrong(answers) == []
        assert statuses.count(UNAVAILABLE) > 20, "the fault was not met"
        safety = ReplicaSafety(service, "a")
        assert [safety.run_pass() for _ in "12"] == [(), ()]  # failed appends are made up for
        after = play(app)
    lasting = {case.operation.label for case, a in after if a.status_code >= SERVER_ERROR}
    assert list_wrong(after) == []
    if database.append_failures.failures:  # a narrowing that nobody has sent again: no autonomy
        assert set(database.append_failures.failures) == {("bears", NARROWING)}
        lasting = {label for label in lasting if not label.endswith(("/health/ready", "/scope"))}
    assert lasting == set()
