"""`rollout db` and `rollout doctor`, as a person at the machine types them."""

import json
from pathlib import Path

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from rollout.cli.main import app
from rollout.data.database.session import Database
from tests.data.conftest import url
from tests.data.databases import fresh, on_postgresql, on_sqlite

__all__ = ["url"]


@pytest.fixture
def rollout(url, monkeypatch):
    monkeypatch.setenv("ROLLOUT_DATABASE_URL", url)
    return lambda *words: CliRunner().invoke(app, [*words])


@on_sqlite
def test_sqlite_has_no_roles_to_grant_to(rollout):
    done = rollout("db", "grant", "somebody")
    assert done.exit_code == 2
    assert "no roles" in done.stderr


@on_postgresql
def test_a_role_that_is_granted_to_may_run_the_service(rollout, url):
    database = Database(url)
    with database.begin_write() as transaction:
        transaction.execute(text("drop role if exists rollout_granted"))
        transaction.execute(text("create role rollout_granted"))
    try:
        assert rollout("db", "grant", "rollout_granted").exit_code == 0
        with database.begin_read() as transaction:
            query = "select has_table_privilege('rollout_granted', 'ledger', '{}')"
            asked = [
                transaction.execute(text(query.format(p))).scalar() for p in ("insert", "update")
            ]
        assert asked == [True, False]
    finally:
        with database.begin_write() as transaction:
            transaction.execute(text("drop owned by rollout_granted"))
            transaction.execute(text("drop role rollout_granted"))
        database.close()


@on_sqlite
def test_the_doctor_says_what_was_looked_at(rollout):
    done = rollout("doctor", "--rebuild")
    assert done.exit_code == 0, done.output
    assert "ok    this program version works on the tables" in done.stdout
    looked = json.loads(rollout("doctor", "--json").stdout)
    assert [check["faults"] for check in looked] == [[]] * len(looked)


def test_the_doctor_leaves_with_an_error_where_something_is_wrong(tmp_path, monkeypatch):
    with fresh("sqlite", tmp_path, migrated=False) as url:
        monkeypatch.setenv("ROLLOUT_DATABASE_URL", url)
        Path(url.removeprefix("sqlite:///")).touch()
        done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 1
    assert "run `rollout db upgrade`" in done.stdout


@pytest.mark.parametrize(
    "command",
    ["doctor", "ledger export-access", "status nothing", "db backup b.db"],
)
def test_a_command_creates_no_database(tmp_path, monkeypatch, command):
    """Seen: `rollout status nothing` left an empty rollout.db behind."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ROLLOUT_DATABASE_URL", raising=False)
    done = CliRunner().invoke(app, command.split())
    assert (done.exit_code, list(tmp_path.iterdir())) == (2, [])
    assert "rollout.db: no such database" in done.stderr
    assert "run `rollout db upgrade` to create it" in " ".join(done.stderr.split())
