"""Who comes in: known from memory, confirmed within half a second, and out as quickly."""

from dataclasses import replace

import pytest

from rollout.data.access.tokens import AccessLedgerHead
from rollout.data.database.session import Database
from rollout.engine.decide.permissions import AssignedRole
from rollout.features.access import keys
from rollout.features.access.authentication import (
    MAX_CACHE_AGE,
    SESSION_IDLE_TIMEOUT,
    Authenticator,
)
from rollout.features.access.keys import write_token
from rollout.features.access.sign_in import SESSION_LIFETIME, SignIn
from rollout.features.access.users import (
    AccountUpdate,
    create_account,
    create_sign_in_link,
    update_account,
)
from rollout.kernel.errors import CrossSiteRequestError, UnauthenticatedError
from rollout.live.clock import ManualClock
from tests.factories import HOUR, MINUTE, NOON
from tests.features.access.test_sign_in import QUICK
from tests.features.houses import ADA, BO, PASSWORD, chain_of, chance, furnish


class Counting(Database):
    """A database that counts how often it was asked."""

    asked = 0

    def begin_read(self):
        self.asked += 1
        return super().begin_read()


@pytest.fixture
def clock():
    return ManualClock(NOON)


@pytest.fixture
def house(url):
    made = Counting(url)
    furnish(made)
    yield made
    made.close()


@pytest.fixture
def door(house, clock):
    return Authenticator(house, clock)


@pytest.fixture
def key(house):
    return keys.create_key(house, ADA, "bo", random_bytes=chance(), at=NOON)


@pytest.fixture
def signed_in(house, clock):
    signing = SignIn(house, clock, chance, QUICK)
    signing.set_password(ADA, "bo", PASSWORD, at=NOON)
    return signing.sign_in_with_password("bo", PASSWORD, address="a", at=NOON)


def test_a_key_is_its_holder_with_the_rights_of_a_revision(house, door, key):
    found = door.authenticate_key(key.text, NOON)
    assert (found.name, found.role_assignments) == ("bo", BO.role_assignments)
    assert found.access_head == len(chain_of(house))


def test_what_is_known_is_asked_from_memory_for_half_a_second(house, door, clock, key):
    assert door.find_cached_caller(key.text, NOON) is None
    door.authenticate_key(key.text, NOON)
    asked = house.asked
    for _ in range(100):
        door.authenticate_key(key.text, NOON)
    assert door.find_cached_caller(key.text, NOON).name == "bo"
    assert house.asked == asked
    clock.since_boot += MAX_CACHE_AGE
    assert door.find_cached_caller(key.text, NOON) is None
    door.authenticate_key(key.text, NOON)
    assert house.asked == asked + 1


def test_a_key_opens_the_door_as_soon_as_it_is_made(house, other, door, key):
    door.authenticate_key(key.text, NOON)
    made = keys.create_key(other, ADA, "box", random_bytes=chance(), at=NOON)
    assert door.find_cached_caller(made.text, NOON) is None
    assert door.authenticate_key(made.text, NOON).is_service_account
    asked = house.asked
    with pytest.raises(UnauthenticatedError):
        door.authenticate_key("ro_beef_beef", NOON)
    assert house.asked == asked + 1


def test_who_was_just_added_comes_in_at_once(other, door, clock, key):
    door.authenticate_key(key.text, NOON)
    create_account(other, ADA, "cy", at=NOON)
    signing = SignIn(other, clock, chance, QUICK)
    token = create_sign_in_link(other, ADA, "cy", at=NOON, secret=write_token(chance(32)))
    signed_in = signing.sign_in_with_link(token, PASSWORD, at=NOON, address="a")
    assert door.authenticate_session(signed_in.token, NOON).name == "cy"


def test_what_was_read_change_by_change_is_what_is_read_anew(house, other, door, clock, key):
    door.authenticate_key(key.text, NOON)
    create_account(other, ADA, "cy", at=NOON, role_assignments=(AssignedRole("viewer"),))
    more = [
        keys.create_key(other, ADA, n, random_bytes=chance(), at=NOON)
        for n in ("bo", "box", "cy", "cy")
    ]
    keys.revoke_key(other, ADA, more[3].prefix, at=NOON)
    update_account(other, ADA, "box", AccountUpdate(is_disabled=True), at=NOON)
    update_account(other, ADA, "bo", AccountUpdate(roles_to_revoke=BO.role_assignments), at=NOON)
    clock.since_boot += MAX_CACHE_AGE
    door.authenticate_key(key.text, NOON)
    anew = Authenticator(other, clock)
    anew.authenticate_key(key.text, NOON)
    assert door._register == anew._register
    assert set(door._register.keys) == {key.prefix, more[0].prefix, more[2].prefix}


