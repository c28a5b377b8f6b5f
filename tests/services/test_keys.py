"""Keys: shown once, of whoever may have one, for no longer than they say."""

from datetime import timedelta

import pytest

from rollout.core.errors import NotAllowed, PersonRefused, UnknownKey, UnknownPerson
from rollout.core.rights import Caller, Right
from rollout.services.keys import CHANCE, keys_of, make, parts, revoke
from rollout.services.people import Amendment, amend
from tests.factories import DAY, NOON
from tests.services.houses import ADA, BO, BOX, chain_of, chance, furnish, kinds


@pytest.fixture
def house(database):
    furnish(database)
    return database


def made(database, caller=ADA, holder="box", **more):
    return make(database, caller, holder, chance=chance(), at=NOON, **more)


def test_a_key_is_shown_once_and_listed_without_its_secret(house):
    key = made(house)
    prefix, secret = parts(key.text)
    assert key.text == f"ro_{prefix}_{secret}"
    (listed,) = keys_of(house, ADA)
    assert (listed.holder, listed.prefix, listed.last_used_at) == ("box", key.prefix, None)
    for told in (repr(key), repr(listed), repr(chain_of(house))):
        assert secret not in told
    assert kinds(house)[-1] == ("KeyCreated", "box")


def test_the_same_chance_twice_is_noticed(house):
    same = chance()
    make(house, ADA, "box", chance=same, at=NOON)
    with pytest.raises(PersonRefused, match="try again"):
        make(house, ADA, "bo", chance=same, at=NOON)
    with pytest.raises(ValueError, match=f"{CHANCE} bytes"):
        make(house, ADA, "bo", chance=same[1:], at=NOON)


def test_a_machines_key_lasts_a_year_and_a_persons_ninety_days(house):
    assert made(house, holder="box").expires_at == NOON + 365 * DAY
    assert made(house, holder="bo").expires_at == NOON + 90 * DAY


@pytest.mark.parametrize("span", [timedelta(0), -DAY, 731 * DAY])
def test_a_key_without_an_end_in_sight_is_refused(house, span):
    with pytest.raises(PersonRefused, match="within 730 days: name a time up to 2029-05-31"):
        made(house, expires_at=NOON + span)
    assert made(house, expires_at=NOON + 730 * DAY).expires_at == NOON + 730 * DAY


def test_people_have_their_own_keys_in_hand_and_no_others(house):
    mine, other = made(house, BO, "bo"), made(house, ADA, "box")
    assert [key.prefix for key in keys_of(house, BO)] == [mine.prefix]
    with pytest.raises(NotAllowed, match="ask an admin"):
        made(house, BO, "box")
    with pytest.raises(NotAllowed):
        keys_of(house, BO, "box")
    with pytest.raises(UnknownKey, match="bo has access to no key"):
        revoke(house, BO, other.prefix, at=NOON)
    revoke(house, BO, mine.prefix, at=NOON)
    assert keys_of(house, BO)[0].revoked_at == NOON


def test_a_machine_makes_no_keys_for_itself(house):
    with pytest.raises(NotAllowed):
        made(house, BOX, "box")


def test_an_admin_revokes_once_what_anybody_has(house):
    key = made(house, BO, "bo")
    for _ in range(2):
        revoke(house, ADA, key.prefix, at=NOON)
    assert [kind for kind, _ in kinds(house)].count("KeyRevoked") == 1
    with pytest.raises(UnknownKey):
        revoke(house, ADA, "ffffffffffff", at=NOON)


def test_nobody_and_nobody_disabled_gets_a_key(house):
    with pytest.raises(UnknownPerson):
        made(house, holder="eve")
    amend(house, ADA, "bo", Amendment(disabled=True), at=NOON)
    with pytest.raises(PersonRefused, match="enable"):
        made(house, holder="bo")
    with pytest.raises(NotAllowed, match="disabled"):
        made(house, Caller("bo", rights=(Right("admin"),)), "box")


@pytest.mark.parametrize("text", ["", "ro_", "ro_a", "ro_a_", "xx_a_b", "ro__b", "a_b", "ro"])
def test_what_is_no_key_has_no_parts(text):
    assert parts(text) == ("", "")
