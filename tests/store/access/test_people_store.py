"""People, their rights and their keys: what is valid is said in one place, the rest is not."""

import pytest
from sqlalchemy.exc import IntegrityError

from rollout.core.errors import UnknownRollout
from rollout.core.scope.permissions import Right
from rollout.store.access.api_keys import ApiKeys, hash_of
from rollout.store.access.one_time_links import OneTimeLinks
from rollout.store.access.sessions import Sessions, session_hash
from rollout.store.access.users import People
from rollout.store.database.rollouts import Rollouts
from tests.factories import DAY, HOUR, NOON

SECRET = "s" * 32
OPERATOR = Right("approver", "bear-alarm", "creek", "safety")
TOKEN, CSRF = b"t" * 32, b"c" * 32


@pytest.fixture
def transaction(database):
    with database.writing() as made:
        Rollouts(made).create("bear-alarm", salt=b"", at=NOON)
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


def test_names_that_read_alike_are_found_as_one(people, ana):
    assert people.alike("ANA") == ana
    assert people.alike("an") is None


def test_a_right_is_given_once_and_taken_whole(people, ana):
    everywhere = Right("viewer")
    assert [people.give(ana, right) for right in (OPERATOR, everywhere, OPERATOR)] == [
        *(True, True, False)
    ]
    assert people.rights(ana) == [OPERATOR, everywhere]
    assert people.all_rights() == {ana.number: [OPERATOR, everywhere]}
    assert people.anybody_with(everywhere)
    assert people.take(ana, everywhere)
    assert not people.take(ana, everywhere)
    assert people.rights(ana) == [OPERATOR]
    assert not people.anybody_with(everywhere)


def test_a_right_in_a_rollout_that_is_not_there_is_refused(people, ana):
    with pytest.raises(UnknownRollout, match="rollout apply"):
        people.give(ana, Right("viewer", "bear-alam"))


def test_a_right_at_one_site_is_not_that_of_another(people, ana):
    people.give(ana, OPERATOR)
    people.take(ana, Right("approver", "bear-alarm", "lake", "safety"))
    assert people.rights(ana) == [OPERATOR]


def test_an_identity_is_one_persons_for_ever(people, ana):
    bo = people.add("bo", at=NOON)
    assert people.of_identity("https://id", "7") is None
    assert people.link(ana, "https://id", "7", at=NOON)
    assert not people.link(bo, "https://id", "7", at=NOON)
    assert not people.link(ana, "https://id", "8", at=NOON)
    assert people.of_identity("https://id", "7") == ana


def test_an_address_is_found_in_large_letters_too(people, ana):
    people.set_email(ana, "Ana@Example.org")
    assert people.of_email("ana@example.ORG").name == "ana"
    people.set_email(ana, "")
    assert people.of_email("ana@example.org") is None
    assert people.of_email("") is None


def test_an_open_key_is_listed_with_its_hash_until_it_is_revoked(keys, ana):
    (key,) = keys.open()
    assert (key.person, key.prefix, key.hash) == (ana.number, "rk_1", hash_of(SECRET))
    assert keys.revoke("rk_1", at=NOON)
    assert not keys.revoke("rk_1", at=NOON + DAY)
    assert keys.open() == []
    assert keys.find("rk_1").revoked_at == NOON


def test_nothing_of_a_disabled_person_is_valid_and_no_right_comes_back(people, keys, ana):
    people.set_password(ana, "$argon2")
    people.give(ana, OPERATOR)
    assert people.password(ana) == "$argon2"
    people.disable(ana, at=NOON)
    assert keys.open() == []
    assert people.password(ana) is None
    assert people.rights(ana) == []
    people.disable(ana, at=NOON + DAY)
    assert people.find("ana").disabled_at == NOON
    people.enable(ana)
    assert people.find("ana") == ana
    assert people.rights(ana) == []


def test_a_session_is_found_by_its_token_until_it_ends(transaction, ana):
    sessions = Sessions(transaction)
    sessions.start(ana, TOKEN, CSRF, at=NOON, expires_at=NOON + DAY)
    sessions.seen({session_hash(TOKEN): NOON + HOUR})
    found = sessions.find(session_hash(TOKEN))
    assert (found.person, found.csrf, found.seen_at) == (ana.number, CSRF, NOON + HOUR)
    sessions.end(session_hash(TOKEN), at=NOON)
    assert sessions.find(session_hash(TOKEN)) is None


def test_a_new_session_clears_away_what_is_over_and_no_more(transaction, ana):
    sessions = Sessions(transaction)
    for token, until in ((b"over", NOON + HOUR), (b"open", NOON + DAY)):
        sessions.start(ana, token, CSRF, at=NOON, expires_at=until)
    sessions.start(ana, b"new", CSRF, at=NOON + HOUR, expires_at=NOON + DAY)
    there = [sessions.find(session_hash(token)) is not None for token in (b"over", b"open", b"new")]
    assert there == [False, True, True]


def test_a_link_works_once_and_within_its_time(transaction, ana):
    links = OneTimeLinks(transaction)
    for person, secret in ((ana, "anas"), (None, "first"), (ana, "late")):
        links.add(person, secret, at=NOON, expires_at=NOON + DAY)
    assert links.use("late", at=NOON + DAY) == (False, None)
    assert links.use("anas", at=NOON) == (True, ana)
    assert links.use("anas", at=NOON) == (False, None)
    assert links.use("first", at=NOON) == (True, None)
    links.end(ana, at=NOON)
    assert links.use("late", at=NOON) == (False, None)


def test_what_is_listed_of_a_key_is_never_its_secret(keys, ana):
    keys.used({"rk_1": NOON})
    (key,) = keys.of(ana)
    assert (key.holder, key.prefix, key.last_used_at) == ("ana", "rk_1", NOON)
    assert [key] == keys.all()
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
