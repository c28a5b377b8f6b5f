"""A batch with a time of receipt for each item is stored as its items one after another."""

from msgspec.structs import replace
from sqlalchemy import select

from rollout.data.counting.count_queue import CountQueue
from rollout.data.records.case_pages import CaseFilter, CasePages
from rollout.data.records.record_rows import RECORD_SCHEMAS
from rollout.data.records.records import RecordStatus, RecordStore
from rollout.data.tables.tables import external_keys, rejected_records
from rollout.engine.records.records import Action, Case, Decision, Outcome, Prediction
from tests.data.new_rollouts import created, rollout
from tests.factories import DAY, HOUR, MINUTE, NOON

__all__ = ["rollout"]

FIRST = Case(key="z", site="creek", window="day", occurred_at=NOON)
SECOND = Case(key="a", site="creek", window="day", occurred_at=NOON + MINUTE)
ACTION = Action(
    key="a", lever="alarm", action="siren", by="person", at=NOON, permission="not required"
)
ITEMS = (
    (NOON, FIRST),
    (NOON, Prediction(key="z", version="v1", answers={"alarm": "bear"}, confidence=0.5)),
    (NOON + MINUTE, replace(FIRST, site="lake")),  # in conflict with the first
    (NOON + HOUR, Decision(key="z", reviewer="ana", answers={"alarm": "none"}, exposure="blind")),
    (NOON + HOUR, ACTION),
    (NOON + HOUR, SECOND),
    (NOON + 2 * HOUR, FIRST),  # a duplicate
    (NOON + 2 * HOUR, Outcome(key="a", at=NOON, harm="sheep")),
)


def store_together(transaction, rollout, items):
    times, records = zip(*items, strict=True)
    return RecordStore(transaction, rollout).store(records, received_at=times)


def read_rows(transaction, rollout):
    """Return all rows that the batch led to, under their keys, without what chance has made."""
    keys = {row.id: row.key for row in transaction.execute(select(external_keys))}
    chance = ("rollout", "salt", "record_hash", "id")
    found = []
    for schema in (*RECORD_SCHEMAS.values(), None):
        table = rejected_records if schema is None else schema.table
        for row in transaction.execute(select(table).where(table.c.rollout == rollout.number)):
            values = {name: v for name, v in row._asdict().items() if name not in chance}
            found.append((table.name, str(values | {"case_id": keys.get(values.get("case_id"))})))
    due = CountQueue(transaction, rollout).list_due(until=NOON + DAY)
    return sorted(found), sorted((entry.at, keys[entry.case_id], entry.track) for entry in due)


def test_items_are_stored_as_one_after_another(database, rollout):
    other = created(database)
    with database.begin_write() as transaction:
        together = store_together(transaction, rollout, ITEMS)
        single = [store_together(transaction, other, [item]) for item in ITEMS]
        assert read_rows(transaction, rollout) == read_rows(transaction, other)
        statuses = [receipt.status for receipt in together.results]
        assert statuses == [batch.results[0].status for batch in single]
        assert {RecordStatus.CONFLICT, RecordStatus.DUPLICATE} < set(statuses)
        arrivals = {(at, together.case_ids[key]) for at, key in ((NOON, "z"), (NOON + HOUR, "z"))}
        later = {(NOON + hours * HOUR, together.case_ids["a"]) for hours in (1, 2)}
        assert together.list_arrivals() == arrivals | later


def test_cases_of_a_batch_are_numbered_by_their_first_receipt(database, rollout):
    """The newest case is the first of every list."""
    with database.begin_write() as transaction:
        ids = store_together(transaction, rollout, ITEMS).case_ids
        assert ids["z"] < ids["a"]
        assert list(CasePages(transaction, rollout).list_page(CaseFilter())) == [
            ids["a"],
            ids["z"],
        ]
