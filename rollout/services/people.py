"""People and machines: who is here, and what they may do where."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from rollout.core.accounts import REPLAY, SIMULATED, is_account_name
from rollout.core.errors import (
    HouseInhabited,
    LastAdmin,
    NameTaken,
    NotAllowed,
    PersonRefused,
    UnknownPerson,
)
from rollout.core.events import Event
from rollout.core.house import (
    EmailSet,
    OneTimeLinkCreated,
    RoleGranted,
    RoleRevoked,
    UserAdded,
    UserDisabled,
    UserEnabled,
)
from rollout.core.rights import (
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
from rollout.core.scope import ENGINE
from rollout.services.house import Changing, caller_of, changing
from rollout.store.api_keys import ApiKeys
from rollout.store.house import House, house_head
from rollout.store.one_time_links import OneTimeLinks
from rollout.store.people import People, Person
from rollout.store.session import Database, Transaction
from rollout.store.sessions import Sessions

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
        people = People(transaction)
        rights = people.all_rights()
        return tuple(_member(p, rights.get(p.number, ())) for p in people.all())


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
        person, events = _added(change.people, name, by=caller.name, at=at, machine=machine)
        wanted = Amendment(email=email or None, give=tuple(rights))
        events += _amended(change, person, wanted, at)
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
        house = House(transaction)
        events = found_house(transaction, name, at)
        house.append(events)
        return _now(People(transaction), name)


def found_house(transaction: Transaction, name: str, at: datetime) -> tuple[Event, ...]:
    """Add the first admin in a transaction that holds the house; return what to write of it."""
    people = People(transaction)
    if people.anybody():
        raise HouseInhabited("a user exists already; ask an admin: `rollout users list`")
    person, events = _added(people, name, by=name, at=at, machine=False)
    people.give(person, EVERYWHERE)
    OneTimeLinks(transaction).end(person, at=at)
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
        house = House(transaction)
        if People(transaction).anybody():
            return None
        return _linked(transaction, house, None, ENGINE, at, secret)


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
        person = change.person(name)
        if person.machine or person.disabled_at is not None:
            raise PersonRefused(f"{name} is a service account or disabled, and can't sign in")
        OneTimeLinks(change.transaction).end(person, at=at)
        return _linked(change.transaction, change.house, person, caller.name, at, secret)


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
        people = People(transaction)
        if not people.anybody():
            return Caller(name, rights=_all_rights(groups))
        person = people.find(name)
        if person is None:
            raise UnknownPerson(f"no user is called {name}; `rollout users list` lists all")
        if person.disabled_at is not None:
            raise NotAllowed(f"{name} is disabled; an admin can enable the account")
        rights = _standing_in(name, tuple(people.rights(person)), groups)
        return caller_of(person, rights, house_head(transaction).revision)


def _all_rights(groups: Sequence[str]) -> tuple[Right, ...]:
    """Return every right, in the groups that are named, by default as an operator."""
    own = [Right(role) for role in (VIEWER, REVIEWER, INGEST, ADMIN)]
    standing = [Right(OPERATOR) if g == OPERATOR else Right(APPROVER, group=g) for g in groups]
    return (*own, *(standing or [Right(OPERATOR)]))


def _standing_in(name: str, rights: tuple[Right, ...], groups: Sequence[str]) -> tuple[Right, ...]:
    held = {r: r.group or r.role for r in rights if r.role in {OPERATOR, APPROVER}}
    if missing := sorted(set(groups) - set(held.values())):
        raise NotAllowed(
            f"{name} is not in the group {', '.join(missing)}; ask an admin for the role"
        )
    return tuple(r for r in rights if not groups or r not in held or held[r] in groups)


def _added(
    people: People, name: str, *, by: str, at: datetime, machine: bool
) -> tuple[Person, tuple[Event, ...]]:
    if not NAME.fullmatch(name) or not is_account_name(name.lower()):
        raise PersonRefused(
            f"{name!r} can't be a name: 1 to 64 letters, digits and . _ @ -, the first one a "
            f"letter or digit, and not {ENGINE}, {REPLAY} or {SIMULATED}…, which are reserved"
        )
    if (taken := people.alike(name)) is not None:
        raise NameTaken(
            f"the name {taken.name} is taken, and names are never reused; choose another one"
        )
    person = people.add(name, at=at, machine=machine)
    return person, (UserAdded(at=at, by=by, user=name, service_account=machine),)


def _amended(
    change: Changing, person: Person, wanted: Amendment, at: datetime
) -> tuple[Event, ...]:
    """Change the tables, and return what was changed."""
    events: list[Event] = []
    by, people = change.caller.name, change.people
    if wanted.disabled is not None and wanted.disabled != (person.disabled_at is not None):
        kind = UserDisabled if wanted.disabled else UserEnabled
        _turn(change, person, at, disabled=wanted.disabled)
        events.append(kind(at=at, by=by, user=person.name))
        person = change.person(person.name)
    if wanted.email is not None and wanted.email.lower() != person.email:
        _set_email(people, person, wanted.email)
        events.append(EmailSet(at=at, by=by, user=person.name))
    of: dict[str, Any] = {"at": at, "by": by, "user": person.name}
    taken = [right for right in wanted.take if people.take(person, right)]
    events += [RoleRevoked(**of, **_fields(right)) for right in taken]
    for right in wanted.give:
        _require_givable(person, right)
    given = [right for right in wanted.give if people.give(person, right)]
    events += [RoleGranted(**of, **_fields(right)) for right in given]
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
    expires = at + LINK_LASTS
    OneTimeLinks(transaction).add(person, secret, at=at, expires_at=expires)
    name = "" if person is None else person.name
    house.append([OneTimeLinkCreated(at=at, by=by, user=name, expires_at=expires)])
    return secret


def _now(people: People, name: str) -> Member:
    found = people.find(name)
    assert found is not None  # noqa: S101 - it was changed in this transaction
    return _member(found, people.rights(found))


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