def test_a_house_that_was_restored_from_a_backup_is_read_anew(house, door, clock, key):
    door.authenticate_key(key.text, NOON)
    now = door._register
    lost_callers = {number + 99: caller for number, caller in now.callers.items()}
    lost_keys = {f"{p}ff": replace(k, user_id=k.user_id + 99) for p, k in now.keys.items()}
    head = AccessLedgerHead(1, "another chain's")
    door._register = replace(now, head=head, callers=lost_callers, keys=lost_keys)
    clock.since_boot += MAX_CACHE_AGE
    assert door.authenticate_key(key.text, NOON).name == "bo"
    assert (door._register.callers, door._register.keys) == (now.callers, now.keys)


def test_a_key_has_the_second_factor_of_its_holder_alone(house, door):
    made = [
        keys.create_key(
            house, replace(by, second_factor="totp"), "bo", random_bytes=chance(), at=NOON
        )
        for by in (ADA, BO)
    ]
    assert [door.authenticate_key(k.text, NOON).second_factor for k in made] == ["", "totp"]


def test_one_answer_for_whatever_is_wrong_with_a_key(house, door, key):
    gone = keys.create_key(house, ADA, "box", random_bytes=chance(), at=NOON)
    keys.revoke_key(house, ADA, gone.prefix, at=NOON)
    wrong = key.text[:-1] + ("0" if key.text[-1] != "0" else "1")
    said = set()
    for text, at in (
        (wrong, NOON),
        (gone.text, NOON),
        (f"ro_{key.prefix}_", NOON),
        ("", NOON),
        ("ro_ff_" + "0" * 64, NOON),
        (key.text, key.expires_at),
    ):
        with pytest.raises(UnauthenticatedError) as refused:
            door.authenticate_key(text, at)
        said.add(str(refused.value))
    assert len(said) == 1


@pytest.mark.parametrize("what", ["revoked", "disabled", "right taken"])
def test_what_ends_elsewhere_ends_here_within_half_a_second(house, other, door, clock, key, what):
    door.authenticate_key(key.text, NOON)
    if what == "revoked":
        keys.revoke_key(other, ADA, key.prefix, at=NOON)
    else:
        change = (
            AccountUpdate(is_disabled=True)
            if what == "disabled"
            else AccountUpdate(roles_to_revoke=BO.role_assignments)
        )
        update_account(other, ADA, "bo", change, at=NOON)
    clock.since_boot += MAX_CACHE_AGE
    if what == "right taken":
        assert door.authenticate_key(key.text, NOON).role_assignments == ()
    else:
        with pytest.raises(UnauthenticatedError):
            door.authenticate_key(key.text, NOON)


def test_a_right_given_elsewhere_is_here_within_half_a_second(other, door, clock, key):
    door.authenticate_key(key.text, NOON)
    update_account(
        other, ADA, "bo", AccountUpdate(roles_to_grant=(AssignedRole("reviewer"),)), at=NOON
    )
    clock.since_boot += MAX_CACHE_AGE
    assert AssignedRole("reviewer") in door.authenticate_key(key.text, NOON).role_assignments


def test_a_session_is_who_signed_in(door, signed_in):
    assert door.authenticate_session(signed_in.token, NOON).name == "bo"
    for wrong in ("", "x", write_token(chance(32)), signed_in.csrf):
        with pytest.raises(UnauthenticatedError, match="sign in again"):
            door.authenticate_session(wrong, NOON)


def test_what_changes_something_brings_the_token_of_its_page(door, signed_in):
    door.authenticate_session(signed_in.token, NOON, csrf=signed_in.csrf)
    for wrong in ("", signed_in.token, write_token(chance(32))):
        with pytest.raises(CrossSiteRequestError, match="load the page again"):
            door.authenticate_session(signed_in.token, NOON, csrf=wrong)


