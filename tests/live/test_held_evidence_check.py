"""Evidence that somebody edited in a stored snapshot is found, and people decide."""

import random
import re
from datetime import timedelta

import pytest
from sqlalchemy import insert

from rollout.data.ledger.scopes import EvidenceSnapshots
from rollout.data.tables.tables import evidence_snapshots
from rollout.engine.decide.commands import Actor, ApproveProposal, ProposeResume
from rollout.engine.decide.incident_kinds import EVIDENCE_CHANGED
from rollout.engine.events import IncidentOpened, Stopped
from rollout.engine.evidence.outcome_buffer import OutcomeBuffer
from rollout.engine.evidence.unit_arrays import UnitArrays
from rollout.engine.evidence.unit_buffer import (
    FIRST_POSITION,
    BufferDigests,
    UnitBuffer,
    encode_buffers,
)
from rollout.features.erasure.erasure import ErasureRequest, erase_case, erase_name
from rollout.features.records.record_import import import_records
from rollout.kernel.calendar.instants import Cell, to_instant
from rollout.live.consistency_check import rebuild_derived_tables
from rollout.live.evidence import counted_check, live_evidence
from rollout.live.evidence.counted_check import CHECK_INTERVAL, stop_changed_cells
from rollout.live.evidence.evidence_reader import EvidenceReader, restore_evidence
from rollout.live.policy_application import apply_policy
from rollout.live.retention import purge_old_records
from rollout.live.rollout_state import execute_command
from rollout.live.tick_passes import Ticker, TickScheduler
from tests.counted_work import counting_work
from tests.live.test_evidence_snapshots import (
    ADMIN,
    HISTORY,
    MIDDLE,
    POLICY,
    SLOTS,
    _snapshots_of_few_units,
    fill,
    fill_until_middle,
    load_row,
    load_state,
    tick,
)
from tests.live.test_live import ANA, BY_CASE, written

pytestmark = pytest.mark.slow

__all__ = ["_snapshots_of_few_units"]
FIELDS = list(UnitArrays.__annotations__)


def edit_snapshot(database, change):
    """Change the units of the stored snapshot, with a right hash."""
    state, units, outcomes = load_state(database), None, OutcomeBuffer()
    with database.begin_write() as transaction:
        snapshots = EvidenceSnapshots(transaction, state.rollout)
        stored = snapshots.load(until=state.scope.revision)
        units = UnitBuffer(POLICY, lambda _: {})
        restore_evidence(transaction, state, units, outcomes)
        change(units)
        assert snapshots.store(stored._replace(body=encode_buffers(units, outcomes)))


def answer_otherwise(units):
    """Let one unit of the last slot have the answer of another one."""
    for _, table in units.list_series():
        kinds = table[FIELDS.index("unit_class")]
        if len(set(kinds.tolist())) > 1:
            kinds[-1] = next(kind for kind in kinds if kind != kinds[-1])
            return
    raise AssertionError("no series has two answers")


def leave_one_out(units):
    key, table = next(iter(units.list_series()))
    units._tables[Cell(*key[:2]), key[2]][key[3]] = table[:, 1:]


def count_one_twice(units):
    key, table = next(iter(units.list_series()))
    units._tables[Cell(*key[:2]), key[2]][key[3]] = table[:, [0, *range(table.shape[1])]]


def run_passes(database, scheduler, slot, passes):
    """Run passes of one slot, each when the next check is due; return the events since."""
    before, at = len(written(database)), to_instant(slot, POLICY.tick)
    for number in range(passes):
        scheduler.run_due_ticks(at + number * CHECK_INTERVAL)
    return written(database)[before:]


def find_told(events):
    """Return the incidents about evidence, and the stops."""
    incidents = [
        e for e in events if isinstance(e, IncidentOpened) and e.kind == EVIDENCE_CHANGED.name
    ]
    return incidents, [e for e in events if isinstance(e, Stopped)]


def count_again(database):
    """Return digests of the counted units, read without a snapshot."""
    reader, digests = EvidenceReader(lambda units: units), BufferDigests()
    reader.load_views(database, load_state(database), ())
    digests.add(reader._units, reader._outcomes)
    return digests.sums


def hold(scheduler):
    """Return digests of what a ticker holds."""
    memory, digests = scheduler._tickers["story"]._evidence.memory, BufferDigests()
    digests.add(memory.units, memory.outcomes)
    return digests.sums


