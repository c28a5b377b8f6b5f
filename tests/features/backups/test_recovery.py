"""PostgreSQL's own recovery, with two servers: to a point in time, and by a promoted standby."""

import shutil
import subprocess
import tempfile
import time
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url
from typer.testing import CliRunner

from api.app import create_app
from rollout.cli.main import app
from rollout.data.database.migrations import upgrade
from rollout.data.database.session import Database
from rollout.engine.events import Stopped
from rollout.kernel.calendar.instants import Cell
from rollout.live.clock import ManualClock
from rollout.live.rollout_state import load_rollout_state
from rollout.live.service import build_service
from tests.api.conftest import Asking, Doorkeeper
from tests.docs.pages import typed
from tests.factories import NOON
from tests.faults.own_server import own_server
from tests.features import bear_field as field
from tests.features.bear_field import keys, question

pytestmark = pytest.mark.slow
CASE = keys(0.1, below=False)[0]
WAIT_SECONDS = 20


@pytest.fixture(autouse=True)
def _clocks_agree(monkeypatch):
    """The clock of tests is set; a server's own is not."""
    monkeypatch.setattr("rollout.live.state_cache.measure_clock_skew", lambda *_: timedelta(0))


def query(server, statement, database="rollout"):
    url = make_url(server.url).set(database=database).render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchone()[0] if cursor.description else None


def wait_until(is_done):
    end = time.monotonic() + WAIT_SECONDS
    while not is_done():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture
def folders():
    """Make folders that the server's user can write."""
    made = []

    def make(server):
        made.append(Path(tempfile.mkdtemp(prefix="rollout-own-pg-")))
        if server.server.system_user:
            shutil.chown(made[-1], server.server.system_user)
        return made[-1]

    yield make
    for folder in made:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def primary(folders):
    """Start a server that archives its log, with a rollout; give it and the archive."""
    with own_server() as server:
        archive = folders(server)
        query(server, "alter system set archive_mode = on", "postgres")
        command = f"alter system set archive_command = 'cp %p {archive}/%f'"
        query(server, command, "postgres")
        server.kill()
        server.start_again()
        query(server, "create database rollout", "postgres")
        upgrade(url_of(server))
        with closing(Database(url_of(server))) as database:
            field.autonomous_by_proposals(database)
        yield server, archive


def url_of(server):
    url = make_url(server.url).set(drivername="postgresql+psycopg", database="rollout")
    return url.render_as_string(hide_password=False)


def copy_files(server, folder, *options):
    """Copy a running server's files by pg_basebackup."""
    words = [server.server.bin_path / "pg_basebackup", "--checkpoint=fast", *options]
    words += ["--pgdata", folder, "--dbname", server.url]
    subprocess.run(words, check=True, user=server.server.system_user)
    for file in [folder / "log", folder / ".handle_pids.json", *folder.glob(".s.PGSQL.*")]:
        file.unlink(missing_ok=True)  # of the running server


@contextmanager
def serve(server):
    """Give a client of a replica on a server, and its database."""
    with closing(Database(url_of(server))) as database:
        service = build_service(database, Doorkeeper(), ManualClock(NOON), entropy=bytes)
        with Asking(create_app(service)) as client:
            yield client.by("ingest"), database


def ask(client, head=None, site="creek"):
    """Ask who decides; return the answer and the head to send with the next question."""
    body = question(CASE, site, **({"ledger_head": head} if head else {}))
    answer = client.post("/v1/rollouts/bears/assignments", json=body).json()
    return answer, {
        "revision": answer["revision"],
        "hash": answer["hash"],
        "code": answer["head_code"],
    }


def load_scope(database):
    with database.begin_read() as transaction:
        return load_rollout_state(transaction, "bears").scope


@pytest.fixture
def recovered(primary, folders):
    """Stop a cell, lose the server, recover to before; give the new server and the lost head."""
    server, archive = primary
    copy = folders(server)
    copy_files(server, copy)
    with serve(server) as (client, database):
        assert ask(client)[0]["decider"] == "model"
        instant = query(server, "select clock_timestamp()::text")
        stop = Stopped(at=NOON, by="bo", stop="S-1", cells=(Cell("lake", "day"),))
        field.append(database, stop)
    with serve(server) as (client, database):
        _, head = ask(client)
        assert load_scope(database).revision == head["revision"]
    name = query(server, "select pg_walfile_name(pg_switch_wal())")
    archived = "select coalesce(last_archived_wal, '') from pg_stat_archiver"
    wait_until(lambda: query(server, archived) >= name)  # the file alone may be half copied
    server.kill()
    with (copy / "postgresql.auto.conf").open("a") as file:
        file.write(f"restore_command = 'cp {archive}/%f %p'\narchive_mode = off\n")
        file.write(f"recovery_target_time = '{instant}'\nrecovery_target_action = promote\n")
    (copy / "recovery.signal").touch()
    with own_server(copy) as made:
        wait_until(lambda: not query(made, "select pg_is_in_recovery()"))
        yield made, head


def test_recovery_to_a_point_in_time_loses_what_came_later_and_stops_every_cell(recovered):
    server, head = recovered
    with serve(server) as (client, database):
        assert load_scope(database).revision == head["revision"] - 1, "the stop is lost"
        assert ask(client)[0]["decider"] == "model", "nobody has brought the lost head yet"
        rewound = ask(client, head)[0]
        assert (rewound["decider"], rewound["lease"]) == ("human", 0.0)
        assert {ask(client, site=site)[0]["decider"] for site in ("creek", "lake")} == {"human"}
        kinds = [each.kind for each in load_scope(database).open_incidents.values()]
        assert kinds == ["ledger_rolled_back"]


def test_a_recovery_that_is_declared_stops_every_cell_without_an_incident(recovered, monkeypatch):
    server, head = recovered
    monkeypatch.setenv("ROLLOUT_DATABASE_URL", url_of(server))
    (command,) = typed("docs/how-to/backup.md", "Another way back")
    done = CliRunner().invoke(app, command.words)
    assert done.exit_code == 0, done.output
    with serve(server) as (client, database):
        assert [ask(client, each)[0]["decider"] for each in (None, head)] == ["human"] * 2
        assert not load_scope(database).open_incidents


def test_a_promoted_standby_that_lacks_nothing_goes_on(primary, folders):
    server, _ = primary
    copy = folders(server)
    copy_files(server, copy, "--write-recovery-conf")
    with own_server(copy) as standby:
        with serve(server) as (client, _):
            answer, head = ask(client)
            assert answer["decider"] == "model"
            position = query(server, "select pg_current_wal_flush_lsn()::text")
        replayed = f"select pg_last_wal_replay_lsn() >= '{position}'"
        wait_until(lambda: query(standby, replayed))
        server.kill()
        query(standby, "select pg_promote()")
        with serve(standby) as (client, database):
            assert ask(client, head)[0]["decider"] == "model"
            assert not load_scope(database).open_incidents
