"""Who takes a person away is told what nobody can do any more."""

import pytest

from rollout.data.access.users import SecondFactors, Users
from rollout.engine.decide.permissions import AssignedRole
from rollout.features.access import users
from rollout.features.access.credentials import reset_second_factor
from rollout.features.access.users import AccountUpdate
from rollout.features.erasure.erasure import ErasureRequest, erase_user
from rollout.features.policies.account_changes import change_account, list_missing_approvers
from rollout.kernel.errors import NotAllowedError
from tests.data.conftest import database, url
from tests.factories import DAY, NOON, TICK
from tests.features import bear_field as field
from tests.features.houses import ADA, BO

__all__ = ["database", "url"]
OPERATOR = AssignedRole("operator", "bears")
GONE = AccountUpdate(is_disabled=True)
OPTIONAL = {"at": NOON, "requires_second_factor": False}
REQUIRED = {"at": NOON, "requires_second_factor": True}


@pytest.fixture
def house(database):
    field.set_up_field(database)
    users.create_first_admin(database, "ada", at=NOON)
    for name in ("bo", "cy", "dee"):
        users.create_account(database, ADA, name, at=NOON, role_assignments=[OPERATOR])
    return database


def add_factors(database, *names):
    with database.begin_write() as transaction:
        for name in names:
            user = Users(transaction).find(name)
            SecondFactors(transaction).add(user, b"secret", at=NOON)
            SecondFactors(transaction).confirm(user, at=NOON, code_hashes=[name.encode()])


@pytest.mark.slow
def test_a_change_after_which_a_stop_can_not_be_ended_is_told_of_once(house):
    assert list_missing_approvers(house, **OPTIONAL) == ()
    revoked = AccountUpdate(roles_to_revoke=(OPERATOR,))
    changed = change_account(house, ADA, "bo", revoked, **OPTIONAL)
    assert (changed.account.name, changed.account.rights) == ("bo", ())
    (warning,) = changed.warnings
    assert warning.startswith("bears: stops: a stop could not be ended")
    assert "give 1 more user the role operator" in warning
    assert change_account(house, ADA, "bo", GONE, **OPTIONAL).warnings == ()  # as it was
    assert list_missing_approvers(house, **OPTIONAL) == (warning,)
    assert change_account(house, ADA, "cy", GONE, **OPTIONAL).warnings != ()


def test_who_can_not_approve_now_is_left_out(house):
    assert list_missing_approvers(house, **REQUIRED) != ()
    add_factors(house, "ada", "bo", "cy", "dee")
    assert list_missing_approvers(house, **REQUIRED) == ()
    reset_second_factor(house, ADA, "cy", at=NOON)
    (warning,) = list_missing_approvers(house, **OPTIONAL)
    assert "a stop could not be ended" in warning
    assert list_missing_approvers(house, **OPTIONAL | {"at": NOON + DAY - TICK}) == (warning,)
    assert list_missing_approvers(house, **OPTIONAL | {"at": NOON + DAY}) == ()
    assert list_missing_approvers(house, **REQUIRED | {"at": NOON + DAY}) == (warning,)
    with house.begin_write() as transaction:  # a provider may ask for its own
        cy = Users(transaction).find("cy")
        assert Users(transaction).link_identity(cy, "https://id.example.org", "7", at=NOON)
    assert list_missing_approvers(house, **REQUIRED | {"at": NOON + DAY}) == ()


def test_who_lacks_a_required_second_factor_is_no_replacement(house):
    users.create_account(house, ADA, "eve", at=NOON, role_assignments=[OPERATOR])
    add_factors(house, "bo", "cy", "dee")
    assert list_missing_approvers(house, **REQUIRED) == ()
    (warning,) = change_account(house, ADA, "bo", GONE, **REQUIRED).warnings
    assert "give 1 more user the role operator" in warning
    assert list_missing_approvers(house, **OPTIONAL) == ()  # eve takes the place without one


def test_an_erasure_after_which_a_stop_can_not_be_ended_is_told_of_once(house):
    request = ErasureRequest(ADA, "", "they left", NOON)
    (warning,) = erase_user(house, request, "bo", requires_second_factor=False).warnings
    assert warning.startswith("bears: stops: a stop could not be ended")
    assert erase_user(house, request, "bo", requires_second_factor=False).warnings == ()


def test_an_erasure_counts_who_lacks_a_required_second_factor(house):
    users.create_account(house, ADA, "eve", at=NOON, role_assignments=[OPERATOR])
    add_factors(house, "bo", "cy", "dee")
    request = ErasureRequest(ADA, "", "they left", NOON)
    assert erase_user(house, request, "eve", requires_second_factor=True).warnings == ()
    assert erase_user(house, request, "bo", requires_second_factor=True).warnings != ()


def test_only_an_admin_erases_and_is_told(house):
    with pytest.raises(NotAllowedError):
        erase_user(
            house, ErasureRequest(BO, "", "they left", NOON), "cy", requires_second_factor=False
        )


def test_no_other_change_is_told_of_and_only_an_admin_is_told(house):
    for update in (AccountUpdate(email="bo@example.org"), AccountUpdate(is_disabled=False)):
        assert change_account(house, ADA, "bo", update, **OPTIONAL).warnings == ()
    with pytest.raises(NotAllowedError):
        change_account(house, BO, "cy", GONE, **OPTIONAL)
