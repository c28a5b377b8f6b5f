"""Comparisons in processes of their own: started at once, limited, left, cancelled, forgotten."""

import subprocess
import sys
import time

import pytest

from rollout.engine.decide.permissions import Caller
from rollout.features.what_if.comparison import compare_policies
from rollout.features.what_if.runs import (
    BROKEN_TEXT,
    COMMAND,
    MEMORY_TEXT,
    WhatIfRequest,
    WhatIfRuns,
)
from rollout.kernel.errors import RefusalError
from rollout.live.work.user_runs import LONG_LIFETIME, MEMORY_LIMIT, NICENESS
from tests.factories import DAY
from tests.features.what_if.test_closed_cases import DRAFT, ENDED, ENGINEER, lived, load

__all__ = ["lived"]
pytestmark = pytest.mark.parametrize("url", ["sqlite"], indirect=True)

REQUEST = WhatIfRequest("bear-alarm", DRAFT)
ENDLESS = (sys.executable, "-c", "import sys; sys.stdin.read()")
OTHERS = [Caller(name) for name in ("bo", "cy")]


@pytest.fixture
def make_runs(database):
    made = []

    def make(command=ENDLESS):
        made.append(WhatIfRuns(database, command))
        return made[-1]

    yield make
    for runs in made:
        runs.close()


def wait_for(run):
    give_up = time.monotonic() + 400  # at low priority, beside tests that fill the machine
    while run.is_running and time.monotonic() < give_up:
        time.sleep(0.05)
    assert not run.is_running


def wait_until(is_true):
    give_up = time.monotonic() + 60
    while not is_true() and time.monotonic() < give_up:
        time.sleep(0.02)
    assert is_true()


@pytest.mark.slow
def test_a_run_gives_what_the_comparison_gives_in_this_process(lived, make_runs):
    runs = make_runs(COMMAND)
    run = runs.compare(ENGINEER, REQUEST, at=ENDED)
    wait_for(run)
    assert run.error == ""
    assert run.result == compare_policies(load(lived))
    assert (run.done, run.total) == (23, 24), "the last replay of 22 and two changes was begun"
    assert runs.find_comparison("eve", "bear-alarm", at=ENDED + DAY) is run
    assert runs.find_comparison("eve", "other", at=ENDED) is None
    assert runs.find_comparison("bo", "bear-alarm", at=ENDED) is None, "a run is its user's own"
    assert runs.find_comparison("eve", "bear-alarm", at=ENDED + LONG_LIFETIME) is None
    elsewhere = make_runs().find_comparison("eve", "bear-alarm", at=ENDED + DAY)
    assert (elsewhere.subject, elsewhere.started_at) == (REQUEST, ENDED)
    assert elsewhere.result == run.result
    assert not elsewhere.is_running


@pytest.mark.slow
def test_a_run_that_cant_be_made_fails_with_a_sentence(lived, make_runs):
    run = make_runs(COMMAND).compare(ENGINEER, WhatIfRequest("bear-alarm", DRAFT, 31), at=ENDED)
    wait_for(run)
    assert run.error == "31 days are no span of a comparison; write 30 or 90"
    broken = make_runs((sys.executable, "-c", "")).compare(ENGINEER, REQUEST, at=ENDED)
    wait_for(broken)
    assert broken.error == BROKEN_TEXT


def test_one_run_a_user_and_two_at_work_and_starting_waits_for_none(database, make_runs):
    """These processes never end, so a start that waited for one would never return."""
    runs = make_runs()
    first = runs.compare(ENGINEER, REQUEST, at=ENDED)
    with pytest.raises(RefusalError, match=r"a run of yours .*`rollout what-if bear-alarm draft"):
        runs.compare(ENGINEER, REQUEST, at=ENDED)
    second, third = (runs.compare(other, REQUEST, at=ENDED) for other in OTHERS)
    assert third.runs_before == 2
    wait_until(lambda: first.process and second.process)
    runs.cancel("eve")
    assert first.process.wait(60) != 0
    assert runs.find_comparison("eve", "bear-alarm", at=ENDED) is None
    wait_for(first)
    wait_until(lambda: third.process)
    assert third.runs_before == 0


def test_a_run_that_is_cancelled_while_it_waits_never_begins(database, make_runs):
    runs = make_runs()
    others = [runs.compare(other, REQUEST, at=ENDED) for other in OTHERS]
    waiting = runs.compare(ENGINEER, REQUEST, at=ENDED)
    runs.cancel("eve")
    assert not waiting.is_running
    for run in others:
        runs.cancel(run.user)
        wait_for(run)
    assert waiting.process is None


@pytest.mark.slow
def test_the_process_ends_with_its_parent(database):
    with subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdin.close()  # as if the parent had been killed
        assert process.wait(120) != 0


LIMITED = """
import os, resource
from rollout.live.work.user_runs import limit_process
from rollout.features.what_if import runs
before = os.nice(0)
limit_process(runs.TIME_LIMIT)
print(os.nice(0) - before, resource.getrlimit(resource.RLIMIT_DATA)[0])
runs.load_what_if_inputs = lambda *_, **__: bytearray(2 ** 31)
values = {"caller": {"name": "eve"}, "request": {"rollout": "r", "draft_text": ""},
          "database": "sqlite:///none.db", "at": "2026-01-01T00:00Z"}
print(runs.compare_requested(values)["error"])
"""


@pytest.mark.slow
def test_the_process_has_low_priority_and_at_most_one_gibibyte(database):
    result = subprocess.run(
        (sys.executable, "-c", LIMITED), capture_output=True, text=True, check=True
    )
    assert result.stdout.splitlines() == [f"{NICENESS} {MEMORY_LIMIT}", MEMORY_TEXT]
