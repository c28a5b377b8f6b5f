"""docs/how-to/backup.md: its trial of a restore runs as written.

On PostgreSQL it does in tests/features/backups/test_passwords.py.
"""

import re
from contextlib import closing

import pytest
from typer.testing import CliRunner

from rollout.cli.main import app
from rollout.data.database.session import Database
from tests.commands import forget_settings
from tests.data.databases import fresh
from tests.docs.pages import typed
from tests.features import bear_field as field

PAGE, TRIAL = "docs/how-to/backup.md", "Try a restore"


def run(line):
    done = CliRunner().invoke(app, line.split() if isinstance(line, str) else line)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.slow
def test_the_trial_of_a_restore_runs_as_written_and_finds_another_head(tmp_path, monkeypatch):
    forget_settings(monkeypatch)
    monkeypatch.chdir(tmp_path)
    with fresh("sqlite", tmp_path) as url, closing(Database(url)) as database:
        field.autonomous_by_proposals(database)
        monkeypatch.setenv("ROLLOUT_DATABASE_URL", url)
        printed = run("db backup monday.db")
    (head,) = re.findall(r"revision \d+, hash (\w+)", printed)
    monkeypatch.setenv("ROLLOUT_DATABASE_URL", "sqlite:///trial.db")
    *first, verify = typed(PAGE, TRIAL)
    for command in first:
        printed = run([field.NAME if word == "ramps" else word for word in command.words])
        if command.target:
            (tmp_path / command.target).write_text(printed)
    words = [field.NAME if word == "ramps" else word for word in verify.words]
    run([head if word == "HASH" else word for word in words])
    other = CliRunner().invoke(app, ["0" * 64 if word == "HASH" else word for word in words])
    assert other.exit_code == 1, other.output
