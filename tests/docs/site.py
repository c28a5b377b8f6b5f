"""Builds the site of docs/ in a folder of its own, as `make docs` does."""

import os
import shutil
import subprocess
import sys
import tomllib

import pytest

from tests.docs.pages import ROOT

CONFIG = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]


def pages_of(nav):
    """Return the pages of a navigation, in order."""
    for entry in nav:
        for target in entry.values():
            yield from pages_of(target) if isinstance(target, list) else [target]


def html_of(page):
    return page.replace("README.md", "index.md").replace(".md", ".html")


def build_site(folder):
    """Return the folder of the built site; skip where what builds it is not installed."""
    for name in ("zensical", "mermaidx"):
        pytest.importorskip(name, reason=f"{name} is not installed; it comes with the extra docs")
    shutil.copytree(ROOT / "docs", folder / "docs")
    shutil.copy(ROOT / "zensical.toml", folder)
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / CONFIG["site_dir"]
