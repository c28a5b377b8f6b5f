"""Work in processes: its result, its errors as in this process, and few at once."""

import signal
import sys
import time
from threading import Event, Thread

import pytest

from rollout.data.database.append_failures import DatabaseBusyError
from rollout.kernel.errors import RefusalError, StaleRevisionError
from rollout.live.work import user_runs
from rollout.live.work.user_runs import (
    MAX_WAITING,
    MAX_WORKING,
    ProcessFailedError,
    ProcessWork,
    WorkBusyError,
)

WORKER = """
import json, os
from rollout.kernel.errors import *
from rollout.data.database.append_failures import *
from rollout.live.work.user_runs import answer_parent, build_answer, report_step

def answer(values):
    report_step("one", 0, 1)
    return build_answer(lambda: eval(values["code"], globals()), "no memory")

def fail(error):
    raise error

answer_parent(answer)
"""
COMMAND = (sys.executable, "-P", "-c", WORKER)


@pytest.fixture
def work():
    return ProcessWork(COMMAND)


@pytest.mark.slow
def test_a_result_and_the_steps_before_it_come_back(work):
    steps = []
    assert work.run({"code": "{'a': (1, None)}"}, lambda *step: steps.append(step)) == {
        "a": [1, None]
    }
    assert steps == [("one", 0, 1)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [RefusalError, StaleRevisionError, DatabaseBusyError])
def test_refusals_and_failures_of_the_database_are_raised_here(work, kind):
    with pytest.raises(kind, match="why it was") as raised:
        work.run({"code": f"fail({kind.__name__}('why it was'))"})
    assert type(raised.value) is kind
    assert raised.value.code == kind.code


@pytest.mark.slow
def test_other_errors_are_one_kind_with_the_traceback_in_a_note(work):
    with pytest.raises(ProcessFailedError, match="ZeroDivisionError") as raised:
        work.run({"code": "1 / 0"})
    assert "Traceback" in "".join(raised.value.__notes__)


@pytest.mark.slow
def test_a_panic_of_polars_is_told_with_its_traceback(work):
    """It is no `Exception`, so that a usual `except` misses it."""
    code = "fail(__import__('polars').exceptions.PanicException('boom'))"
    with pytest.raises(ProcessFailedError, match="PanicException") as raised:
        work.run({"code": code})
    assert "boom" in "".join(raised.value.__notes__)


@pytest.mark.slow
def test_work_that_needs_too_much_memory_is_refused_with_what_to_do(work):
    with pytest.raises(RefusalError, match="no memory"):
        work.run({"code": "fail(MemoryError())"})


@pytest.mark.slow
def test_other_lines_on_the_output_spoil_no_answer(work):
    lines = [b"loading \xff", b"[1]", b"{}", b"7"]
    code = f"[os.write(1, line + b'\\n') for line in {lines!r}]"
    assert work.run({"code": code}) == [len(line) + 1 for line in lines]


@pytest.mark.slow
def test_what_a_process_writes_to_its_standard_error_is_in_the_log_of_the_service(capfd):
    with pytest.raises(ProcessFailedError):
        ProcessWork((sys.executable, "-c", "import sys; sys.exit('a package is missing')")).run({})
    assert "a package is missing" in capfd.readouterr().err


@pytest.mark.slow
def test_a_process_that_is_killed_fails_with_how_it_ended(work):
    with pytest.raises(ProcessFailedError, match=r"ended without an answer \(-9\)"):
        work.run({"code": "os.kill(os.getpid(), 9)"})


@pytest.mark.slow
def test_a_stop_of_the_service_ends_no_work(work):
    """Ctrl-C and service managers signal all processes; the parent waits for what it began."""
    stops = "import os; [os.kill(os.getpid(), number) for number in (2, 15)]"
    while_it_imports = ProcessWork((sys.executable, "-P", "-c", stops + WORKER))
    assert while_it_imports.run({"code": "1"}) == 1
    assert work.run({"code": stops.removeprefix("import os; ")}) == [None, None]


@pytest.mark.slow
def test_the_start_of_a_process_leaves_signals_to_this_one(work):
    assert work.run({"code": "1"}) == 1
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())


@pytest.mark.slow
def test_a_callback_that_fails_ends_the_process_and_frees_its_place(work):
    def fail(*_step):
        raise KeyboardInterrupt

    for _ in range(MAX_WORKING + 1):
        with pytest.raises(KeyboardInterrupt):
            work.run({"code": "__import__('time').sleep(600)"}, fail)


@pytest.mark.slow
def test_few_processes_work_at_once_and_others_wait(tmp_path):
    """Each process notes how many are at work."""
    work = ProcessWork(COMMAND)
    folder = str(tmp_path)
    code = (
        f"(open(os.path.join({folder!r}, str(os.getpid())), 'w').close(),"
        f" __import__('time').sleep(0.3), len(os.listdir({folder!r})),"
        f" os.remove(os.path.join({folder!r}, str(os.getpid()))))[2]"
    )
    counts = []
    threads = [Thread(target=lambda: counts.append(work.run({"code": code}))) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(counts) == 5
    assert max(counts) <= MAX_WORKING


@pytest.fixture
def held_work(monkeypatch):
    """Work whose processes take until an event, in threads of this process."""
    may_end = Event()

    def follow(_process, values, read_message, _longest_seconds):
        may_end.wait(60)
        read_message({"result": values})

    monkeypatch.setattr(user_runs, "start_process", lambda _command: None)
    monkeypatch.setattr(user_runs, "follow_process", follow)
    yield ProcessWork(()), may_end
    may_end.set()


def start_callers(work, count):
    results = []
    threads = [
        Thread(target=lambda number=number: results.append(work.run(number)))
        for number in range(count)
    ]
    for thread in threads:
        thread.start()
    return threads, results


def wait_until(condition):
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it didn't come to pass")


def test_callers_beyond_the_places_to_wait_are_refused_at_once(held_work):
    """Each caller holds a thread, and other requests of the replica need some."""
    work, may_end = held_work
    threads, results = start_callers(work, MAX_WORKING + MAX_WAITING)
    wait_until(lambda: work._callers._value == 0)
    for _ in range(3):
        with pytest.raises(WorkBusyError, match="try again in a moment"):
            work.run({})
    may_end.set()
    for thread in threads:
        thread.join()
    assert sorted(results) == list(range(MAX_WORKING + MAX_WAITING))
    assert work.run("next") == "next"
