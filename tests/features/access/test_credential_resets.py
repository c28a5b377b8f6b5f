"""A reset, then an approval: not for a day, and never together with the admin who made it."""

from datetime import timedelta

import pytest
from argon2 import PasswordHasher

from rollout.engine.decide.permissions import AssignedRole
from rollout.features.access import keys, users
from rollout.features.access.access_state import find_access_ledger_faults
from rollout.features.access.authentication import Authenticator
from rollout.features.access.sign_in import SignIn
from rollout.features.access.users import AccountUpdate, create_sign_in_link, load_local_caller
from rollout.features.proposals.proposals import approve_proposal
from rollout.kernel.errors import NotEligibleError
from rollout.live.clock import ManualClock
from tests.api.bears import founded, scope_of, tick
from tests.factories import DAY, NOON
from tests.features.houses import PASSWORD, chance, kinds

QUICK = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
OPERATOR = AssignedRole("operator")
OTHER = "staple horse correct"
HOUR = timedelta(hours=1)


@pytest.fixture
def signing(database):
    founded(database, NOON)
    users.create_first_admin(database, "ada", at=NOON)
    ada = load_local_caller(database, "ada")
    own = AccountUpdate(roles_to_grant=(OPERATOR,))
    users.update_account(database, ada, "ada", own, at=NOON)
    for name in ("bo", "cy"):
        users.create_account(database, ada, name, at=NOON, role_assignments=(OPERATOR,))
    return SignIn(database, ManualClock(NOON), chance, QUICK)


@pytest.fixture
def ada(signing, database):
    return load_local_caller(database, "ada")


def approve(database, name, at):
    (proposal,) = scope_of(database).proposals.values()
    return approve_proposal(
        database, load_local_caller(database, name), "bears", proposal.id,
        proposal.evidence_hash, at=at,
    )  # fmt: skip


def by_set_password(database, signing, ada, at):
    signing.set_password(ada, "bo", OTHER, at=at)


def by_link(database, signing, ada, at):
    token = create_sign_in_link(database, ada, "bo", at=at, secret="x" * 40)
    signing.sign_in_with_link(token, OTHER, at=at, address="a")


def by_key(database, signing, ada, at):
    keys.create_key(database, ada, "bo", random_bytes=chance(keys.KEY_BYTES), at=at)


def by_address(database, signing, ada, at):
    users.update_account(database, ada, "bo", AccountUpdate(email="bo@example.org"), at=at)


@pytest.mark.parametrize("reset", [by_set_password, by_link, by_key, by_address])
def test_after_a_reset_approvals_pause_for_a_day_and_never_count_with_the_admin(
    database, signing, ada, reset
):
    signing.set_password(ada, "bo", PASSWORD, at=NOON)
    assert load_local_caller(database, "bo").limits.resume_at is None  # the first is no reset
    tick(database, NOON)
    reset(database, signing, ada, NOON + HOUR)
    assert ("CredentialsReset", "bo") in kinds(database)
    with pytest.raises(NotEligibleError, match="was reset; their approvals count again from"):
        approve(database, "bo", NOON + DAY)
    approve(database, "ada", NOON + DAY)
    with pytest.raises(NotEligibleError, match="bo and ada don't count together"):
        approve(database, "bo", NOON + DAY + HOUR)
    assert approve(database, "cy", NOON + DAY + HOUR).approvals_missing == 0
    assert not find_access_ledger_faults(database)


def test_after_the_pause_the_account_counts_and_then_the_admin_does_not(database, signing, ada):
    signing.set_password(ada, "bo", PASSWORD, at=NOON)
    tick(database, NOON)
    by_link(database, signing, ada, NOON + HOUR)
    assert approve(database, "bo", NOON + DAY + HOUR).approvals_missing == 1
    with pytest.raises(NotEligibleError, match="ada and bo don't count together"):
        approve(database, "ada", NOON + DAY + HOUR)


def test_a_password_changed_with_the_current_one_is_no_reset(database, signing, ada):
    signing.set_password(ada, "bo", PASSWORD, at=NOON)
    bo = load_local_caller(database, "bo")
    signing.set_password(bo, "bo", OTHER, at=NOON, current_password=PASSWORD)
    assert load_local_caller(database, "bo").limits.resume_at is None


def test_a_password_after_disabling_is_a_reset(database, signing, ada):
    signing.set_password(ada, "bo", PASSWORD, at=NOON)
    for disabled in (True, False):
        update = AccountUpdate(is_disabled=disabled)
        users.update_account(database, ada, "bo", update, at=NOON)
    signing.set_password(ada, "bo", OTHER, at=NOON)
    assert load_local_caller(database, "bo").limits.resume_at == NOON + DAY


def test_a_running_replica_learns_of_a_reset_and_of_its_admin(database, signing, ada):
    clock = ManualClock(NOON)
    door = Authenticator(database, clock)
    signing.set_password(ada, "bo", PASSWORD, at=NOON)
    texts = [
        keys.create_key(
            database, load_local_caller(database, name), name,
            random_bytes=chance(keys.KEY_BYTES), at=NOON,
        ).text
        for name in ("ada", "bo")
    ]  # fmt: skip
    assert not any(door.authenticate_key(text, NOON).limits.reset_partners for text in texts)
    signing.set_password(ada, "bo", OTHER, at=NOON)
    clock.since_boot += 1
    assert [set(door.authenticate_key(text, NOON).limits.reset_partners) for text in texts] == [
        {"bo"},
        {"ada"},
    ]
