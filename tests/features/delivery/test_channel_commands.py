"""`rollout channels` and `rollout deliveries`: what is shown, tried, and tried again."""

import json

import pytest
from typer.testing import CliRunner

from rollout.cli.main import app
from rollout.data.database.rollouts import Rollouts
from rollout.data.database.session import Database
from rollout.data.reports.reports import FAILED, DeliveryStore, NewDelivery, Outbox
from rollout.engine.decide.commands import Actor
from rollout.features.access.users import create_first_admin
from rollout.features.delivery import channels_cli as commands
from rollout.live.policy_application import apply_policy
from tests.api.bears import POLICY
from tests.data.databases import fresh
from tests.data.snapshots import filled_once
from tests.factories import HOUR, NOON

MARK = "hunter2-token"
REPORTS = "reports: [{name: morning, to: [ops, rangers]}]\n"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("DATABASE_URL", "SERVER", "KEY", "CHANNELS"):
        monkeypatch.delenv(f"ROLLOUT_{name}", raising=False)
    return tmp_path


@pytest.fixture
def configured(folder, monkeypatch):
    file = folder / "channels.yaml"
    file.write_text(f"ops: json://bo:{MARK}@ops.example.org/{MARK}\n", encoding="utf-8")
    file.chmod(0o600)
    monkeypatch.setenv("ROLLOUT_CHANNELS_FILE", str(file))
    return file


def run(*words, code=0):
    done = CliRunner().invoke(app, words)
    assert done.exit_code == code, done.output
    assert MARK not in done.output
    return done


def test_channels_are_listed_without_what_is_secret(configured):
    assert run("channels", "list").stdout == "ops: json://ops.example.org\n"
    shown = json.loads(run("channels", "list", "--json").stdout)
    assert shown == {"ops": "json://ops.example.org"}
    configured.chmod(0o644)
    assert "chmod 600" in run("channels", "list").stderr


def test_without_a_file_it_is_said_how_to_name_one():
    assert "ROLLOUT_CHANNELS_FILE" in run("channels", "list").stdout
    assert "its channels: none" in run("channels", "test", "ops", code=2).stderr


def test_a_file_that_is_none_is_refused(configured):
    configured.write_text(f"ops: {MARK}\n", encoding="utf-8")
    assert "ops leads to no address" in run("channels", "list", code=2).stderr


def test_a_channel_is_tried_by_a_message(configured, monkeypatch):
    given, errors = [], ["", "refused with 401"]

    def send(message):
        given.append(message)
        return errors.pop(0)

    monkeypatch.setattr(commands, "send_in_process", send)
    assert (
        "ops (json://ops.example.org) accepted the message" in run("channels", "test", "ops").stdout
    )
    assert "refused with 401" in run("channels", "test", "ops", code=2).stderr
    assert {one.url for one in given} == {f"json://bo:{MARK}@ops.example.org/{MARK}"}
    assert len({one.key for one in given}) == 2


def test_a_channel_of_users_is_tried_with_an_address(configured, monkeypatch):
    configured.write_text(f"mail: mailto://bo:{MARK}@mail.example.org?to={{address}}\n")
    urls = []

    def send(message):
        urls.append(message.url)
        return ""

    monkeypatch.setattr(commands, "send_in_process", send)
    assert "accepted" in run("channels", "test", "mail", "--to", "ana@example.org").stdout
    assert urls == [f"mailto://bo:{MARK}@mail.example.org?to=ana%40example.org"]
    refused = run("channels", "test", "mail", code=2)
    assert "mail takes one mail address, such as ana@example.org" in refused.stderr
    assert "add --to ADDRESS" in refused.stderr


def test_a_shared_channel_takes_no_address(configured):
    refused = run("channels", "test", "ops", "--to", "ana@example.org", code=2)
    assert "leave --to out" in refused.stderr


def test_plan_and_apply_warn_of_a_channel_that_nobody_configured(folder, configured):
    (folder / "policy.yaml").write_text(POLICY + REPORTS, encoding="utf-8")
    warning = "the channel rangers is not configured"
    assert warning in run("plan", "policy.yaml").stdout
    run("db", "upgrade")
    assert warning in run("apply", "policy.yaml", "--by", "zoe", "--dry-run", "--json").stdout
    assert warning in run("apply", "policy.yaml", "--by", "zoe").stdout


def test_where_no_channels_are_known_nobody_is_warned(folder):
    (folder / "policy.yaml").write_text(POLICY + REPORTS, encoding="utf-8")
    assert "channel" not in run("plan", "policy.yaml").stdout


@pytest.fixture
def given_up(folder):
    """Return a database of this folder with a delivery that was given up and one that waits."""
    with fresh("sqlite", folder) as url:
        database = Database(url)
        give_up(database)
        yield database
        database.close()


@filled_once
def give_up(database):
    apply_policy(database, POLICY, Actor("zoe"), NOON)
    with database.begin_write() as transaction:
        own = DeliveryStore(transaction, Rollouts(transaction).find("bears"))
        for channel in ("ops", "chat"):
            own.add(NewDelivery(12, channel, "schedule", "morning report"), at=NOON)
        outbox = Outbox(transaction)
        outbox.close(outbox.take_next(at=NOON, lease=HOUR), FAILED, error="refused")


def test_deliveries_are_listed_and_tried_again(given_up):
    lines = run("deliveries", "bears").stdout.splitlines()
    assert lines[0].startswith("2 report 12 to chat (morning report): next try")
    assert lines[1] == "1 report 12 to ops (morning report): failed after 1 try: refused"
    assert len(json.loads(run("deliveries", "bears", "--failed", "--json").stdout)) == 1
    assert "1 undelivered" in run("status", "bears").stdout
    retry = ("deliveries", "bears", "--retry", "1", "--by", "ana")
    assert "names none: add it" in run(*retry, code=2).stderr
    apply_policy(given_up, POLICY + REPORTS, Actor("ana"), NOON + HOUR)
    again = run(*retry).stdout
    assert again.startswith("1 report 12 to ops (morning report): next try")
    assert "undelivered" not in run("status", "bears").stdout
    assert (
        "no delivery 9" in run("deliveries", "bears", "--retry", "9", "--by", "ana", code=2).stderr
    )
    assert "no acting user; add --by" in run("deliveries", "bears", "--retry", "1", code=2).stderr


def test_a_report_is_sent_to_channels_of_the_policy(given_up):
    send = ("deliveries", "bears", "--send", "12", "--by", "ana")
    assert "no channel is named; add --to" in run(*send, code=2).stderr
    assert "names none: add it" in run(*send, "--to", "ops", code=2).stderr
    apply_policy(given_up, POLICY + REPORTS, Actor("ana"), NOON + HOUR)
    assert "bears has no report 12" in run(*send, "--to", "ops", code=2).stderr


def test_once_somebody_is_here_it_takes_an_operator(given_up):
    create_first_admin(given_up, "zoe", at=NOON)
    refused = run("deliveries", "bears", "--retry", "1", "--by", "zoe", code=2)
    assert "operator" in refused.stderr
