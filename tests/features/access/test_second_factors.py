"""Codes of an app and recovery codes: each works once, and the secret is not in the database."""

import secrets
from dataclasses import replace
from datetime import timedelta

import pytest
from argon2 import PasswordHasher
from sqlalchemy import select, update

from rollout.data.access.users import Users
from rollout.data.tables.tables import recovery_codes, second_factors, sign_in_addresses
from rollout.engine.decide.permissions import Caller, Permission, require_permission
from rollout.features.access import keys
from rollout.features.access.access_state import find_access_ledger_faults
from rollout.features.access.authentication import Authenticator
from rollout.features.access.credentials import RECOVERY_BYTES, reset_second_factor
from rollout.features.access.keys import TOKEN_BYTES, SecretKey, SecretKeyError
from rollout.features.access.users import (
    AccountUpdate,
    create_sign_in_link,
    erase_account,
    update_account,
)
from rollout.kernel.errors import (
    CodeRequiredError,
    InvalidAccountError,
    NotAllowedError,
    SecondFactorRequiredError,
    TooManyAttemptsError,
    UnauthenticatedError,
)
from rollout.live.clock import ManualClock
from rollout.live.service import build_service
from tests.data.databases import on_sqlite
from tests.factories import NOON
from tests.features.access.factors import build_signing, code_at, enrol
from tests.features.houses import ADA, BO, PASSWORD, chance, furnish, kinds

QUICK = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
STEP = timedelta(seconds=30)
LATER = NOON + timedelta(minutes=10)
CY = Caller("cy")


@pytest.fixture
def clock():
    return ManualClock(NOON)


@pytest.fixture
def signing(database, clock, tmp_path):
    furnish(database)
    made = build_signing(database, clock, tmp_path, QUICK)
    made.set_password(ADA, "bo", PASSWORD, at=NOON)
    return made


def sign_in(signing, code="", at=LATER, address="10.0.0.1"):
    return signing.sign_in_with_password("bo", PASSWORD, address=address, at=at, code=code)


def authenticate(database, clock, session, at=LATER, *, required=True):
    door = Authenticator(database, clock, requires_second_factor=required)
    return door.authenticate_session(session.token, at)


def test_a_code_of_the_app_is_asked_for_once_the_factor_is_confirmed(signing, database, clock):
    signing.codes.begin_enrolment(BO, at=NOON)
    sign_in(signing)  # not confirmed: a user who closed the page is not locked out
    secret, _ = enrol(signing, BO)
    with pytest.raises(CodeRequiredError, match="authenticator app") as asked:
        sign_in(signing)
    session = signing.sign_in_with_challenge(
        asked.value.challenge, code_at(secret, LATER), address="10.0.0.1", at=LATER
    )
    assert authenticate(database, clock, session).second_factor == "code"
    assert kinds(database)[-1] == ("SecondFactorAdded", "bo")
    assert not find_access_ledger_faults(database)


def test_a_code_works_once_and_one_step_to_each_side(signing):
    secret, _ = enrol(signing, BO)
    for steps in (-2, 2):
        with pytest.raises(UnauthenticatedError, match="wrong or was used"):
            sign_in(signing, code_at(secret, LATER + steps * STEP))
    for steps in (-1, 0, 1):
        sign_in(signing, code_at(secret, LATER + steps * STEP))
        with pytest.raises(UnauthenticatedError, match="wrong or was used"):
            sign_in(signing, code_at(secret, LATER + steps * STEP))
    with pytest.raises(UnauthenticatedError):  # an earlier one than the last is over as well
        sign_in(signing, code_at(secret, LATER))


def test_the_code_that_confirmed_the_factor_is_used_up(signing):
    secret, _ = enrol(signing, BO)
    with pytest.raises(UnauthenticatedError):
        sign_in(signing, code_at(secret, NOON), at=NOON)


def test_a_recovery_code_works_once_however_it_is_typed(signing, database, clock):
    _, codes = enrol(signing, BO)
    assert len(set(codes)) == 10
    session = sign_in(signing, codes[3].upper().replace("-", " "))
    assert authenticate(database, clock, session).second_factor == "recovery"
    assert kinds(database)[-1] == ("RecoveryCodeUsed", "bo")
    with pytest.raises(UnauthenticatedError):
        sign_in(signing, codes[3])
    assert signing.codes.load_summary("bo").recovery_codes_left == 9


@pytest.mark.parametrize("code", ["000000", "12345", "1234567", "١٢٣٤٥٦", "-", " "])
def test_what_is_no_code_is_refused_and_counted(signing, code):
    enrol(signing, BO)
    for _ in range(5):
        with pytest.raises(UnauthenticatedError):
            sign_in(signing, code)
    with pytest.raises(TooManyAttemptsError):
        sign_in(signing, code)


