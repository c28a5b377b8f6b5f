"""Worlds without chance: two that are compared get the same account ids, salts and request ids.

Digests of counted records are no more than chance to whoever lacks the random bytes of each record,
so both worlds get one that says only how much it covers. Hashes of records are left to chance: no
answer holds one. A replay has no stored records: its ledgers are compared without the digests
and senders.
"""

from ast import literal_eval
from base64 import b32encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from types import SimpleNamespace
from uuid import UUID

import pytest

from api import metrics
from rollout.data.counting.counted_units import COVERED_FIELDS, CellDigests, summarize_counted
from rollout.data.ledger import ledger
from rollout.data.ledger import ledger as accounts
from rollout.engine.events import ProposalRaised, RecordsCounted, RolloutCreated, TrainingCutoffSet
from rollout.features.reports import drafts
from rollout.live.evidence import evidence_seals

_add_line = CellDigests.add_line


@contextmanager
def without_chance() -> Iterator[None]:
    """Make ids from names, salts of zeros, digests from counts, and one id for all requests.

    Of all but the last each ledger's head is made.
    """
    insert = accounts.insert_once

    def insert_named(transaction, table, row):
        if "account" not in row:
            return insert(transaction, table, row)
        own = b32encode(sha256(row["name"].encode()).digest()[:10]).decode().lower()
        return insert(transaction, table, {**row, "account": f"u-{own}"})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accounts, "insert_once", insert_named)
        patch.setattr(ledger, "_random_salt", lambda _revision, _field: bytes(16))
        patch.setattr(evidence_seals, "summarize_counted", _summarize_hidden)
        patch.setattr(CellDigests, "add_line", _add_hidden)
        patch.setattr(drafts, "secrets", SimpleNamespace(token_hex=lambda size: "00" * size))
        patch.setattr(metrics, "uuid4", lambda: UUID(int=0))
        yield


def _summarize_hidden(units, records, outcomes):
    """Return what a tick counted, with a digest that says only how much it covers."""
    parts = list(units)
    lines = [literal_eval(line.decode()) for part in parts for line in part.text.splitlines()]
    for line in lines:
        assert line[COVERED_FIELDS - 1], f"a digest covers a unit without hashes: {line}"
        values = line[COVERED_FIELDS:]
        assert {kind for kind, _ in values} <= {"band", "values"}, f"no random bytes: {line}"
    summary = summarize_counted(parts, records, outcomes)
    return summary and replace(summary, digest=_digest(len(lines), summary.records))


def _add_hidden(digests, line):
    """Add a unit to its cell's digest as one more, whichever it is."""
    same = dict.fromkeys(("class_ids", "bucket", "record_hashes"), "")
    same |= dict.fromkeys(("attribute_values", "slices", "value_seal"))
    _add_line(digests, _require_salted(line)._replace(**same))


def _require_salted(line):
    """Return a unit whose line nobody can guess: it holds hashes made with random bytes."""
    assert line.record_hashes, f"a digest covers a unit without hashes of its records: {line}"
    is_plain = line.attribute_values is None and line.slices is None
    assert is_plain or line.value_seal, f"a digest covers values without random bytes: {line}"
    return line


def _digest(*counts):
    return sha256(repr(counts).encode()).hexdigest()


def list_unsealed_events(events):
    """Return kind and content of events without what only stored records give, nor who acted."""
    return [
        (type(event).__name__, _drop_stored(replace(event, by="")))
        for event in events
        if not isinstance(event, RecordsCounted | TrainingCutoffSet)
    ]


def _drop_stored(event):
    if isinstance(event, RolloutCreated):  # a replay draws nothing by a salt of its own
        return replace(event, service_salt_hash="")
    is_raised = isinstance(event, ProposalRaised)
    return (
        replace(event, records_digest="", sources=(), outcome_sources=(), vouched=(), registered=())
        if is_raised
        else event
    )
