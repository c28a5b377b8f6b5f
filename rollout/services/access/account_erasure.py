"""Erasing an account: it is disabled, and its id takes the place of its name."""

from datetime import datetime

from rollout.core.access.access_events import UserErased
from rollout.core.errors import InvalidAccountError, LastAdminError
from rollout.core.scope.permissions import Caller
from rollout.services.access.access_state import AccessChange
from rollout.services.access.users import GLOBAL_ADMIN, AccountUpdate, update_account_rows
from rollout.store.access.access_ledger import AccessLedger
from rollout.store.access.users import Users
from rollout.store.database.session import Transaction
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
    change.access_ledger.append((*update_account_rows(change, user, update, at), event))
    if not users.has_holder(GLOBAL_ADMIN):
        raise LastAdminError(
            f"{user_name} is the last admin of all rollouts; add another one first"
        )
    users.erase(user, Accounts(transaction).add_names([user_name]).find_id(user_name))
    return True
