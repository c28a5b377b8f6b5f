"""Actions and outcomes that somebody edits or deletes in the database are found."""

from datetime import timedelta
from random import Random

import pytest
from sqlalchemy import select, update

from rollout.data.counting.purge import open_purge
from rollout.data.database.session import Database
from rollout.data.records.record_check import (
    _compute_content_hashes,
    _compute_hashes,
    _select_records,
)
from rollout.data.records.record_rows import RECORD_SCHEMAS
from rollout.data.records.records import RecordStore
from rollout.data.tables import tables
from rollout.engine.events import RecordsCounted, RecordsPurged
from rollout.engine.records.records import Action, Outcome
from rollout.features.erasure.erasure import ErasureRequest, erase_case
from rollout.kernel.calendar.instants import to_instant
from rollout.live.evidence.live_evidence import EvidenceCheck
from rollout.live.retention import purge_old_records
from rollout.live.rollout_state import load_rollout_state
from rollout.live.tick_passes import Ticker
from tests.data.databases import ENGINES, fresh
from tests.data.snapshots import filled_once
from tests.live.test_consistency_check import HISTORY, SLOTS
from tests.live.test_evidence_check import (
    ADMIN,
    attacking,
    checked,
    keep_for_a_day,
    written_revision,
)
from tests.live.test_live import begun, written

pytestmark = pytest.mark.slow

HOUR = timedelta(hours=1)
LAST = to_instant(SLOTS[-1], HOUR)
KEY = HISTORY.cases["case_key"][0]
KINDS = {"actions": Action, "outcomes": Outcome}


@pytest.fixture(params=ENGINES)
def database(request, tmp_path):
    """Return a database whose ticks counted an action and outcomes."""
    with fresh(request.param, tmp_path) as url:
        made = Database(url)
        tick_twice(made)
        yield made
        made.close()


@filled_once
def tick_twice(database):
    ticker = begun(database, HISTORY, SLOTS[0])
    ticker.tick(LAST - HOUR)
    store(database, LAST - HOUR)
    ticker.tick(LAST)


def store(database, at, revision=1):
    """Store an action and an outcome of a case that was counted before."""
    action = Action(
        key=KEY,
        lever="alarm",
        action="ring",
        by="person",
        at=at,
        permission="not asked",
        revision=revision,
    )
    outcome = Outcome(key=KEY, at=at, harm="bite", revision=revision)
    with database.begin_write() as transaction:
        rollout = load_rollout_state(transaction, "story").rollout
        receipts = RecordStore(transaction, rollout).store([action, outcome], received_at=at)
        assert [receipt.status for receipt in receipts.results] == ["accepted"] * 2


def counted(database, table):
    """Return the condition for one action or outcome that a tick counted."""
    with database.begin_read() as transaction:
        return table.c.case_id == transaction.execute(select(tables.actions.c.case_id)).scalar_one()


def change(database, name, **values):
    table = getattr(tables, name)
    statement = update(table).where(counted(database, table)).values(**values)
    with attacking(database, name) as transaction:
        assert transaction.execute(statement).rowcount


@pytest.mark.slow
def test_an_untouched_rollout_has_no_difference(database):
    report = checked(database)
    assert report.fault_count == 0, report.faults
    assert (report.other_records, report.unsealed_records.number) == (
        count_outcomes(database) + 1,
        0,
    )
    assert f"{report.other_records} actions and outcomes compared" in report.summarize()


def count_outcomes(database):
    with database.begin_read() as transaction:
        return len(transaction.execute(select(tables.outcomes.c.case_id)).all())


