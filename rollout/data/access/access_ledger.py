"""The access ledger: one writer at a time changes users, permissions and keys.

Digests of how an account signs in: the access ledger has them, so single edits are found.

A digest is salted by its account, since an e-mail address could be guessed. Erasing the account
deletes the salt.
"""

import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Table, select

from rollout.data.access.tokens import compute_link_digest
from rollout.data.database.append_failures import ACCESS
from rollout.data.database.rollouts import ACCESS_CHAIN, Rollouts
from rollout.data.database.session import Transaction
from rollout.data.ledger.ledger import Ledger
from rollout.data.tables.tables import (
    api_keys,
    identities,
    ledger_heads,
    one_time_links,
    recovery_codes,
    second_factors,
    users,
)
from rollout.engine.ledger.access_events import AccessEvent
from rollout.engine.ledger.ledger import to_canonical_json
from rollout.kernel.calendar.instants import to_micros


@dataclass(frozen=True, slots=True)
class AccessLedgerHead:
    """Revision and hash of the newest entry of the access ledger."""

    revision: int | None
    hash: str


class AccessLedger:
    """The access ledger, locked until the writing transaction ends."""

    def __init__(self, transaction: Transaction) -> None:
        """Lock the head, so that later reads see the latest state."""
        Rollouts(transaction).open_access_ledger()
        self._transaction, self._ledger = transaction, Ledger(transaction, ACCESS_CHAIN)
        lock_query = select(ledger_heads.c.revision).where(
            ledger_heads.c.rollout == ACCESS_CHAIN.number
        )
        self.revision: int = transaction.execute(lock_query.with_for_update()).scalar_one()
        transaction.tally.announce(ACCESS_CHAIN.name, ACCESS)  # accounts are changed before it

    def append(self, events: Iterable[AccessEvent]) -> int:
        """Append the transaction's events and return the new revision.

        The last event about an account gets the digest of its credentials as they are now.
        """
        rows = self._ledger.append(self._add_digests(events), after=self.revision)
        self.revision += len(rows)
        return self.revision

    def _add_digests(self, events: Iterable[AccessEvent]) -> list[AccessEvent]:

        all_events = list(events)
        last_places = {event.account: place for place, event in enumerate(all_events)}
        for account, place in last_places.items():
            if account is not None:
                digest = compute_digest(self._transaction, account)
                all_events[place] = all_events[place].add_credentials(digest)
        return all_events


def load_access_head(transaction: Transaction) -> AccessLedgerHead:
    """Return the head of the access ledger; None revision if empty."""
    query = select(ledger_heads).where(ledger_heads.c.rollout == ACCESS_CHAIN.number)
    row = transaction.execute(query).one_or_none()
    return (
        AccessLedgerHead(None, "")
        if row is None
        else AccessLedgerHead(row.revision or None, row.hash)
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
