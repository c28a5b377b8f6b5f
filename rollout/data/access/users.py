"""Users and service accounts, their roles and their second factors.

A second factor comes with its recovery codes, and its secret comes encrypted.
"""

import secrets
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, Select, delete, func, insert, or_, select, update

from rollout.data.database.bulk import insert_once
from rollout.data.database.session import Repository, Transaction
from rollout.data.tables.tables import (
    identities,
    notification_channels,
    notification_settings,
    notifications,
    one_time_links,
    recovery_codes,
    role_assignments,
    rollouts,
    second_factors,
    sessions,
    sign_in_addresses,
    users,
)
from rollout.engine.decide.permissions import AssignedRole
from rollout.kernel.errors import UnknownRolloutError

SALT_BYTES: Final = 16
OWN_TABLES: Final = (
    notifications,
    notification_channels,
    notification_settings,
    identities,
    sessions,
    one_time_links,
    second_factors,
    recovery_codes,
    sign_in_addresses,
)
"""The tables with how one user signs in and is notified; they go with an erased user."""


@dataclass(frozen=True, slots=True)
class StoredUser:
    """A user or service account.

    The ledger cites the name, which is never reused.
    """

    number: int
    name: str
    is_service_account: bool
    added_at: datetime
    disabled_at: datetime | None = None
    email: str = ""
    has_password: bool = False


