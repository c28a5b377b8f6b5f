"""Opaque ids of accounts, and their names, which an erasure may delete."""

import secrets
from base64 import b32encode
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from typing import Any

from sqlalchemy import Select, select, update

from rollout.core.access.accounts import AccountNames, is_account_id, is_account_name
from rollout.store.database.bulk import (
    encode_driver_values,
    fetch_rows,
    insert_once,
    select_texts,
)
from rollout.store.database.session import Transaction
from rollout.store.tables.tables import account_names

NAMES_PER_QUERY = 500  # names in one query


class Accounts:
    """The ids of all accounts that a ledger names."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def find_names(self, accounts: Iterable[str]) -> AccountNames:
        """Return the names of those accounts that are ids and have one."""
        account_ids = sorted({account for account in accounts if is_account_id(account)})
        names: dict[str, str] = {}
        for start in range(0, len(account_ids), NAMES_PER_QUERY):
            part = account_ids[start : start + NAMES_PER_QUERY]
            query = select(account_names).where(
                account_names.c.account.in_(part), account_names.c.name.is_not(None)
            )
            names |= {row.name: row.account for row in self._transaction.execute(query)}
        return AccountNames.from_ids(names)

    def find_ids(self, names: Collection[str]) -> Mapping[str, str]:
        """Return the ids of the names that have one."""
        engine = self._transaction.engine
        encoded = encode_driver_values(engine, names)
        return dict(fetch_rows(self._transaction, _build_ids_query(engine), {"names": encoded}))

    def add_id(self, name: str) -> str:
        """Return the id of a name, created if missing; an actor without account keeps its name."""
        return self.add_names([name]).find_id(name)

    def clear_name(self, account: str) -> None:
        """Delete the name of an id; ledgers show the id from then on."""
        self._transaction.execute(
            update(account_names).where(account_names.c.account == account).values(name=None)
        )

    def add_names(self, names: Iterable[str]) -> AccountNames:
        """Return the ids of names; missing ids are created."""
        valid_names = {name for name in names if is_account_name(name)}
        if not valid_names:
            return AccountNames()
        ids = self.find_ids(valid_names)
        for name in sorted(valid_names - ids.keys()):
            row = {"account": random_account_id(), "name": name}
            insert_once(self._transaction, account_names, row)
        return AccountNames.from_ids(
            ids if ids.keys() == valid_names else self.find_ids(valid_names)
        )


@cache
def _build_ids_query(engine: str) -> Select[Any]:
    """Return the query for names and ids, which each batch of records asks for its sender."""
    names = select_texts(engine, "names")
    return select(account_names.c.name, account_names.c.account).where(
        account_names.c.name.in_(names)
    )


def random_account_id() -> str:
    """Return a new id: `u-` and 16 letters or digits.

    It has 80 random bits.
    """
    return "u-" + b32encode(secrets.token_bytes(10)).decode().lower()
