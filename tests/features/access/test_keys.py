"""Keys: shown once, for permitted accounts, for no longer than they say."""

from datetime import timedelta

import pytest

from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.features.access.keys import (
    KEY_BYTES,
    create_key,
    load_keys,
    measure_key_expiry,
    parse_key,
    revoke_key,
)
from rollout.features.access.users import AccountUpdate, create_account, update_account
from rollout.kernel.errors import (
    InvalidAccountError,
    NotAllowedError,
    UnknownKeyError,
    UnknownUserError,
)
from tests.factories import DAY, NOON
from tests.features.houses import ADA, BO, BOX, chain_of, chance, furnish, kinds


@pytest.fixture
def house(database):
    furnish(database)
    return database


def made(database, caller=ADA, holder="box", **more):
    return create_key(database, caller, holder, random_bytes=chance(), at=NOON, **more)


@pytest.mark.slow
def test_a_key_is_shown_once_and_listed_without_its_secret(house):
    key = made(house)
    prefix, secret = parse_key(key.text)
    assert key.text == f"ro_{prefix}_{secret}"
    (listed,) = load_keys(house, ADA)
    assert (listed.holder, listed.prefix, listed.last_used_at) == ("box", key.prefix, None)
    for told in (repr(key), repr(listed), repr(chain_of(house))):
        assert secret not in told
    assert kinds(house)[-1] == ("KeyCreated", "box")


def test_the_same_chance_twice_is_noticed(house):
    same = chance()
    create_key(house, ADA, "box", random_bytes=same, at=NOON)
    with pytest.raises(InvalidAccountError, match="try again"):
        create_key(house, ADA, "bo", random_bytes=same, at=NOON)
    with pytest.raises(ValueError, match=f"{KEY_BYTES} bytes"):
        create_key(house, ADA, "bo", random_bytes=same[1:], at=NOON)


def test_a_machines_key_lasts_a_year_and_a_persons_ninety_days(house):
    assert made(house, holder="box").expires_at == NOON + 365 * DAY
    assert made(house, holder="bo").expires_at == NOON + 90 * DAY


@pytest.mark.parametrize("span", [timedelta(0), -DAY, 731 * DAY])
def test_a_key_without_an_end_in_sight_is_refused(house, span):
    with pytest.raises(InvalidAccountError, match="within 730 days: name a time up to 2029-05-31"):
        made(house, expires_at=NOON + span)
    assert made(house, expires_at=NOON + 730 * DAY).expires_at == NOON + 730 * DAY


def test_people_have_their_own_keys_in_hand_and_no_others(house):
    mine, other = made(house, BO, "bo"), made(house, ADA, "box")
    assert [key.prefix for key in load_keys(house, BO)] == [mine.prefix]
    with pytest.raises(NotAllowedError, match="ask an admin"):
        made(house, BO, "box")
    with pytest.raises(NotAllowedError):
        load_keys(house, BO, "box")
    with pytest.raises(UnknownKeyError, match="bo has access to no key"):
        revoke_key(house, BO, other.prefix, at=NOON)
    revoke_key(house, BO, mine.prefix, at=NOON)
    assert load_keys(house, BO)[0].revoked_at == NOON


def test_a_machine_makes_no_keys_for_itself(house):
    with pytest.raises(NotAllowedError):
        made(house, BOX, "box")


def test_an_admin_revokes_once_what_anybody_has(house):
    key = made(house, BO, "bo")
    for _ in range(2):
        revoke_key(house, ADA, key.prefix, at=NOON)
    assert [kind for kind, _ in kinds(house)].count("KeyRevoked") == 1
    with pytest.raises(UnknownKeyError):
        revoke_key(house, ADA, "ffffffffffff", at=NOON)


def test_the_next_expiry_is_of_the_first_service_account_that_has_no_later_key(house):
    def measure(at=NOON):
        return measure_key_expiry(house, ADA, at=at)

    assert measure() is None
    made(house, holder="bo", expires_at=NOON + DAY)
    assert measure() is None, "users sign in again; a camera does not"
    first = made(house, expires_at=NOON + 2 * DAY)
    assert measure() == 2 * DAY.total_seconds()
    assert measure(at=NOON + 3 * DAY) == -DAY.total_seconds()
    create_account(house, ADA, "box-2", at=NOON, is_service_account=True)
    made(house, holder="box-2", expires_at=NOON + 9 * DAY)
    later = made(house, expires_at=NOON + 20 * DAY)
    assert measure() == 9 * DAY.total_seconds(), "of the other one: the first has a later key"
    revoke_key(house, ADA, later.prefix, at=NOON)
    assert measure() == 2 * DAY.total_seconds()
    revoke_key(house, ADA, first.prefix, at=NOON)
    update_account(house, ADA, "box-2", AccountUpdate(is_disabled=True), at=NOON)
    assert measure() is None
    with pytest.raises(NotAllowedError):
        measure_key_expiry(house, Caller("bo"), at=NOON)


def test_nobody_and_nobody_disabled_gets_a_key(house):
    with pytest.raises(UnknownUserError):
        made(house, holder="eve")
    update_account(house, ADA, "bo", AccountUpdate(is_disabled=True), at=NOON)
    with pytest.raises(InvalidAccountError, match="enable"):
        made(house, holder="bo")
    with pytest.raises(NotAllowedError, match="disabled"):
        made(house, Caller("bo", role_assignments=(AssignedRole("admin"),)), "box")


@pytest.mark.parametrize("text", ["", "ro_", "ro_a", "ro_a_", "xx_a_b", "ro__b", "a_b", "ro"])
def test_what_is_no_key_has_no_parts(text):
    assert parse_key(text) == ("", "")
