"""Locked dependencies: each is installed as locked, and its licence is on a list."""

import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.docs.pages import ROOT
from tools.bill_of_materials import build_bill, find_installed, find_licences, read_locked

LICENCES = (
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CC0-1.0",
    "CNRI-Python",
    "ISC",
    "LGPL-3.0-only",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "PSF-2.0",
    "Python-2.0",
    "Unlicense",
    "Zlib",
)
"""Licences under which a dependency may be installed beside an Apache-2.0 program."""
ONLY_IN_TESTS = {"krippendorff": "GPL-3.0-or-later"}
"""Compared with our own figures; neither imported by the program nor shipped."""

LOCKED = read_locked()
BILL = build_bill(LOCKED)
COMPONENTS = {canonicalize_name(component["name"]): component for component in BILL["components"]}


def test_each_version_is_locked_exactly():
    inexact = [
        name for name, one in LOCKED.items() if not re.fullmatch(r"==[^*,]+", str(one.specifier))
    ]
    assert inexact == []


def test_each_requirement_of_the_project_is_locked_to_a_version_that_it_allows():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    wanted = [Requirement(text) for group in groups for text in group]
    for one in wanted:
        if one.name == project["name"]:
            continue
        (pin,) = LOCKED[canonicalize_name(one.name)].specifier
        assert one.specifier.contains(pin.version), one


@pytest.mark.parametrize("name", sorted(LOCKED))
def test_a_locked_package_is_in_the_bill_as_locked_under_a_listed_licence(name):
    if name not in COMPONENTS:
        assert name not in find_installed(LOCKED)
        pytest.skip(f"{name} is not needed by the extras that are installed here")
    component = COMPONENTS[name]
    assert LOCKED[name].specifier.contains(component["version"], prereleases=True)
    assert component["purl"] == f"pkg:pypi/{name}@{component['version']}"
    assert list_licences(component) <= {*LICENCES, ONLY_IN_TESTS.get(name)}


def list_licences(component):
    """Return the names of licences in a component."""
    (*_, first) = component["licenses"]
    if "expression" in first:
        return set(re.split(r"\s+(?:AND|OR|WITH)\s+|[()]", first["expression"])) - {""}
    return {each["license"]["id"] for each in component["licenses"]}


@pytest.mark.slow
def test_the_bill_of_materials_says_what_needs_what():
    """`make bom` writes it; nothing but what is installed and locked stands in it."""
    assert (BILL["bomFormat"], BILL["specVersion"]) == ("CycloneDX", "1.6")
    refs = {component["bom-ref"] for component in BILL["components"]}
    assert len(refs) == len(BILL["components"]) > 90
    needs = {entry["ref"]: set(entry["dependsOn"]) for entry in BILL["dependencies"]}
    own = BILL["metadata"]["component"]["bom-ref"]
    assert needs.keys() == {own, *refs}
    assert COMPONENTS["fastapi"]["bom-ref"] in needs[own]
    assert COMPONENTS["starlette"]["bom-ref"] in needs[COMPONENTS["fastapi"]["bom-ref"]]
    reached, further = set(), {own}
    while further:
        reached |= further
        further = set().union(*(needs[ref] for ref in further)) - reached
    assert refs <= reached, "locked, and needed by nothing"
    assert build_bill(LOCKED) == BILL


def find_yanked(text):
    """Return the lines in which uv or pip says that a version was yanked."""
    return [line for line in text.splitlines() if re.search(r"yanked version|is yanked", line)]


def test_no_installed_version_was_yanked_when_make_installed_it():
    """The recipe keeps what the installer says on the way: no further question to the registry."""
    warnings = Path(sys.prefix) / "install-warnings.txt"
    if not warnings.exists():
        pytest.skip("this environment was not made by `make`, so what it said is not stored")
    assert find_yanked(warnings.read_text("utf-8")) == []


@pytest.mark.parametrize(
    "said",
    [
        (
            "WARNING: Location 'simple/attrs/' is ignored\nWARNING: The candidate selected for "
            "download or install is a yanked version: 'attrs' candidate (version 21.1.0)"
        ),
        'Resolved 1 package in 5ms\nwarning: `attrs==21.1.0` is yanked (reason: "metadata")',
    ],
    ids=["pip", "uv"],
)
def test_a_yanked_version_is_found_in_what_the_installer_says(said):
    assert len(find_yanked(said)) == 1
    makefile = (ROOT / "Makefile").read_text("utf-8")
    recipe = makefile.partition("\ndefine install")[2].partition("\nendef")[0]
    assert recipe.count(">.venv/install-warnings.txt") == 2


def test_what_is_only_in_tests_is_needed_by_no_part_that_is_shipped():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = {k: v for k, v in project["optional-dependencies"].items() if k != "dev"}
    shipped = [text for group in (project["dependencies"], *extras.values()) for text in group]
    assert {Requirement(text).name for text in shipped}.isdisjoint(ONLY_IN_TESTS)


def test_a_licence_that_is_not_listed_is_found():
    metadata = {"License-Expression": "MIT AND AGPL-3.0-only"}
    assert find_licences(metadata) - set(LICENCES) == {"AGPL-3.0-only"}


def test_pull_requests_run_what_lands_and_every_night_runs_everything():
    jobs = yaml.safe_load((ROOT / ".github/workflows/tests.yaml").read_text("utf-8"))["jobs"]
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert jobs["pull-request"]["steps"][-1] == {"run": ".ci/run"}
    recipes = jobs["nightly"]["strategy"]["matrix"]["recipe"]
    assert {"lint", "test-all", "faults", "coverage", "demo-soak"} <= set(recipes)
    for name in recipes:
        assert re.search(rf"^{name}:", makefile, flags=re.MULTILINE), name


def test_what_lands_calls_the_readmes_test_command_and_the_sample():
    script = (ROOT / ".ci/run").read_text("utf-8")
    assert "make test     #" in (ROOT / "README.md").read_text("utf-8")
    called = re.findall(r"^make ([a-z-]+) TRIES", script, flags=re.MULTILINE)
    assert called == ["test", "test-sample"]
    rest_of_15_minutes = "export ROLLOUT_TEST_SECONDS=$((15 * 60 - SECONDS))\nmake test-sample"
    assert rest_of_15_minutes in script


def test_the_scheduled_workflow_runs_recipes_that_exist():
    text = (ROOT / ".github/workflows/advisories.yaml").read_text("utf-8")
    (job,) = yaml.safe_load(text)["jobs"].values()
    recipes = [step["run"].removeprefix("make ") for step in job["steps"] if "run" in step]
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert recipes == ["advisories", "bom"]
    for name in recipes:
        assert re.search(rf"^{name}:", makefile, flags=re.MULTILINE)
    assert "pip-audit --strict" in makefile
    assert "advisories" not in (ROOT / ".ci/run").read_text("utf-8")
