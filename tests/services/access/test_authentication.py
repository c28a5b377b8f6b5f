"""Who comes in: known from memory, confirmed within half a second, and out as quickly."""

from dataclasses import replace

import pytest

from rollout.core.errors import CrossSite, Unauthenticated
from rollout.core.scope.permissions import Right
from rollout.services.access import keys
from rollout.services.access.authentication import IDLE, STALE, Door
from rollout.services.access.keys import write_token
from rollout.services.access.sign_in import LASTS, SigningIn
from rollout.services.access.users import Amendment, add, amend, link
from rollout.services.support.clock import SetClock
from rollout.store.access.access_ledger import HouseHead
from rollout.store.database.session import Database
from tests.factories import HOUR, MINUTE, NOON
from tests.services.access.test_sign_in import QUICK
from tests.services.houses import ADA, BO, PASSWORD, chain_of, chance, furnish


class Counting(Database):
    """A database that counts how often it was asked."""

    asked = 0

    def reading(self):
        self.asked += 1
        return super().reading()


@pytest.fixture
def clock():
    return SetClock(NOON)


@pytest.fixture
def house(url):
    made = Counting(url)
    furnish(made)
    yield made
    made.close()


@pytest.fixture
def door(house, clock):
    return Door(house, clock)


@pytest.fixture
def key(house):
    return keys.make(house, ADA, "bo", chance=chance(), at=NOON)


@pytest.fixture
def signed_in(house, clock):
    signing = SigningIn(house, clock, chance, QUICK)
    signing.set_password(ADA, "bo", PASSWORD, at=NOON)
    return signing.by_password("bo", PASSWORD, address="a", at=NOON)


def test_a_key_is_its_holder_with_the_rights_of_a_revision(house, door, key):
    found = door.caller_of_key(key.text, NOON)
    assert (found.name, found.rights) == ("bo", BO.rights)
    assert found.house == len(chain_of(house))


def test_what_is_known_is_asked_from_memory_for_half_a_second(house, door, clock, key):
    assert door.at_hand(key.text, NOON) is None
    door.caller_of_key(key.text, NOON)
    asked = house.asked
    for _ in range(100):
        door.caller_of_key(key.text, NOON)
    assert door.at_hand(key.text, NOON).name == "bo"
    assert house.asked == asked
    clock.since_boot += STALE
    assert door.at_hand(key.text, NOON) is None
    door.caller_of_key(key.text, NOON)
    assert house.asked == asked + 1


def test_a_key_opens_the_door_as_soon_as_it_is_made(house, other, door, key):
    door.caller_of_key(key.text, NOON)
    made = keys.make(other, ADA, "box", chance=chance(), at=NOON)
    assert door.at_hand(made.text, NOON) is None
    assert door.caller_of_key(made.text, NOON).machine
    asked = house.asked
    with pytest.raises(Unauthenticated):
        door.caller_of_key("ro_beef_beef", NOON)
    assert house.asked == asked + 1


def test_who_was_just_added_comes_in_at_once(other, door, clock, key):
    door.caller_of_key(key.text, NOON)
    add(other, ADA, "cy", at=NOON)
    signing = SigningIn(other, clock, chance, QUICK)
    token = link(other, ADA, "cy", at=NOON, secret=write_token(chance(32)))
    signed_in = signing.by_link(token, PASSWORD, at=NOON, address="a")
    assert door.caller_of_session(signed_in.token, NOON).name == "cy"


def test_what_was_read_change_by_change_is_what_is_read_anew(house, other, door, clock, key):
    door.caller_of_key(key.text, NOON)
    add(other, ADA, "cy", at=NOON, rights=(Right("viewer"),))
    more = [keys.make(other, ADA, n, chance=chance(), at=NOON) for n in ("bo", "box", "cy", "cy")]
    keys.revoke(other, ADA, more[3].prefix, at=NOON)
    amend(other, ADA, "box", Amendment(disabled=True), at=NOON)
    amend(other, ADA, "bo", Amendment(take=BO.rights), at=NOON)
    clock.since_boot += STALE
    door.caller_of_key(key.text, NOON)
    anew = Door(other, clock)
    anew.caller_of_key(key.text, NOON)
    assert door._register == anew._register
    assert set(door._register.keys) == {key.prefix, more[0].prefix, more[2].prefix}


def test_a_house_that_was_restored_from_a_backup_is_read_anew(house, door, clock, key):
    door.caller_of_key(key.text, NOON)
    door._register = replace(door._register, head=HouseHead(1, "another chain's"), keys={})
    clock.since_boot += STALE
    assert door.caller_of_key(key.text, NOON).name == "bo"


def test_one_answer_for_whatever_is_wrong_with_a_key(house, door, key):
    gone = keys.make(house, ADA, "box", chance=chance(), at=NOON)
    keys.revoke(house, ADA, gone.prefix, at=NOON)
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
        with pytest.raises(Unauthenticated) as refused:
            door.caller_of_key(text, at)
        said.add(str(refused.value))
    assert len(said) == 1


