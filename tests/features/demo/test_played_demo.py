"""How `rollout demo` starts an example, without playing it."""

import gc
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from rollout.cli.main import app
from rollout.features.demo import story

NO_TERMINAL = """
import sys
from rollout.terminal.remote import show_progress
with show_progress() as report_progress:
    report_progress("replaying", 1, 2)
print(any(name.startswith("rich") for name in sys.modules))
"""


@pytest.mark.parametrize(("given", "used"), [(None, "1"), ("2", "2")])
@pytest.mark.parametrize("error", [None, OSError("no space left on device")])
def test_an_example_plays_on_one_thread_and_without_collections(
    monkeypatch, tmp_path, error, given, used
):
    """Threads waited for frames of some thousand rows, and collections found nothing to free."""
    found = []

    def play(*_):
        found.append((gc.isenabled(), os.environ["POLARS_MAX_THREADS"]))
        if error:
            raise error
        return "story", {"report.html": b"report"}

    monkeypatch.setattr(story, "play_example", play)
    monkeypatch.setenv("POLARS_MAX_THREADS", given or "")
    if given is None:
        monkeypatch.delenv("POLARS_MAX_THREADS")
    run = CliRunner().invoke(app, ["demo", "bears", "--out", str(tmp_path / "out")])
    assert found == [(False, used)]
    assert gc.isenabled()
    assert run.exit_code == (2 if error else 0)


def test_rich_is_imported_for_a_terminal_alone():
    run = subprocess.run(
        [sys.executable, "-c", NO_TERMINAL], capture_output=True, text=True, check=True
    )
    assert run.stdout == "False\n"
