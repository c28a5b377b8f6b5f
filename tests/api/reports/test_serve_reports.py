"""`rollout serve` as a process tells a channel of an incident, and nobody where that leads."""

import time
from datetime import UTC, datetime, timedelta

import pytest

from rollout.data.database.rollouts import Rollouts
from rollout.data.database.session import Database
from rollout.data.reports.reports import DeliveryStore
from rollout.engine.decide.commands import Actor, OpenIncident
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import execute_command
from tests.api.bears import POLICY
from tests.api.test_serve import serving, until_ready
from tests.data.databases import fresh
from tests.features.receivers import webhook

pytestmark = pytest.mark.enable_socket  # a server and a receiver on this machine
MARK = "hunter2-token"
REPORTS = "reports: [{name: morning, to: [ops]}]\n"
QUICK_PASSES = """\
from rollout.worker.jobs import JobScheduler
JobScheduler.__init__.__kwdefaults__["pass_interval"] = 0.2
"""


def alarmed(url):
    """Make a rollout with an open incident; return its database."""
    database, now = Database(url), datetime.now(UTC)
    apply_policy(database, POLICY + REPORTS, Actor("zoe"), now - timedelta(hours=1))
    opened = OpenIncident(at=now, kind="unauthorized", reason="nobody allowed it")
    execute_command(database, "bears", lambda _: opened)
    return database


def states(database):
    with database.begin_read() as transaction:
        found = DeliveryStore(transaction, Rollouts(transaction).find("bears")).list_page()
    return [(one.request.channel, one.request.reason, one.state) for one in found]


def until(condition):
    for _ in range(900):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("it never happened")


@pytest.mark.slow
def test_a_service_that_runs_tells_a_webhook_of_an_incident(tmp_path, monkeypatch):
    file = tmp_path / "channels.yaml"
    monkeypatch.setenv("ROLLOUT_CHANNELS_FILE", str(file))
    with fresh("sqlite", tmp_path) as url, webhook() as hook:
        port = hook.server_address[1]
        file.write_text(f"ops: json://bo:{MARK}@127.0.0.1:{port}/{MARK}\n", encoding="utf-8")
        file.chmod(0o644)
        database = alarmed(url)
        with serving(url, before=QUICK_PASSES) as (address, process):
            until_ready(address)
            until(lambda: states(database) == [("ops", "incident", "sent")])
            process.terminate()
            said = process.communicate(timeout=30)[1]
        database.close()
    ((headers, body),) = hook.came
    assert headers["Idempotency-Key"]
    assert body["title"] == "bears: incident I-1: unauthorized"
    assert "`nobody allowed it`" in body["message"]
    assert [one["filename"] for one in body["attachments"]] == ["report.html"]
    assert "chmod 600" in said
    assert MARK not in said


@pytest.mark.slow
def test_a_file_of_channels_that_is_none_is_refused_without_what_stands_in_it(
    tmp_path, monkeypatch
):
    file = tmp_path / "channels.yaml"
    file.write_text(f"ops: {MARK}\n", encoding="utf-8")
    monkeypatch.setenv("ROLLOUT_CHANNELS_FILE", str(file))
    with fresh("sqlite", tmp_path) as url, serving(url) as (_, process):
        said = process.communicate(timeout=60)[1]
        assert process.returncode == 2
    assert "ops leads to no address" in said
    assert MARK not in said