@pytest.mark.slow
def test_a_tick_without_units_counts_actions_and_outcomes(database):
    before = len(written(database))
    store(database, LAST + HOUR, revision=2)
    assert checked(database).unsealed_records.number == 0  # the next tick will count them
    Ticker(database, "story", "two").tick(LAST + 3 * HOUR)
    (event,) = (e for e in written(database)[before:] if isinstance(e, RecordsCounted))
    assert (event.records, len(event.digest)) == (2, 64)
    report = checked(database)
    assert (report.fault_count, report.unsealed_records.number) == (0, 0), report.faults


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("outcomes", {"harm": None}),
        ("outcomes", {"answers": {"alarm": "bear"}}),
        ("actions", {"authorization": "authorized"}),
        ("actions", {"at": to_instant(0, HOUR)}),
    ],
    ids=["harm", "answers", "authorization", "at"],
)
def test_an_edit_with_the_right_hash_is_found(database, name, values):
    kind = name.removesuffix("s")
    change(database, name, **values)
    assert any(f"the {kind} of case" in fault for fault in checked(database).faults)
    rehash(database, name)
    faults = checked(database).faults
    assert not any("hash says" in fault for fault in faults)
    assert any(f"the {kind} of case {KEY}" in f and "no event erased it" in f for f in faults)


def rehash(database, name):
    """Give an edited record the right hash, as somebody would who knows the program."""
    schema, table = RECORD_SCHEMAS[KINDS[name]], getattr(tables, name)
    condition = counted(database, table)
    with database.begin_read() as transaction:
        rollout = load_rollout_state(transaction, "story").rollout
        (case_id,) = transaction.execute(select(table.c.case_id).where(condition)).scalars()
        query = _select_records(transaction, rollout, schema, [case_id])
        rows = [row._asdict() for row in transaction.execute(query)]
    (record_hash,) = _compute_hashes(schema, rows)
    (content_hash,) = _compute_content_hashes(schema, rows)
    change(database, name, record_hash=record_hash, hash=content_hash)


def test_an_edit_with_the_right_hashes_everywhere_is_found_by_the_digest(database):
    counted_records, before = tables.counted_records, read_hash(database)
    change(database, "outcomes", harm=None)
    rehash(database, "outcomes")
    edit = update(counted_records).where(counted_records.c.record_hash == before)
    edit = edit.values(record_hash=read_hash(database))
    with attacking(database, "counted_records") as transaction:
        assert transaction.execute(edit).rowcount
    faults = checked(database).faults
    assert not any("outcome of case" in fault for fault in faults)
    assert any("are not those of the tick's digest" in fault for fault in faults)


def read_hash(database):
    table = tables.outcomes
    condition = counted(database, table)
    with database.begin_read() as transaction:
        return transaction.execute(select(table.c.record_hash).where(condition)).scalar_one()


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_a_deleted_record_is_found(database, name):
    table = getattr(tables, name)
    condition = counted(database, table)
    with database.begin_write() as transaction, open_purge(transaction):
        assert transaction.execute(table.delete().where(condition)).rowcount
    assert any("no event erased it" in fault for fault in checked(database).faults)
    sample = EvidenceCheck(database, "story").check_sample(99, Random(1))  # noqa: S311 - seeded
    assert any("no event erased it" in fault for fault in sample.faults)


def test_purged_records_are_no_difference_and_stand_in_their_event(database, monkeypatch):
    keep_for_a_day(monkeypatch)
    assert purge_old_records(database, "story", LAST + timedelta(days=400))
    report = checked(database)
    assert report.fault_count == 0, report.faults
    assert report.erased_records == report.other_records > 0
    assert isinstance(written(database)[-1], RecordsPurged)
    assert written_revision(database) in report.erasures


def test_an_erased_case_is_no_difference(database):
    erase_case(database, ErasureRequest(ADMIN, "story", "they asked", LAST + HOUR), KEY)
    report = checked(database)
    assert report.fault_count == 0, report.faults
    assert report.erased_records >= 2


def test_records_of_an_older_program_are_counted_and_said(database):
    store(database, LAST + HOUR, revision=2)
    with database.begin_write() as transaction:  # its tick deletes entries that it doesn't know
        transaction.execute(tables.count_queue.delete())
    report = checked(database)
    assert (report.fault_count, report.unsealed_records.number) == (0, 2)
    text = report.summarize()
    assert "2 actions and outcomes are in no tick's digest" in text
    assert f"the newest was received at {(LAST + HOUR).isoformat()}" in text
