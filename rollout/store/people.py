"""People and machines, and what they may do where."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Row, delete, insert, select, update

from rollout.store.insert_once import insert_once
from rollout.store.session import Transaction
from rollout.store.tables import people, rights


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody, or a machine, under a name that the ledger cites. It is never given again."""

    number: int
    name: str
    machine: bool
    disabled_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Right:
    """A role, in one rollout (by number) or all, at one site or all, in a group for approvals."""

    role: str
    rollout: int | None = None
    site: str | None = None
    group: str = ""


class People:
    """Everybody who has ever had a name here."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def add(self, name: str, *, at: datetime, machine: bool = False) -> Person:
        """Return the person of that name, added if there is none."""
        insert_once(self._transaction, people, {"name": name, "machine": machine, "created_at": at})
        found = self.find(name)
        assert found is not None  # noqa: S101 - it was added, by us or by somebody before
        return found

    def find(self, name: str) -> Person | None:
        """Return the person of that name, None where there is none."""
        query = select(people).where(people.c.name == name)
        row = self._transaction.execute(query).one_or_none()
        return None if row is None else person_of(row)

    def disable(self, person: Person, *, at: datetime) -> None:
        """From `at` on nothing of theirs is valid: passwords, sessions, keys. Their name stays."""
        still_open = (people.c.id == person.number, people.c.disabled_at.is_(None))
        self._transaction.execute(update(people).where(*still_open).values(disabled_at=at))

    def set_password(self, person: Person, hashed: str | None) -> None:
        """Keep a password's argon2 text, or that there is none."""
        same = update(people).where(people.c.id == person.number)
        self._transaction.execute(same.values(password=hashed))

    def password(self, person: Person) -> str | None:
        """Return a password's argon2 text; None where there is none or the person is disabled."""
        query = select(people.c.password).where(
            people.c.id == person.number, people.c.disabled_at.is_(None)
        )
        found: str | None = self._transaction.execute(query).scalar()
        return found

    def rights(self, person: Person) -> Sequence[Right]:
        """Return what a person may do; nothing once they are disabled."""
        query = (
            select(rights)
            .join(people, people.c.id == rights.c.person)
            .where(rights.c.person == person.number, people.c.disabled_at.is_(None))
            .order_by(rights.c.id)
        )
        rows = self._transaction.execute(query)
        return [Right(row.role, row.rollout, row.site, row.group) for row in rows]

    def give(self, person: Person, right: Right) -> None:
        """Give a right that the person does not have yet."""
        if right not in self.rights(person):
            self._transaction.execute(insert(rights).values(person=person.number, **_cells(right)))

    def take(self, person: Person, right: Right) -> None:
        """Take a right away; one that the person does not have is no error."""
        same = [rights.c[name] == cell for name, cell in _cells(right).items()]
        self._transaction.execute(delete(rights).where(rights.c.person == person.number, *same))


def person_of(row: Row[tuple[object, ...]]) -> Person:
    """Return the person that a row of `people` holds."""
    return Person(row.id, row.name, row.machine, row.disabled_at)


def _cells(right: Right) -> dict[str, object]:
    return {
        "role": right.role,
        "rollout": right.rollout,
        "site": right.site,
        "group": right.group,
    }
