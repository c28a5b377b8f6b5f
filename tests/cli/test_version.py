"""`rollout --version` and `python -m rollout`: what a report of a fault begins with."""

import os
import re
import runpy
import subprocess
import sys
import tomllib

import pytest

from tests.docs.pages import ROOT


def run(*words):
    command = [sys.executable, "-m", "rollout", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_version_is_the_packages_and_names_python_and_platform():
    done = run("--version")
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    python = ".".join(map(str, sys.version_info[:3]))
    assert done.stdout == (
        f"{declared['name']} {declared['version']}, Python {python}, {sys.platform}\n"
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize("words", [("--help",), ("plan", "--help")])
def test_python_runs_the_commands_as_a_module(words):
    done = run(*words)
    assert done.returncode == 0, done.stderr
    assert re.search(r"Usage: rollout\b", done.stdout)
    assert "__main__" not in done.stdout


@pytest.mark.parametrize(("given", "used"), [(None, "1"), ("3", "3")])
def test_equations_are_solved_by_one_thread_unless_another_number_is_set(monkeypatch, given, used):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", given or "")
    if given is None:
        monkeypatch.delenv("OPENBLAS_NUM_THREADS")
    runpy.run_path(str(ROOT / "rollout/cli/main.py"))
    assert os.environ["OPENBLAS_NUM_THREADS"] == used