@pytest.mark.parametrize("change", [answer_otherwise, leave_one_out, count_one_twice])
def test_one_edited_count_is_found_and_people_decide(database, monkeypatch, change):
    """A process that began with the snapshot finds it, and reads all counted units anew."""
    monkeypatch.setattr(counted_check, "UNITS_PER_CHECK", 40)
    fill_until_middle(database)
    edit_snapshot(database, change)
    assert rebuild_derived_tables(database, "story").is_snapshot_wrong
    monkeypatch.setattr(live_evidence, "MIN_NEW_ROWS", 10_000)
    scheduler = TickScheduler(database, "one")
    (incident,), (stopped,) = find_told(run_passes(database, scheduler, MIDDLE + 1, 11))
    assert stopped.cells == (incident.cell,)
    numbers = re.findall(r"[0-9]+ held, [0-9]+ counted", incident.reason)
    assert f"{incident.cell}: v" in incident.reason
    assert len(set(numbers[0].split(" held, "))) == 2
    scope = load_state(database).scope
    assert incident.cell in find_withheld(scope)
    assert load_row(database) is None
    scheduler.run_due_ticks(to_instant(MIDDLE + 2, POLICY.tick))
    assert hold(scheduler) == count_again(database)
    assert find_told(run_passes(database, scheduler, MIDDLE + 3, 11)) == ([], [])


@pytest.mark.slow
def test_two_processes_accuse_a_cell_once_and_people_resume_it(database, monkeypatch):
    fill_until_middle(database)
    edit_snapshot(database, answer_otherwise)
    monkeypatch.setattr(live_evidence, "MIN_NEW_ROWS", 10_000)
    schedulers = [TickScheduler(database, name) for name in ("one", "two")]
    for number, scheduler in enumerate(schedulers, MIDDLE + 1):  # both begin with the snapshot
        scheduler.run_due_ticks(to_instant(number, POLICY.tick))
    for scheduler in schedulers:
        run_passes(database, scheduler, MIDDLE + 2, 11)
    assert list(map(len, find_told(written(database)))) == [1, 1]
    (stop,), at = load_state(database).scope.stops, to_instant(MIDDLE + 3, POLICY.tick)
    execute_command(database, "story", lambda _: ProposeResume(at=at, by=Actor("bo"), stop=stop))
    for name in ("dan", "eve"):
        for number, proposal in load_state(database).scope.proposals.items():
            approval = ApproveProposal(
                at=at, by=Actor(name), proposal=number, evidence_hash=proposal.evidence_hash
            )
            execute_command(database, "story", lambda _, approval=approval: approval)
    for scheduler in (*schedulers, TickScheduler(database, "new")):
        run_passes(database, scheduler, MIDDLE + 3, 11)
    assert list(map(len, find_told(written(database)))) == [1, 1]
    assert not find_withheld(load_state(database).scope)


def find_withheld(scope):
    return {cell for stop in scope.stops.values() for cell in stop.cells}


def test_an_edit_that_no_process_has_read_yet_is_found_in_the_next_check(database, monkeypatch):
    fill(database)
    scheduler = TickScheduler(database, "one")
    scheduler.run_due_ticks(to_instant(MIDDLE, POLICY.tick))
    edit_snapshot(database, answer_otherwise)
    monkeypatch.setattr(live_evidence, "MIN_NEW_ROWS", 10_000)
    reader = EvidenceReader()
    reader.load_views(database, load_state(database), ())  # a page that begins with it
    (incident,), (stopped,) = find_told(run_passes(database, scheduler, MIDDLE, 2))
    assert stopped.cells == (incident.cell,)
    assert "in the stored snapshot" in incident.reason
    assert load_row(database) is None
    digests = BufferDigests()
    reader.load_views(database, load_state(database), ())
    digests.add(reader._units, reader._outcomes)
    assert digests.sums == count_again(database)


def test_a_snapshot_from_before_the_incident_is_not_used_again(database):
    fill_until_middle(database)
    row, state = load_row(database), load_state(database)
    at = to_instant(MIDDLE, POLICY.tick)
    stop_changed_cells(database, "story", {POLICY.cells[0]: "it differs"}, at)
    with database.begin_write() as transaction:
        transaction.execute(insert(evidence_snapshots).values(row._asdict()))
    with database.begin_read() as transaction:
        assert EvidenceSnapshots(transaction, state.rollout).load(until=10**6) is None


