"""Failed tries: waits grow to an end, are forgotten, and never fill the memory."""

import pytest

from rollout.features.access import sign_in
from rollout.features.access.sign_in import MAX_WAIT, RESET_AFTER, LoginThrottle, SignInLimits
from rollout.kernel.errors import TooManyAttemptsError, UnauthenticatedError
from rollout.live.clock import ManualClock
from tests.factories import NOON


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
    monkeypatch.setattr(sign_in, "MAX_KEYS", 10)
    counted = LoginThrottle(free_attempts=1)
    for number in range(11):
        counted.record_failure(f"p{number}", now=0.0)
    assert len(counted._failures) == 10
    assert waits(counted, "p10", 0.0)
    assert not waits(counted, "p0", 0.0)


def fail(limits, name, address, *, known=False):
    with (
        pytest.raises(UnauthenticatedError),
        limits.count_attempt(name, address, is_known_address=known),
    ):
        raise UnauthenticatedError("wrong")


def test_an_attack_from_many_addresses_slows_only_addresses_the_account_never_used():
    limits = SignInLimits(ManualClock(NOON))
    for number in range(10):
        fail(limits, "bo", f"10.0.0.{number}")
    with (
        pytest.raises(TooManyAttemptsError),
        limits.count_attempt("bo", "10.0.1.1", is_known_address=False),
    ):
        pass
    for name, address, known in (("bo", "10.0.1.1", True), ("cy", "10.0.1.1", False)):
        with limits.count_attempt(name, address, is_known_address=known):
            pass


def test_wrong_passwords_from_elsewhere_do_not_keep_an_account_out_of_a_new_address():
    limits = SignInLimits(ManualClock(NOON))
    for _ in range(5):
        fail(limits, "bo", "10.0.0.1")
    with limits.count_attempt("bo", "10.0.1.1", is_known_address=False):
        pass


def test_all_addresses_of_an_ipv6_network_are_one_attacker():
    limits = SignInLimits(ManualClock(NOON))
    for number in range(5):
        fail(limits, "bo", f"2001:db8::{number}")
    with (
        pytest.raises(TooManyAttemptsError),
        limits.count_attempt("bo", "2001:db8::ffff", is_known_address=True),
    ):
        pass
    with limits.count_attempt("bo", "2001:db8:0:1::1", is_known_address=True):
        pass
