"""`rollout erase` and `rollout users export` on a database in the folder."""

import json

import pytest
from typer.testing import CliRunner

from rollout.cli.main import app
from rollout.data.database.session import Database
from tests.data.databases import fresh
from tests.data.snapshots import filled_once
from tests.features.erasure.test_name_erasure import fill
from tests.features.erasure.traces import find_in_files

fill_once = filled_once(fill)


@pytest.fixture
def database(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("ROLLOUT_SERVER", "ROLLOUT_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with fresh("sqlite", tmp_path) as url:
        monkeypatch.setenv("ROLLOUT_DATABASE_URL", url)
        opened = Database(url)
        fill_once(opened)
        yield opened
        opened.close()


def run(*words):
    return CliRunner().invoke(app, [*words, "--by", "ada"])


def test_erased_texts_leave_the_file_with_compact(database):
    database.close()
    done = run("erase", "case", "c-0", "--rollout", "ramps", "--reason", "asked", "--compact")
    assert "1 case erased" in done.stdout
    done = run("erase", "name", "rosalind", "--reason", "asked", "--compact")
    assert "replaces the name" in done.stdout
    database.close()
    assert find_in_files(database, "rosalind") == find_in_files(database, "blurred") == []
    assert "was erased before" in run("erase", "name", "rosalind", "--reason", "asked").stdout


def test_what_is_stored_about_a_user_is_exported(database):
    database.close()
    rows = [json.loads(line) for line in run("users", "export", "bo").stdout.splitlines()]
    assert [row["note"] for row in rows if row["table"] == "decisions"] == ["ask rosalind"]
    assert run("users", "export", "nobody").exit_code == 2
