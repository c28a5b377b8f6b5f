"""Locked dependencies: each is installed as locked, and its licence is on a list."""

import re
import tomllib
from importlib.metadata import PackageNotFoundError, distribution

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.docs.pages import ROOT

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
OLD_WORDS = {
    "apache software license": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "bsd license": "BSD-3-Clause",
    "isc license": "ISC",
    "mit license": "MIT",
    "mozilla public license 2.0": "MPL-2.0",
    "python software foundation license": "PSF-2.0",
    "gnu lesser general public license v3": "LGPL-3.0-only",
}
"""Classifiers and free text of packages that have no licence expression yet."""
ONLY_IN_TESTS = {"krippendorff": "GPL-3.0-or-later"}
"""Compared with our own figures; neither imported by the program nor shipped."""
FROM_FILES = {"axe-playwright-python": "MIT", "promql-parser": "MIT", "quickjs-ng": "MIT"}
"""Licences that stand in the package's licence file alone."""


def read_locked():
    """Return the locked requirements that hold on this machine, by name."""
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {
        canonicalize_name(one.name): one
        for one in requirements
        if one.marker is None or one.marker.evaluate()
    }


LOCKED = read_locked()


def find_licences(metadata):
    """Return the licences of a package as SPDX names, or its own words."""
    expression = metadata.get("License-Expression")
    if expression:
        return set(re.split(r"\s+(?:AND|OR|WITH)\s+|[()]", expression)) - {""}
    classifiers = [c for c in metadata.get_all("Classifier", []) if c.startswith("License ::")]
    words = [c.rpartition(" :: ")[2] for c in classifiers if not c.endswith("OSI Approved")]
    if not words and metadata.get("License"):
        words = re.split(r" OR | AND ", metadata["License"].splitlines()[0])
    return {find_spdx(word) for word in words} or {FROM_FILES.get(metadata["Name"], "none")}


def find_spdx(word):
    known = (spdx for text, spdx in OLD_WORDS.items() if word.lower().startswith(text))
    return next(known, word)


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
def test_a_locked_package_is_installed_as_locked_under_a_listed_licence(name):
    try:
        found = distribution(name)
    except PackageNotFoundError:
        pytest.skip(f"{name} is not needed by the extras that are installed here")
    assert LOCKED[name].specifier.contains(found.version, prereleases=True)
    assert find_licences(found.metadata) <= {*LICENCES, ONLY_IN_TESTS.get(name)}


def test_what_is_only_in_tests_is_needed_by_no_part_that_is_shipped():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = {k: v for k, v in project["optional-dependencies"].items() if k != "dev"}
    shipped = [text for group in (project["dependencies"], *extras.values()) for text in group]
    assert {Requirement(text).name for text in shipped}.isdisjoint(ONLY_IN_TESTS)


def test_a_licence_that_is_not_listed_is_found():
    metadata = {"License-Expression": "MIT AND AGPL-3.0-only"}
    assert find_licences(metadata) - set(LICENCES) == {"AGPL-3.0-only"}


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
