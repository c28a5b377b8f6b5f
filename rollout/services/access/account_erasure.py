"""Erasing an account: it is disabled, and its id takes the place of its name.

The last admin's account can't go; after a restore it loses all that its user could sign in with.
"""

from datetime import datetime

from rollout.core.access.access_events import UserErased
from rollout.core.errors import InvalidAccountError, LastAdminError
from rollout.core.scope.permissions import Caller
from rollout.services.access.access_state import AccessChange
from rollout.services.access.users import GLOBAL_ADMIN, AccountUpdate, update_account_rows
from rollout.store.access.access_ledger import AccessLedger
from rollout.store.access.users import Users
from rollout.store.database.session import Database, Transaction
from rollout.store.ledger.accounts import Accounts


def erase_account(
    transaction: Transaction, caller: Caller, user_name: str, *, reason: str, at: datetime
) -> bool:
    """Disable an account and replace its name by its id; return False if there is none.

    Call it last: afterwards ledgers show the id, which is the pseudonym of the name.

    Raises:
        InvalidAccountError: it is a service account, which is nobody's name.
        LastAdminError: no admin would be left.
    """
    users = Users(transaction)
    user = users.find(user_name)
    if user is None:
        return False
    if user.is_service_account:
        raise InvalidAccountError(
            f"{user_name} is a service account; disable it: `rollout users disable {user_name}`"
        )
    change = AccessChange(transaction, AccessLedger(transaction), users, caller)
    event = UserErased(at=at, by=caller.name, user=user_name, reason=reason)
    update = AccountUpdate(is_disabled=True)
    events = update_account_rows(change, user, update, at)
    if not users.has_holder(GLOBAL_ADMIN):
        raise LastAdminError(
            f"{user_name} is the last admin of all rollouts; add another one first"
        )
    users.erase(user, Accounts(transaction).add_names([user_name]).find_id(user_name))
    change.access_ledger.append((*events, event))  # without a digest of what is gone
    return True


def strip_last_admin(database: Database, caller: Caller, user_name: str, *, at: datetime) -> None:
    """Leave an account nothing but its name and the role of admin.

    Password, keys, second factor, identities, address and other roles end, as of a disabled
    account, which is then enabled again.
    """
    with database.begin_write() as transaction:
        users = Users(transaction)
        change = AccessChange(transaction, AccessLedger(transaction), users, caller)
        for update in (
            AccountUpdate(is_disabled=True),
            AccountUpdate(is_disabled=False, roles_to_grant=(GLOBAL_ADMIN,)),
        ):
            events = update_account_rows(change, change.get_user(user_name), update, at)
            if update.is_disabled:
                users.erase(change.get_user(user_name), user_name)
            change.access_ledger.append(events)
