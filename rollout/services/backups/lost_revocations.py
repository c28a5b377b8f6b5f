"""Access that was taken away since the backup, and that a restore would give back.

Only what narrows access is taken over from the replaced database. Passwords and second factors that
were changed since the backup are named, because a person must judge which one counts.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from rollout.core.errors import LastAdminError
from rollout.core.scope.permissions import AssignedRole, Caller
from rollout.services.access.keys import revoke_key
from rollout.services.access.users import AccountUpdate, update_account
from rollout.store.access.api_keys import ApiKeys
from rollout.store.access.calendar_feeds import CalendarFeeds
from rollout.store.access.one_time_links import OneTimeLinks
from rollout.store.access.second_factors import SecondFactors
from rollout.store.access.sessions import Sessions
from rollout.store.access.users import Users
from rollout.store.database.session import Database, Transaction


@dataclass(frozen=True, slots=True)
class AccessContent:
    """The access that a database gives, by account name.

    Attributes:
        roles: roles of the enabled accounts.
        disabled: the disabled accounts.
        credentials: hash of the password and secret of the second factor.
        revoked_keys: holders of the revoked keys, by prefix.
    """

    roles: Mapping[str, frozenset[AssignedRole]] = field(default_factory=dict)
    disabled: frozenset[str] = frozenset()
    credentials: Mapping[str, tuple[object, object]] = field(default_factory=dict, repr=False)
    revoked_keys: Mapping[str, str] = field(default_factory=dict)


def load_access_content(database: Database) -> AccessContent:
    """Return the access that a database gives."""
    with database.begin_read() as transaction:
        users = Users(transaction)
        all_users, roles = users.list_all(), users.list_all_role_assignments()
        keys = ApiKeys(transaction).list_all()
        credentials = {
            user.name: (users.load_password_hash(user), _load_secret(transaction, user.name))
            for user in all_users
        }
    return AccessContent(
        roles={
            user.name: frozenset(roles.get(user.number, ()))
            for user in all_users
            if user.disabled_at is None
        },
        disabled=frozenset(user.name for user in all_users if user.disabled_at is not None),
        credentials=credentials,
        revoked_keys={key.prefix: key.holder for key in keys if key.revoked_at is not None},
    )


def end_sign_ins(database: Database, at: datetime) -> None:
    """End all sessions, one-time links and calendar addresses of a restored database."""
    with database.begin_write() as transaction:
        CalendarFeeds(transaction).delete_all()
        for user in Users(transaction).list_all():
            Sessions(transaction).end_all(user, at=at)
            OneTimeLinks(transaction).end_links(user, at=at)


def revoke_again(
    copy: Database, caller: Caller, present: AccessContent, at: datetime
) -> tuple[str, ...]:
    """Take from a restored database what the replaced one had revoked; describe each step.

    Accounts, keys and roles that the replaced database never had are left as they are.
    """
    restored = load_access_content(copy)
    return (
        *_revoke_keys(copy, caller, present, restored, at),
        *_narrow_accounts(copy, caller, present, restored, at),
        *_list_older_credentials(present, restored),
    )


def _revoke_keys(
    copy: Database,
    caller: Caller,
    present: AccessContent,
    restored: AccessContent,
    at: datetime,
) -> Iterator[str]:
    with copy.begin_read() as transaction:
        prefixes = {key.prefix for key in ApiKeys(transaction).list_all()}
    lost = (prefixes & present.revoked_keys.keys()) - restored.revoked_keys.keys()
    for prefix in sorted(lost):
        revoke_key(copy, caller, prefix, at=at)
        yield f"key {prefix} of {present.revoked_keys[prefix]} is revoked again"


def _narrow_accounts(
    copy: Database,
    caller: Caller,
    present: AccessContent,
    restored: AccessContent,
    at: datetime,
) -> Iterator[str]:
    """Disable accounts and revoke roles; those of the caller last, who needs them until then."""
    for name in sorted(restored.roles, key=lambda name: (name == caller.name, name)):
        if name in present.disabled:
            update, text = AccountUpdate(is_disabled=True), f"{name} is disabled again"
        elif lost_roles := restored.roles[name] - present.roles.get(name, restored.roles[name]):
            roles = tuple(sorted(lost_roles, key=str))
            update = AccountUpdate(roles_to_revoke=roles)
            text = f"{name} is no longer {', '.join(map(str, roles))}"
        else:
            continue
        try:
            update_account(copy, caller, name, update, at=at)
        except LastAdminError:
            text = f"{name} stays the last admin, who was removed since the backup: add another one"
        yield text


def _list_older_credentials(present: AccessContent, restored: AccessContent) -> Iterator[str]:
    kinds = ("password", "second factor")
    for name in sorted(restored.roles.keys() & present.roles.keys()):
        pairs = zip(kinds, present.credentials[name], restored.credentials[name], strict=True)
        older = [kind for kind, now, before in pairs if before is not None and before != now]
        if older:
            yield f"{name} has the {' and the '.join(older)} of the backup again: set a new one"


def _load_secret(transaction: Transaction, user_name: str) -> bytes | None:
    user = Users(transaction).find(user_name)
    factor = None if user is None else SecondFactors(transaction).find(user)
    return None if factor is None or factor.confirmed_at is None else factor.secret