def test_a_session_is_over_when_nobody_used_it_for_long(door, signed_in):
    for times in (1, 2, 3):
        last = NOON + times * (SESSION_IDLE_TIMEOUT - MINUTE)
        door.authenticate_session(signed_in.token, last)
    assert last + SESSION_IDLE_TIMEOUT < NOON + SESSION_LIFETIME
    with pytest.raises(UnauthenticatedError):
        door.authenticate_session(signed_in.token, last + SESSION_IDLE_TIMEOUT)


def test_a_session_is_over_after_its_time_however_much_it_is_used(door, signed_in):
    for hour in range(12):
        door.authenticate_session(signed_in.token, NOON + hour * HOUR)
    with pytest.raises(UnauthenticatedError):
        door.authenticate_session(signed_in.token, NOON + SESSION_LIFETIME)


def test_a_use_here_keeps_a_session_alive_on_another_replica(other, door, signed_in):
    there = Authenticator(other, ManualClock(NOON))
    at = NOON + SESSION_IDLE_TIMEOUT - MINUTE
    door.authenticate_session(signed_in.token, at)
    assert door.write_last_uses(at)
    assert there.authenticate_session(signed_in.token, at + MINUTE).name == "bo"


def test_signing_out_elsewhere_holds_here_within_half_a_second(other, door, clock, signed_in):
    door.authenticate_session(signed_in.token, NOON)
    SignIn(other, clock, chance, QUICK).sign_out(signed_in.token, at=NOON)
    clock.since_boot += MAX_CACHE_AGE
    with pytest.raises(UnauthenticatedError):
        door.authenticate_session(signed_in.token, NOON)


def test_a_disabled_person_is_signed_out_within_half_a_second(other, door, clock, signed_in):
    door.authenticate_session(signed_in.token, NOON)
    update_account(other, ADA, "bo", AccountUpdate(is_disabled=True), at=NOON)
    clock.since_boot += MAX_CACHE_AGE
    with pytest.raises(UnauthenticatedError):
        door.authenticate_session(signed_in.token, NOON)


def test_uses_are_written_at_most_once_a_minute_and_never_by_a_request(house, door, key):
    door.authenticate_key(key.text, NOON)
    assert keys.load_keys(house, ADA)[0].last_used_at is None
    assert door.write_last_uses(NOON)
    door.authenticate_key(key.text, NOON + MINUTE / 2)
    assert not door.write_last_uses(NOON + MINUTE / 2)
    assert keys.load_keys(house, ADA)[0].last_used_at == NOON
    assert door.write_last_uses(NOON + MINUTE)
    assert keys.load_keys(house, ADA)[0].last_used_at == NOON + MINUTE / 2


def test_a_database_that_can_not_be_asked_lets_nobody_in(house, door, clock, key):
    door.authenticate_key(key.text, NOON)

    def broken():
        raise ConnectionError

    house.begin_read = broken
    clock.since_boot += MAX_CACHE_AGE
    with pytest.raises(ConnectionError):
        door.authenticate_key(key.text, NOON)


def test_a_session_is_at_hand_for_half_a_second_after_it_was_read(door, house, clock, signed_in):
    token = signed_in.token
    assert door.find_cached_session_caller(token, NOON) is None
    door.authenticate_session(token, NOON)
    asked = house.asked
    assert door.find_cached_session_caller(token, NOON).name == "bo"
    assert door.find_cached_session_caller(write_token(bytes(32)), NOON) is None
    assert door.find_cached_session_caller("", NOON) is None
    assert house.asked == asked
    clock.since_boot += MAX_CACHE_AGE
    assert door.find_cached_session_caller(token, NOON) is None


def test_a_session_that_is_over_or_whose_person_is_gone_is_not_at_hand(door, house, signed_in):
    token = signed_in.token
    door.authenticate_session(token, NOON)
    assert door.find_cached_session_caller(token, NOON + SESSION_LIFETIME) is None
    assert door.find_cached_session_caller(token, NOON + SESSION_IDLE_TIMEOUT) is None
    update_account(house, ADA, "bo", AccountUpdate(is_disabled=True), at=NOON)
    fresh = Authenticator(house, ManualClock(NOON))
    with pytest.raises(UnauthenticatedError):
        fresh.authenticate_session(token, NOON)
    assert fresh.find_cached_session_caller(token, NOON) is None
