"""Addresses from which users signed in before, as hashes.

Failures from other addresses never slow these down.
"""

from datetime import datetime
from hashlib import sha256

from sqlalchemy import delete, select

from rollout.store.access.users import StoredUser
from rollout.store.database.bulk import insert_once
from rollout.store.database.session import Transaction
from rollout.store.tables.tables import sign_in_addresses

MAX_ADDRESSES_PER_USER = 50


class SignInAddresses:
    """The addresses of all users, the newest of each."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def has(self, user: StoredUser, address: str) -> bool:
        """Return whether the user signed in from an address before."""
        query = select(sign_in_addresses.c.used_at).where(
            sign_in_addresses.c.user_id == user.number,
            sign_in_addresses.c.hash == _hash_address(user, address),
        )
        return self._transaction.execute(query).first() is not None

    def add(self, user: StoredUser, address: str, *, at: datetime) -> None:
        """Store an address, and delete the user's oldest ones above the limit."""
        row = {"user_id": user.number, "hash": _hash_address(user, address), "used_at": at}
        is_new = insert_once(self._transaction, sign_in_addresses, row)
        if not is_new:
            return
        is_own = sign_in_addresses.c.user_id == user.number
        query = select(sign_in_addresses.c.hash).where(is_own)
        newest_first = query.order_by(sign_in_addresses.c.used_at.desc())
        hashes = self._transaction.execute(newest_first.offset(MAX_ADDRESSES_PER_USER)).scalars()
        old = sign_in_addresses.c.hash.in_(list(hashes))
        self._transaction.execute(delete(sign_in_addresses).where(is_own, old))


def _hash_address(user: StoredUser, address: str) -> bytes:
    """Return the hash of an address, unlike that of another user's same address."""
    return sha256(f"{user.number} {address}".encode()).digest()
