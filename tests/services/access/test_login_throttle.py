"""Failed tries: waits grow to an end, are forgotten, and never fill the memory."""

import pytest

from rollout.core.errors import TooManyAttemptsError
from rollout.services.access import login_throttle
from rollout.services.access.login_throttle import MAX_WAIT, RESET_AFTER, LoginThrottle


def waits(counted, key, now):
    try:
        counted.check_allowed(key, now=now)
    except TooManyAttemptsError:
        return True
    return False


@pytest.fixture
def counted():
    made = LoginThrottle(free_attempts=2)
    for _ in range(2):
        made.record_failure("bo", now=0.0)
    return made


def test_a_wait_ends_by_itself_however_often_it_failed(counted):
    assert waits(counted, "bo", 0.9)
    assert not waits(counted, "bo", 1.0)
    for _ in range(5_000):
        counted.record_failure("bo", now=0.0)
    assert waits(counted, "bo", MAX_WAIT - 0.1)
    assert not waits(counted, "bo", MAX_WAIT)


def test_only_who_failed_waits_and_who_came_in_does_not(counted):
    assert not waits(counted, "ada", 0.0)
    counted.reset("bo")
    assert not waits(counted, "bo", 0.0)


def test_failures_of_long_ago_count_no_more(counted):
    counted.record_failure("bo", now=RESET_AFTER + 1)
    assert not waits(counted, "bo", RESET_AFTER + 1)


def test_made_up_names_do_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr(login_throttle, "MAX_KEYS", 10)
    counted = LoginThrottle(free_attempts=1)
    for number in range(11):
        counted.record_failure(f"p{number}", now=0.0)
    assert len(counted._failures) == 10
    assert waits(counted, "p10", 0.0)
    assert not waits(counted, "p0", 0.0)
