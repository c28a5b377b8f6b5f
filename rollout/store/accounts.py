"""Opaque ids of accounts, and the names that an erasure may take from them."""

import secrets
from base64 import b32encode
from collections.abc import Collection, Iterable, Mapping

from sqlalchemy import select

from rollout.core.accounts import AccountNames, is_account_id, is_account_name
from rollout.store.insert_once import insert_once
from rollout.store.session import Transaction
from rollout.store.tables import account_names

MAX_NAMES = 500  # names in one question to the database


class Accounts:
    """The ids of every account that a ledger has named."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def find_names(self, accounts: Iterable[str]) -> AccountNames:
        """Return the names of those of `accounts` that are ids and have one."""
        wanted = sorted({account for account in accounts if is_account_id(account)})
        found: dict[str, str] = {}
        for begin in range(0, len(wanted), MAX_NAMES):
            some = wanted[begin : begin + MAX_NAMES]
            query = select(account_names).where(
                account_names.c.account.in_(some), account_names.c.name.is_not(None)
            )
            found |= {row.name: row.account for row in self._transaction.execute(query)}
        return AccountNames.from_ids(found)

    def find_ids(self, names: Collection[str]) -> Mapping[str, str]:
        """Return the ids of those names that have one."""
        query = select(account_names).where(account_names.c.name.in_(names))
        return {row.name: row.account for row in self._transaction.execute(query)}

    def add_names(self, names: Iterable[str]) -> AccountNames:
        """Return the ids of names, made for those accounts that have none yet."""
        wanted = {name for name in names if is_account_name(name)}
        if not wanted:
            return AccountNames()
        ids = self.find_ids(wanted)
        for name in sorted(wanted - ids.keys()):
            row = {"account": random_account_id(), "name": name}
            insert_once(self._transaction, account_names, row)
        return AccountNames.from_ids(ids if ids.keys() == wanted else self.find_ids(wanted))


def random_account_id() -> str:
    """Return a new id: `u-` and 16 letters or digits, 80 random bits."""
    return "u-" + b32encode(secrets.token_bytes(10)).decode().lower()
