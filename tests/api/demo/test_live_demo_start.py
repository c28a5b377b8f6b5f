"""A second process builds the live demo's history while the first one imports the service."""

import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from inspect import getsource

import pytest

from api.demo import start
from rollout.features.demo import stage
from rollout.features.demo.catalog import HISTORY_PREFIX, find_example, find_history_folders
from rollout.features.demo.recorded_cases import load_cases
from rollout.features.demo.stage import (
    build_case_records,
    compute_fingerprint,
    prepare_history,
)


class Process:
    """A started process that runs until it is told to end."""

    def __init__(self, command, **_):
        self.command, self.told = command, []

    def poll(self):
        return None if "terminate" not in self.told else -15

    def terminate(self):
        self.told.append("terminate")

    def wait(self, _=None):
        self.told.append("wait")


@pytest.fixture
def started(monkeypatch):
    """Return the processes that are started, none of them real."""
    processes = []

    def note(command, **options):
        processes.append(Process(command, **options))
        return processes[-1]

    monkeypatch.setattr(subprocess, "Popen", note)
    return processes


def test_a_missing_history_is_built_ahead_and_waited_for(tmp_path, started, capsys):
    with start.build_ahead(tmp_path, "patrol") as wait:
        wait()
    (process,) = started
    assert process.command == [sys.executable, "-m", start.MODULE, str(tmp_path), "patrol"]
    assert process.told[0] == "wait"
    assert capsys.readouterr().out.strip() == start.PREPARING


def test_the_builder_ends_with_whoever_started_it(tmp_path, started):
    with pytest.raises(KeyboardInterrupt), start.build_ahead(tmp_path, "patrol"):
        raise KeyboardInterrupt
    assert started[0].told == ["terminate", "wait"]


def test_with_a_history_of_the_example_nothing_is_started(tmp_path, started):
    (tmp_path / f"{HISTORY_PREFIX}patrol-0123").mkdir()
    with start.build_ahead(tmp_path, "patrol") as wait:
        wait()
    assert started == []
    with start.build_ahead(tmp_path, "bears"):
        assert len(started) == 1


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT], ids=["killed", "ctrl-c"])
def test_after_a_build_that_was_ended_the_next_one_is_complete(tmp_path, end):
    command = [sys.executable, "-m", start.MODULE, str(tmp_path), "patrol"]
    builder = subprocess.Popen(command)
    while not list(tmp_path.glob(f"{stage.UNFINISHED_PREFIX}*/*")):
        assert builder.poll() is None
        time.sleep(0.01)
    builder.send_signal(end)
    assert builder.wait() != 0
    assert find_history_folders(tmp_path, "patrol") == []
    subprocess.run(command, check=True)
    (folder,) = find_history_folders(tmp_path, "patrol")
    history = stage.PreparedHistory(folder)
    assert history.is_complete
    with closing(sqlite3.connect(folder / stage.DATABASE_FILE)) as connection:
        assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]
        assert connection.execute("select count(*) from cases").fetchone()[0] > 1000


@pytest.mark.exhaustive
def test_what_the_second_process_builds_is_what_the_first_one_plays(tmp_path):
    with start.build_ahead(tmp_path, "patrol") as wait:
        wait()
    example, built_anew = find_example("patrol"), []
    records, cases = build_case_records(example), load_cases(example)
    history = prepare_history(tmp_path, example, records, cases, lambda: built_anew.append(1))
    assert history.is_complete
    assert built_anew == []


@pytest.mark.parametrize("module", ["accounts", "recorded_cases", "simulated_cases", "stage"])
def test_a_history_of_another_program_has_another_name(monkeypatch, module):
    def read_changed_source(each):
        source = getsource(each)
        return source + "# changed" if each.__name__.endswith(f".{module}") else source

    patrol = find_example("patrol")
    before = compute_fingerprint(patrol)
    monkeypatch.setattr(stage, "getsource", read_changed_source)
    assert before != compute_fingerprint(patrol)
