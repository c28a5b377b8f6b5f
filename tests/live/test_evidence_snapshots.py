"""A stored snapshot of evidence changes nothing that a process finds, and is dropped in doubt."""

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import insert, select, update

from rollout.data.database.append_failures import DatabaseBusyError
from rollout.data.ledger.scopes import EvidenceSnapshot, EvidenceSnapshots
from rollout.data.tables.tables import evidence_snapshots
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.engine.evidence.unit_arrays import LENGTH_BYTES
from rollout.engine.evidence.unit_buffer import FORM, BufferDigests
from rollout.features.erasure.erasure import ErasureRequest, erase_name
from rollout.kernel.calendar.instants import to_instant
from rollout.kernel.policy_files.reader import parse_policy
from rollout.live.consistency_check import rebuild_derived_tables
from rollout.live.evidence import live_evidence
from rollout.live.evidence.evidence_reader import EvidenceReader
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import load_rollout_state
from rollout.live.tick_passes import Ticker, TickScheduler
from tests.data.snapshots import filled_once
from tests.engine.slots.stories import a_history
from tests.live.test_live import ANA, BY_CASE, STORY, begun, replayed

pytestmark = pytest.mark.slow

POLICY = parse_policy(BY_CASE)
HISTORY = a_history(replace(STORY, slots=24), POLICY)
SLOTS, _ = replayed(HISTORY, POLICY, None)
MIDDLE = SLOTS[len(SLOTS) // 2]
ADMIN = Caller("ada", role_assignments=(AssignedRole("admin"),))


@pytest.fixture(autouse=True)
def _snapshots_of_few_units(monkeypatch):
    monkeypatch.setattr(live_evidence, "MIN_NEW_ROWS", 1)


@filled_once
def fill(database):
    begun(database, HISTORY, SLOTS[0])


def tick(database, slot, owner="one"):
    return Ticker(database, "story", owner).tick(to_instant(slot, POLICY.tick))


@filled_once
def fill_until_middle(database):
    """Have half of the story counted by a process that stored a snapshot of it and ended."""
    fill(database)
    tick(database, MIDDLE)


def load_row(database):
    with database.begin_read() as transaction:
        return transaction.execute(select(evidence_snapshots)).one_or_none()


def change(database, statement):
    with database.begin_write() as transaction:
        transaction.execute(statement)


def load_state(database):
    with database.begin_read() as transaction:
        return load_rollout_state(transaction, "story")


def read_evidence(database, reader, *, has_snapshot):
    """Return digests of all evidence, and whether a snapshot was the beginning of it."""
    state, restored = load_state(database), []
    restore = live_evidence.restore_evidence

    def noted(*args, **more):
        restored.append(restore(*args, **more))
        return restored[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rollout.live.evidence.evidence_reader.restore_evidence", noted)
        reader.load_views(database, state, ())
    assert [slot >= 0 for slot in restored] == has_snapshot
    digests = BufferDigests()
    digests.add(reader._units, reader._outcomes)
    assert digests.sums
    return digests.sums


def assert_same_evidence(database, *, has_snapshot=True):
    """See that a snapshot, or none, and the rest are all that was counted."""
    whole = EvidenceReader(lambda units: units)  # which of some units has no snapshot
    expected = read_evidence(database, whole, has_snapshot=[])
    assert read_evidence(database, EvidenceReader(), has_snapshot=[has_snapshot]) == expected


@pytest.mark.slow
@pytest.mark.parametrize("slot", [SLOTS[3], MIDDLE, SLOTS[-1]])
def test_a_snapshot_of_any_slot_and_the_rest_are_the_whole(database, monkeypatch, slot):
    fill(database)
    tick(database, slot)
    assert load_row(database).slot == slot
    assert_same_evidence(database)
    monkeypatch.setattr(live_evidence, "MIN_NEW_ROWS", 10_000)
    for later in SLOTS[SLOTS.index(slot) + 1 :: 4]:  # the rest, by a few processes
        tick(database, later)
    tick(database, SLOTS[-1])
    assert load_row(database).slot == slot
    assert_same_evidence(database)


@pytest.mark.slow
def test_a_snapshot_waits_for_enough_new_units(database, monkeypatch):
    fill(database)
    monkeypatch.setattr(live_evidence, "MIN_NEW_ROWS", 10_000)
    tick(database, MIDDLE)
    assert load_row(database) is None
    monkeypatch.setattr(live_evidence, "MIN_NEW_ROWS", 1)
    tick(database, MIDDLE + 1)
    first = load_row(database)
    monkeypatch.setattr(live_evidence, "SNAPSHOTS_PER_DOUBLING", 1)
    tick(database, MIDDLE + 2)
    assert load_row(database) == first  # fewer than half of the units are new


@pytest.mark.slow
@pytest.mark.parametrize("column", ["body", "slot", "hash"])
def test_an_edited_snapshot_is_not_used(database, column):
    fill_until_middle(database)
    row = load_row(database)
    values = {"body": row.body[:-1] + b"!", "slot": row.slot - 1, "hash": b"x"}
    change(database, update(evidence_snapshots).values({column: values[column]}))
    assert_same_evidence(database, has_snapshot=False)
    tick(database, MIDDLE + 1)
    assert load_row(database).slot == MIDDLE + 1
    assert_same_evidence(database)


@pytest.mark.slow
@pytest.mark.parametrize("part_count", [0, 1, 3, 3.5])
def test_unreadable_contents_are_not_used(database, part_count):
    fill_until_middle(database)
    state, row = load_state(database), load_row(database)
    end = len(FORM)
    for _ in range(int(part_count)):
        end += LENGTH_BYTES + int.from_bytes(row.body[end : end + LENGTH_BYTES], "big")
    end += 20 * (part_count % 1 > 0)
    with database.begin_write() as transaction:
        snapshot = EvidenceSnapshot(row.revision, row.slot, row.body[:end])
        assert EvidenceSnapshots(transaction, state.rollout).store(snapshot)
    assert_same_evidence(database, has_snapshot=False)


def test_another_policy_ends_a_snapshot_also_one_that_a_former_program_left(database):
    fill_until_middle(database)
    row = load_row(database)
    at = to_instant(MIDDLE, POLICY.tick) + timedelta(minutes=1)
    state = load_state(database)
    apply_policy(database, BY_CASE.replace("at_least: 50%", "at_least: 55%"), ANA, at)
    assert load_row(database) is None
    change(database, insert(evidence_snapshots).values(row._asdict()))
    assert_same_evidence(database, has_snapshot=False)
    with database.begin_write() as transaction:
        snapshot = EvidenceSnapshot(row.revision, row.slot, row.body)
        assert not EvidenceSnapshots(transaction, state.rollout).store(snapshot)


def test_a_state_before_the_snapshot_does_not_use_it(database):
    fill_until_middle(database)
    with database.begin_read() as transaction:
        snapshots = EvidenceSnapshots(transaction, load_rollout_state(transaction, "story").rollout)
        revision = snapshots.load(until=10**6).revision
        assert snapshots.load(until=revision)
        assert snapshots.load(until=revision - 1) is None


@pytest.mark.slow
def test_a_tick_stands_whose_snapshot_cannot_be_stored(database, monkeypatch, caplog):
    fill(database)

    def fail(*_):
        raise DatabaseBusyError("another transaction has the lock")

    monkeypatch.setattr(EvidenceSnapshots, "store", fail)
    scheduler = TickScheduler(database, "one")
    for slot in (MIDDLE, MIDDLE + 1):
        tick_pass = scheduler.run_due_ticks(to_instant(slot, POLICY.tick))
        assert not tick_pass.errors
        assert "story" in tick_pass.events_by_rollout
    assert not database.append_failures.failures
    assert "no snapshot of evidence of story was stored: another" in caplog.text
    monkeypatch.undo()
    assert_same_evidence(database, has_snapshot=False)


@pytest.mark.slow
def test_an_erased_name_is_in_no_snapshot(database):
    fill(database)
    ticker = Ticker(database, "story", "one")
    ticker.tick(to_instant(MIDDLE, POLICY.tick))
    name = HISTORY.decisions["reviewer"][0]
    at = to_instant(MIDDLE, POLICY.tick) + timedelta(minutes=1)
    erase_name(database, ErasureRequest(ADMIN, "story", "the reviewer left", at), name)
    assert load_row(database) is None
    ticker.tick(to_instant(MIDDLE + 1, POLICY.tick))  # a process that had the name in memory
    assert load_row(database).slot == MIDDLE + 1
    reader = EvidenceReader()
    read_evidence(database, reader, has_snapshot=[True])
    assert name not in reader._units.reviewers
    assert any(reader._units.reviewers)
    assert_same_evidence(database)


def test_a_reader_that_had_an_erased_name_in_memory_counts_nobody_twice(database):
    fill_until_middle(database)
    reader = EvidenceReader()
    read_evidence(database, reader, has_snapshot=[True])
    name = HISTORY.decisions["reviewer"][0]
    at = to_instant(MIDDLE, POLICY.tick) + timedelta(minutes=1)
    erase_name(database, ErasureRequest(ADMIN, "story", "the reviewer left", at), name)
    tick(database, SLOTS[-1])
    sums = read_evidence(database, reader, has_snapshot=[True])
    assert name not in reader._units.reviewers
    assert sums == read_evidence(database, EvidenceReader(), has_snapshot=[True])


@pytest.mark.slow
def test_a_snapshot_of_other_units_is_found_and_deleted(database):
    fill_until_middle(database)
    assert not rebuild_derived_tables(database, "story")
    row, state = load_row(database), load_state(database)
    tick(database, MIDDLE + 1)
    with database.begin_write() as transaction:  # bound rightly, but to a later slot
        snapshot = EvidenceSnapshot(row.revision, MIDDLE + 1, row.body)
        assert EvidenceSnapshots(transaction, state.rollout).store(snapshot)
    differences = rebuild_derived_tables(database, "story", repair=True)
    assert list(differences.describe()) == [
        "evidence_snapshots: the snapshot does not match the counted units"
    ]
    assert load_row(database) is None
    assert not rebuild_derived_tables(database, "story")
