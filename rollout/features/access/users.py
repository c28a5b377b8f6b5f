"""Users and service accounts: their roles, resets of how they sign in, and the erasure of accounts.

An erased account is disabled, and its id takes the place of its name. The last admin's account
can't go; after a restore it loses all that its user could sign in with.

Resets are of passwords, second factors, addresses and keys, by others than their user. For a day
after a reset the account's approvals don't count, and they never count together with those of the
admin who made it: else one admin could approve twice.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from rollout.data.access.tokens import (
    AccessLedger,
    ApiKeys,
    CredentialReset,
    CredentialResets,
    OneTimeLinks,
    Sessions,
    compute_link_digest,
    hash_secret,
    load_access_head,
)
from rollout.data.access.users import SecondFactors, StoredUser, Users
from rollout.data.database.session import Database, Transaction
from rollout.data.ledger.ledger import Accounts
from rollout.data.records.external_keys import is_name_erased, is_version_name
from rollout.engine.decide.commands import NO_LIMITS, ApprovalLimits
from rollout.engine.decide.permissions import (
    ADMIN,
    APPROVER,
    INGEST,
    OPERATOR,
    REVIEWER,
    VIEWER,
    AssignedRole,
    Caller,
    Permission,
    check_role_assignment,
    is_broad,
    reads_what_it_judges,
    require_permission,
)
from rollout.engine.events import ENGINE
from rollout.engine.ledger.access_events import (
    REPLAY,
    SIMULATED,
    AccessEvent,
    CredentialsReset,
    EmailSet,
    OneTimeLinkCreated,
    RoleGranted,
    RoleRevoked,
    UserAdded,
    UserDisabled,
    UserEnabled,
    UserErased,
    is_account_name,
)
from rollout.features.access.access_state import AccessChange, build_caller, open_admin_change
from rollout.kernel.calendar.instants import to_micros
from rollout.kernel.errors import (
    AdminExistsError,
    InvalidAccountError,
    LastAdminError,
    NameTakenError,
    NotAllowedError,
    UnknownUserError,
)

PASSWORD, SECOND_FACTOR = "password", "second factor"
EMAIL, KEY = "e-mail address", "key"
APPROVAL_PAUSE: Final = timedelta(hours=24)
"""Time after a reset in which the account's approvals don't count."""


def find_approval_limits(
    resets: Iterable[CredentialReset], names: Mapping[int, str]
) -> dict[int, ApprovalLimits]:
    """Return the limits by user number; users without limits are missing.

    `names` are those of all accounts, also of disabled ones.

    >>> at = datetime.fromisoformat("2027-06-01T12:00Z")
    >>> limits = find_approval_limits([CredentialReset(2, 1, "password", at)], {1: "ada", 2: "bo"})
    >>> sorted(limits), sorted(limits[1].reset_partners), sorted(limits[2].reset_partners)
    ([1, 2], ['bo'], ['ada'])
    """
    partners: dict[int, set[str]] = {}
    ends: dict[int, datetime] = {}
    for reset in resets:
        end = reset.reset_at + APPROVAL_PAUSE
        ends[reset.user_id] = max(end, ends.get(reset.user_id, end))
        if reset.reset_by in names and reset.user_id in names and reset.reset_by != reset.user_id:
            partners.setdefault(reset.user_id, set()).add(names[reset.reset_by])
            partners.setdefault(reset.reset_by, set()).add(names[reset.user_id])
    return {
        number: ApprovalLimits(ends.get(number), frozenset(partners.get(number, ())))
        for number in {*ends, *partners}
    }


def load_approval_limits(transaction: Transaction) -> dict[int, ApprovalLimits]:
    """Load the limits of all accounts by user number."""
    resets = CredentialResets(transaction).list_all()
    if not resets:
        return {}
    names = {user.number: user.name for user in Users(transaction).list_all()}
    return find_approval_limits(resets, names)


def record_reset(
    transaction: Transaction,
    access_ledger: AccessLedger,
    user: StoredUser,
    by: str,
    credential: str,
    *,
    at: datetime,
) -> None:
    """Store a reset in its table and in the access ledger."""
    CredentialResets(transaction).add(user, Users(transaction).find(by), credential, at=at)
    access_ledger.append([CredentialsReset(at=at, by=by, user=user.name, credential=credential)])


NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
EMAIL_PATTERN = re.compile(r"[^@\s]{1,64}@[^@\s]{1,255}")
LINK_LIFETIME = timedelta(hours=24)
GLOBAL_ADMIN = AssignedRole(ADMIN)


@dataclass(frozen=True, slots=True)
class UserAccount(StoredUser):
    """A user or service account, as an admin sees it."""

    rights: tuple[AssignedRole, ...] = ()

    @property
    def is_broad(self) -> bool:
        """Return whether a service account may send predictions and what judges them."""
        return self.is_service_account and is_broad(self.rights)


@dataclass(frozen=True, slots=True)
class AccountUpdate:
    """Changes of an account; None and () change nothing."""

    is_disabled: bool | None = None
    email: str | None = None
    roles_to_grant: tuple[AssignedRole, ...] = ()
    roles_to_revoke: tuple[AssignedRole, ...] = ()


def load_accounts(database: Database, caller: Caller) -> tuple[UserAccount, ...]:
    """Return all accounts that ever existed, oldest first.

    Raises:
        NotAllowedError: the caller is no admin of all rollouts.
    """
    require_permission(caller, Permission.ADMINISTER, "")
    return _load_all(database)


def find_broad_accounts(database: Database) -> tuple[str, ...]:
    """Return the enabled service accounts that may send predictions and what judges them."""
    accounts = _load_all(database)
    return tuple(a.name for a in accounts if a.is_broad and a.disabled_at is None)


def _load_all(database: Database) -> tuple[UserAccount, ...]:
    with database.begin_read() as transaction:
        users = Users(transaction)
        roles_by_user = users.list_all_role_assignments()
        return tuple(
            _build_account(user, roles_by_user.get(user.number, ())) for user in users.list_all()
        )


def create_account(
    database: Database,
    caller: Caller,
    user_name: str,
    *,
    at: datetime,
    is_service_account: bool = False,
    email: str = "",
    role_assignments: Iterable[AssignedRole] = (),
) -> UserAccount:
    """Add a user or service account; names are never reused.

    Raises:
        NotAllowedError: the caller is no admin of all rollouts.
        InvalidAccountError: the name, the address or a role is invalid.
        NameTakenError: another account has the name or the address, or a version the name.
        UnknownRolloutError: a role names an unknown rollout.
    """
    with open_admin_change(database, caller) as change:
        user, events = _add_user(
            change.users, user_name, by=caller.name, at=at, is_service_account=is_service_account
        )
        update = AccountUpdate(email=email or None, roles_to_grant=tuple(role_assignments))
        events += update_account_rows(change, user, update, at)
        change.access_ledger.append(events)
        return _load_account(change.users, user_name)


def update_account(
    database: Database, caller: Caller, user_name: str, update: AccountUpdate, *, at: datetime
) -> UserAccount:
    """Change an account, all of it or nothing; repeating it is safe.

    Disabling ends password, keys, sessions and links at once and revokes all roles.

    Raises:
        NotAllowedError: the caller is no admin of all rollouts.
        UnknownUserError: there is no such user.
        InvalidAccountError: the address or a role is invalid.
        NameTakenError: another account has the address.
        UnknownRolloutError: a role names an unknown rollout.
        LastAdminError: no admin would be left.
    """
    with open_admin_change(database, caller) as change:
        change.access_ledger.append(
            update_account_rows(change, change.get_user(user_name), update, at)
        )
        if not change.users.has_holder(GLOBAL_ADMIN):
            raise LastAdminError(
                f"{user_name} is the last admin of all rollouts; add another one first"
            )
        return _load_account(change.users, user_name)


def create_first_admin(database: Database, user_name: str, *, at: datetime) -> UserAccount:
    """Create the first admin; of concurrent calls exactly one succeeds.

    Raises:
        AdminExistsError: there is a user already.
        InvalidAccountError: the name is invalid.
    """
    with database.begin_write() as transaction:
        AccessLedger(transaction).append(initialize_access(transaction, user_name, at))
        return _load_account(Users(transaction), user_name)


def initialize_access(
    transaction: Transaction, user_name: str, at: datetime
) -> tuple[AccessEvent, ...]:
    """Add the first admin; return the events for the access ledger."""
    users = Users(transaction)
    if users.has_any():
        raise AdminExistsError("a user exists already; ask an admin: `rollout users list`")
    user, events = _add_user(users, user_name, by=user_name, at=at, is_service_account=False)
    users.grant_role(user, GLOBAL_ADMIN)
    OneTimeLinks(transaction).end_links(user, at=at)
    return (*events, RoleGranted(at=at, by=user_name, user=user_name, role=ADMIN))


def create_first_link(database: Database, at: datetime, secret: str) -> str | None:
    """Create the first admin's link, or return None if users exist.

    The link is valid for a day. `secret` needs 32 random letters or more and is stored as a
    hash. The result is the token, to be shown once to the operator who starts the service.
    """
    with database.begin_write() as transaction:
        access_ledger = AccessLedger(transaction)
        if Users(transaction).has_any():
            return None
        return _create_link(transaction, access_ledger, None, ENGINE, at, secret)


def create_sign_in_link(
    database: Database, caller: Caller, user_name: str, *, at: datetime, secret: str
) -> str:
    """Create a user's link to set a password.

    It works once, for a day; earlier links of the user end.

    Raises:
        NotAllowedError: the caller is no admin of all rollouts.
        UnknownUserError: there is no such user.
        InvalidAccountError: the account is disabled or a service account.
    """
    with open_admin_change(database, caller) as change:
        user = change.get_sign_in_user(user_name)
        OneTimeLinks(change.transaction).end_links(user, at=at)
        return _create_link(change.transaction, change.access_ledger, user, caller.name, at, secret)


def load_local_caller(database: Database, user_name: str, groups: Sequence[str] = ()) -> Caller:
    """Return the caller of a command that works on the database itself.

    Without any users, every name is accepted with all roles. Otherwise the name must be a user, and
    their roles hold. `groups` restricts them to some of their groups; () means all.

    Raises:
        UnknownUserError: there are users, but none of that name.
        NotAllowedError: the user is disabled or in no such group.
    """
    with database.begin_read() as transaction:
        users = Users(transaction)
        if not users.has_any():
            return Caller(user_name, role_assignments=_list_all_roles(groups))
        user = users.find(user_name)
        if user is None:
            raise UnknownUserError(f"no user is called {user_name}; `rollout users list` lists all")
        if user.disabled_at is not None:
            raise NotAllowedError(f"{user_name} is disabled; an admin can enable the account")
        role_assignments = _select_roles_in_groups(
            user_name, tuple(users.list_role_assignments(user)), groups
        )
        caller = build_caller(user, role_assignments, load_access_head(transaction).revision)
        limits = load_approval_limits(transaction).get(user.number, NO_LIMITS)
        return replace(caller, limits=limits)


def _list_all_roles(groups: Sequence[str]) -> tuple[AssignedRole, ...]:
    """Return all roles in the given groups, by default as operator."""
    basic_roles = [AssignedRole(role) for role in (VIEWER, REVIEWER, INGEST, ADMIN)]
    group_roles = [
        AssignedRole(OPERATOR) if group == OPERATOR else AssignedRole(APPROVER, group=group)
        for group in groups
    ]
    return (*basic_roles, *(group_roles or [AssignedRole(OPERATOR)]))


def _select_roles_in_groups(
    user_name: str, role_assignments: tuple[AssignedRole, ...], groups: Sequence[str]
) -> tuple[AssignedRole, ...]:
    group_names = {
        role_assignment: role_assignment.group or role_assignment.role
        for role_assignment in role_assignments
        if role_assignment.role in {OPERATOR, APPROVER}
    }
    if missing_groups := sorted(set(groups) - set(group_names.values())):
        raise NotAllowedError(
            f"{user_name} is not in the group {', '.join(missing_groups)}; ask an admin for the"
            " role"
        )
    return tuple(
        role_assignment
        for role_assignment in role_assignments
        if not groups
        or role_assignment not in group_names
        or group_names[role_assignment] in groups
    )


def _add_user(
    users: Users, user_name: str, *, by: str, at: datetime, is_service_account: bool
) -> tuple[StoredUser, tuple[AccessEvent, ...]]:
    if not NAME_PATTERN.fullmatch(user_name) or not is_account_name(user_name.lower()):
        raise InvalidAccountError(
            f"{user_name!r} can't be a name: 1 to 64 letters, digits and . _ @ -, the first one a "
            f"letter or digit, and not {ENGINE}, {REPLAY} or {SIMULATED}…, which are reserved"
        )
    if (existing_user := users.find_similar_name(user_name)) is not None:
        raise NameTakenError(
            f"the name {existing_user.name} is taken, and names are never reused; choose"
            " another one"
        )
    if is_name_erased(users.transaction, user_name):
        raise NameTakenError(f"the name {user_name} was erased; choose another one")
    if not is_service_account and is_version_name(users.transaction, user_name):
        raise NameTakenError(
            f"{user_name} is the name of a version, so no decision of {user_name} would count;"
            " choose another one"
        )
    user = users.add(user_name, at=at, is_service_account=is_service_account)
    return user, (UserAdded(at=at, by=by, user=user_name, service_account=is_service_account),)


def update_account_rows(
    change: AccessChange, user: StoredUser, update: AccountUpdate, at: datetime
) -> tuple[AccessEvent, ...]:
    """Change the tables, and return the events."""
    events: list[AccessEvent] = []
    by, users = change.caller.name, change.users
    if update.is_disabled is not None and update.is_disabled != (user.disabled_at is not None):
        event_class = UserDisabled if update.is_disabled else UserEnabled
        _set_disabled(change, user, at, is_disabled=update.is_disabled)
        events.append(event_class(at=at, by=by, user=user.name))
        user = change.get_user(user.name)
    if update.email is not None and update.email.lower() != user.email:
        _set_email(users, user, update.email)
        events.append(EmailSet(at=at, by=by, user=user.name))
        if update.email and by != user.name and users.has_had_credential(user):
            record_reset(change.transaction, change.access_ledger, user, by, EMAIL, at=at)
    event_fields: dict[str, Any] = {"at": at, "by": by, "user": user.name}
    events += [
        RoleRevoked(**event_fields, **_list_role_fields(role_assignment))
        for role_assignment in update.roles_to_revoke
        if users.revoke_role(user, role_assignment)
    ]
    for role_assignment in update.roles_to_grant:
        _require_grantable(user, role_assignment)
    _require_figures_apart(user, (*users.list_role_assignments(user), *update.roles_to_grant))
    events += [
        RoleGranted(**event_fields, **_list_role_fields(role_assignment))
        for role_assignment in update.roles_to_grant
        if users.grant_role(user, role_assignment)
    ]
    return tuple(events)


def _set_disabled(
    change: AccessChange, user: StoredUser, at: datetime, *, is_disabled: bool
) -> None:
    if not is_disabled:
        change.users.enable(user)
        return
    change.users.disable(user, at=at)
    ApiKeys(change.transaction).revoke_all(user, at=at)
    Sessions(change.transaction).end_all(user, at=at)
    OneTimeLinks(change.transaction).end_links(user, at=at)
    SecondFactors(change.transaction).remove(user)


def _set_email(users: Users, user: StoredUser, email: str) -> None:
    if email and (user.is_service_account or not EMAIL_PATTERN.fullmatch(email)):
        raise InvalidAccountError(f"{email!r} can't be the e-mail address of {user.name}")
    if email and users.find_by_email(email) is not None:
        raise NameTakenError(f"another account has the e-mail address {email}")
    users.set_email(user, email)


def _require_grantable(user: StoredUser, role_assignment: AssignedRole) -> None:
    check_role_assignment(role_assignment, is_service_account=user.is_service_account)
    if user.disabled_at is not None:
        raise InvalidAccountError(
            f"{user.name} is disabled; enable the account before you grant a role"
        )


def _require_figures_apart(user: StoredUser, roles: Sequence[AssignedRole]) -> None:
    if user.is_service_account and reads_what_it_judges(roles):
        raise InvalidAccountError(
            f"{user.name} would send what judges the model, and read what the model answers: give"
            " the role to another service account"
        )


def _list_role_fields(role_assignment: AssignedRole) -> dict[str, Any]:
    return {
        "role": role_assignment.role,
        "rollout": role_assignment.rollout,
        "site": role_assignment.site,
        "group": role_assignment.group,
    }


def _create_link(
    transaction: Transaction,
    access_ledger: AccessLedger,
    user: StoredUser | None,
    by: str,
    at: datetime,
    secret: str,
) -> str:
    expires_at = at + LINK_LIFETIME
    creator = Users(transaction).find(by)
    OneTimeLinks(transaction).add(user, secret, at=at, expires_at=expires_at, by=creator)
    user_name = "" if user is None else user.name
    link = compute_link_digest(hash_secret(secret), to_micros(expires_at))
    access_ledger.append(
        [OneTimeLinkCreated(at=at, by=by, user=user_name, expires_at=expires_at, link=link)]
    )
    return secret


def _load_account(users: Users, user_name: str) -> UserAccount:
    user = users.find(user_name)
    assert user is not None  # noqa: S101 - it was changed in this transaction
    return _build_account(user, users.list_role_assignments(user))


def _build_account(user: StoredUser, role_assignments: Sequence[AssignedRole]) -> UserAccount:
    return UserAccount(**asdict(user), rights=tuple(role_assignments))


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
    events = update_account_rows(change, user, AccountUpdate(is_disabled=True), at)
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
