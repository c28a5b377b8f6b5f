"""Commands of `rollout`, run in the process of a test."""

from typer.testing import CliRunner

from rollout.cli.main import app
from tests.data.databases import fresh

SETTINGS = ("ROLLOUT_DATABASE_URL", "ROLLOUT_SERVER", "ROLLOUT_API_KEY")


def forget_settings(patch):
    """Let commands find no settings of this machine."""
    for name in SETTINGS:
        patch.delenv(name, raising=False)


def create_tables(folder):
    """Do what `rollout db upgrade` does in an empty folder, by copying the template."""
    with fresh("sqlite", folder, reused=False):
        pass


def run(*words):
    """Run a command; return its result."""
    return CliRunner().invoke(app, list(words))


def done(*words):
    """Run a command that has to succeed; return what it prints."""
    result = run(*words)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(*words):
    """Run a command that has to be refused; return what it prints on the error stream."""
    result = run(*words)
    assert result.exit_code == 2, result.output
    return result.stderr
