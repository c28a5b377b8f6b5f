"""People and machines: who is here, and what they may do where."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from rollout.core.access.access_events import (
    EmailSet,
    OneTimeLinkCreated,
    RoleGranted,
    RoleRevoked,
    UserAdded,
    UserDisabled,
    UserEnabled,
)
from rollout.core.access.accounts import REPLAY, SIMULATED, is_account_name
from rollout.core.errors import (
    HouseInhabited,
    LastAdmin,
    NameTaken,
    NotAllowed,
    PersonRefused,
    UnknownPerson,
)
from rollout.core.scope.events import Event
from rollout.core.scope.permissions import (
    ADMIN,
    APPROVER,
    INGEST,
    OPERATOR,
    REVIEWER,
    VIEWER,
    Act,
    Caller,
    Right,
    require,
    require_sound,
)
from rollout.core.scope.scope import ENGINE
from rollout.services.access.access_state import Changing, caller_of, changing
from rollout.store.access.access_ledger import House, house_head
from rollout.store.access.api_keys import ApiKeys
from rollout.store.access.one_time_links import OneTimeLinks
from rollout.store.access.sessions import Sessions
from rollout.store.access.users import People, Person
from rollout.store.database.session import Database, Transaction

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
EMAIL = re.compile(r"[^@\s]{1,64}@[^@\s]{1,255}")
LINK_LASTS = timedelta(hours=24)
EVERYWHERE = Right(ADMIN)


@dataclass(frozen=True, slots=True)
class Member:
    """Somebody, or a machine, as an admin sees them."""

    name: str
    machine: bool
    added_at: datetime
    disabled_at: datetime | None
    email: str
    has_password: bool
    rights: tuple[Right, ...]


@dataclass(frozen=True, slots=True)
class Amendment:
    """What is to change about somebody; None and () leave it as it is."""

    disabled: bool | None = None
    email: str | None = None
    give: tuple[Right, ...] = ()
    take: tuple[Right, ...] = ()


def everybody(database: Database, caller: Caller) -> tuple[Member, ...]:
    """Return everybody who ever had a name here, in the order in which they came.

    Raises:
        NotAllowed: the caller is no admin of all rollouts.
    """
    require(caller, Act.ADMINISTER, "")
    with database.reading() as transaction:
        users = People(transaction)
        roles_by_user = users.all_rights()
        return tuple(_member(user, roles_by_user.get(user.number, ())) for user in users.all())


def add(
    database: Database,
    caller: Caller,
    name: str,
    *,
    at: datetime,
    machine: bool = False,
    email: str = "",
    rights: Iterable[Right] = (),
) -> Member:
    """Give a name to somebody, or to a machine; it is never given again.

    Raises:
        NotAllowed: the caller is no admin of all rollouts.
        PersonRefused: the name, the address or a right can't be.
        NameTaken: somebody has the name or the address.
        UnknownRollout: a right names a rollout that is not there.
    """
    require(caller, Act.ADMINISTER, "")
    with changing(database, caller) as change:
        require(change.caller, Act.ADMINISTER, "")
        user, events = _added(change.people, name, by=caller.name, at=at, machine=machine)
        update = Amendment(email=email or None, give=tuple(rights))
        events += _amended(change, user, update, at)
        change.house.append(events)
        return _now(change.people, name)


def amend(
    database: Database, caller: Caller, name: str, amendment: Amendment, *, at: datetime
) -> Member:
    """Change what somebody may do, all of it or nothing. Asking again changes nothing more.

    Disabling ends their password, keys, sessions and links at once and takes their rights.

    Raises:
        NotAllowed: the caller is no admin of all rollouts.
        UnknownPerson: nobody has the name.
        PersonRefused: the address or a right can't be.
        NameTaken: somebody else has the address.
        UnknownRollout: a right names a rollout that is not there.
        LastAdmin: nobody would be left who may change people.
    """
    require(caller, Act.ADMINISTER, "")
    with changing(database, caller) as change:
        require(change.caller, Act.ADMINISTER, "")
        change.house.append(_amended(change, change.person(name), amendment, at))
        if not change.people.anybody_with(EVERYWHERE):
            raise LastAdmin(f"{name} is the last admin of all rollouts; add another one first")
        return _now(change.people, name)


def first_admin(database: Database, name: str, *, at: datetime) -> Member:
    """Make the first admin. Of several who try at once exactly one is made.

    Raises:
        HouseInhabited: somebody is here already.
        PersonRefused: the name can't be.
    """
    with database.writing() as transaction:
        access_ledger = House(transaction)
        events = found_house(transaction, name, at)
        access_ledger.append(events)
        return _now(People(transaction), name)


def found_house(transaction: Transaction, name: str, at: datetime) -> tuple[Event, ...]:
    """Add the first admin in a transaction that holds the house; return what to write of it."""
    users = People(transaction)
    if users.anybody():
        raise HouseInhabited("a user exists already; ask an admin: `rollout users list`")
    user, events = _added(users, name, by=name, at=at, machine=False)
    users.give(user, EVERYWHERE)
    OneTimeLinks(transaction).end(user, at=at)
    return (*events, RoleGranted(at=at, by=name, user=name, role=ADMIN))


def first_link(database: Database, at: datetime, secret: str) -> str | None:
    """Make a link by which the first admin comes in, valid for a day; None if somebody is here.

    Args:
        database: where people are.
        at: now.
        secret: of 32 letters or more, from the system's chance; kept as a hash.

    Returns:
        The token to be shown once, to whoever starts the service.
    """
    with database.writing() as transaction:
        access_ledger = House(transaction)
        if People(transaction).anybody():
            return None
        return _linked(transaction, access_ledger, None, ENGINE, at, secret)


def link(database: Database, caller: Caller, name: str, *, at: datetime, secret: str) -> str:
    """Make a link by which somebody sets a password, once, within a day. Others of theirs end.

    Raises:
        NotAllowed: the caller is no admin of all rollouts.
        UnknownPerson: nobody has the name.
        PersonRefused: a machine or somebody disabled; they have no password.
    """
    require(caller, Act.ADMINISTER, "")
    with changing(database, caller) as change:
        require(change.caller, Act.ADMINISTER, "")
        user = change.person(name)
        if user.machine or user.disabled_at is not None:
            raise PersonRefused(f"{name} is a service account or disabled, and can't sign in")
        OneTimeLinks(change.transaction).end(user, at=at)
        return _linked(change.transaction, change.house, user, caller.name, at, secret)


def local_caller(database: Database, name: str, groups: Sequence[str] = ()) -> Caller:
    """Return who acts by a command on the database itself, where everything can be written.

    In an empty house the name is taken as given and may do everything. Once anybody is there, it
    has to be one of them, and their rights hold.

    Args:
        database: the database that the command works on.
        name: as given by `--by`.
        groups: as given by `--group`: only in these do they stand now; () means in all of theirs.

    Raises:
        UnknownPerson: somebody is here, but nobody of that name.
        NotAllowed: they were disabled, or stand in no such group.
    """
    with database.reading() as transaction:
        users = People(transaction)
        if not users.anybody():
            return Caller(name, rights=_all_rights(groups))
        user = users.find(name)
        if user is None:
            raise UnknownPerson(f"no user is called {name}; `rollout users list` lists all")
        if user.disabled_at is not None:
            raise NotAllowed(f"{name} is disabled; an admin can enable the account")
        role_assignments = _standing_in(name, tuple(users.rights(user)), groups)
        return caller_of(user, role_assignments, house_head(transaction).revision)


def _all_rights(groups: Sequence[str]) -> tuple[Right, ...]:
    """Return every right, in the groups that are named, by default as an operator."""
    basic_roles = [Right(role) for role in (VIEWER, REVIEWER, INGEST, ADMIN)]
    group_roles = [
        Right(OPERATOR) if group == OPERATOR else Right(APPROVER, group=group) for group in groups
    ]
    return (*basic_roles, *(group_roles or [Right(OPERATOR)]))


def _standing_in(name: str, rights: tuple[Right, ...], groups: Sequence[str]) -> tuple[Right, ...]:
    group_names = {
        role_assignment: role_assignment.group or role_assignment.role
        for role_assignment in rights
        if role_assignment.role in {OPERATOR, APPROVER}
    }
    if missing_groups := sorted(set(groups) - set(group_names.values())):
        raise NotAllowed(
            f"{name} is not in the group {', '.join(missing_groups)}; ask an admin for the role"
        )
    return tuple(
        role_assignment
        for role_assignment in rights
        if not groups
        or role_assignment not in group_names
        or group_names[role_assignment] in groups
    )


def _added(
    people: People, name: str, *, by: str, at: datetime, machine: bool
) -> tuple[Person, tuple[Event, ...]]:
    if not NAME.fullmatch(name) or not is_account_name(name.lower()):
        raise PersonRefused(
            f"{name!r} can't be a name: 1 to 64 letters, digits and . _ @ -, the first one a "
            f"letter or digit, and not {ENGINE}, {REPLAY} or {SIMULATED}…, which are reserved"
        )
    if (existing_user := people.alike(name)) is not None:
        raise NameTaken(
            f"the name {existing_user.name} is taken, and names are never reused; choose"
            " another one"
        )
    user = people.add(name, at=at, machine=machine)
    return user, (UserAdded(at=at, by=by, user=name, service_account=machine),)


def _amended(
    change: Changing, person: Person, wanted: Amendment, at: datetime
) -> tuple[Event, ...]:
    """Change the tables, and return what was changed."""
    events: list[Event] = []
    by, users = change.caller.name, change.people
    if wanted.disabled is not None and wanted.disabled != (person.disabled_at is not None):
        event_class = UserDisabled if wanted.disabled else UserEnabled
        _turn(change, person, at, disabled=wanted.disabled)
        events.append(event_class(at=at, by=by, user=person.name))
        person = change.person(person.name)
    if wanted.email is not None and wanted.email.lower() != person.email:
        _set_email(users, person, wanted.email)
        events.append(EmailSet(at=at, by=by, user=person.name))
    event_fields: dict[str, Any] = {"at": at, "by": by, "user": person.name}
    revoked_roles = [
        role_assignment for role_assignment in wanted.take if users.take(person, role_assignment)
    ]
    events += [
        RoleRevoked(**event_fields, **_fields(role_assignment)) for role_assignment in revoked_roles
    ]
    for role_assignment in wanted.give:
        _require_givable(person, role_assignment)
    granted_roles = [
        role_assignment for role_assignment in wanted.give if users.give(person, role_assignment)
    ]
    events += [
        RoleGranted(**event_fields, **_fields(role_assignment)) for role_assignment in granted_roles
    ]
    return tuple(events)


def _turn(change: Changing, person: Person, at: datetime, *, disabled: bool) -> None:
    if not disabled:
        change.people.enable(person)
        return
    change.people.disable(person, at=at)
    ApiKeys(change.transaction).revoke_all(person, at=at)
    Sessions(change.transaction).end_all(person, at=at)
    OneTimeLinks(change.transaction).end(person, at=at)


def _set_email(people: People, person: Person, email: str) -> None:
    if email and (person.machine or not EMAIL.fullmatch(email)):
        raise PersonRefused(f"{email!r} can't be the e-mail address of {person.name}")
    if email and people.of_email(email) is not None:
        raise NameTaken(f"another account has the e-mail address {email}")
    people.set_email(person, email)


def _require_givable(person: Person, right: Right) -> None:
    require_sound(right, machine=person.machine)
    if person.disabled_at is not None:
        raise PersonRefused(
            f"{person.name} is disabled; enable the account before you grant a role"
        )


def _fields(right: Right) -> dict[str, Any]:
    return {
        "role": right.role,
        "rollout": right.rollout,
        "site": right.site,
        "group": right.group,
    }


def _linked(
    transaction: Transaction,
    house: House,
    person: Person | None,
    by: str,
    at: datetime,
    secret: str,
) -> str:
    expires_at = at + LINK_LASTS
    OneTimeLinks(transaction).add(person, secret, at=at, expires_at=expires_at)
    user_name = "" if person is None else person.name
    house.append([OneTimeLinkCreated(at=at, by=by, user=user_name, expires_at=expires_at)])
    return secret


def _now(people: People, name: str) -> Member:
    user = people.find(name)
    assert user is not None  # noqa: S101 - it was changed in this transaction
    return _member(user, people.rights(user))


def _member(person: Person, rights: Sequence[Right]) -> Member:
    return Member(
        name=person.name,
        machine=person.machine,
        added_at=person.added_at,
        disabled_at=person.disabled_at,
        email=person.email,
        has_password=person.has_password,
        rights=tuple(rights),
    )
