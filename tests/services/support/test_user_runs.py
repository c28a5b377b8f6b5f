"""Runs in threads: a request forgets its own run alone."""

from datetime import UTC, datetime, timedelta
from threading import Event

from rollout.services.support.user_runs import UserRuns

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


def test_a_subject_is_not_started_twice_and_is_forgotten_in_time():
    runs = UserRuns(timedelta(minutes=15))
    first = runs.find_or_start("ana", "a cause", lambda _: 1, at=NOON)
    assert first.wait(10)
    assert runs.find_or_start("ana", "a cause", lambda _: 2, at=NOON) is first
    later = runs.find_or_start("ana", "a cause", lambda _: 3, at=NOON + timedelta(minutes=15))
    assert later.wait(10)
    assert later.result == 3
