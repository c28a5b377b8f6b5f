"""What is printed where a command can't go on, or is stopped."""

import pytest
import typer
from typer.testing import CliRunner

from rollout.cli.main import app
from rollout.terminal.remote import EXIT_INTERRUPTED, EXIT_REFUSED, print_refusals


@pytest.mark.parametrize(
    ("raised", "code", "says"),
    [
        (KeyboardInterrupt(), EXIT_INTERRUPTED, "\nstopped; nothing was written\n"),
        (ValueError("add an offset"), EXIT_REFUSED, "add an offset\n"),
        (
            FileNotFoundError(2, "No such file", "a.csv"),
            EXIT_REFUSED,
            "a.csv: no such file; check the path\n",
        ),
    ],
)
def test_a_sentence_and_an_exit_code_no_traceback(capsys, raised, code, says):
    with pytest.raises(typer.Exit) as left, print_refusals():
        raise raised
    assert (left.value.exit_code, capsys.readouterr().err) == (code, says)


def test_a_service_that_is_stopped_does_not_say_that_nothing_was_written(capsys):
    with pytest.raises(typer.Exit), print_refusals(interrupted_text="what was begun is finished"):
        raise KeyboardInterrupt
    assert capsys.readouterr().err == "\nstopped; what was begun is finished\n"


@pytest.mark.parametrize("url", ["sqlite:////nowhere/x.db", "postgresql:///x?host=/nowhere"])
@pytest.mark.parametrize(
    "line", ["status ramps", "db upgrade", "db current", "doctor", "users list", "serve"]
)
def test_a_database_that_cannot_be_opened_is_a_sentence(monkeypatch, url, line):
    monkeypatch.setenv("ROLLOUT_DATABASE_URL", url)
    monkeypatch.delenv("ROLLOUT_SERVER", raising=False)
    done = CliRunner().invoke(app, line.split())
    assert done.exit_code == EXIT_REFUSED
    said, why = done.stderr.splitlines()
    assert said == "the database can't be opened; check ROLLOUT_DATABASE_URL"
    assert ("unable to open database file" in why) or ("/nowhere" in why)
