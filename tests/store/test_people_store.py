"""People, their rights and their keys: what is valid is said in one place, the rest is not."""

import pytest
from sqlalchemy.exc import IntegrityError

from rollout.store.api_keys import ApiKeys
from rollout.store.people import People, Right
from tests.factories import DAY, NOON

SECRET = "s" * 32
OPERATOR = Right("operator", rollout=1, site="creek", group="safety")


@pytest.fixture
def transaction(database):
    with database.writing() as made:
        yield made


@pytest.fixture
def people(transaction):
    return People(transaction)


@pytest.fixture
def ana(people):
    return people.add("ana", at=NOON)


@pytest.fixture
def keys(transaction, ana):
    made = ApiKeys(transaction)
    made.add(ana, prefix="rk_1", secret=SECRET, at=NOON, expires_at=NOON + DAY)
    return made


def test_a_name_is_one_person_for_ever(people, ana):
    assert people.add("ana", at=NOON + DAY, machine=True) == ana
    assert not ana.machine
    assert people.find("ana") == ana
    assert people.find("bo") is None


def test_a_right_is_given_once_and_taken_whole(people, ana):
    everywhere = Right("viewer")
    for right in (OPERATOR, everywhere, OPERATOR):
        people.give(ana, right)
    assert people.rights(ana) == [OPERATOR, everywhere]
    people.take(ana, everywhere)
    people.take(ana, everywhere)
    assert people.rights(ana) == [OPERATOR]


def test_a_right_at_one_site_is_not_that_of_another(people, ana):
    people.give(ana, OPERATOR)
    people.take(ana, Right("operator", rollout=1, site="lake", group="safety"))
    assert people.rights(ana) == [OPERATOR]


def test_a_key_is_its_holders_until_it_ends(keys, ana):
    assert keys.holder("rk_1", SECRET, at=NOON) == ana
    assert keys.holder("rk_1", SECRET, at=NOON + DAY) is None
    keys.revoke("rk_1", at=NOON)
    assert keys.holder("rk_1", SECRET, at=NOON) is None


@pytest.mark.parametrize(
    ("prefix", "secret"), [("rk_1", "x" * 32), ("rk_1", ""), ("rk_2", SECRET), ("", "")]
)
def test_no_other_key_is_anybodys(keys, prefix, secret):
    assert keys.holder(prefix, secret, at=NOON) is None


def test_nothing_of_a_disabled_person_is_valid(people, keys, ana):
    people.set_password(ana, "$argon2")
    people.give(ana, OPERATOR)
    assert people.password(ana) == "$argon2"
    people.disable(ana, at=NOON)
    assert keys.holder("rk_1", SECRET, at=NOON) is None
    assert people.password(ana) is None
    assert people.rights(ana) == []
    people.disable(ana, at=NOON + DAY)
    assert people.find("ana").disabled_at == NOON


def test_what_is_listed_of_a_key_is_never_its_secret(keys, ana):
    keys.used("rk_1", at=NOON)
    (key,) = keys.of(ana)
    assert (key.prefix, key.last_used_at, key.expires_at) == ("rk_1", NOON, NOON + DAY)
    assert SECRET not in repr(key)


def test_a_secret_that_could_be_guessed_is_refused(keys, ana):
    with pytest.raises(ValueError, match="32 letters"):
        keys.add(ana, prefix="rk_2", secret=SECRET[1:], at=NOON)


def test_two_keys_never_share_a_prefix(database):
    with database.writing() as transaction:
        first_key(transaction)
    with pytest.raises(IntegrityError), database.writing() as transaction:
        first_key(transaction)


def first_key(transaction):
    ana = People(transaction).add("ana", at=NOON)
    ApiKeys(transaction).add(ana, prefix="rk_1", secret=SECRET, at=NOON)