def test_what_was_stopped_and_told_is_not_told_again_but_deleted(database):
    fill_until_middle(database)
    at = to_instant(MIDDLE, POLICY.tick)
    for number in range(2):
        stop_changed_cells(database, "story", {POLICY.cells[0]: "it differs"}, at)
        incidents, stops = find_told(written(database))
        assert (len(incidents), len(stops)) == (1, 1)
        tick(database, MIDDLE + 1 + number)
        assert load_row(database) is not None
    stop_changed_cells(database, "story", {POLICY.cells[0]: "it differs"}, at)
    assert load_row(database) is None


KEPT = BY_CASE + "retention: {cases: 365d}\n"


FURTHER_SEEDS = [pytest.param(seed, marks=pytest.mark.simulation) for seed in (2, 3)]


@pytest.mark.parametrize("seed", [0, 1, *FURTHER_SEEDS])
def test_an_honest_history_is_never_accused(database, monkeypatch, seed):
    """Neither late records, erasures, edits of a policy, restarts, two processes nor a purge."""
    monkeypatch.setattr(counted_check, "UNITS_PER_CHECK", 25)
    monkeypatch.setattr(live_evidence, "SNAPSHOTS_PER_DOUBLING", 10**6)
    pick = random.Random(seed)  # noqa: S311 - a course, no secret
    at = to_instant(SLOTS[0], POLICY.tick)
    apply_policy(database, KEPT, ANA, at, salt=bytes(32), service_salt=bytes(32))
    schedulers = [TickScheduler(database, name) for name in ("one", "two")]
    keys, percent = HISTORY.cases["case_key"].shuffle(seed), iter(range(51, 99))
    names = HISTORY.decisions["reviewer"].drop_nulls().unique(maintain_order=True).to_list()
    acts = ["import", "import", "edit", "name", "case", "restart", "", ""]
    sent = 0
    for slot in SLOTS:
        at = to_instant(slot, POLICY.tick)
        request = ErasureRequest(ADMIN, "story", "asked", at)
        act = pick.choice(acts) if sent else "import"
        if act == "import":  # of many slots that evidence has passed
            sent = min(len(keys), sent + len(keys) // 6)
            import_records(database, "story", HISTORY.select_cases(keys[:sent]), at)
        elif act == "edit":
            text = KEPT.replace("at_least: 50%", f"at_least: {next(percent)}%")
            apply_policy(database, text, ANA, at)
        elif act == "name" and names:
            erase_name(database, request, names.pop())
        elif act == "case":
            erase_case(database, request, keys[pick.randrange(sent)])
        elif act == "restart":
            schedulers[pick.randrange(2)] = TickScheduler(database, f"new {slot}")
        for number in range(6):
            pick.choice(schedulers).run_due_ticks(at + number * CHECK_INTERVAL)
    assert purge_old_records(database, "story", at + timedelta(days=400)) > 0
    for scheduler in (*schedulers, TickScheduler(database, "last")):
        run_passes(database, scheduler, SLOTS[-1] + 1, 12)
    assert find_told(written(database)) == ([], [])
    assert not rebuild_derived_tables(database, "story").is_snapshot_wrong


def test_a_check_reads_a_few_units_with_few_statements(database, monkeypatch):
    fill(database)
    ticker = Ticker(database, "story", "one")
    ticker.tick(to_instant(SLOTS[-1], POLICY.tick))
    ticker.check_evidence(to_instant(SLOTS[-1], POLICY.tick))
    read, add = [], UnitBuffer.add
    monkeypatch.setattr(counted_check, "UNITS_PER_CHECK", 20)
    monkeypatch.setattr(UnitBuffer, "add", lambda *args: read.append(len(args[1])) or add(*args))
    ticker._held_check._after, parts = FIRST_POSITION, []
    while not parts or ticker._held_check._after != FIRST_POSITION:
        with counting_work(database) as work:
            ticker.check_evidence(to_instant(SLOTS[-1], POLICY.tick))
        parts.append((work["statements"], sum(read)))
        read.clear()
    at_one_position = 20
    assert len(parts) > 3
    assert 20 <= max(units for _, units in parts) <= 20 + at_one_position
    assert max(statements for statements, _ in parts) <= 12  # one of them for the series
