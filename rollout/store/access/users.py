"""People and machines, and what they may do where."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Select, delete, func, insert, select, update

from rollout.core.errors import UnknownRollout
from rollout.core.scope.permissions import Right
from rollout.store.database.bulk import insert_once
from rollout.store.database.session import Transaction
from rollout.store.tables.tables import identities, role_assignments, rollouts, users


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody, or a machine, under a name that the ledger cites. It is never given again."""

    number: int
    name: str
    machine: bool
    added_at: datetime
    disabled_at: datetime | None = None
    email: str = ""
    has_password: bool = False


class People:
    """Everybody who has ever had a name here."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def add(self, name: str, *, at: datetime, machine: bool = False) -> Person:
        """Return the person of that name, added if there is none."""
        insert_once(
            self._transaction, users, {"name": name, "service_account": machine, "created_at": at}
        )
        user = self.find(name)
        assert user is not None  # noqa: S101 - it was added, by us or by somebody before
        return user

    def all(self) -> Sequence[Person]:
        """Return everybody, also those who are disabled, in the order in which they came."""
        return [person_of(row) for row in self._transaction.execute(_select().order_by("id"))]

    def named(self, names: Collection[str]) -> Sequence[Person]:
        """Return those of the names that somebody has."""
        query = _select().where(users.c.name.in_(names))
        return [person_of(row) for row in self._transaction.execute(query)]

    def anybody(self) -> bool:
        """Say whether anybody was ever added."""
        return self._transaction.execute(select(users.c.id).limit(1)).first() is not None

    def find(self, name: str) -> Person | None:
        """Return the person of that name, None where there is none."""
        return self._one(_select().where(users.c.name == name))

    def alike(self, name: str) -> Person | None:
        """Return who has that name, letters taken as large or small; None where nobody has."""
        condition = func.lower(users.c.name) == name.lower()
        return self._one(_select().where(condition).limit(1))

    def numbered(self, number: int) -> Person:
        """Return the person of that number, who is there."""
        user = self._one(_select().where(users.c.id == number))
        assert user is not None  # noqa: S101 - numbers come from rows that refer to people
        return user

    def of_email(self, email: str) -> Person | None:
        """Return whose e-mail address it is, None where it is nobody's."""
        return self._one(_select().where(users.c.email == email.lower()))

    def of_identity(self, issuer: str, subject: str) -> Person | None:
        """Return whom an identity provider calls so, None where nobody was linked."""
        linked = select(identities.c.user_id).where(
            identities.c.issuer == issuer, identities.c.subject == subject
        )
        return self._one(_select().where(users.c.id == linked.scalar_subquery()))

    def link(self, person: Person, issuer: str, subject: str, *, at: datetime) -> bool:
        """Link an identity for ever; say no where the person or the subject has another link."""
        row = {"user_id": person.number, "issuer": issuer, "subject": subject, "linked_at": at}
        return insert_once(self._transaction, identities, row)

    def disable(self, person: Person, *, at: datetime) -> None:
        """From `at` on nothing of theirs is valid: password and rights go. Their name stays."""
        conditions = (users.c.id == person.number, users.c.disabled_at.is_(None))
        values = {"disabled_at": at, "password": None}
        self._transaction.execute(update(users).where(*conditions).values(**values))
        self._transaction.execute(
            delete(role_assignments).where(role_assignments.c.user_id == person.number)
        )

    def enable(self, person: Person) -> None:
        """Let them come in again, without any right."""
        self._update(person, disabled_at=None)

    def set_email(self, person: Person, email: str) -> None:
        """Keep an e-mail address in lower case; "" for none.

        Raises:
            IntegrityError: somebody else has it.
        """
        self._update(person, email=email.lower() or None)

    def set_password(self, person: Person, hashed: str | None) -> None:
        """Keep a password's argon2 text, or that there is none."""
        self._update(person, password=hashed)

    def password(self, person: Person) -> str | None:
        """Return a password's argon2 text; None where there is none or the person is disabled."""
        query = select(users.c.password).where(
            users.c.id == person.number, users.c.disabled_at.is_(None)
        )
        password_hash: str | None = self._transaction.execute(query).scalar()
        return password_hash

    def rights(self, person: Person) -> Sequence[Right]:
        """Return what a person may do; nothing once they are disabled."""
        query = _rights().where(role_assignments.c.user_id == person.number)
        return [_right(row) for row in self._transaction.execute(query)]

    def all_rights(self, only: Collection[int] | None = None) -> Mapping[int, list[Right]]:
        """Return what each may do, by the person's number; the disabled ones are left out.

        Args:
            only: numbers of people; by default everybody.
        """
        assignments: dict[int, list[Right]] = defaultdict(list)
        query = _rights() if only is None else _rights().where(role_assignments.c.user_id.in_(only))
        for row in self._transaction.execute(query):
            assignments[row.user_id].append(_right(row))
        return assignments

    def anybody_with(self, right: Right) -> bool:
        """Say whether somebody who is not disabled has exactly that right."""
        conditions = [role_assignments.c[name] == cell for name, cell in self._cells(right).items()]
        return self._transaction.execute(_rights().where(*conditions).limit(1)).first() is not None

    def give(self, person: Person, right: Right) -> bool:
        """Give a right; say no where the person has it already.

        Raises:
            UnknownRollout: there is no rollout of its name.
        """
        if right in self.rights(person):
            return False
        self._transaction.execute(
            insert(role_assignments).values(user_id=person.number, **self._cells(right))
        )
        return True

    def take(self, person: Person, right: Right) -> bool:
        """Take a right away; say no where the person does not have it, which is no error.

        Raises:
            UnknownRollout: there is no rollout of its name.
        """
        conditions = [role_assignments.c[name] == cell for name, cell in self._cells(right).items()]
        statement = delete(role_assignments).where(
            role_assignments.c.user_id == person.number, *conditions
        )
        return self._transaction.execute(statement).rowcount > 0

    def _cells(self, right: Right) -> dict[str, object]:
        return {
            "role": right.role,
            "rollout": self._number(right.rollout) if right.rollout else None,
            "site": right.site or None,
            "group": right.group,
        }

    def _number(self, rollout: str) -> int:
        query = select(rollouts.c.id).where(rollouts.c.name == rollout)
        rollout_id: int | None = self._transaction.execute(query).scalar()
        if rollout_id is None:
            raise UnknownRollout(f"no rollout {rollout}; `rollout apply` makes one")
        return rollout_id

    def _update(self, person: Person, **values: object) -> None:
        statement = update(users).where(users.c.id == person.number)
        self._transaction.execute(statement.values(**values))

    def _one(self, query: Select[Any]) -> Person | None:
        row = self._transaction.execute(query).one_or_none()
        return None if row is None else person_of(row)


def _select() -> Select[Any]:
    return select(users)


def _rights() -> Select[Any]:
    return (
        select(role_assignments, rollouts.c.name.label("of"))
        .join(users, users.c.id == role_assignments.c.user_id)
        .join(rollouts, rollouts.c.id == role_assignments.c.rollout, isouter=True)
        .where(users.c.disabled_at.is_(None))
        .order_by(role_assignments.c.id)
    )


def _right(row: Row[Any]) -> Right:
    return Right(row.role, row.of or "", row.site or "", row.group)


def person_of(row: Row[Any]) -> Person:
    """Return the person that a row of `users` holds."""
    return Person(
        number=row.id,
        name=row.name,
        machine=row.service_account,
        added_at=row.created_at,
        disabled_at=row.disabled_at,
        email=row.email or "",
        has_password=row.password is not None,
    )
