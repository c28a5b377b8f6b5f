"""A result of a long run that is older than the code it covers is run anew, or said to be stale."""

from datetime import date
from pathlib import Path

import pytest

from tests.docs.code_age import (
    is_history_whole,
    is_in_history,
    list_changed_files,
    parse_meaning,
    run_git,
)
from tests.parts import long_runs

ROOT = Path(__file__).parents[2]
RUNS = long_runs()
FIELDS = {"name", "command", "date", "commit", "outcome", "covers"}


@pytest.fixture(params=RUNS, ids=[run["name"] for run in RUNS])
def run(request):
    return request.param


def test_a_long_run_says_when_how_and_of_what_it_was(run):
    assert FIELDS <= run.keys() <= FIELDS | {"stale"}
    assert isinstance(run["date"], date)
    assert all((ROOT / path).exists() for path in run["covers"])


def test_a_long_run_is_as_new_as_the_code_that_it_covers(run):
    if "stale" in run:
        assert run["stale"].strip()  # the table of parts prints it
        return
    if not is_in_history(run["commit"]):
        assert not is_history_whole(), f"{run['name']} ran on {run['commit']}, which is no commit"
        pytest.skip(f"no history here back to {run['commit']}, the commit of: {run['name']}")
    changed = list_changed_files(run["commit"], run["covers"])
    assert not changed, (
        f"{run['name']} ran on {run['commit']}; {len(changed)} files that it covers have changed "
        f"since: {', '.join(changed[:5])}. Run `{run['command']}` and write its result into "
        "docs/long-runs.toml, or say there under `stale` why not."
    )


def test_comments_and_docstrings_make_no_run_older():
    old = '"""Say a."""\n\ndef f(x):\n    """Do."""\n    return x  # why\n'
    new = '"""Return b."""\ndef f(x):\n    """Make."""\n    return x\n'
    assert parse_meaning(old, "a.py") == parse_meaning(new, "a.py")
    assert parse_meaning(old, "a.py") != parse_meaning(new.replace("return x", "return -x"), "a.py")
    assert parse_meaning(old, "a.sql") != parse_meaning(new, "a.sql")
    assert parse_meaning(None, "a.py") is None


def test_a_change_of_what_runs_is_found():
    first = (run_git("rev-list", "--max-parents=0", "HEAD") or "").split()
    if not first or not is_history_whole():
        pytest.skip("no history here")
    assert "Makefile" in list_changed_files(first[0], ["Makefile"])
