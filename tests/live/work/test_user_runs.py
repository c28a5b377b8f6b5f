"""Runs in threads: a request forgets its own run alone."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from gc import collect
from threading import Event, Thread
from weakref import ref

import pytest

from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.kernel.errors import RefusalError
from rollout.live.work.user_runs import BROKEN_TEXT, UserRuns

NOON = datetime(2027, 6, 1, 12, tzinfo=UTC)


def test_a_run_that_replaced_another_one_is_not_forgotten_with_it():
    runs = UserRuns()
    first = runs.start(Caller("ana"), "a report", lambda _: "first", at=NOON)
    assert first.wait(10)
    second = runs.start(
        Caller("ana"), "another report", lambda _: "second", at=NOON
    )  # in another tab
    runs.forget(first)
    assert runs.find(Caller("ana"), at=NOON) is second
    assert second.wait(10)
    runs.forget(second)
    assert runs.find(Caller("ana"), at=NOON) is None


def test_a_replica_works_on_two_runs_and_the_others_wait_in_order():
    runs, may_end, begun = UserRuns(), Event(), []

    def hold(name):
        def work(_):
            begun.append(name)
            return may_end.wait(10)

        return work

    names = ("ana", "bo", "cleo", "dan")
    started = [runs.start(Caller(name), f"of {name}", hold(name), at=NOON) for name in names]
    assert [run.runs_before for run in started] == [0, 0, 2, 3]
    assert runs.find(Caller("cleo"), at=NOON).is_running
    assert set(begun) <= {"ana", "bo"}
    may_end.set()
    assert all(run.wait(10) for run in started)
    assert (set(begun[:2]), set(begun)) == ({"ana", "bo"}, set(names))
    assert [run.runs_before for run in started] == [0, 0, 0, 0]
    again = runs.start(Caller("ana"), "another", lambda _: "done", at=NOON)
    assert again.wait(10)  # a place is free again
    assert again.result == "done"


def test_runs_whose_thread_has_not_begun_are_not_counted_twice(monkeypatch):
    threads, runs = [], UserRuns()
    with monkeypatch.context() as patched:
        patched.setattr(Thread, "start", lambda thread: threads.append(thread))  # noqa: PLW0108 - a builtin binds no self
        names = ("ana", "bo", "cleo", "dan")
        started = [runs.start(Caller(name), "a report", lambda _: 1, at=NOON) for name in names]
        assert [run.runs_before for run in started] == [0, 0, 2, 3]
    for thread in threads:
        thread.start()
    assert all(run.wait(10) for run in started)


def test_a_subject_is_not_started_twice_and_is_forgotten_in_time():
    runs = UserRuns(timedelta(minutes=15))
    first = runs.find_or_start(Caller("ana"), "a cause", lambda _: 1, at=NOON)
    assert first.wait(10)
    assert runs.find_or_start(Caller("ana"), "a cause", lambda _: 2, at=NOON) is first
    later = runs.find_or_start(
        Caller("ana"), "a cause", lambda _: 3, at=NOON + timedelta(minutes=15)
    )
    assert later.wait(10)
    assert later.result == 3


class PanicError(BaseException):
    """Stands for a panic of polars, which is no `Exception`."""


def panic(_):
    raise PanicError("the inside")


def test_a_panic_is_a_failure_and_frees_its_place():
    runs = UserRuns()
    for name in ("ana", "bo", "cleo"):
        run = runs.start(Caller(name), "a report", panic, at=NOON)
        assert run.wait(10)
        assert run.error == BROKEN_TEXT.format("PanicError")
        assert isinstance(run.failure, Exception)  # which a page can answer
    run = runs.start(Caller("dan"), "a report", lambda _: "made", at=NOON)
    assert run.wait(10)
    assert run.result == "made"


def test_a_run_that_gets_no_thread_is_not_left_behind(monkeypatch):
    def refuse(_):
        raise RuntimeError("can't start new thread")

    runs = UserRuns()
    with monkeypatch.context() as patched:
        patched.setattr(Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="new thread"):
            runs.start(Caller("ana"), "a report", lambda _: "first", at=NOON)
    assert runs.find(Caller("ana"), at=NOON) is None
    run = runs.start(Caller("ana"), "a report", lambda _: "second", at=NOON)
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
    run = runs.start(Caller("ana"), "a report", work, at=NOON)
    assert run.wait(10)
    collect()
    assert seen[0]() is None
    (record,) = caplog.records
    assert record.exc_info[1] is run.failure  # nobody may come back for it
    assert "in work" in caplog.text
    caplog.clear()
    run = runs.start(Caller("ana"), "a report", refuse_with_sentence, at=NOON)
    assert run.wait(10)
    assert (run.error, caplog.records) == ("no", [])


def refuse_with_sentence(_):
    raise RefusalError("no")


def test_who_has_other_roles_than_at_the_start_sees_no_result():
    ana = Caller("ana", role_assignments=(AssignedRole("viewer", "bears"),))
    reviewer = replace(ana, role_assignments=(AssignedRole("reviewer", "bears"),))
    signed_in_anew, head_moved = replace(ana, lacks_second_factor=True), replace(ana, access_head=9)
    for changed in (reviewer, signed_in_anew):
        runs = UserRuns()
        assert runs.start(ana, "a plan", lambda _: "with figures", at=NOON).wait(10)
        assert (
            runs.find(head_moved, at=NOON).result == "with figures"
        )  # another user's role moved it
        assert runs.find(changed, at=NOON) is None
        assert runs.find(ana, at=NOON) is None
    runs, may_end = UserRuns(), Event()
    first = runs.find_or_start(ana, "a cause", lambda _: may_end.wait(10), at=NOON)
    second = runs.find_or_start(reviewer, "a cause", lambda _: "theirs", at=NOON)
    assert second is not first
    may_end.set()
    assert second.wait(10)
    assert second.result == "theirs"


def test_windows_of_one_user_keep_their_results():
    runs, ana = UserRuns(max_runs=2), Caller("ana")
    first = runs.find_or_start(ana, "creek", lambda _: 1, at=NOON)
    assert first.wait(10)
    second = runs.find_or_start(ana, "lake", lambda _: 2, at=NOON)
    assert second.wait(10)
    assert runs.find_or_start(ana, "creek", lambda _: 3, at=NOON) is first
    assert runs.find_or_start(ana, "hill", lambda _: 4, at=NOON).wait(10)
    again = runs.find_or_start(ana, "creek", lambda _: 5, at=NOON)  # the oldest was replaced
    assert again.wait(10)
    assert again.result == 5
