"""Runs in threads: a request forgets its own run alone."""

from datetime import UTC, datetime, timedelta
from gc import collect
from threading import Event, Thread
from weakref import ref

import pytest

from rollout.core.errors import RefusalError
from rollout.services.support.user_runs import BROKEN_TEXT, UserRuns

NOON = datetime(2027, 6, 1, 12, tzinfo=UTC)


def test_a_run_that_replaced_another_one_is_not_forgotten_with_it():
    runs = UserRuns()
    first = runs.start("ana", "a report", lambda _: "first", at=NOON)
    assert first.wait(10)
    second = runs.start("ana", "another report", lambda _: "second", at=NOON)  # in another tab
    runs.forget("ana", first)
    assert runs.find("ana", at=NOON) is second
    assert second.wait(10)
    runs.forget("ana", second)
    assert runs.find("ana", at=NOON) is None


def test_a_replica_works_on_two_runs_and_the_others_wait_in_order():
    runs, may_end, begun = UserRuns(), Event(), []

    def hold(name):
        def work(_):
            begun.append(name)
            return may_end.wait(10)

        return work

    names = ("ana", "bo", "cleo", "dan")
    started = [runs.start(name, f"of {name}", hold(name), at=NOON) for name in names]
    assert [run.runs_before for run in started] == [0, 0, 2, 3]
    assert runs.find("cleo", at=NOON).is_running
    assert set(begun) <= {"ana", "bo"}
    may_end.set()
    assert all(run.wait(10) for run in started)
    assert (set(begun[:2]), set(begun)) == ({"ana", "bo"}, set(names))
    assert [run.runs_before for run in started] == [0, 0, 0, 0]
    again = runs.start("ana", "another", lambda _: "done", at=NOON)
    assert again.wait(10)  # a place is free again
    assert again.result == "done"


def test_runs_whose_thread_has_not_begun_are_not_counted_twice(monkeypatch):
    threads, runs = [], UserRuns()
    with monkeypatch.context() as patched:
        patched.setattr(Thread, "start", lambda thread: threads.append(thread))  # noqa: PLW0108 - a builtin binds no self
        names = ("ana", "bo", "cleo", "dan")
        started = [runs.start(name, "a report", lambda _: 1, at=NOON) for name in names]
        assert [run.runs_before for run in started] == [0, 0, 2, 3]
    for thread in threads:
        thread.start()
    assert all(run.wait(10) for run in started)


def test_a_subject_is_not_started_twice_and_is_forgotten_in_time():
    runs = UserRuns(timedelta(minutes=15))
    first = runs.find_or_start("ana", "a cause", lambda _: 1, at=NOON)
    assert first.wait(10)
    assert runs.find_or_start("ana", "a cause", lambda _: 2, at=NOON) is first
    later = runs.find_or_start("ana", "a cause", lambda _: 3, at=NOON + timedelta(minutes=15))
    assert later.wait(10)
    assert later.result == 3


class PanicError(BaseException):
    """Stands for a panic of polars, which is no `Exception`."""


def panic(_):
    raise PanicError("the inside")


def test_a_panic_is_a_failure_and_frees_its_place():
    runs = UserRuns()
    for name in ("ana", "bo", "cleo"):
        run = runs.start(name, "a report", panic, at=NOON)
        assert run.wait(10)
        assert run.error == BROKEN_TEXT.format("PanicError")
        assert isinstance(run.failure, Exception)  # which a page can answer
    run = runs.start("dan", "a report", lambda _: "made", at=NOON)
    assert run.wait(10)
    assert run.result == "made"


def test_a_run_that_gets_no_thread_is_not_left_behind(monkeypatch):
    def refuse(_):
        raise RuntimeError("can't start new thread")

    runs = UserRuns()
    with monkeypatch.context() as patched:
        patched.setattr(Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="new thread"):
            runs.start("ana", "a report", lambda _: "first", at=NOON)
    assert runs.find("ana", at=NOON) is None
    run = runs.start("ana", "a report", lambda _: "second", at=NOON)
    assert run.wait(10)
    assert run.result == "second"


def test_a_failure_is_logged_and_keeps_nothing_of_what_it_read(caplog):
    class Records:
        """Stands for much memory."""

    seen = []

    def work(_):
        records = Records()
        seen.append(ref(records))
        raise ValueError("the inside")

    runs = UserRuns()
    run = runs.start("ana", "a report", work, at=NOON)
    assert run.wait(10)
    collect()
    assert seen[0]() is None
    (record,) = caplog.records
    assert record.exc_info[1] is run.failure  # nobody may come back for it
    assert "in work" in caplog.text
    caplog.clear()
    run = runs.start("ana", "a report", refuse_with_sentence, at=NOON)
    assert run.wait(10)
    assert (run.error, caplog.records) == ("no", [])


def refuse_with_sentence(_):
    raise RefusalError("no")