class Users(Repository):
    """All users and service accounts, also the disabled ones."""

    @property
    def transaction(self) -> Transaction:
        """Return the transaction that reads and changes them."""
        return self._transaction

    def add(self, name: str, *, at: datetime, is_service_account: bool = False) -> StoredUser:
        """Return the user with this name, added if it is new."""
        insert_once(
            self._transaction,
            users,
            {
                "name": name,
                "service_account": is_service_account,
                "created_at": at,
                "salt": secrets.token_bytes(SALT_BYTES),
            },
        )
        user = self.find(name)
        assert user is not None  # noqa: S101 - inserted now or before
        return user

    def list_all(self) -> Sequence[StoredUser]:
        """Return all users in the order in which they were added."""
        return self._load_users(select(users).order_by(users.c.id))

    def list_by_names(self, names: Collection[str]) -> Sequence[StoredUser]:
        """Return the users that have one of these names."""
        return self._load_users(select(users).where(users.c.name.in_(names)))

    def has_any(self) -> bool:
        """Return whether any user was ever added."""
        return self._transaction.execute(select(users.c.id).limit(1)).first() is not None

    def find(self, name: str) -> StoredUser | None:
        """Return the user with this name, or None."""
        return self._find_user(users.c.name == name)

    def find_similar_name(self, name: str) -> StoredUser | None:
        """Return the user with this name in any letter case, or None."""
        query = select(users).where(func.lower(users.c.name) == name.lower()).limit(1)
        return next(iter(self._load_users(query)), None)

    def get_by_id(self, user_id: int) -> StoredUser:
        """Return the user with this number, which must exist."""
        user = self._find_user(users.c.id == user_id)
        assert user is not None  # noqa: S101 - numbers come from foreign keys
        return user

    def find_by_email(self, email: str) -> StoredUser | None:
        """Return the user with this e-mail address, or None."""
        return self._find_user(users.c.email == email.lower())

    def find_by_identity(self, issuer: str, subject: str) -> StoredUser | None:
        """Return the user linked to an identity provider's subject, or None."""
        linked = select(identities.c.user_id).where(
            identities.c.issuer == issuer, identities.c.subject == subject
        )
        return self._find_user(users.c.id == linked.scalar_subquery())

    def list_linked(self) -> Sequence[int]:
        """Return the numbers of the users who sign in through an identity provider."""
        return self._transaction.execute(select(identities.c.user_id)).scalars().all()

    def link_identity(self, user: StoredUser, issuer: str, subject: str, *, at: datetime) -> bool:
        """Link an identity for ever; return False if one is linked."""
        row = {"user_id": user.number, "issuer": issuer, "subject": subject, "linked_at": at}
        return insert_once(self._transaction, identities, row)

    def disable(self, user: StoredUser, *, at: datetime) -> None:
        """Disable a user: remove the password and all roles; the name stays."""
        conditions = (users.c.id == user.number, users.c.disabled_at.is_(None))
        values = {"disabled_at": at, "password": None}
        self._transaction.execute(update(users).where(*conditions).values(**values))
        self._transaction.execute(
            delete(role_assignments).where(role_assignments.c.user_id == user.number)
        )

    def erase(self, user: StoredUser, pseudonym: str) -> None:
        """Replace the name of a disabled user; delete addresses, links, sessions and factors."""
        self._update_user(user, name=pseudonym, email=None, password=None, salt=None)
        for table in OWN_TABLES:
            self._transaction.execute(delete(table).where(table.c.user_id == user.number))

    def enable(self, user: StoredUser) -> None:
        """Enable a user again, without any role."""
        self._update_user(user, disabled_at=None, salt=secrets.token_bytes(SALT_BYTES))

    def set_email(self, user: StoredUser, email: str) -> None:
        """Store an e-mail address in lower case; "" removes it.

        Raises:
            IntegrityError: another user has it.
        """
        self._update_user(user, email=email.lower() or None)

    def set_password(self, user: StoredUser, hashed: str | None) -> None:
        """Store a password's argon2 text; None removes it."""
        self._update_user(user, password=hashed)

    def has_had_credential(self, user: StoredUser) -> bool:
        """Return whether the user could sign in at any time before."""
        query = select(users.c.id).where(
            users.c.id == user.number,
            or_(users.c.first_credential_at.is_not(None), users.c.password.is_not(None)),
        )
        return self._transaction.execute(query).first() is not None

    def record_credential(self, user: StoredUser, *, at: datetime) -> None:
        """Store when the user could first sign in, unless stored."""
        statement = update(users).where(
            users.c.id == user.number, users.c.first_credential_at.is_(None)
        )
        self._transaction.execute(statement.values(first_credential_at=at))

    def load_password_hash(self, user: StoredUser) -> str | None:
        """Return a password's argon2 text; None for none or a disabled user."""
        password_hash: str | None = self._transaction.execute(
            select(users.c.password).where(users.c.id == user.number, users.c.disabled_at.is_(None))
        ).scalar()
        return password_hash

    def list_role_assignments(self, user: StoredUser) -> Sequence[AssignedRole]:
        """Return a user's roles; none if the user is disabled."""
        query = _select_role_assignments().where(role_assignments.c.user_id == user.number)
        return [_build_role_assignment(row) for row in self._transaction.execute(query)]

    def list_all_role_assignments(
        self, user_ids: Collection[int] | None = None
    ) -> Mapping[int, list[AssignedRole]]:
        """Return the roles by user number, without disabled users."""
        assignments: dict[int, list[AssignedRole]] = defaultdict(list)
        query = _select_role_assignments()
        if user_ids is not None:
            query = query.where(role_assignments.c.user_id.in_(user_ids))
        for row in self._transaction.execute(query):
            assignments[row.user_id].append(_build_role_assignment(row))
        return assignments

    def has_holder(self, assignment: AssignedRole) -> bool:
        """Return whether an enabled user has exactly this role."""
        query = _select_role_assignments().where(*self._match_role(assignment)).limit(1)
        return self._transaction.execute(query).first() is not None

    def grant_role(self, user: StoredUser, assignment: AssignedRole) -> bool:
        """Assign a role; return False if the user has it already.

        Raises:
            UnknownRolloutError: the role names a rollout that doesn't exist.
        """
        if assignment in self.list_role_assignments(user):
            return False
        self._transaction.execute(
            insert(role_assignments).values(user_id=user.number, **self._build_row(assignment))
        )
        return True

    def revoke_role(self, user: StoredUser, assignment: AssignedRole) -> bool:
        """Remove a role; return False if the user doesn't have it.

        Raises:
            UnknownRolloutError: the role names a rollout that doesn't exist.
        """
        statement = delete(role_assignments).where(
            role_assignments.c.user_id == user.number, *self._match_role(assignment)
        )
        return self._transaction.execute(statement).rowcount > 0

    def _match_role(self, assignment: AssignedRole) -> list[ColumnElement[bool]]:
        values = self._build_row(assignment)
        return [role_assignments.c[name] == value for name, value in values.items()]

    def _build_row(self, assignment: AssignedRole) -> dict[str, object]:
        return {
            "role": assignment.role,
            "rollout": self._find_rollout_id(assignment.rollout) if assignment.rollout else None,
            "site": assignment.site or None,
            "group": assignment.group,
        }

    def _find_rollout_id(self, rollout: str) -> int:
        query = select(rollouts.c.id).where(rollouts.c.name == rollout)
        rollout_id: int | None = self._transaction.execute(query).scalar()
        if rollout_id is None:
            raise UnknownRolloutError(f"no rollout {rollout}; `rollout apply` makes one")
        return rollout_id

    def _update_user(self, user: StoredUser, **values: object) -> None:
        self._transaction.execute(update(users).where(users.c.id == user.number).values(**values))

    def _find_user(self, condition: ColumnElement[bool]) -> StoredUser | None:
        return self._transaction.find(select(users).where(condition), build_user)

    def _load_users(self, query: Select[Any]) -> list[StoredUser]:
        return [build_user(row) for row in self._transaction.execute(query)]


