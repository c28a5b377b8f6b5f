"""Change people, rights and keys: one at a time, judged by what holds now, each in the chain."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rollout.core.access.access_events import Household, household
from rollout.core.errors import NotAllowed, UnknownPerson
from rollout.core.scope.permissions import Act, Caller, Right, require
from rollout.store.access.access_ledger import House, house_head
from rollout.store.access.api_keys import ApiKeys
from rollout.store.access.users import People, Person
from rollout.store.database.rollouts import HOUSE_CHAIN
from rollout.store.database.session import Database, Transaction
from rollout.store.ledger.ledger import Ledger

EMPTY = "there are no users yet; `rollout users first-admin NAME` creates the first admin"


@dataclass(frozen=True, slots=True)
class Changing:
    """A writing transaction that holds the house chain; `caller` has the rights of now."""

    transaction: Transaction
    house: House
    people: People
    caller: Caller

    def person(self, name: str) -> Person:
        """Return the person of that name.

        Raises:
            UnknownPerson: nobody has it.
        """
        user = self.people.find(name)
        if user is None:
            raise UnknownPerson(f"no user is called {name}; `rollout users list` lists all")
        return user


@contextmanager
def changing(database: Database, caller: Caller) -> Iterator[Changing]:
    """Hold the house chain; whoever lost their rights a moment ago has lost them here.

    Raises:
        NotAllowed: nobody is here yet, or the caller was disabled.
    """
    with database.writing() as transaction:
        access_ledger = House(transaction)
        users = People(transaction)
        yield Changing(
            transaction, access_ledger, users, _now(users, caller, access_ledger.revision)
        )


def require_own(caller: Caller, name: str, act: str) -> None:
    """Let people do it for themselves, and an admin for anybody.

    Raises:
        NotAllowed: it is somebody else's, and the caller is no admin.
    """
    if caller.name == name and not caller.machine:
        require(caller, Act.BE, "")
    elif not caller.may(Act.ADMINISTER, ""):
        raise NotAllowed(f"{caller.name} may not {act} of {name}; ask an admin")


def caller_of(person: Person, rights: tuple[Right, ...], house: int | None) -> Caller:
    """Return a person as who asks, with rights as they were at revision `house`."""
    return Caller(person.name, machine=person.machine, rights=rights, house=house)


def _now(people: People, caller: Caller, revision: int) -> Caller:
    user = people.find(caller.name)
    if user is None:
        raise NotAllowed(EMPTY if not people.anybody() else f"no user is called {caller.name}")
    if user.disabled_at is not None:
        raise NotAllowed(f"{caller.name} is disabled; an admin can enable the account")
    return caller_of(user, tuple(people.rights(user)), revision or None)


def house_faults(database: Database) -> tuple[str, ...]:
    """Compare the tables of people with their chain, and say what nobody gave or took; () is well.

    Raises:
        BrokenChainError: the chain itself was changed.
    """
    with database.reading() as transaction:
        if house_head(transaction).revision is None:
            expected_state = Household()
        else:
            ledger = Ledger(transaction, HOUSE_CHAIN)
            ledger.verify()
            expected_state = household(ledger.events())
        return expected_state.differences(_kept(transaction))


def _kept(transaction: Transaction) -> Household:
    users, keys = People(transaction), ApiKeys(transaction)
    all_users = users.all()
    names = {user.number: user.name for user in all_users}
    return Household(
        people=frozenset(names.values()),
        machines=frozenset(p.name for p in all_users if p.machine),
        disabled=frozenset(p.name for p in all_users if p.disabled_at is not None),
        rights=frozenset(
            (names[user_id], role_assignment)
            for user_id, user_roles in users.all_rights().items()
            for role_assignment in user_roles
        ),
        keys=frozenset((names[key.person], key.prefix) for key in keys.open()),
    )