def test_the_right_password_between_guessed_codes_resets_no_count(signing):
    enrol(signing, BO)
    for _ in range(5):
        with pytest.raises(UnauthenticatedError):
            sign_in(signing, "000000")
        if _ < 4:
            with pytest.raises(CodeRequiredError):
                sign_in(signing)
    with pytest.raises(TooManyAttemptsError):
        sign_in(signing)


def test_a_challenge_ends_after_minutes_and_with_the_password(signing):
    secret, _ = enrol(signing, BO)
    with pytest.raises(CodeRequiredError) as asked:
        sign_in(signing)
    challenge, late = asked.value.challenge, LATER + timedelta(minutes=5)
    for wrong, at in ((challenge, late), (challenge[:-2], LATER), ("", LATER)):
        with pytest.raises(UnauthenticatedError, match="begin again"):
            signing.sign_in_with_challenge(wrong, code_at(secret, at), address="a", at=at)
    signing.set_password(ADA, "bo", "staple horse correct", at=LATER)
    with pytest.raises(UnauthenticatedError, match="begin again"):
        signing.sign_in_with_challenge(challenge, code_at(secret, LATER), address="a", at=LATER)


@on_sqlite
def test_a_copied_secret_is_no_factor_of_another_user(signing, database, clock):
    """Whoever can write the database can't give their own factor to somebody else."""
    signing.set_password(ADA, "ada", PASSWORD, at=NOON, skips_current=True)
    enrol(signing, ADA)
    secret, _ = enrol(signing, BO)
    with database.begin_write() as transaction:
        ada, bo = (Users(transaction).find(name).number for name in ("ada", "bo"))
        copied = select(second_factors.c.secret).where(second_factors.c.user_id == bo)
        statement = update(second_factors).where(second_factors.c.user_id == ada)
        transaction.execute(statement.values(secret=copied.scalar_subquery()))
    with pytest.raises(SecretKeyError, match="not the key that encrypted this"):
        signing.sign_in_with_password(
            "ada", PASSWORD, address="a", at=LATER, code=code_at(secret, LATER)
        )


@on_sqlite
def test_the_secret_is_encrypted_by_a_file_of_its_owner_alone(signing, database, tmp_path):
    secret, _ = enrol(signing, BO)
    content = (tmp_path / "secret.key").read_text()
    assert (tmp_path / "secret.key").stat().st_mode & 0o777 == 0o600
    with database.begin_read() as transaction:
        stored = transaction.execute(select(second_factors.c.secret)).scalar_one()
    assert secret.encode() not in stored
    (tmp_path / "secret.key").chmod(0o644)
    with pytest.raises(SecretKeyError, match="chmod 600"):
        sign_in(signing)
    (tmp_path / "secret.key").unlink()
    with pytest.raises(SecretKeyError, match="put it back"):
        sign_in(signing, code_at(secret, LATER))
    with pytest.raises(SecretKeyError, match="put it back"):  # a new key would lock others out
        signing.codes.begin_enrolment(ADA, at=LATER)
    key = SecretKey(str(tmp_path / "secret.key"), chance)
    key.create()
    with pytest.raises(SecretKeyError, match="not the key that encrypted"):
        sign_in(signing, code_at(secret, LATER))
    (tmp_path / "secret.key").write_text(content)
    sign_in(signing, code_at(secret, LATER))


def test_the_own_factor_is_removed_with_a_code_and_then_set_up_anew(signing, database):
    _, codes = enrol(signing, BO)
    with pytest.raises(InvalidAccountError, match="remove it first"):
        signing.codes.begin_enrolment(BO, at=LATER)
    with pytest.raises(UnauthenticatedError):
        signing.codes.remove_own(BO, "000000", at=LATER)
    signing.codes.remove_own(BO, codes[0], at=LATER)
    assert kinds(database)[-1] == ("SecondFactorRemoved", "bo")
    sign_in(signing)
    enrol(signing, BO, LATER)
    assert not find_access_ledger_faults(database)


def test_an_admin_removes_a_lost_factor_and_the_ledger_has_it(signing, database):
    enrol(signing, BO)
    with pytest.raises(NotAllowedError):
        reset_second_factor(database, BO, "bo", at=LATER)
    reset_second_factor(database, ADA, "bo", at=LATER)
    assert kinds(database)[-1] == ("CredentialsReset", "bo")
    sign_in(signing)
    with pytest.raises(InvalidAccountError, match="no second factor"):
        reset_second_factor(database, ADA, "bo", at=LATER)
    assert not find_access_ledger_faults(database)


def test_disabling_ends_the_factor_too(signing, database):
    enrol(signing, BO)
    for disabled in (True, False):
        update_account(database, ADA, "bo", AccountUpdate(is_disabled=disabled), at=LATER)
    assert signing.codes.load_summary("bo").confirmed_at is None
    assert not find_access_ledger_faults(database)


@on_sqlite
def test_an_erasure_deletes_factor_and_addresses(signing, database):
    enrol(signing, BO)
    with database.begin_write() as transaction:
        erase_account(transaction, ADA, "bo", reason="asked", at=LATER)
    with database.begin_read() as transaction:
        for table in (second_factors, recovery_codes, sign_in_addresses):
            assert not transaction.execute(select(table)).all()


