"""Every name that code looks up by a string exists: patched, imported, asked of a module.

A rename misses what stands in a string. `monkeypatch.setattr("a.b.c", …)` fails then, but only in
the test that says so; `monkeypatch.setattr("…", raising=False)`, `import_module(f"api.{name}")` and
`getattr(module, "name", None)` go on and do nothing.
"""

import ast
import importlib
import tomllib
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("rollout", "api", "tests", "tools", "benchmarks", "examples", "migrations")
OWN = ("rollout", "api", "tests", "tools", "benchmarks")
LOOK_UPS = ("import_module", "find_spec", "setattr", "delattr", "getattr", "patch")
OPTIONAL = {"resource"}
"""Modules of the standard library that an operating system may lack."""


def modules():
    for folder in FOLDERS:
        yield from sorted((ROOT / folder).rglob("*.py"))


def calls(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = node.func
            yield getattr(function, "attr", getattr(function, "id", "")), node


def strings(node, number=0):
    """Return the string that a call gets as that argument, if it stands there."""
    if len(node.args) > number:
        value = getattr(node.args[number], "value", None)
        return [value] if isinstance(value, str) else []
    return []


def looked_up(tree):
    """Yield each name that a module looks up in a string, with its line."""
    imported = imported_modules(tree)
    for name, call in calls(tree):
        first = strings(call)
        if name in {"import_module", "find_spec"}:
            yield from ((place, call.lineno) for place in first)
        elif name in {"setattr", "delattr", "patch"} and "." in "".join(first):
            yield from ((place, call.lineno) for place in first if place.startswith(OWN))
        elif name in {"setattr", "delattr", "getattr", "object"} and call.args:
            module = imported.get(getattr(call.args[0], "id", ""))
            if module is not None:
                yield from ((f"{module}.{place}", call.lineno) for place in strings(call, 1))


def imported_modules(tree):
    """Return own modules by the names that a module gives them."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(OWN):
            for alias in node.names:
                place = f"{node.module}.{alias.name}"
                if is_module(place):
                    found[alias.asname or alias.name] = place
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.asname and alias.name.startswith(OWN):
                    found[alias.asname] = alias.name
    return found


@cache
def is_module(place):
    path = ROOT.joinpath(*place.split("."))
    return path.with_suffix(".py").exists() or path.is_dir()


@cache
def exists(place):
    """Return whether a dotted name leads to a module, or to something in one."""
    parts = place.split(".")
    if parts[0] not in OWN:
        return place in OPTIONAL or find_spec(parts[0]) is not None
    for n in range(len(parts), 0, -1):
        if is_module(".".join(parts[:n])):
            node = importlib.import_module(".".join(parts[:n]))
            for part in parts[n:]:
                if not hasattr(node, part):
                    return False
                node = getattr(node, part)
            return True
    return False


def missing(text):
    return [place for place, _ in looked_up(ast.parse(text)) if not exists(place)]


@pytest.mark.slow
def test_each_name_in_a_string_exists():
    texts = ((path, path.read_text(encoding="utf-8")) for path in modules())
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {place}"
        for path, text in texts
        if any(word in text for word in LOOK_UPS)  # parsing all takes seconds
        for place, line in looked_up(ast.parse(text))
        if not exists(place)
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('monkeypatch.setattr("rollout.kernel.errors.Gone", 1)', "rollout.kernel.errors.Gone"),
        ('mock.patch("rollout.gone.name")', "rollout.gone.name"),
        ('import_module("rollout.gone")', "rollout.gone"),
        ('import_module("no_such_package")', "no_such_package"),
        (
            'from rollout.kernel import errors as e\nmonkeypatch.setattr(e, "Gone", 1)',
            "rollout.kernel.errors.Gone",
        ),
        (
            'import rollout.kernel.errors as e\ngetattr(e, "Gone", None)',
            "rollout.kernel.errors.Gone",
        ),
        (
            'from rollout.kernel import errors\nmock.patch.object(errors, "Gone")',
            "rollout.kernel.errors.Gone",
        ),
    ],
)
def test_a_name_that_is_not_there_is_found(text, place):
    assert missing(text) == [place]


def test_a_name_that_is_there_is_left_alone():
    text = """
from rollout.kernel import errors
monkeypatch.setattr("rollout.kernel.errors.RefusalError.__init__", None)
monkeypatch.setattr(errors, "RefusalError", None)
monkeypatch.setattr(thing, "name", None)
import_module("json")
"""
    assert missing(text) == []


def test_modules_named_in_tables_exist():
    """`import_module(f"…")` gets its names from these."""
    app, console = (importlib.import_module(name) for name in ("api.app", "api.console"))
    table = importlib.import_module("rollout.cli.main").COMMANDS.values()
    places = [f"api.{name.replace(':', '.')}" for name in (*app.ROUTERS, *app.OPTIONAL_PARTS)]
    places += [f"api.{name}.router" for name in console.PAGE_MODULES]
    places += [f"api.{part.pages}.router" for part in app.load_parts()]
    for entry in table:
        for source in (entry.source, entry.extension or entry.source):
            places.append(f"rollout.{source.replace(':', '.')}")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    places += [place.replace(":", ".") for place in project["scripts"].values()]
    for group in project["entry-points"].values():
        places += [place.replace(":", ".") for place in group.values()]
    assert [place for place in places if not exists(place)] == []
