"""One-time links: with one a user sets the first password, or the first admin signs up."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from sqlalchemy import insert, or_, select, update

from rollout.store.access.api_keys import hash_secret
from rollout.store.access.users import StoredUser, Users
from rollout.store.database.session import Transaction
from rollout.store.tables.tables import credential_resets, one_time_links


@dataclass(frozen=True, slots=True)
class CredentialReset:
    """A reset; `reset_by` is the number of the user who made it, 0 if unknown."""

    user_id: int
    reset_by: int
    credential: str
    reset_at: datetime


class CredentialResets:
    """All resets since they are recorded."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def add(
        self, user: StoredUser, by: StoredUser | None, credential: str, *, at: datetime
    ) -> None:
        """Store a reset of a user's credential."""
        row = {
            "user_id": user.number,
            "reset_by": 0 if by is None else by.number,
            "credential": credential,
            "reset_at": at,
        }
        self._transaction.execute(insert(credential_resets).values(row))

    def list_all(self) -> Sequence[CredentialReset]:
        """Return all resets, oldest first."""
        query = select(credential_resets).order_by(credential_resets.c.id)
        return [
            CredentialReset(row.user_id, row.reset_by, row.credential, row.reset_at)
            for row in self._transaction.execute(query)
        ]


class OneTimeLinks:
    """The one-time links, stored by the hash of their secret."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def add(
        self,
        user: StoredUser | None,
        secret: str,
        *,
        at: datetime,
        expires_at: datetime,
        by: StoredUser | None = None,
    ) -> None:
        """Store a link's hash and creator; without a user it is the first admin's."""
        row = {
            "user_id": None if user is None else user.number,
            "hash": hash_secret(secret),
            "created_at": at,
            "expires_at": expires_at,
            "created_by": None if by is None else by.number,
        }
        self._transaction.execute(insert(one_time_links).values(row))

    def find_valid(self, secret: str, *, at: datetime) -> tuple[bool, StoredUser | None]:
        """Return whether a link is valid now, and its user, without using it."""
        query = select(one_time_links.c.user_id).where(
            one_time_links.c.hash == hash_secret(secret),
            one_time_links.c.used_at.is_(None),
            one_time_links.c.expires_at > at,
        )
        row = self._transaction.execute(query).one_or_none()
        return row is not None, self._find_user(row and row.user_id)

    def find_creator(self, secret: str) -> StoredUser | None:
        """Return the admin who created a link, or None if unknown."""
        query = select(one_time_links.c.created_by).where(
            one_time_links.c.hash == hash_secret(secret)
        )
        return self._find_user(self._transaction.execute(query).scalar())

    def redeem(self, secret: str, *, at: datetime) -> tuple[bool, StoredUser | None]:
        """Use a link: return whether it was valid, and its user.

        The user is None for the first admin's link. Of concurrent calls exactly one succeeds.
        """
        is_link = one_time_links.c.hash == hash_secret(secret)
        is_valid = (one_time_links.c.used_at.is_(None), one_time_links.c.expires_at > at)
        statement = update(one_time_links).where(is_link, *is_valid)
        if not self._transaction.execute(statement.values(used_at=at)).rowcount:
            return False, None
        query = select(one_time_links.c.user_id).where(is_link)
        return True, self._find_user(self._transaction.execute(query).scalar())

    def _find_user(self, user_id: int | None) -> StoredUser | None:
        return None if user_id is None else Users(self._transaction).get_by_id(user_id)

    def end_links(self, user: StoredUser, *, at: datetime) -> None:
        """End a user's open links, and those of first admins."""
        user_id = one_time_links.c.user_id
        statement = update(one_time_links).where(
            or_(user_id == user.number, user_id.is_(None)), one_time_links.c.used_at.is_(None)
        )
        self._transaction.execute(statement.values(used_at=at))


def compute_link_digest(link_hash: bytes, expires_at: int) -> str:
    """Return the digest of a link; its secret is random, so no salt is needed."""
    return sha256(b"%s %d" % (link_hash, expires_at)).hexdigest()
