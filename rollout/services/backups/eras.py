"""Begin an era in every rollout of a restored database."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from rollout.core.errors import LastAdminError
from rollout.core.scope.commands import AcceptRestore
from rollout.core.scope.permissions import AssignedRole, Caller, Permission, require_permission
from rollout.services.access.keys import revoke_key
from rollout.services.access.users import AccountUpdate, load_local_caller, update_account
from rollout.services.engine.command_handler import execute_command
from rollout.services.engine.rollout_state import RolloutState, load_rollout_state
from rollout.services.process.damage_search import clear_damage
from rollout.store.access.api_keys import ApiKeys
from rollout.store.access.one_time_links import OneTimeLinks
from rollout.store.access.second_factors import SecondFactors
from rollout.store.access.sessions import Sessions
from rollout.store.access.users import Users
from rollout.store.database.rollouts import Rollouts
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
    """End all sessions and one-time links of a restored database."""
    with database.begin_write() as transaction:
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


@dataclass(frozen=True, slots=True)
class RolloutEra:
    """A rollout's era, and the stops that hold in it."""

    rollout: str
    era: int
    stops: tuple[str, ...]


def accept_restore(
    database: Database,
    user_name: str,
    reason: str,
    *,
    at: datetime,
    known_eras: Mapping[str, int] | None = None,
) -> tuple[RolloutEra, ...]:
    """Begin an era with every cell stopped in each rollout, in an admin's name.

    All sessions and one-time links end. Damage found before ends with it: the declared database is
    the one that counts. `known_eras`
    are eras that clients may know although this database lacks them.

    Raises:
        UnknownUserError: there are users, but none of that name.
        NotAllowedError: the user is no admin of every rollout.
    """
    caller = load_local_caller(database, user_name)
    names = list_rollout_names(database)
    for name in names:
        require_permission(caller, Permission.ADMINISTER, name)
    eras = dict(known_eras or {})
    for name in names:

        def build_command(_: RolloutState, name: str = name) -> AcceptRestore:
            by, known_era = caller.as_actor(name), eras.get(name, 0)
            return AcceptRestore(at=at, by=by, reason=reason, known_era=known_era)

        execute_command(database, name, build_command, caller.access_head)
    end_sign_ins(database, at)
    clear_damage(database, caller.name, reason, at=at)
    return tuple(_load_era(database, name) for name in names)


def load_eras(database: Database) -> Mapping[str, int]:
    """Return the era of each rollout."""
    return {name: _load_era(database, name).era for name in list_rollout_names(database)}


def list_rollout_names(database: Database) -> tuple[str, ...]:
    """Return the names of all rollouts, sorted."""
    with database.begin_read() as transaction:
        return tuple(sorted(rollout.name for rollout in Rollouts(transaction).list_all()))


def _load_era(database: Database, name: str) -> RolloutEra:
    with database.begin_read() as transaction:
        scope = load_rollout_state(transaction, name).scope
    return RolloutEra(name, scope.era, tuple(scope.stops))
