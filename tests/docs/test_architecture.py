"""The pages for contributors name modules, folders and names that exist."""

import re
import tomllib

import pytest

from tests.docs.pages import ROOT, text_of
from tests.recipes.additions import RECIPES

CONTRIBUTORS = ("docs/architecture.md", "CONTRIBUTING.md")
TOP = ("rollout/", "api/", "tests/", "docs/", "config/", "migrations/", "tools/", "benchmarks/")
TOKEN = re.compile(r"`([^`\n]+)`")
STEP = re.compile(r"^(\d+)\. `([^`]+)`: (.+)$", re.MULTILINE)
WALKS = ("A record comes in", "A tick widens", "A user approves", "A stop reaches a case")
MAX_MODULES = 8
MADE = {path for recipe in RECIPES for path in recipe.files}
"""Files that who follows a recipe makes."""


def paths_of(page):
    """Return the paths that a page names in code font, also inside a command."""
    words = [word for token in TOKEN.findall(text_of(page)) for word in token.split()]
    return sorted({word for word in words if word.startswith(TOP)})


def steps_of(walk):
    """Return number, module and sentence of each step of a walk."""
    _, _, after = text_of("docs/architecture.md").partition(f"### {walk}\n")
    return STEP.findall(re.split(r"^##", after, flags=re.MULTILINE)[0])


@pytest.mark.parametrize("page", CONTRIBUTORS)
def test_every_path_exists(page):
    paths = paths_of(page)
    assert len(paths) >= 20
    assert [path for path in paths if not (ROOT / path).exists()] == sorted(MADE & {*paths})


@pytest.mark.parametrize("walk", WALKS)
def test_a_walk_is_a_numbered_list_of_at_most_eight_modules(walk):
    steps = steps_of(walk)
    assert 3 <= len(steps) <= MAX_MODULES
    assert [int(number) for number, *_ in steps] == list(range(1, len(steps) + 1))
    modules = [module for _, module, _ in steps]
    assert len(set(modules)) == len(modules)
    assert all((ROOT / module).suffix == ".py" for module in modules)


@pytest.mark.parametrize("walk", WALKS)
def test_a_step_names_what_its_module_has(walk):
    for _, module, sentence in steps_of(walk):
        code = (ROOT / module).read_text(encoding="utf-8")
        assert sentence.endswith("."), sentence
        for name in TOKEN.findall(sentence):
            assert re.search(rf"\b{re.escape(name)}\b", code), f"{module} has no {name}"


def test_every_folder_of_the_code_is_on_its_page_and_says_what_it_has():
    page = text_of("docs/reference/folders.md")
    rows = re.findall(r"^\| `([\w/]+)` \| (.+) \|$", page, re.MULTILINE)
    tops = ("rollout", "api", "clients/python")
    modules = [path for top in tops for path in (ROOT / top).rglob("*.py")]
    inside = {folder for path in modules for folder in path.relative_to(ROOT).parents}
    names = {folder.as_posix() for folder in inside} - {".", "clients", "clients/python", "rollout"}
    assert sorted(name for name, _ in rows) == sorted(names)


def test_the_check_of_imports_reads_every_folder():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    folders = {f"rollout.{path.parent.name}" for path in ROOT.glob("rollout/[a-z]*/*")} | {"api"}
    assert set(project["tool"]["importlinter"]["root_packages"]) == folders


def test_the_diagram_has_every_layer_of_the_import_contract_in_its_order():
    (diagram,) = re.findall(r"```mermaid\n(.*?)```", text_of(CONTRIBUTORS[0]), re.DOTALL)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    layers = next(
        each["layers"] for each in contracts if "rollout.kernel" in each.get("layers", ())
    )
    shown = [package for layer in layers for package in re.findall(r"[\w.]+", layer)]
    shown = [package for package in shown if (ROOT / package.replace(".", "/")).is_dir()]
    assert len(shown) >= 8
    places = [re.search(rf"\b{re.escape(package)}\b", diagram) for package in shown]
    assert all(places), shown
    ends = [max(_places(layer, diagram), default=0) for layer in layers]
    assert ends == sorted(ends)


def _places(layer, diagram):
    return [diagram.find(package) for package in re.findall(r"[\w.]+", layer) if package in diagram]
