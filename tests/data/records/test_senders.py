"""Each record is stored with its sender, and is the same record whoever sends it."""

from sqlalchemy import select

from rollout.data.records.record_rows import RECORD_SCHEMAS
from rollout.data.records.records import RecordStatus, RecordStore
from tests.data.new_rollouts import rollout
from tests.data.records.test_records import EACH
from tests.factories import NOON

__all__ = ["rollout"]


def senders(database):
    with database.begin_read() as transaction:
        return {
            schema.name: list(transaction.execute(select(schema.table.c.sender)).scalars())
            for schema in RECORD_SCHEMAS.values()
        }


def store(database, rollout, **words):
    with database.begin_write() as transaction:
        return RecordStore(transaction, rollout).store(EACH, **words).results


def test_the_sender_stands_at_every_record(database, rollout):
    store(database, rollout, received_at=NOON, sender="u-aaaaaaaaaaaaaaaa")
    assert set(map(tuple, senders(database).values())) == {("u-aaaaaaaaaaaaaaaa",)}


def test_files_are_the_senders_of_their_kinds(database, rollout):
    store(database, rollout, received_at=NOON, sender={"case": "file:1", "decision": "file:2"})
    assert senders(database) == {
        "case": ["file:1"],
        "prediction": [None],
        "decision": ["file:2"],
        "action": [None],
        "outcome": [None],
    }


def test_another_sender_of_the_same_record_sends_a_duplicate(database, rollout):
    store(database, rollout, received_at=NOON, sender="u-aaaaaaaaaaaaaaaa")
    again = store(database, rollout, received_at=NOON, sender="u-bbbbbbbbbbbbbbbb")
    assert {receipt.status for receipt in again} == {RecordStatus.DUPLICATE}
    assert set(map(tuple, senders(database).values())) == {("u-aaaaaaaaaaaaaaaa",)}
