"""Who takes a person away is told what nobody can do any more."""

import pytest

from rollout.core.errors import NotAllowedError
from rollout.core.scope.permissions import AssignedRole
from rollout.services.access import users
from rollout.services.access.users import AccountUpdate
from rollout.services.policies.account_changes import change_account, list_missing_approvers
from tests.factories import NOON
from tests.services import bear_field as field
from tests.services.houses import ADA, BO
from tests.store.conftest import database, url

__all__ = ["database", "url"]
OPERATOR = AssignedRole("operator", "bears")
GONE = AccountUpdate(is_disabled=True)


@pytest.fixture
def house(database):
    field.set_up_field(database)
    users.create_first_admin(database, "ada", at=NOON)
    for name in ("bo", "cy", "dee"):
        users.create_account(database, ADA, name, at=NOON, role_assignments=[OPERATOR])
    return database


def test_a_change_after_which_a_stop_can_not_be_ended_is_told_of_once(house):
    assert list_missing_approvers(house) == ()
    revoked = AccountUpdate(roles_to_revoke=(OPERATOR,))
    changed = change_account(house, ADA, "bo", revoked, at=NOON)
    assert (changed.account.name, changed.account.rights) == ("bo", ())
    (warning,) = changed.warnings
    assert warning.startswith("bears: stops: a stop could not be ended")
    assert "give 1 more user the role operator" in warning
    assert change_account(house, ADA, "bo", GONE, at=NOON).warnings == ()  # as it was
    assert list_missing_approvers(house) == (warning,)
    assert change_account(house, ADA, "cy", GONE, at=NOON).warnings != ()


def test_no_other_change_is_told_of_and_only_an_admin_is_told(house):
    for update in (AccountUpdate(email="bo@example.org"), AccountUpdate(is_disabled=False)):
        assert change_account(house, ADA, "bo", update, at=NOON).warnings == ()
    with pytest.raises(NotAllowedError):
        change_account(house, BO, "cy", GONE, at=NOON)
