"""Ways in: by password, link or an identity provider's word; slow after wrong guesses."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event, Semaphore, current_thread
from time import sleep

import pytest
from argon2 import PasswordHasher

from rollout.data.access import tokens
from rollout.data.access.tokens import SignInAddresses
from rollout.data.access.users import Users
from rollout.engine.decide.permissions import AssignedRole
from rollout.features.access.authentication import Authenticator
from rollout.features.access.credentials import MAX_CONCURRENT_HASHES, MAX_WAITING_HASHES
from rollout.features.access.keys import write_token
from rollout.features.access.sign_in import SignIn
from rollout.features.access.users import (
    AccountUpdate,
    create_first_admin,
    create_first_link,
    create_sign_in_link,
    load_accounts,
    update_account,
)
from rollout.kernel.errors import (
    AdminExistsError,
    InvalidAccountError,
    NotAllowedError,
    TooManyAttemptsError,
    UnauthenticatedError,
)
from rollout.live.clock import ManualClock
from tests.counted_work import noting_statements
from tests.factories import DAY, NOON
from tests.features.houses import ADA, BO, BOX, PASSWORD, chain_of, chance, furnish, kinds

QUICK = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
OTHER = "staple horse correct"
SENTENCE = "a quiet brown otter signs each morning " * 3 + "at the gate"
assert len(SENTENCE) == 128
ISSUER = "https://id.example.org"


WRITES = ("insert", "update", "delete", "begin immediate")


@contextmanager
def counted_statements(database):
    """Give the texts of the statements that are executed within."""
    statements = []

    def note(_connection, _cursor, text, *_):
        statements.append(text)

    with noting_statements(database, note):
        yield statements


@pytest.fixture
def clock():
    return ManualClock(NOON)


@pytest.fixture
def signing(database, clock):
    return SignIn(database, clock, chance, QUICK)


@pytest.fixture
def house(database, signing):
    furnish(database)
    signing.set_password(ADA, "bo", PASSWORD, at=NOON)
    return database


def sign_in(signing, name="bo", password=PASSWORD, address="10.0.0.1"):
    return signing.sign_in_with_password(name, password, address=address, at=NOON)


def in_session(database, clock, signed_in):
    try:
        return Authenticator(database, clock).authenticate_session(signed_in.token, NOON).name
    except UnauthenticatedError:
        return None


# Passwords


def test_the_right_password_begins_a_session(house, signing, clock):
    assert in_session(house, clock, sign_in(signing)) == "bo"
    assert kinds(house)[-1] == ("PasswordSet", "bo")


@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("bo", OTHER),
        ("bo", ""),
        ("BO", PASSWORD),
        ("eve", PASSWORD),
        ("box", PASSWORD),
        ("ada", ""),
    ],
)
def test_one_answer_for_whatever_is_wrong_with_name_or_password(house, signing, name, password):
    with pytest.raises(UnauthenticatedError, match="the name or the password is wrong"):
        sign_in(signing, name, password)


def test_an_unknown_name_costs_the_work_of_a_known_one(house, database, clock):
    verified = []

    class Watched(PasswordHasher):
        def verify(self, hash, password):  # noqa: A002 - the name that argon2 gives it
            verified.append(hash)
            return super().verify(hash, password)

    signing = SignIn(database, clock, chance, Watched(1, 8, 1))
    for name in ("bo", "eve"):
        with pytest.raises(UnauthenticatedError):
            sign_in(signing, name, OTHER)
    assert len(verified) == 2
    assert len({text.split("$")[3] for text in verified}) == 1  # the same cost


def test_nothing_of_a_password_stands_in_the_database(house, database):
    with database.begin_read() as transaction:
        people = Users(transaction)
        kept = people.load_password_hash(people.find("bo"))
    assert kept.startswith("$argon2id$")
    assert PASSWORD not in kept + repr(chain_of(house))


def test_a_password_is_hashed_anew_when_the_cost_changed(house, database, clock):
    dearer = PasswordHasher(time_cost=2, memory_cost=16, parallelism=1)
    sign_in(SignIn(database, clock, chance, dearer))
    with database.begin_read() as transaction:
        kept = Users(transaction).load_password_hash(Users(transaction).find("bo"))
    assert not dearer.check_needs_rehash(kept)
    sign_in(SignIn(database, clock, chance, dearer))


@pytest.mark.parametrize("password", ["", "elevenlette", SENTENCE + "t", "bo-bo-bo-bo"])
def test_a_password_that_could_be_guessed_is_refused(house, signing, password):
    with pytest.raises(InvalidAccountError, match="12 to 128 letters"):
        signing.set_password(ADA, "bo", password, at=NOON)
    sign_in(signing)


def test_a_password_of_128_letters_is_set_and_compared_to_its_end(house, signing):
    signing.set_password(ADA, "bo", SENTENCE, at=NOON)
    sign_in(signing, password=SENTENCE)
    with pytest.raises(UnauthenticatedError):
        sign_in(signing, password=SENTENCE[:-1])


@pytest.mark.parametrize(
    "password",
    ["password1234", "bo-123456789", "bo.smith@example.org", "qwertyuiop12"],
)
def test_a_password_that_is_easy_to_guess_is_refused(house, signing, password):
    update_account(house, ADA, "bo", AccountUpdate(email="bo.smith@example.org"), at=NOON)
    with pytest.raises(InvalidAccountError, match="too easy to guess"):
        signing.set_password(ADA, "bo", password, at=NOON)
    token = create_sign_in_link(house, ADA, "bo", at=NOON, secret=write_token(chance(32)))
    with pytest.raises(InvalidAccountError, match="too easy to guess"):
        signing.sign_in_with_link(token, password, at=NOON, address="a")


def test_passwords_are_hashed_one_at_a_time_and_not_in_the_threads_of_requests(
    house, database, clock
):
    seen = []

    class Watched(PasswordHasher):
        def verify(self, hash, password):  # noqa: A002 - the name that argon2 gives it
            seen.append(current_thread().name)
            return super().verify(hash, password)

    signing = SignIn(database, clock, chance, Watched(1, 8, 1))
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: sign_in(signing), range(3)))
    assert set(seen) == {"passwords_0"}


def test_who_sets_their_own_password_gives_the_present_one(house, signing, clock):
    before = sign_in(signing)
    for current in (None, OTHER):
        with pytest.raises(NotAllowedError, match="current password is wrong"):
            signing.set_password(BO, "bo", OTHER, at=NOON, current_password=current)
    signing.set_password(BO, "bo", OTHER, at=NOON, current_password=PASSWORD)
    assert in_session(house, clock, before) is None
    sign_in(signing, password=OTHER)
    signing.set_password(BO, "bo", PASSWORD, at=NOON, skips_current=True)
    sign_in(signing)


def test_nobody_sets_the_password_of_another_but_an_admin(house, signing):
    with pytest.raises(NotAllowedError, match="ask an admin"):
        signing.set_password(BO, "ada", PASSWORD, at=NOON)
    with pytest.raises(InvalidAccountError, match="service account or disabled"):
        signing.set_password(ADA, "box", PASSWORD, at=NOON)
    with pytest.raises(NotAllowedError):
        signing.set_password(BOX, "box", PASSWORD, at=NOON)


# Guessing


def test_a_name_that_failed_five_times_waits_longer_and_longer_but_never_long(
    house, signing, clock
):
    for _ in range(5):
        with pytest.raises(UnauthenticatedError):
            sign_in(signing, password=OTHER)
    with pytest.raises(TooManyAttemptsError, match="wait 2 s"):
        sign_in(signing)
    for _ in range(20):
        clock.since_boot += 30
        with pytest.raises(UnauthenticatedError):
            sign_in(signing, password=OTHER)
    with pytest.raises(TooManyAttemptsError, match="wait 31 s"):
        sign_in(signing)
    clock.since_boot += 30
    sign_in(signing)
    sign_in(signing)


def test_an_address_that_tries_many_names_waits_too_and_others_do_not(house, signing):
    for number in range(20):
        with pytest.raises(UnauthenticatedError):
            sign_in(signing, f"p{number}", OTHER, "10.0.0.9")
    with pytest.raises(TooManyAttemptsError):
        sign_in(signing, address="10.0.0.9")
    sign_in(signing, address="10.0.0.1")


def test_failures_from_everywhere_never_slow_an_address_that_was_used_before(house, signing):
    sign_in(signing, address="10.1.0.1")
    for number in range(10):
        with pytest.raises(UnauthenticatedError):
            sign_in(signing, password=OTHER, address=f"10.0.0.{number}")
    with pytest.raises(TooManyAttemptsError):
        sign_in(signing, address="10.1.0.2")
    sign_in(signing, address="10.1.0.1")


def test_an_account_remembers_its_newest_addresses_only(house, signing, monkeypatch):
    monkeypatch.setattr(tokens, "MAX_ADDRESSES_PER_USER", 2)
    for number in range(3):
        at = NOON + number * DAY
        signing.sign_in_with_password("bo", PASSWORD, address=f"10.1.0.{number}", at=at)
    with house.begin_read() as transaction:
        bo = Users(transaction).find("bo")
        known = SignInAddresses(transaction)
        assert [known.has(bo, f"10.1.0.{number}") for number in range(3)] == [False, True, True]


def test_who_signs_in_when_many_do_is_refused_and_holds_up_nobody(house, database, clock):
    go, hashing = Event(), Semaphore(0)

    class Slow(PasswordHasher):
        def verify(self, hash, password):  # noqa: A002 - the name that argon2 gives it
            hashing.release()
            go.wait(30)
            return super().verify(hash, password)

    signing = SignIn(database, clock, chance, Slow(1, 8, 1))
    token = create_sign_in_link(house, ADA, "bo", at=NOON, secret=write_token(chance(32)))
    with ThreadPoolExecutor(MAX_WAITING_HASHES) as pool:
        waiting = [pool.submit(sign_in, signing) for _ in range(MAX_WAITING_HASHES)]
        for _ in range(MAX_CONCURRENT_HASHES):
            assert hashing.acquire(timeout=30)
        line = signing._passwords._threads._work_queue
        others = MAX_WAITING_HASHES - MAX_CONCURRENT_HASHES
        assert any(line.qsize() == others or sleep(0.01) for _ in range(1000))
        with counted_statements(database) as statements:
            for attempt in (
                lambda: sign_in(signing),
                lambda: signing.sign_in_with_link(token, PASSWORD, at=NOON, address="a"),
                lambda: signing.set_password(BO, "bo", OTHER, at=NOON, current_password=PASSWORD),
                lambda: signing.check_own_password(BO, PASSWORD, address="a"),
            ):
                with pytest.raises(TooManyAttemptsError, match="at once"):
                    attempt()
        assert statements == []
        assert not hashing.acquire(blocking=False)
        go.set()
        assert {done.result(30).name for done in waiting} == {"bo"}


def test_a_wrong_password_writes_nothing(house, signing):
    with counted_statements(house) as statements, pytest.raises(UnauthenticatedError):
        sign_in(signing, password=OTHER)
    assert statements
    assert not [text for text in statements if text.lower().startswith(WRITES)]


def test_a_wrong_present_password_is_counted_too(house, signing):
    for _ in range(5):
        with pytest.raises(NotAllowedError):
            signing.set_password(BO, "bo", OTHER, at=NOON, current_password=OTHER)
    with pytest.raises(TooManyAttemptsError):
        signing.set_password(BO, "bo", OTHER, at=NOON, current_password=PASSWORD)


# Sessions


def test_signing_out_ends_one_session_and_everywhere_ends_all(house, signing, clock):
    one, two, three = (sign_in(signing) for _ in range(3))
    signing.sign_out(one.token, at=NOON)
    assert [in_session(house, clock, s) for s in (one, two, three)] == [None, "bo", "bo"]
    signing.sign_out_everywhere(BO, "bo", at=NOON)
    assert in_session(house, clock, two) is in_session(house, clock, three) is None
    with pytest.raises(NotAllowedError):
        signing.sign_out_everywhere(BO, "ada", at=NOON)


def test_who_is_disabled_signs_in_no_more_and_old_sessions_stay_over(house, signing, clock):
    session = sign_in(signing)
    for disabled in (True, False):
        update_account(house, ADA, "bo", AccountUpdate(is_disabled=disabled), at=NOON)
        assert in_session(house, clock, session) is None
        with pytest.raises(UnauthenticatedError):
            sign_in(signing)


def test_a_session_is_told_without_its_tokens(house, signing):
    session = sign_in(signing)
    assert session.token not in repr(session)
    assert session.csrf not in repr(session)


# Links


def test_the_first_admin_comes_in_by_a_link_once(database, signing, clock):
    token = create_first_link(database, NOON, write_token(chance(32)))
    with pytest.raises(InvalidAccountError, match="can't be a name"):
        signing.sign_in_with_link(token, PASSWORD, at=NOON, address="a", user_name="policy")
    signed_in = signing.sign_in_with_link(token, PASSWORD, at=NOON, address="a", user_name="ada")
    assert in_session(database, clock, signed_in) == "ada"
    assert load_accounts(database, ADA)[0].rights == (AssignedRole("admin"),)
    assert [kind for kind, _ in kinds(database)] == [
        *("OneTimeLinkCreated", "UserAdded", "RoleGranted", "PasswordSet")
    ]
    with pytest.raises(UnauthenticatedError, match="works once"):
        signing.sign_in_with_link(token, PASSWORD, at=NOON, address="a", user_name="eve")


def test_a_first_link_ends_when_somebody_is_here_by_another_way(database, signing):
    token = create_first_link(database, NOON, write_token(chance(32)))
    create_first_admin(database, "ada", at=NOON)
    with pytest.raises((UnauthenticatedError, AdminExistsError)):
        signing.sign_in_with_link(token, PASSWORD, at=NOON, address="a", user_name="eve")


def test_a_persons_link_sets_their_password_once_within_a_day(house, signing):
    old, token = (
        create_sign_in_link(house, ADA, "bo", at=NOON, secret=write_token(chance(32))) for _ in "12"
    )
    for wrong, at in ((old, NOON), (token, NOON + DAY), ("", NOON)):
        with pytest.raises(UnauthenticatedError):
            signing.sign_in_with_link(wrong, OTHER, at=at, address="a")
    with pytest.raises(InvalidAccountError):
        signing.sign_in_with_link(token, "short", at=NOON, address="a")
    assert signing.sign_in_with_link(token, OTHER, at=NOON, address="a").name == "bo"
    sign_in(signing, password=OTHER)
    with pytest.raises(InvalidAccountError, match="service account"):
        create_sign_in_link(house, ADA, "box", at=NOON, secret=write_token(chance(32)))


def test_a_link_ends_when_the_password_is_set_by_another_way(house, signing):
    token = create_sign_in_link(house, ADA, "bo", at=NOON, secret=write_token(chance(32)))
    signing.set_password(ADA, "bo", OTHER, at=NOON)
    with pytest.raises(UnauthenticatedError):
        signing.sign_in_with_link(token, PASSWORD, at=NOON, address="a")


def test_who_guesses_links_waits(house, signing):
    for _ in range(20):
        with pytest.raises(UnauthenticatedError):
            signing.sign_in_with_link(write_token(chance(32)), OTHER, at=NOON, address="a")
    with pytest.raises(TooManyAttemptsError):
        signing.sign_in_with_link(write_token(chance(32)), OTHER, at=NOON, address="a")


# Identity providers


def test_a_verified_address_links_once_and_then_the_subject_alone_counts(house, signing):
    update_account(house, ADA, "bo", AccountUpdate(email="bo@example.org"), at=NOON)
    with pytest.raises(UnauthenticatedError, match="no user has the identity"):
        signing.sign_in_with_identity(ISSUER, "7", "", at=NOON)
    assert signing.sign_in_with_identity(ISSUER, "7", "Bo@example.org", at=NOON).name == "bo"
    assert signing.sign_in_with_identity(ISSUER, "7", "else@example.org", at=NOON).name == "bo"
    assert kinds(house)[-1] == ("IdentityLinked", "bo")
    with pytest.raises(UnauthenticatedError):  # the address went to somebody else there
        signing.sign_in_with_identity(ISSUER, "8", "bo@example.org", at=NOON)


def test_an_identity_provider_adds_nobody_and_wakes_nobody(house, signing):
    update_account(house, ADA, "bo", AccountUpdate(email="bo@example.org"), at=NOON)
    before = load_accounts(house, ADA)
    with pytest.raises(UnauthenticatedError):
        signing.sign_in_with_identity(ISSUER, "9", "eve@example.org", at=NOON)
    assert load_accounts(house, ADA) == before
    signing.sign_in_with_identity(ISSUER, "7", "bo@example.org", at=NOON)
    update_account(house, ADA, "bo", AccountUpdate(is_disabled=True), at=NOON)
    with pytest.raises(UnauthenticatedError):
        signing.sign_in_with_identity(ISSUER, "7", "bo@example.org", at=NOON)