@pytest.mark.parametrize("what", ["revoked", "disabled", "right taken"])
def test_what_ends_elsewhere_ends_here_within_half_a_second(house, other, door, clock, key, what):
    door.caller_of_key(key.text, NOON)
    if what == "revoked":
        keys.revoke(other, ADA, key.prefix, at=NOON)
    else:
        change = Amendment(disabled=True) if what == "disabled" else Amendment(take=BO.rights)
        amend(other, ADA, "bo", change, at=NOON)
    clock.since_boot += STALE
    if what == "right taken":
        assert door.caller_of_key(key.text, NOON).rights == ()
    else:
        with pytest.raises(Unauthenticated):
            door.caller_of_key(key.text, NOON)


def test_a_right_given_elsewhere_is_here_within_half_a_second(other, door, clock, key):
    door.caller_of_key(key.text, NOON)
    amend(other, ADA, "bo", Amendment(give=(Right("reviewer"),)), at=NOON)
    clock.since_boot += STALE
    assert Right("reviewer") in door.caller_of_key(key.text, NOON).rights


def test_a_session_is_who_signed_in(door, signed_in):
    assert door.caller_of_session(signed_in.token, NOON).name == "bo"
    for wrong in ("", "x", write_token(chance(32)), signed_in.csrf):
        with pytest.raises(Unauthenticated, match="sign in again"):
            door.caller_of_session(wrong, NOON)


def test_what_changes_something_brings_the_token_of_its_page(door, signed_in):
    door.caller_of_session(signed_in.token, NOON, csrf=signed_in.csrf)
    for wrong in ("", signed_in.token, write_token(chance(32))):
        with pytest.raises(CrossSite, match="load the page again"):
            door.caller_of_session(signed_in.token, NOON, csrf=wrong)


def test_a_session_is_over_when_nobody_used_it_for_long(door, signed_in):
    for times in (1, 2, 3):
        last = NOON + times * (IDLE - MINUTE)
        door.caller_of_session(signed_in.token, last)
    assert last + IDLE < NOON + LASTS
    with pytest.raises(Unauthenticated):
        door.caller_of_session(signed_in.token, last + IDLE)


def test_a_session_is_over_after_its_time_however_much_it_is_used(door, signed_in):
    for hour in range(12):
        door.caller_of_session(signed_in.token, NOON + hour * HOUR)
    with pytest.raises(Unauthenticated):
        door.caller_of_session(signed_in.token, NOON + LASTS)


def test_a_use_here_keeps_a_session_alive_on_another_replica(other, door, signed_in):
    there = Door(other, SetClock(NOON))
    at = NOON + IDLE - MINUTE
    door.caller_of_session(signed_in.token, at)
    assert door.note_uses(at)
    assert there.caller_of_session(signed_in.token, at + MINUTE).name == "bo"


def test_signing_out_elsewhere_holds_here_within_half_a_second(other, door, clock, signed_in):
    door.caller_of_session(signed_in.token, NOON)
    SigningIn(other, clock, chance, QUICK).sign_out(signed_in.token, at=NOON)
    clock.since_boot += STALE
    with pytest.raises(Unauthenticated):
        door.caller_of_session(signed_in.token, NOON)


def test_a_disabled_person_is_signed_out_within_half_a_second(other, door, clock, signed_in):
    door.caller_of_session(signed_in.token, NOON)
    amend(other, ADA, "bo", Amendment(disabled=True), at=NOON)
    clock.since_boot += STALE
    with pytest.raises(Unauthenticated):
        door.caller_of_session(signed_in.token, NOON)


def test_uses_are_written_at_most_once_a_minute_and_never_by_a_request(house, door, key):
    door.caller_of_key(key.text, NOON)
    assert keys.keys_of(house, ADA)[0].last_used_at is None
    assert door.note_uses(NOON)
    door.caller_of_key(key.text, NOON + MINUTE / 2)
    assert not door.note_uses(NOON + MINUTE / 2)
    assert keys.keys_of(house, ADA)[0].last_used_at == NOON
    assert door.note_uses(NOON + MINUTE)
    assert keys.keys_of(house, ADA)[0].last_used_at == NOON + MINUTE / 2


def test_a_database_that_can_not_be_asked_lets_nobody_in(house, door, clock, key):
    door.caller_of_key(key.text, NOON)

    def broken():
        raise ConnectionError

    house.reading = broken
    clock.since_boot += STALE
    with pytest.raises(ConnectionError):
        door.caller_of_key(key.text, NOON)


def test_a_session_is_at_hand_for_half_a_second_after_it_was_read(door, house, clock, signed_in):
    token = signed_in.token
    assert door.session_at_hand(token, NOON) is None
    door.caller_of_session(token, NOON)
    asked = house.asked
    assert door.session_at_hand(token, NOON).name == "bo"
    assert door.session_at_hand(write_token(bytes(32)), NOON) is None
    assert door.session_at_hand("", NOON) is None
    assert house.asked == asked
    clock.since_boot += STALE
    assert door.session_at_hand(token, NOON) is None


def test_a_session_that_is_over_or_whose_person_is_gone_is_not_at_hand(door, house, signed_in):
    token = signed_in.token
    door.caller_of_session(token, NOON)
    assert door.session_at_hand(token, NOON + LASTS) is None
    assert door.session_at_hand(token, NOON + IDLE) is None
    amend(house, ADA, "bo", Amendment(disabled=True), at=NOON)
    fresh = Door(house, SetClock(NOON))
    with pytest.raises(Unauthenticated):
        fresh.caller_of_session(token, NOON)
    assert fresh.session_at_hand(token, NOON) is None
