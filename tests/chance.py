"""Ledgers without chance: two worlds that are compared get the same account ids and salts.

A replay has no stored records: its ledgers are compared without their digests and senders.
"""

from base64 import b32encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256

import pytest

from rollout.core.scope.events import ProposalRaised, RecordsCounted
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


def list_unsealed_events(events):
    """Return kind and content of events without what only stored records give, nor who acted."""
    return [
        (type(event).__name__, _drop_stored(replace(event, by="")))
        for event in events
        if not isinstance(event, RecordsCounted)
    ]


def _drop_stored(event):
    is_raised = isinstance(event, ProposalRaised)
    return replace(event, records_digest="", sources=()) if is_raised else event
