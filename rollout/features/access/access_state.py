"""Changes of users, roles and keys, each recorded in the access ledger."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rollout.data.access.tokens import (
    AccessLedger,
    ApiKeys,
    CredentialResets,
    compute_digest,
    list_open_links,
    load_access_head,
)
from rollout.data.access.users import SecondFactors, StoredUser, Users
from rollout.data.database.rollouts import ACCESS_CHAIN
from rollout.data.database.session import Database, Transaction
from rollout.data.ledger.ledger import Ledger
from rollout.engine.decide.permissions import AssignedRole, Caller, Permission, require_permission
from rollout.engine.ledger.access_events import AccessState, UserAdded, build_access_state
from rollout.kernel.errors import InvalidAccountError, NotAllowedError, UnknownUserError

NO_USERS = "there are no users yet; `rollout users first-admin NAME` creates the first admin"


@dataclass(frozen=True, slots=True)
class AccessChange:
    """A write transaction that locks the access ledger; `caller` has current roles."""

    transaction: Transaction
    access_ledger: AccessLedger
    users: Users
    caller: Caller

    def get_user(self, user_name: str) -> StoredUser:
        """Return a user.

        Raises:
            UnknownUserError: there is no such user.
        """
        user = self.users.find(user_name)
        if user is None:
            raise UnknownUserError(f"no user is called {user_name}; `rollout users list` lists all")
        return user

    def get_sign_in_user(self, user_name: str) -> StoredUser:
        """Return a user who may sign in.

        Raises:
            UnknownUserError: there is no such user.
            InvalidAccountError: the account is disabled or a service account.
        """
        user = self.get_user(user_name)
        if user.is_service_account or user.disabled_at is not None:
            raise InvalidAccountError(
                f"{user_name} is a service account or disabled, and can't sign in"
            )
        return user


@contextmanager
def open_access_change(database: Database, caller: Caller) -> Iterator[AccessChange]:
    """Lock the access ledger and load the caller's current roles.

    Raises:
        NotAllowedError: there are no users yet, or the caller was disabled.
    """
    with database.begin_write() as transaction:
        access_ledger = AccessLedger(transaction)
        users = Users(transaction)
        yield AccessChange(
            transaction,
            access_ledger,
            users,
            _load_current_caller(users, caller, access_ledger.revision),
        )


@contextmanager
def open_admin_change(database: Database, caller: Caller) -> Iterator[AccessChange]:
    """Lock the access ledger for a change that admins of all rollouts make.

    The right is checked before the lock, which others wait for, and under it.

    Raises:
        NotAllowedError: the caller is no admin of all rollouts.
    """
    require_permission(caller, Permission.ADMINISTER, "")
    with open_access_change(database, caller) as change:
        require_permission(change.caller, Permission.ADMINISTER, "")
        yield change


def require_self_or_admin(caller: Caller, user_name: str, action_text: str) -> None:
    """Raise unless the caller is the user or an admin.

    Raises:
        NotAllowedError: the caller is another user and no admin.
    """
    if caller.name == user_name and not caller.is_service_account:
        require_permission(caller, Permission.IDENTIFY, "")
    elif not caller.has_permission(Permission.ADMINISTER, ""):
        raise NotAllowedError(f"{caller.name} may not {action_text} of {user_name}; ask an admin")


def build_caller(
    user: StoredUser, role_assignments: tuple[AssignedRole, ...], access_head: int | None
) -> Caller:
    """Return a user as caller, with roles as of revision `access_head`."""
    return Caller(
        user.name,
        is_service_account=user.is_service_account,
        role_assignments=role_assignments,
        access_head=access_head,
    )


def _load_current_caller(users: Users, caller: Caller, revision: int) -> Caller:
    user = users.find(caller.name)
    if user is None:
        raise NotAllowedError(
            NO_USERS if not users.has_any() else f"no user is called {caller.name}"
        )
    if user.disabled_at is not None:
        raise NotAllowedError(f"{caller.name} is disabled; an admin can enable the account")
    return build_caller(user, tuple(users.list_role_assignments(user)), revision or None)


def find_access_ledger_faults(database: Database) -> tuple[str, ...]:
    """Return differences between the user tables and the access ledger.

    Raises:
        BrokenLedgerError: the access ledger itself was changed.
    """
    with database.begin_read() as transaction:
        if load_access_head(transaction).revision is None:
            return AccessState().describe_differences(_load_access_state(transaction))
        ledger = Ledger(transaction, ACCESS_CHAIN)
        ledger.verify()
        differences = build_access_state(tuple(ledger.list_events())).describe_differences(
            _load_access_state(transaction)
        )
        return (*_find_exchanged_names(transaction, ledger), *differences)


def _find_exchanged_names(transaction: Transaction, ledger: Ledger) -> Iterator[str]:
    """Yield a sentence for each account whose name is that of another one.

    The ledger has ids alone. Users are numbered in the order in which it added them.
    """
    added_names = dict.fromkeys(event.user for event in ledger.list_of(UserAdded))
    stored_names = [user.name for user in Users(transaction).list_all()]
    if len(added_names) != len(stored_names):
        return  # whose place is whose isn't known
    for position, names in enumerate(zip(added_names, stored_names, strict=True), start=1):
        added_name, stored_name = names
        if added_name != stored_name:
            yield (
                f"account {position} of the ledger is {added_name} in account_names and"
                f" {stored_name} in users"
            )


def _load_access_state(transaction: Transaction) -> AccessState:
    users, keys = Users(transaction), ApiKeys(transaction)
    all_users = users.list_all()
    names = {user.number: user.name for user in all_users}
    return AccessState(
        people=frozenset(names.values()),
        machines=frozenset(user.name for user in all_users if user.is_service_account),
        disabled=frozenset(user.name for user in all_users if user.disabled_at is not None),
        rights=frozenset(
            (names[user_id], role_assignment)
            for user_id, user_roles in users.list_all_role_assignments().items()
            for role_assignment in user_roles
        ),
        keys=frozenset((names[key.user_id], key.prefix) for key in keys.list_open()),
        factors=frozenset(names[number] for number in SecondFactors(transaction).list_confirmed()),
        resets=frozenset(
            (
                *(names[reset.user_id], reset.credential),
                *(names.get(reset.reset_by, ""), reset.reset_at),
            )
            for reset in CredentialResets(transaction).list_all()
        ),
        credentials=frozenset(
            (name, digest)
            for name in names.values()
            if (digest := compute_digest(transaction, name))
        ),
        links=frozenset(list_open_links(transaction)),
    )
