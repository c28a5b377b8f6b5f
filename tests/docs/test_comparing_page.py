"""The page on one file of pairs: what it shows is what its reader gets."""

import re
from pathlib import Path

from typer.testing import CliRunner

from rollout.cli.main import app
from tests.docs.pages import text_of, typed

PAGE = "docs/how-to/comparing.md"


def block(kind):
    (found,) = re.findall(rf"```{kind}\n(.*?)```", text_of(PAGE), flags=re.DOTALL)
    return found


def test_its_file_gives_what_it_prints(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("pairs.csv").write_text(block("csv"), encoding="utf-8")
    (one,) = typed(PAGE)
    done = CliRunner().invoke(app, one.words)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith(block("text"))
