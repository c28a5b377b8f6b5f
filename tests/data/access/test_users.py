"""Users, roles and API keys."""

import pytest
from sqlalchemy.exc import IntegrityError

from rollout.data.access.tokens import (
    ApiKeys,
    OneTimeLinks,
    Sessions,
    hash_secret,
    hash_session_token,
)
from rollout.data.access.users import Users
from rollout.data.database.rollouts import Rollouts
from rollout.engine.decide.permissions import AssignedRole
from rollout.kernel.errors import UnknownRolloutError
from tests.factories import DAY, HOUR, NOON

SECRET = "s" * 32
OPERATOR = AssignedRole("approver", "bear-alarm", "creek", "safety")
TOKEN, CSRF = b"t" * 32, b"c" * 32


@pytest.fixture
def transaction(database):
    with database.begin_write() as made:
        Rollouts(made).create("bear-alarm", salt=b"", at=NOON)
        yield made


@pytest.fixture
def people(transaction):
    return Users(transaction)


@pytest.fixture
def ana(people):
    return people.add("ana", at=NOON)


@pytest.fixture
def keys(transaction, ana):
    made = ApiKeys(transaction)
    made.add(ana, prefix="rk_1", secret=SECRET, at=NOON, expires_at=NOON + DAY)
    return made


def test_a_name_is_one_person_for_ever(people, ana):
    assert people.add("ana", at=NOON + DAY, is_service_account=True) == ana
    assert not ana.is_service_account
    assert people.find("ana") == ana
    assert people.find("bo") is None


def test_names_that_read_alike_are_found_as_one(people, ana):
    assert people.find_similar_name("ANA") == ana
    assert people.find_similar_name("an") is None


def test_a_right_is_given_once_and_taken_whole(people, ana):
    everywhere = AssignedRole("viewer")
    assert [people.grant_role(ana, right) for right in (OPERATOR, everywhere, OPERATOR)] == [
        *(True, True, False)
    ]
    assert people.list_role_assignments(ana) == [OPERATOR, everywhere]
    assert people.list_all_role_assignments() == {ana.number: [OPERATOR, everywhere]}
    assert people.has_holder(everywhere)
    assert people.revoke_role(ana, everywhere)
    assert not people.revoke_role(ana, everywhere)
    assert people.list_role_assignments(ana) == [OPERATOR]
    assert not people.has_holder(everywhere)


def test_a_right_in_a_rollout_that_is_not_there_is_refused(people, ana):
    with pytest.raises(UnknownRolloutError, match="rollout apply"):
        people.grant_role(ana, AssignedRole("viewer", "bear-alam"))


def test_a_right_at_one_site_is_not_that_of_another(people, ana):
    people.grant_role(ana, OPERATOR)
    people.revoke_role(ana, AssignedRole("approver", "bear-alarm", "lake", "safety"))
    assert people.list_role_assignments(ana) == [OPERATOR]


def test_an_identity_is_one_persons_for_ever(people, ana):
    bo = people.add("bo", at=NOON)
    assert people.find_by_identity("https://id", "7") is None
    assert people.link_identity(ana, "https://id", "7", at=NOON)
    assert not people.link_identity(bo, "https://id", "7", at=NOON)
    assert not people.link_identity(ana, "https://id", "8", at=NOON)
    assert people.find_by_identity("https://id", "7") == ana


def test_an_address_is_found_in_large_letters_too(people, ana):
    people.set_email(ana, "Ana@Example.org")
    assert people.find_by_email("ana@example.ORG").name == "ana"
    people.set_email(ana, "")
    assert people.find_by_email("ana@example.org") is None
    assert people.find_by_email("") is None


def test_an_open_key_is_listed_with_its_hash_until_it_is_revoked(keys, ana):
    (key,) = keys.list_open()
    assert (key.user_id, key.prefix, key.hash) == (ana.number, "rk_1", hash_secret(SECRET))
    assert keys.revoke("rk_1", at=NOON)
    assert not keys.revoke("rk_1", at=NOON + DAY)
    assert keys.list_open() == []
    assert keys.find("rk_1").revoked_at == NOON


def test_nothing_of_a_disabled_person_is_valid_and_no_right_comes_back(people, keys, ana):
    people.set_password(ana, "$argon2")
    people.grant_role(ana, OPERATOR)
    assert people.load_password_hash(ana) == "$argon2"
    people.disable(ana, at=NOON)
    assert keys.list_open() == []
    assert people.load_password_hash(ana) is None
    assert people.list_role_assignments(ana) == []
    people.disable(ana, at=NOON + DAY)
    assert people.find("ana").disabled_at == NOON
    people.enable(ana)
    assert people.find("ana") == ana
    assert people.list_role_assignments(ana) == []


def test_a_session_is_found_by_its_token_until_it_ends(transaction, ana):
    sessions = Sessions(transaction)
    sessions.start(ana, TOKEN, CSRF, at=NOON, expires_at=NOON + DAY)
    sessions.record_uses({hash_session_token(TOKEN): NOON + HOUR})
    found = sessions.find(hash_session_token(TOKEN))
    assert (found.user_id, found.csrf, found.seen_at) == (ana.number, CSRF, NOON + HOUR)
    sessions.end(hash_session_token(TOKEN), at=NOON)
    assert sessions.find(hash_session_token(TOKEN)) is None


def test_a_new_session_clears_away_what_is_over_and_no_more(transaction, ana):
    sessions = Sessions(transaction)
    for token, until in ((b"over", NOON + HOUR), (b"open", NOON + DAY)):
        sessions.start(ana, token, CSRF, at=NOON, expires_at=until)
    sessions.start(ana, b"new", CSRF, at=NOON + HOUR, expires_at=NOON + DAY)
    there = [
        sessions.find(hash_session_token(token)) is not None for token in (b"over", b"open", b"new")
    ]
    assert there == [False, True, True]


def test_a_link_works_once_and_within_its_time(transaction, ana):
    links = OneTimeLinks(transaction)
    for person, secret in ((ana, "anas"), (None, "first"), (ana, "late")):
        links.add(person, secret, at=NOON, expires_at=NOON + DAY)
    assert links.redeem("late", at=NOON + DAY) == (False, None)
    assert links.redeem("anas", at=NOON) == (True, ana)
    assert links.redeem("anas", at=NOON) == (False, None)
    assert links.redeem("first", at=NOON) == (True, None)
    links.end_links(ana, at=NOON)
    assert links.redeem("late", at=NOON) == (False, None)


def test_what_is_listed_of_a_key_is_never_its_secret(keys, ana):
    keys.record_uses({"rk_1": NOON})
    (key,) = keys.list_for_user(ana)
    assert (key.holder, key.prefix, key.last_used_at) == ("ana", "rk_1", NOON)
    assert [key] == keys.list_all()
    assert SECRET not in repr(key)


def test_a_secret_that_could_be_guessed_is_refused(keys, ana):
    with pytest.raises(ValueError, match="32 letters"):
        keys.add(ana, prefix="rk_2", secret=SECRET[1:], at=NOON)


def test_two_keys_never_share_a_prefix(database):
    with database.begin_write() as transaction:
        first_key(transaction)
    with pytest.raises(IntegrityError), database.begin_write() as transaction:
        first_key(transaction)


def first_key(transaction):
    ana = Users(transaction).add("ana", at=NOON)
    ApiKeys(transaction).add(ana, prefix="rk_1", secret=SECRET, at=NOON)
