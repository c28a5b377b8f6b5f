"""Docs are run: the README's commands work as written, links lead somewhere, words are kept."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rollout.cli.main import app
from tests.recorded import write_records

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *ROOT.glob("examples/**/*.md")])


def commands(page: Path) -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    lines = [line.split(" #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("rollout ")]


def test_the_readmes_commands_run_as_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_records(tmp_path)
    lines = commands(ROOT / "README.md")
    assert len(lines) >= 4
    for line in lines:
        words, _, target = line.partition(" > ")
        done = CliRunner().invoke(app, shlex.split(words)[1:])
        assert done.exit_code == 0, f"{line}\n{done.output}"
        if target:
            Path(target).write_text(done.stdout, encoding="utf-8")
    names = {path.name for path in (tmp_path / "replay").iterdir()}
    assert names == {"report.html", "report.json", "ledger.jsonl", "divergences.csv"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_every_decision_stands_in_the_list():
    folder = ROOT / "docs/decisions"
    listed = folder.joinpath("README.md").read_text(encoding="utf-8")
    assert all(page.name in listed for page in folder.glob("0*.md"))


def test_make_help_lists_every_recipe_of_the_readme():
    recipes = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    asked = set(re.findall(r"make ([a-z]+)", (ROOT / "README.md").read_text("utf-8")))
    assert asked - {"help"} <= recipes
