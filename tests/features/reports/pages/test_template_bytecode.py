"""Templates are compiled once for all processes, and never from what has changed."""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from jinja2 import Environment, FileSystemLoader
from jinja2.defaults import DEFAULT_FILTERS, DEFAULT_TESTS

from api.web_kit.page import create_environment
from rollout.features.reports.pages.html_report import _load_template
from rollout.features.reports.pages.page_templates import load_templates

NAME = "page.html.j2"
ENVIRONMENTS = {
    "rollout.features.reports": lambda: _load_template().environment,
    "api": create_environment,
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of templates whose bytecode may be written beside it."""
    monkeypatch.setattr(sys, "pycache_prefix", str(tmp_path / "bytecode"))
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    (tmp_path / NAME).write_text("{{ 1 + 1 }} cases")
    return tmp_path


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the templates that are compiled from now on."""
    names = list[str]()
    compile_template = Environment.compile

    def count(self: Environment, source: str, name: str, *args: Any, **options: Any) -> Any:
        names.append(name)
        return compile_template(self, source, name, *args, **options)

    monkeypatch.setattr(Environment, "compile", count)
    return names


def start_process(folder: Path) -> Environment:
    """Return an environment as a new process has it."""
    environment = load_templates("rollout.features.reports")
    environment.loader = FileSystemLoader(folder)
    return environment


def render(folder: Path) -> str:
    return start_process(folder).get_template(NAME).render()


def list_bytecode(folder: Path) -> list[Path]:
    return [path for path in (folder / "bytecode").rglob("*") if path.is_file()]


def test_a_second_process_compiles_no_template(folder, compiled):
    assert [render(folder), render(folder)] == ["2 cases", "2 cases"]
    assert compiled == [NAME]


@pytest.mark.slow
def test_all_templates_of_a_report_are_compiled_once(folder, compiled):
    names = list_templates("rollout.features.reports")
    for _ in range(2):
        environment = ENVIRONMENTS["rollout.features.reports"]().overlay(
            cache_size=0, bytecode_cache=load_templates("rollout.features.reports").bytecode_cache
        )
        for name in names:
            environment.get_template(name)
    assert sorted(compiled) == names


def test_a_changed_template_is_compiled_anew(folder, compiled):
    render(folder)
    (folder / NAME).write_text("{{ 2 + 2 }} cases")
    assert render(folder) == "4 cases"
    assert compiled == [NAME, NAME]


def test_another_option_compiles_anew(folder, compiled):
    render(folder)
    environment = start_process(folder)
    environment.autoescape = False
    assert environment.get_template(NAME).render() == "2 cases"
    assert compiled == [NAME, NAME]


@pytest.mark.parametrize("kept", [0, 20, 120])
def test_a_file_cut_short_is_replaced(folder, compiled, kept):
    render(folder)
    (path,) = list_bytecode(folder)
    whole = path.read_bytes()
    path.write_bytes(whole[:kept])
    assert render(folder) == "2 cases"
    assert compiled == [NAME, NAME]
    assert list_bytecode(folder) == [path]
    assert path.read_bytes() == whole


def test_nothing_is_written_where_python_writes_no_bytecode(folder, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    assert render(folder) == "2 cases"
    assert not list_bytecode(folder)


def test_a_folder_that_cannot_be_written_stops_no_page(folder):
    (folder / "bytecode").write_text("a file where the folder would be")
    assert render(folder) == "2 cases"


def list_templates(package: str) -> list[str]:
    folders = {*import_module(package).__path__}
    names = [path.name for folder in folders for path in Path(folder).glob("*/*.j2")]
    assert names
    return sorted(names)


def refuse(*_: object) -> None:
    raise ValueError("called while a template was compiled")


@pytest.mark.slow
@pytest.mark.parametrize("package", ENVIRONMENTS)
def test_no_filter_of_ours_runs_while_a_template_is_compiled(package):
    """Their results would stay in the bytecode when their code changes."""
    environment = ENVIRONMENTS[package]()
    refusing = environment.overlay()
    refusing.filters = {
        name: own if own is DEFAULT_FILTERS.get(name) else refuse
        for name, own in environment.filters.items()
    }
    refusing.tests = {
        name: own if own is DEFAULT_TESTS.get(name) else refuse
        for name, own in environment.tests.items()
    }
    for name in list_templates(package):
        source, _, _ = environment.loader.get_source(environment, name)
        assert environment.compile(source, name, raw=True) == refusing.compile(
            source, name, raw=True
        ), f"{name}: give its filters a variable, not a constant"
