"""A result of a long run that is older than the code it covers is run anew, or said to be stale."""

import ast
import shutil
import subprocess
from datetime import date
from pathlib import Path

import pytest

from tests.parts import long_runs

ROOT = Path(__file__).parents[2]
RUNS = long_runs()
FIELDS = {"name", "command", "date", "commit", "outcome", "covers"}


def git(*words):
    """Return what git prints; skip where it can't say."""
    program = shutil.which("git")
    if program is None:
        pytest.skip("git is not installed: whether long runs are older than the code is not known")
    done = subprocess.run([program, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else None


def meaning(text, path):
    """Return what of a file decides how it runs: of Python neither comments nor docstrings."""
    if text is None or Path(path).suffix != ".py":
        return text
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value = ast.Constant(None)
    return ast.dump(tree)


def changed_since(commit, paths):
    """Return the files under paths that now run otherwise than at a commit."""
    listed = git("diff", "--name-only", "-z", "--no-renames", commit, "--", *paths)
    return [
        path
        for path in listed.split("\0")[:-1]
        if meaning(git("show", f"{commit}:{path}"), path) != meaning(now(path), path)
    ]


def now(path):
    file = ROOT / path
    return file.read_text(encoding="utf-8") if file.is_file() else None


@pytest.fixture(params=RUNS, ids=[run["name"] for run in RUNS])
def run(request):
    return request.param


def test_a_long_run_says_when_how_and_of_what_it_was(run):
    assert FIELDS <= run.keys() <= FIELDS | {"stale"}
    assert isinstance(run["date"], date)
    assert all((ROOT / path).exists() for path in run["covers"])


def test_a_long_run_is_as_new_as_the_code_that_it_covers(run):
    if git("cat-file", "-e", f"{run['commit']}^{{commit}}") is None:
        pytest.skip(f"no history here back to {run['commit']}, the commit of: {run['name']}")
    if "stale" in run:
        assert run["stale"].strip()  # the table of parts prints it
        return
    changed = changed_since(run["commit"], run["covers"])
    assert not changed, (
        f"{run['name']} ran on {run['commit']}; {len(changed)} files that it covers have changed "
        f"since: {', '.join(changed[:5])}. Run `{run['command']}` and write its result into "
        "docs/long-runs.toml, or say there under `stale` why not."
    )


def test_comments_and_docstrings_make_no_run_older():
    old = '"""Say a."""\n\ndef f(x):\n    """Do."""\n    return x  # why\n'
    new = '"""Return b."""\ndef f(x):\n    """Make."""\n    return x\n'
    assert meaning(old, "a.py") == meaning(new, "a.py")
    assert meaning(old, "a.py") != meaning(new.replace("return x", "return -x"), "a.py")
    assert meaning(old, "a.sql") != meaning(new, "a.sql")
    assert meaning(None, "a.py") is None


def test_a_change_of_what_runs_is_found():
    first = (git("rev-list", "--max-parents=0", "HEAD") or "").split()
    if not first or git("rev-parse", "--is-shallow-repository") == "true\n":
        pytest.skip("no history here")
    assert "Makefile" in changed_since(first[0], ["Makefile"])