def _select_role_assignments() -> Select[Any]:
    return (
        select(role_assignments, rollouts.c.name.label("of"))
        .join(users, users.c.id == role_assignments.c.user_id)
        .join(rollouts, rollouts.c.id == role_assignments.c.rollout, isouter=True)
        .where(users.c.disabled_at.is_(None))
        .order_by(role_assignments.c.id)
    )


def _build_role_assignment(row: Row[Any]) -> AssignedRole:
    return AssignedRole(row.role, row.of or "", row.site or "", row.group)


def build_user(row: Row[Any]) -> StoredUser:
    """Return the user of a row of `users`."""
    return StoredUser(
        number=row.id,
        name=row.name,
        is_service_account=row.service_account,
        added_at=row.created_at,
        disabled_at=row.disabled_at,
        email=row.email or "",
        has_password=row.password is not None,
    )


@dataclass(frozen=True, slots=True)
class StoredFactor:
    """A second factor; without `confirmed_at` its user never gave a code of it."""

    secret: bytes = field(repr=False)
    created_at: datetime
    confirmed_at: datetime | None
    last_step: int


class SecondFactors(Repository):
    """The second factors of all users, at most one each."""

    def has_any(self) -> bool:
        """Return whether any user has a second factor, confirmed or not."""
        query = select(second_factors.c.user_id).limit(1)
        return self._transaction.execute(query).first() is not None

    def list_confirmed(self) -> Sequence[int]:
        """Return the numbers of the users with a confirmed second factor."""
        query = select(second_factors.c.user_id).where(second_factors.c.confirmed_at.is_not(None))
        return self._transaction.execute(query).scalars().all()

    def find(self, user: StoredUser) -> StoredFactor | None:
        """Return a user's second factor, or None."""
        return self._transaction.find(
            select(second_factors).where(second_factors.c.user_id == user.number),
            lambda row: StoredFactor(row.secret, row.created_at, row.confirmed_at, row.last_step),
        )

    def add(self, user: StoredUser, secret: bytes, *, at: datetime) -> None:
        """Store an unconfirmed second factor in the place of any other."""
        self.remove(user)
        row = {"user_id": user.number, "secret": secret, "created_at": at, "last_step": 0}
        self._transaction.execute(insert(second_factors).values(row))

    def confirm(self, user: StoredUser, *, at: datetime, code_hashes: Iterable[bytes]) -> None:
        """Mark the second factor as confirmed and store its recovery codes."""
        is_own = second_factors.c.user_id == user.number
        self._transaction.execute(update(second_factors).where(is_own).values(confirmed_at=at))
        rows = [{"user_id": user.number, "hash": code_hash} for code_hash in code_hashes]
        self._transaction.execute(insert(recovery_codes), rows)

    def use_step(self, user: StoredUser, step: int) -> bool:
        """Mark the code of a time step as used; return False if it or a later one was."""
        statement = update(second_factors).where(
            second_factors.c.user_id == user.number, second_factors.c.last_step < step
        )
        return self._transaction.execute(statement.values(last_step=step)).rowcount > 0

    def use_recovery_code(self, user: StoredUser, code_hash: bytes, *, at: datetime) -> bool:
        """Mark a recovery code as used; return False if there is no such unused one."""
        statement = update(recovery_codes).where(
            recovery_codes.c.user_id == user.number,
            recovery_codes.c.hash == code_hash,
            recovery_codes.c.used_at.is_(None),
        )
        return self._transaction.execute(statement.values(used_at=at)).rowcount > 0

    def count_recovery_codes(self, user: StoredUser) -> int:
        """Return how many recovery codes of a user are unused."""
        query = select(func.count()).where(
            recovery_codes.c.user_id == user.number, recovery_codes.c.used_at.is_(None)
        )
        return int(self._transaction.execute(query).scalar_one())

    def remove(self, user: StoredUser) -> bool:
        """Remove factor and recovery codes; return whether a confirmed one was removed."""
        factor = self.find(user)
        self._transaction.execute(
            delete(recovery_codes).where(recovery_codes.c.user_id == user.number)
        )
        self._transaction.execute(
            delete(second_factors).where(second_factors.c.user_id == user.number)
        )
        return factor is not None and factor.confirmed_at is not None
