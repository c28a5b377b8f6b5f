"""The commands of docs/files.md run on a German export and print what the page shows."""

import re
from datetime import datetime, timedelta

import pytest
import yaml
from typer.testing import CliRunner

from rollout.cli.main import app
from rollout.features.policies import drafting_cli
from tests.docs.pages import text_of, typed
from tests.features.policies.messy_files import Variant, write_files

GERMAN = Variant(
    "German Excel",
    encoding="cp1252",
    separator=";",
    decimal=",",
    date="dots",
    confidence="percent",
    unsure="unsure",
)
SHOWN = re.findall(r"```text\n(.*?)```", text_of("docs/files.md"), re.DOTALL)


class Later(datetime):
    """The clock of a day after the files' last row."""

    @classmethod
    def now(cls, tz=None):
        return datetime(2027, 6, 1, tzinfo=tz)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(drafting_cli, "datetime", Later)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(line, target=None):
    result = CliRunner().invoke(app, line)
    if target and result.exit_code == 0:
        target.write_text(result.stdout, encoding="utf-8")
    return result


@pytest.mark.slow
def test_the_commands_run_as_written_and_print_what_is_shown(folder):
    write_files(folder, GERMAN)
    first, second, *others = typed("docs/files.md")
    drafted = run(first.words, folder / first.target)
    assert drafted.stderr == SHOWN[0]
    section = text_of("docs/files.md").split("```yaml\n")[1].split("```")[0]
    policy = yaml.safe_load(drafted.stdout)
    assert policy["import"][:1] == yaml.safe_load(section)["import"]
    assert run(second.words).exit_code == 0
    for command in others:
        result = run(command.words)
        assert result.exit_code == 0, result.output
    assert (folder / "replay" / "report.html").exists()


def test_the_refusals_are_those_shown(folder):
    write_files(folder, Variant("01/02", date="slashes", step=timedelta(hours=4)))
    line = ["init", "predictions.csv", "decisions.csv"]
    assert run(line).stderr.splitlines()[0] == SHOWN[1].strip()
    write_files(folder, Variant("spoken", columns="spoken"))
    maps = ["--map=predictions.case_key=Image", "--map=predictions.label=Species"]
    maps += ["--map=decisions.case_key=Image", "--map=decisions.label=Species"]
    start, end = SHOWN[2].strip().split(". […] ")
    refused = run([*line, *maps]).stderr.strip()
    assert refused.startswith(start)
    assert refused.endswith(end)


def test_the_page_is_short():
    assert len(text_of("docs/files.md").split()) <= 700
