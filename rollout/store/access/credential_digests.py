"""Digests of how an account signs in: the access ledger has them, so single edits are found.

A digest is salted by its account, since an e-mail address could be guessed. Erasing the account
deletes the salt.
"""

import hmac
from typing import Any

from sqlalchemy import ColumnElement, Table, select

from rollout.core.calendar.instants import to_micros
from rollout.core.ledger.ledger import to_canonical_json
from rollout.store.access.one_time_links import compute_link_digest
from rollout.store.database.session import Transaction
from rollout.store.tables.tables import (
    api_keys,
    identities,
    one_time_links,
    recovery_codes,
    second_factors,
    users,
)

DOMAIN = "rollout-credentials-1\n"
COLUMNS: tuple[tuple[Table, tuple[str, ...], ColumnElement[bool] | None], ...] = (
    (api_keys, ("prefix", "hash", "expires_at", "second_factor"), api_keys.c.revoked_at.is_(None)),
    (identities, ("issuer", "subject"), None),
    (second_factors, ("secret",), second_factors.c.confirmed_at.is_not(None)),
    (recovery_codes, ("hash",), recovery_codes.c.used_at.is_(None)),
)
"""What an account signs in with, besides password and address: table, columns, valid rows."""


def compute_digest(transaction: Transaction, user_name: str) -> str:
    """Return the digest of an account's credentials now; "" if there is none or it is erased."""
    user = transaction.execute(select(users).where(users.c.name == user_name)).one_or_none()
    if user is None or user.salt is None:
        return ""
    values: dict[str, Any] = {
        "email": user.email,
        "password": user.password,
        "first_credential_at": _to_plain(user.first_credential_at),
    }
    for table, names, is_valid in COLUMNS:
        query = select(*(table.c[name] for name in names)).where(table.c.user_id == user.id)
        rows = transaction.execute(query if is_valid is None else query.where(is_valid))
        values[table.name] = sorted([_to_plain(value) for value in row] for row in rows)
    text = DOMAIN + to_canonical_json(values)
    return hmac.digest(user.salt, text.encode(), "sha256").hex()


def list_open_links(transaction: Transaction) -> list[tuple[str, str]]:
    """Return the user, "" for none, and the digest of each link that was not used."""
    query = (
        select(one_time_links.c.hash, one_time_links.c.expires_at, users.c.name)
        .join(users, users.c.id == one_time_links.c.user_id, isouter=True)
        .where(one_time_links.c.used_at.is_(None))
    )
    return [
        (row.name or "", compute_link_digest(row.hash, to_micros(row.expires_at)))
        for row in transaction.execute(query)
    ]


def _to_plain(value: Any) -> Any:
    """Return a column's value for canonical JSON; null as "", so that rows can be sorted."""
    match value:
        case None:
            return ""
        case bytes():
            return value.hex()
        case str():
            return value
        case _:
            return to_micros(value)
