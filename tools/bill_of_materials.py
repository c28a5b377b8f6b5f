"""Write a bill of materials as CycloneDX: the locked dependencies that are installed here.

The same environment gives the same bytes: no time, no random serial number. Nothing is asked of the
network. Run as `python tools/bill_of_materials.py FILE`.
"""

import json
import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).parents[1]
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
FROM_FILES = {
    "axe-playwright-python": "MIT",
    "kubernetes-validate": "Apache-2.0",  # its metadata lacks the version
    "promql-parser": "MIT",
    "quickjs-ng": "MIT",
}
"""Licences that stand in the package's licence file alone."""


def read_locked() -> Mapping[str, Requirement]:
    """Return the locked requirements that hold on this machine, by name."""
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {
        canonicalize_name(locked.name): locked
        for locked in requirements
        if locked.marker is None or locked.marker.evaluate()
    }


def find_installed(names: Mapping[str, Requirement]) -> Mapping[str, Distribution]:
    """Return the distributions that are installed here, by name."""
    installed: dict[str, Distribution] = {}
    for name in sorted(names):
        try:
            installed[name] = distribution(name)
        except PackageNotFoundError:  # of an extra that is not installed
            continue
    return installed


def find_licences(metadata: Any) -> set[str]:
    """Return the licences of a package as SPDX names, or its own words."""
    expression = metadata.get("License-Expression")
    if expression:
        return set(re.split(r"\s+(?:AND|OR|WITH)\s+|[()]", expression)) - {""}
    if metadata["Name"] in FROM_FILES:
        return {FROM_FILES[metadata["Name"]]}
    classifiers = [c for c in metadata.get_all("Classifier", []) if c.startswith("License ::")]
    words = [c.rpartition(" :: ")[2] for c in classifiers if not c.endswith("OSI Approved")]
    if not words and metadata.get("License"):
        words = re.split(r" OR | AND ", metadata["License"].splitlines()[0])
    return {_find_spdx(word) for word in words} or {"none"}


def _find_spdx(word: str) -> str:
    names = (spdx for text, spdx in OLD_WORDS.items() if word.lower().startswith(text))
    return next(names, word)


def build_bill(locked: Mapping[str, Requirement]) -> dict[str, Any]:
    """Return the bill of materials of the locked dependencies that are installed here."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    installed = find_installed(locked)
    own = {
        "type": "application",
        "bom-ref": _build_purl(project["name"], project["version"]),
        "name": project["name"],
        "version": project["version"],
        "licenses": [{"license": {"id": project["license"]}}],
    }
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    direct = [text for group in groups for text in group]
    extras = _find_extras(direct, installed)
    refs = {name: _build_purl(name, package.version) for name, package in installed.items()}
    needs = {own["bom-ref"]: {_name(text) for text in direct}}
    needs |= {
        refs[name]: _list_needed(package, extras[name]) for name, package in installed.items()
    }
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": own},
        "components": [
            _build_component(refs[name], package) for name, package in installed.items()
        ],
        "dependencies": [
            {"ref": ref, "dependsOn": [refs[name] for name in sorted(names & refs.keys())]}
            for ref, names in needs.items()
        ],
    }


def _build_component(ref: str, package: Distribution) -> dict[str, Any]:
    expression = package.metadata.get("License-Expression")
    return {
        "type": "library",
        "bom-ref": ref,
        "name": package.metadata["Name"],
        "version": package.version,
        "purl": ref,
        "licenses": [{"expression": expression}]
        if expression and " " in expression
        else [{"license": {"id": name}} for name in sorted(find_licences(package.metadata))],
    }


def _list_needed(package: Distribution, extras: set[str]) -> set[str]:
    """Return the names that a distribution with extras requires on this machine."""
    return {
        _name(str(needed.name))
        for needed in map(Requirement, package.requires or ())
        if needed.marker is None
        or any(needed.marker.evaluate({"extra": extra}) for extra in {"", *extras})
    }


def _find_extras(
    direct: Iterable[str], installed: Mapping[str, Distribution]
) -> Mapping[str, set[str]]:
    """Return the extras with which distributions are required, by name."""
    extras: dict[str, set[str]] = defaultdict(set)
    for text in (
        *direct,
        *(text for package in installed.values() for text in package.requires or ()),
    ):
        needed = Requirement(text)
        if needed.marker is None or needed.marker.evaluate({"extra": ""}):
            extras[_name(needed.name)] |= needed.extras
    return extras


def _name(requirement: str) -> str:
    return canonicalize_name(Requirement(requirement).name)


def _build_purl(name: str, version: str) -> str:
    return f"pkg:pypi/{canonicalize_name(name)}@{version}"


def main() -> None:
    """Write the bill to the file that is named."""
    file = Path(sys.argv[1])
    file.parent.mkdir(parents=True, exist_ok=True)
    bill = build_bill(read_locked())
    file.write_text(json.dumps(bill, indent=2) + "\n", encoding="utf-8")
    print(f"{file}: {len(bill['components'])} components")


if __name__ == "__main__":
    main()