def test_a_link_sets_the_password_but_the_code_is_still_asked_for(signing, database):
    secret, _ = enrol(signing, BO)
    token = create_sign_in_link(database, ADA, "bo", at=LATER, secret="x" * 40)
    with pytest.raises(CodeRequiredError, match="the password is set"):
        signing.sign_in_with_link(token, "staple horse correct", at=LATER, address="a")
    session = signing.sign_in_with_password(
        "bo", "staple horse correct", address="a", at=LATER, code=code_at(secret, LATER)
    )
    assert session.name == "bo"


# Where the service requires one


def test_without_a_factor_an_operator_looks_stops_and_rejects_but_does_not_widen(
    signing, database, clock
):
    caller = authenticate(database, clock, sign_in(signing))
    assert caller.lacks_second_factor
    for permission in (Permission.READ, Permission.OPERATE, Permission.REJECT):
        require_permission(caller, permission, "ramps", ("a",))
    for permission in (Permission.APPROVE, Permission.PROPOSE):
        with pytest.raises(SecondFactorRequiredError, match="second factor"):
            require_permission(caller, permission, "ramps", ("a",))
        assert not caller.has_permission(permission, "ramps", "a")
        assert not caller.has_permission_somewhere(permission, "ramps")
    with pytest.raises(NotAllowedError, match="needs the role admin"):
        require_permission(caller, Permission.ADMINISTER, "")


def test_with_a_factor_or_where_none_is_required_nothing_is_withheld(signing, database, clock):
    plain = authenticate(database, clock, sign_in(signing), required=False)
    assert not plain.lacks_second_factor
    secret, _ = enrol(signing, BO)
    caller = authenticate(database, clock, sign_in(signing, code_at(secret, LATER)))
    require_permission(caller, Permission.APPROVE, "ramps", ("a",))


def test_the_session_in_which_the_factor_is_confirmed_has_it_and_others_end(
    signing, database, clock
):
    other = sign_in(signing, at=NOON)
    session = sign_in(signing, at=NOON)
    enrolment = signing.codes.begin_enrolment(BO, at=NOON)
    code = code_at(enrolment.secret, NOON)
    with pytest.raises(UnauthenticatedError):
        signing.codes.confirm_enrolment(BO, "000000", session_token=session.token, at=NOON)
    signing.codes.confirm_enrolment(BO, code, session_token=session.token, at=NOON)
    assert not authenticate(database, clock, session, NOON).lacks_second_factor
    with pytest.raises(UnauthenticatedError):
        authenticate(database, clock, other, NOON)


def test_a_key_has_the_factor_of_the_session_in_which_its_own_user_made_it(
    signing, database, clock
):
    door = Authenticator(database, clock, requires_second_factor=True)
    plain = authenticate(database, clock, sign_in(signing))
    with_factor = replace(plain, second_factor="code", lacks_second_factor=False)
    for caller, lacks in ((plain, True), (with_factor, False), (ADA, True)):
        key = keys.create_key(database, caller, "bo", random_bytes=chance(keys.KEY_BYTES), at=LATER)
        assert door.authenticate_key(key.text, LATER).lacks_second_factor is lacks


def test_a_service_account_and_a_viewer_need_no_factor(signing, database, clock):
    door = Authenticator(database, clock, requires_second_factor=True)
    key = keys.create_key(database, ADA, "box", random_bytes=chance(keys.KEY_BYTES), at=NOON)
    assert not door.authenticate_key(key.text, NOON).lacks_second_factor
    assert not Caller("vic").has_factor_role


@pytest.mark.parametrize("has_factor", [True, False])
def test_with_a_provider_its_own_factor_is_required_instead(signing, database, clock, has_factor):
    enrol(signing, BO)  # our own factor doesn't stand for the provider's
    update_account(database, ADA, "bo", AccountUpdate(email="bo@example.org"), at=NOON)
    session = signing.sign_in_with_identity(
        "https://id.example.org", "7", "bo@example.org", at=LATER, has_second_factor=has_factor
    )
    caller = authenticate(database, clock, session)
    assert caller.lacks_second_factor is not has_factor


def test_who_has_no_password_sets_up_no_factor_here(signing, database):
    with pytest.raises(NotAllowedError, match="your organisation"):
        signing.check_own_password(ADA, PASSWORD, address="a")
    with pytest.raises(NotAllowedError, match="current password is wrong"):
        signing.check_own_password(BO, "wrong", address="a")
    signing.check_own_password(BO, PASSWORD, address="a")


def test_secrets_come_from_the_systems_random_source(database, clock):
    service = build_service(database, Authenticator(database, clock), clock)
    assert service.entropy is secrets.token_bytes
    assert service.sign_in._entropy is service.sign_in.codes._entropy is secrets.token_bytes
    assert 8 * TOKEN_BYTES == 256
    assert 8 * RECOVERY_BYTES >= 112
