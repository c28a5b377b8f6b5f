"""Recipes of CONTRIBUTING, each followed in a copy: the files that it names are all it takes."""

import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.recipes.additions import RECIPES

ROOT = Path(__file__).parents[2]
CHECKED = ".mypy_cache"
COPIED = ("rollout", "api", "clients", "migrations", "pyproject.toml")
NAMED = re.compile(r"`([\w./]+/[\w.]+\.(?:py|j2|json|md))`")


def read_section(title):
    _, _, rest = (ROOT / "CONTRIBUTING.md").read_text("utf-8").partition(f"## {title}\n")
    assert rest, f"CONTRIBUTING has no section {title!r}"
    return rest.partition("\n## ")[0]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.title)
def test_a_recipe_names_the_files_that_it_takes(recipe):
    named = {path for path in NAMED.findall(read_section(recipe.title)) if path[:6] != "tests/"}
    assert named == {*recipe.edits, *recipe.files, *recipe.generated}
    assert all((ROOT / path).exists() for path in named - {*recipe.files})


def follow(recipe, folder):
    for name, edits in recipe.edits.items():
        path = folder / name
        text = path.read_text("utf-8")
        for place, added in edits.items():
            assert text.count(place) == 1, (name, place)
            text = text.replace(place, added + place)
        path.write_text(text, encoding="utf-8")
    for name, text in recipe.files.items():
        (folder / name).write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the program in which somebody followed all recipes."""
    folder = tmp_path_factory.mktemp("followed")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name)  # with its byte code
        else:
            shutil.copy(ROOT / name, folder)
    for recipe in RECIPES:
        follow(recipe, folder)
    return folder


def run(folder, *words):
    paths = f"{folder}{os.pathsep}{ROOT}"
    return subprocess.run(
        [sys.executable, *words], cwd=folder, env=os.environ | {"PYTHONPATH": paths},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_what_was_added_is_there_everywhere(copy):
    ran = run(copy, Path(__file__).with_name("story.py"), str(copy))
    assert ran.returncode == 0, ran.stderr
    story = json.loads(ran.stdout)
    status, sources, refused = story["endpoint"]
    assert (status, sources[0], refused) == (200, "blind", 404)
    assert story["openapi"]
    assert story["api_docs"]
    assert "<h1>Purpose of bears</h1>" in story["page"]
    assert story["setting"] == "forest"
    assert "| `ROLLOUT_NICKNAME` | none | What pages call it" in story["setting_docs"]
    assert (story["figure"], story["schema"]) == (1, True)
    assert "Cases came from 1 site." in story["report"]


@pytest.mark.slow
def test_what_was_added_passes_the_type_check(copy):
    with suppress(OSError):  # what `make lint` knows of the other modules; it may be at work
        shutil.copytree(ROOT / CHECKED, copy / CHECKED)
    ran = run(copy, "-m", "mypy", "--no-error-summary", *sorted(list_python(RECIPES)))
    assert (ran.stdout, ran.returncode) == ("", 0), ran.stderr


def list_python(recipes):
    return {name for recipe in recipes for name in recipe.edits if name.endswith(".py")}
