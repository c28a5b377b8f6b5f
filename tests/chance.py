"""Ledgers without chance: two worlds that are compared get the same account ids and salts."""

from base64 import b32encode
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256

import pytest

from rollout.store.ledger import accounts, ledger
from rollout.store.records import record_hashes


@contextmanager
def without_chance() -> Iterator[None]:
    """Make ids from names, and salts of zeros: of both each ledger's head is made."""
    insert = accounts.insert_once

    def insert_named(transaction, table, row):
        own = b32encode(sha256(row["name"].encode()).digest()[:10]).decode().lower()
        return insert(transaction, table, {**row, "account": f"u-{own}"})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accounts, "insert_once", insert_named)
        patch.setattr(ledger, "_random_salt", lambda _revision, _field: bytes(16))
        patch.setattr(record_hashes, "_draw_salts", lambda count: [bytes(16)] * count)
        yield
