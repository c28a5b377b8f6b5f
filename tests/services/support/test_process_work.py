"""Work in processes: its result, its errors as in this process, and few at once."""

import sys
from threading import Thread

import pytest

from rollout.core.errors import RefusalError, StaleRevisionError
from rollout.services.support.process_work import ProcessFailedError, ProcessWork
from rollout.services.support.user_runs import MAX_WORKING
from rollout.store.database.errors import DatabaseBusyError

WORKER = """
import json, os
from rollout.core.errors import *
from rollout.store.database.errors import *
from rollout.services.support.limited_process import answer_parent, build_answer, report_step

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
    with pytest.raises(ProcessFailedError, match="no memory"):
        work.run({"code": "fail(MemoryError())"})


@pytest.mark.slow
def test_a_process_that_is_killed_fails_with_how_it_ended(work):
    with pytest.raises(ProcessFailedError, match=r"ended without an answer \(-9\)"):
        work.run({"code": "os.kill(os.getpid(), 9)"})


@pytest.mark.slow
def test_a_stop_of_the_service_ends_no_work(work):
    """Ctrl-C and service managers signal all processes; the parent waits for what it began."""
    code = "[os.kill(os.getpid(), number) for number in (2, 15)]"
    assert work.run({"code": code}) == [None, None]


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
