"""Whether the code under a written result has changed since, comments and docstrings aside."""

import ast
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.docs.pages import ROOT


def run_git(*words):
    """Return what git prints, None if it fails; skip where it is not installed."""
    program = shutil.which("git")
    if program is None:
        pytest.skip("git is not installed: whether results are older than the code is not known")
    done = subprocess.run([program, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else None


def is_in_history(commit):
    """Return whether git has a commit here."""
    return run_git("cat-file", "-e", f"{commit}^{{commit}}") is not None


def is_history_whole():
    """Return whether git has every commit here: a shallow clone or an archive lacks some."""
    return run_git("rev-parse", "--is-shallow-repository") == "false\n"


def parse_meaning(text, path):
    """Return what of a file decides how it runs: of Python neither comments nor docstrings."""
    if text is None or Path(path).suffix != ".py":
        return text
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value = ast.Constant(None)
    return ast.dump(tree)


def list_changed_files(commit, paths):
    """Return the files under paths that now run otherwise than at a commit."""
    listed = run_git("diff", "--name-only", "-z", "--no-renames", commit, "--", *paths)
    return [
        path
        for path in listed.split("\0")[:-1]
        if parse_meaning(run_git("show", f"{commit}:{path}"), path)
        != parse_meaning(_read_now(path), path)
    ]


def _read_now(path):
    file = ROOT / path
    return file.read_text(encoding="utf-8") if file.is_file() else None
