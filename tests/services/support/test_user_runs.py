"""Runs in threads: a request forgets its own run alone."""

from datetime import UTC, datetime

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
