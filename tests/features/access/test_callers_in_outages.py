"""Who is still identified from memory when the database no longer responds, and who is not."""

import pytest

from rollout.data.database.append_failures import DatabaseUnavailableError
from rollout.engine.decide.permissions import AssignedRole
from rollout.features.access import authentication, keys
from rollout.features.access.authentication import (
    MAX_CACHE_AGE,
    MAX_OUTAGE_AGE,
    SESSION_IDLE_TIMEOUT,
    Authenticator,
)
from rollout.features.access.keys import write_token
from rollout.features.access.sign_in import SESSION_LIFETIME, SignIn
from rollout.features.access.users import AccountUpdate, update_account
from rollout.kernel.errors import CrossSiteRequestError, UnauthenticatedError
from rollout.live.clock import ManualClock
from tests.factories import HOUR, NOON
from tests.features.access.test_sign_in import QUICK
from tests.features.houses import ADA, BO, PASSWORD, chance, furnish


@pytest.fixture
def clock():
    return ManualClock(NOON)


@pytest.fixture
def door(database, clock):
    furnish(database)
    return Authenticator(database, clock)


@pytest.fixture
def key(database, door):
    made = keys.create_key(database, ADA, "bo", random_bytes=chance(), at=NOON)
    door.authenticate_key(made.text, NOON)
    return made


@pytest.fixture
def session(database, clock, door):
    signing = SignIn(database, clock, chance, QUICK)
    signing.set_password(ADA, "bo", PASSWORD, at=NOON)
    made = signing.sign_in_with_password("bo", PASSWORD, address="a", at=NOON)
    door.authenticate_session(made.token, NOON)
    return made


def recall_key(door, key, at=NOON):
    return door.find_cached_caller(key.text, at, max_age=MAX_OUTAGE_AGE)


def recall_session(door, session, at=NOON, **more):
    return door.find_cached_session_caller(session.token, at, max_age=MAX_OUTAGE_AGE, **more)


def test_a_key_and_a_session_are_known_for_an_hour(door, clock, key, session):
    clock.since_boot += 3599
    assert door.find_cached_caller(key.text, NOON) is None
    assert door.find_cached_session_caller(session.token, NOON) is None
    assert recall_key(door, key).role_assignments == BO.role_assignments
    assert recall_session(door, session).role_assignments == BO.role_assignments
    clock.since_boot += 1
    assert recall_key(door, key) is None
    assert recall_session(door, session) is None


def test_a_fresh_list_of_users_makes_no_old_session_younger(door, clock, session):
    clock.since_boot += MAX_OUTAGE_AGE
    door.refresh()
    assert recall_session(door, session) is None


def test_nobody_is_known_before_the_first_read(database, clock, key, session):
    fresh = Authenticator(database, clock)
    assert recall_key(fresh, key) is None
    assert recall_session(fresh, session) is None


def test_a_key_of_another_secret_or_after_its_time_is_nobodys(door, key):
    wrong = key.text[:-1] + ("0" if key.text[-1] != "0" else "1")
    assert door.find_cached_caller(wrong, NOON, max_age=MAX_OUTAGE_AGE) is None
    assert recall_key(door, key, key.expires_at) is None


def test_a_session_keeps_its_page_token_its_ends_and_its_factor(database, clock, session):
    door = Authenticator(database, clock, requires_second_factor=True)
    update_account(
        database, ADA, "bo", AccountUpdate(roles_to_grant=(AssignedRole("admin"),)), at=NOON
    )
    door.authenticate_session(session.token, NOON)
    clock.since_boot += HOUR.total_seconds() / 2
    assert recall_session(door, session, csrf=session.csrf).lacks_second_factor
    for wrong in ("", write_token(bytes(32))):
        with pytest.raises(CrossSiteRequestError):
            recall_session(door, session, csrf=wrong)
    assert recall_session(door, session, NOON + SESSION_LIFETIME) is None
    assert recall_session(door, session, NOON + 2 * SESSION_IDLE_TIMEOUT) is None


def test_a_session_that_a_look_up_no_longer_finds_is_forgotten(database, door, clock, session):
    SignIn(database, clock, chance, QUICK).sign_out(session.token, at=NOON)
    assert recall_session(door, session), "not yet known to have ended"
    clock.since_boot += MAX_CACHE_AGE
    with pytest.raises(UnauthenticatedError):
        door.authenticate_session(session.token, NOON)
    assert recall_session(door, session) is None


def test_a_refresh_forgets_what_ended_elsewhere(database, door, clock, key, session):
    door.refresh()
    SignIn(database, clock, chance, QUICK).sign_out_everywhere(BO, "bo", at=NOON)
    door.refresh()  # though no event was added to the access ledger
    assert recall_session(door, session) is None
    keys.revoke_key(database, ADA, key.prefix, at=NOON)
    door.refresh()
    assert recall_key(door, key) is None


def test_an_event_of_the_access_ledger_ends_sessions_here(database, door, clock, key, session):
    SignIn(database, clock, chance, QUICK).set_password(ADA, "bo", PASSWORD, at=NOON)
    clock.since_boot += MAX_CACHE_AGE
    door.authenticate_key(key.text, NOON)  # reads the event, not the session
    assert recall_session(door, session) is None


def test_a_refresh_lets_an_outage_begin_with_recent_users(door, clock, key):
    clock.since_boot += MAX_OUTAGE_AGE
    door.refresh()
    assert recall_key(door, key).name == "bo"


def test_the_page_token_of_a_known_session_needs_no_database(door, clock, session, monkeypatch):
    def fail(_self):
        raise DatabaseUnavailableError

    clock.since_boot += MAX_CACHE_AGE
    monkeypatch.setattr(type(door._database), "begin_read", fail)
    assert door.build_page_token(session.token) == session.csrf
    with pytest.raises(DatabaseUnavailableError):
        door.build_page_token(write_token(bytes(32)))


def test_as_many_sessions_are_known_as_memory_has_places_for(database, door, clock, monkeypatch):
    monkeypatch.setattr(authentication, "MAX_CACHED_SESSIONS", 2)
    signing = SignIn(database, clock, chance, QUICK)
    made = [signing.start_demo_session("bo", at=NOON) for _ in range(3)]
    for session in made:
        door.authenticate_session(session.token, NOON)
    assert [recall_session(door, session) is None for session in made] == [True, False, False]
