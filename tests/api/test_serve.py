"""`rollout serve` as a process: it answers, refuses what it can't trust, and ends at once."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing, contextmanager
from dataclasses import replace

import httpx2
import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from api.serve import check_database_safety, open_service
from rollout import faults
from rollout.cli.main import app
from rollout.data.database.append_failures import UnsafeDatabaseError
from rollout.data.database.migrations import upgrade
from rollout.data.database.session import Database
from rollout.live.clock import ManualClock
from rollout.settings import read_settings
from tests.api.bears import CREEK, tick
from tests.data.databases import fresh
from tests.factories import NOON
from tests.features.notifications.mailing_list import Mailroom, add_users, choose, run_pass

pytestmark = pytest.mark.enable_socket  # a server on this machine is asked


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextmanager
def serving(url, *, before="", folder=None):
    """Run the service, after lines of Python; give its address and its process."""
    port = free_port()
    script = f"{before}from rollout.cli.main import app; app()"
    words = [sys.executable, "-c", script, "serve", "--port", str(port)]
    environment = {**os.environ, "ROLLOUT_DATABASE_URL": url}
    with (
        tempfile.TemporaryDirectory() as home,  # for what it makes where it is started
        subprocess.Popen(
            words, env=environment, stderr=subprocess.PIPE, text=True, cwd=folder or home
        ) as process,
    ):
        try:
            yield f"http://127.0.0.1:{port}", process
        finally:
            process.kill()
            process.wait()


def until_ready(address):
    for _ in range(600):
        try:
            answer = httpx2.get(f"{address}/health/ready", timeout=5)
            if answer.status_code == 200:  # with the first heartbeat
                return answer
        except httpx2.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError("it never answered")


@pytest.mark.slow
def test_it_answers_says_how_the_first_person_comes_in_and_ends_when_told(tmp_path):
    url = f"sqlite:///{tmp_path / 'rollout.db'}"
    upgrade(url)
    with serving(url) as (address, process):
        ready = until_ready(address).json()
        assert ready["ready"]
        assert 0 <= ready["last_write_age"] <= 3
        assert httpx2.get(f"{address}/v1/rollouts").status_code == 401
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
        said = process.stderr.read()
    assert [file.name for file in tmp_path.iterdir()] == ["rollout.db"], "it was closed: no WAL"
    assert f"{address}/console/set-password?token=" in said
    assert "rollout users first-admin NAME" in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_a_request_in_flight_is_answered_when_it_is_told_to_end(tmp_path):
    url = f"sqlite:///{tmp_path / 'rollout.db'}"
    upgrade(url)
    with serving(url) as (address, process):
        until_ready(address)
        with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), 20) as client:
            client.sendall(b"POST /v1/session HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n")
            until_begun(address)
            process.send_signal(signal.SIGTERM)
            until_closed(address)
            assert process.poll() is None, "it waits for the request"
            client.sendall(b"{}")
            answer = client.recv(1_000)
        assert process.wait(timeout=20) == 0
    assert answer.startswith(b"HTTP/1.1 4"), "an answer of the application"
    assert [file.name for file in tmp_path.iterdir()] == ["rollout.db"], "no WAL"


@pytest.mark.slow
def test_a_transaction_that_was_cut_off_ends_before_the_database_is_closed(tmp_path, monkeypatch):
    """Seen: its thread held a connection, so the WAL stayed."""
    monkeypatch.chdir(tmp_path)
    url = f"sqlite:///{tmp_path / 'rollout.db'}"
    upgrade(url)
    is_open, may_end = threading.Event(), threading.Event()

    def use(database):
        with database.begin_write():
            is_open.set()
            may_end.wait(20)

    with open_service(read_settings({"ROLLOUT_DATABASE_URL": url})) as service:
        thread = threading.Thread(target=use, args=(service.database,))
        thread.start()
        assert is_open.wait(20)
        threading.Timer(0.2, may_end.set).start()
    assert not list(tmp_path.glob("rollout.db-*"))
    thread.join()


def test_messages_have_addresses_at_the_configured_public_url(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the service makes its key there
    channels = tmp_path / "channels.yaml"
    channels.write_text("mail: 'mailto://mail.example.org?to={address}'\n")
    with fresh("sqlite", tmp_path) as url:
        settings = {
            "ROLLOUT_DATABASE_URL": url,
            "ROLLOUT_CHANNELS_FILE": str(channels),
            "ROLLOUT_PUBLIC_URL": "https://gate.example/",
        }
        with open_service(read_settings(settings)) as opened:
            service, mailroom = replace(opened, clock=ManualClock(NOON), entropy=bytes), Mailroom()
            add_users(service.database)
            choose(service, "olga", ["proposals"])
            tick(service.database, NOON, cells=(CREEK,))
            run_pass(service, mailroom)
    address = "https://gate.example/console/rollouts/bears/proposals/P-1"
    assert f"\n{address}\n" in mailroom.messages[-1].body


def until_begun(address):
    """Wait until the service has read what was sent before, by asking it on another connection."""
    assert httpx2.get(f"{address}/health/live", timeout=20).status_code == 200


def until_closed(address):
    """Wait until the service accepts no connection."""
    for _ in range(200):
        try:
            httpx2.get(f"{address}/health/live", timeout=5)
        except httpx2.TransportError:
            return
        time.sleep(0.02)
    raise AssertionError("it went on accepting requests")


def refusal(url):
    done = CliRunner().invoke(app, ["serve"], env={"ROLLOUT_DATABASE_URL": url})
    return done.exit_code, done.stderr


@pytest.mark.slow
def test_a_database_without_tables_or_of_another_commit_is_refused_with_what_to_do(tmp_path):
    with fresh("sqlite", tmp_path, migrated=False) as url:
        code, said = refusal(url)
        assert code == 2
        assert "no tables; run `rollout db upgrade`" in said
    older = tmp_path / "older"
    older.mkdir()
    with fresh("sqlite", older) as url:
        with closing(Database(url)) as database, database.begin_write() as transaction:
            transaction.execute(text("update alembic_version set version_num = '0046'"))
        code, said = refusal(url)
        assert code == 2
        assert "made by an earlier commit: make the database anew" in " ".join(said.split())


def test_a_process_in_which_faults_are_installed_serves_nobody(tmp_path):
    with fresh("sqlite", tmp_path) as url:
        database = Database(url)
        check_database_safety(database, accept_lost_records=False)
        with (
            faults.install_action(lambda _: None),
            pytest.raises(UnsafeDatabaseError, match="fault injection is installed"),
        ):
            check_database_safety(database, accept_lost_records=True)
        database.close()


def test_a_server_that_may_lose_what_it_acknowledged_is_refused_unless_told_so(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("api.serve.find_unsafe_settings", lambda _: ("fsync",))
    with fresh("sqlite", tmp_path) as url:
        database = Database(url)
        with pytest.raises(UnsafeDatabaseError, match=r"fsync is off.*--accept-lost-records"):
            check_database_safety(database, accept_lost_records=False)
        check_database_safety(database, accept_lost_records=True)
        database.close()
