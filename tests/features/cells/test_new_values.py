"""Marks of values that a cell had not met: for whom, as replay gives them, and after an erasure."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from rollout.data.ledger.scopes import EvidenceSnapshot, EvidenceSnapshots
from rollout.engine.decide.commands import Actor
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.engine.evidence import stored_units
from rollout.engine.slots.options import ReplayOptions
from rollout.features.cells.overview import load_cell_timeline
from rollout.features.erasure.erasure import ErasureRequest, erase_case
from rollout.features.records.record_import import import_records
from rollout.features.replay.replay import build_record_inputs, replay_records
from rollout.features.replay.requests import ReplayRequest
from rollout.features.reports.figures.funnel import NEW_VALUE, list_first_values
from rollout.features.reports.inputs.cell_facts import TimelineRequest
from rollout.features.reports.stored_inputs import ReportPeriod, load_report_inputs
from rollout.features.what_if.replayed_policy import NO_FILE
from rollout.kernel.calendar.instants import find_slot_before, to_instant
from rollout.kernel.policy_files.reader import parse_policy
from rollout.live.clock import ManualClock
from rollout.live.consistency_check import rebuild_derived_tables
from rollout.live.evidence import evidence_reader, live_evidence
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import load_rollout_state
from rollout.live.service import build_service
from rollout.live.tick_passes import Ticker
from tests.data.conftest import database, url
from tests.data.databases import on_sqlite
from tests.data.snapshots import filled_once
from tests.engine.slots.stories import a_history
from tests.factories import DAY, HOUR
from tests.live.test_live import BY_CASE, STORY, replayed

pytestmark = pytest.mark.slow

__all__ = ["database", "url"]
TEXT = BY_CASE + "slices: [group, key]\n"
POLICY = parse_policy(TEXT)
READER = Caller("vic", role_assignments=(AssignedRole("viewer"),))
REVIEWER = Caller("eve", role_assignments=(AssignedRole("viewer"), AssignedRole("reviewer")))
ADMIN = Caller("ada", role_assignments=(AssignedRole("admin"),))


def build_history():
    """Return a story in which a group of cases comes with the third day, and keys of cases."""
    history = a_history(replace(STORY, slots=60), POLICY)
    is_new = pl.col("occurred_at") >= history.cases["occurred_at"].min() + timedelta(hours=40)
    group = pl.when(is_new).then(pl.lit("new")).otherwise(pl.lit("old"))
    columns = {"attribute:group": group, "attribute:key": pl.col("case_key")}
    return replace(history, cases=history.cases.with_columns(**columns))


HISTORY = build_history()
SLOTS, _ = replayed(HISTORY, POLICY, None)
END = to_instant(SLOTS[-1], POLICY.tick)


@pytest.fixture(autouse=True)
def _a_story_shorter_than_a_week(monkeypatch):
    monkeypatch.setattr(stored_units, "KNOWN_SPAN", DAY)
    monkeypatch.setattr(stored_units, "MAX_VALUES", 30)
    monkeypatch.setattr(live_evidence, "MIN_NEW_ROWS", 1)


@filled_once
def fill(database):
    at = to_instant(SLOTS[0], POLICY.tick)
    apply_policy(database, TEXT, Actor("zoe"), at, salt=bytes(32), service_salt=bytes(32))
    import_records(database, "story", HISTORY, at)
    Ticker(database, "story", "one").tick(END)


def list_marks(database, cell, caller=READER, at=END, **span):
    service = build_service(database, None, ManualClock(at))
    request = TimelineRequest(cell, **span)
    timeline = load_cell_timeline(service, caller, "story", request, at=at)
    assert [m.at for m in timeline.marks] == sorted(m.at for m in timeline.marks)
    return [mark for mark in timeline.marks if mark.kind == NEW_VALUE]


def load_state(database):
    with database.begin_read() as transaction:
        return load_rollout_state(transaction, "story")


def list_replayed():
    """Return the marks of a replay of the same records, by cell."""
    options = ReplayOptions(salt=bytes(32))
    replayed_records = replay_records(
        ReplayRequest(Path("policy.yaml"), NO_FILE, options=options), POLICY, HISTORY
    )
    return list_first_values(build_record_inputs(replayed_records))


@pytest.mark.slow
def test_a_page_a_report_and_a_replay_have_the_same_marks(database):
    fill(database)
    expected = list_replayed()
    found = {cell: tuple(list_marks(database, cell)) for cell in POLICY.cells}
    assert {cell: marks for cell, marks in found.items() if marks} == expected
    assert expected
    with database.begin_read() as transaction:
        state = load_rollout_state(transaction, "story")
        for since in (END - 30 * DAY, END - DAY):  # a report's time needn't hold the first cases
            inputs = load_report_inputs(transaction, state, ReportPeriod(since, END, END))
            marks = list_first_values(inputs)
            assert {c: [m.text for m in ms] for c, ms in marks.items()} == {
                c: [m.text for m in ms] for c, ms in expected.items()
            }
    for (mark,) in expected.values():
        assert mark.text == "first counted case with group = new"


@on_sqlite
def test_a_mark_stands_within_the_span_that_is_asked_for(database):
    fill(database)
    for cell, (mark,) in list_replayed().items():
        assert list_marks(database, cell, since=mark.at - HOUR, until=mark.at + HOUR) == [mark]
        assert list_marks(database, cell, since=mark.at + 2 * HOUR) == []
        assert list_marks(database, cell, until=mark.at - timedelta(seconds=1)) == []


@on_sqlite
def test_who_may_be_asked_reads_no_values(database):
    fill(database)
    assert any(list_marks(database, cell) for cell in POLICY.cells)
    assert not any(list_marks(database, cell, REVIEWER) for cell in POLICY.cells)


@on_sqlite
@pytest.mark.slow
def test_a_case_is_no_mark_before_it_closes(database):
    at = to_instant(SLOTS[0], POLICY.tick)
    apply_policy(database, TEXT, Actor("zoe"), at, salt=bytes(32), service_salt=bytes(32))
    import_records(database, "story", HISTORY, at)
    cell, (mark,) = next(iter(list_replayed().items()))
    ticker, seen = Ticker(database, "story", "one"), {}
    occurs = find_slot_before(mark.at, POLICY.tick)
    closed = occurs + POLICY.evidence.grace // POLICY.tick
    often = range(occurs - 2, closed + 4)  # before and after only every sixth slot
    for slot in sorted({*range(SLOTS[0], SLOTS[-1] + 1, 6), *often, SLOTS[-1]}):
        now = to_instant(slot, POLICY.tick)
        ticker.tick(now)
        seen[now] = list_marks(database, cell, at=now)
    first_seen = min(now for now, marks in seen.items() if marks)
    assert mark.at + POLICY.evidence.grace <= first_seen
    assert all(marks == [mark] for now, marks in seen.items() if now >= first_seen)


def test_an_erased_case_leaves_no_mark_and_the_next_one_is_the_first(database):
    fill(database)
    cell, (mark,) = next(iter(list_replayed().items()))
    next_slot = to_instant(find_slot_before(mark.at, POLICY.tick) + 1, POLICY.tick)
    is_first = pl.col("occurred_at").is_between(mark.at, next_slot, closed="left")
    request = ErasureRequest(ADMIN, "story", "the customer asked", END + timedelta(minutes=1))
    for key in HISTORY.cases.filter(is_first, site=cell.site)["case_key"]:
        erase_case(database, request, key)
    (later,) = list_marks(database, cell, at=END + HOUR)
    assert later.at >= next_slot
    assert later.text == mark.text
    Ticker(database, "story", "two").tick(END + 2 * HOUR)
    assert not rebuild_derived_tables(database, "story")
    assert list_marks(database, cell, at=END + 2 * HOUR) == [later]


def test_a_process_that_restores_a_snapshot_has_the_same_marks(database, monkeypatch):
    fill(database)
    expected = {cell: list_marks(database, cell) for cell in POLICY.cells}
    restored = []
    restore = evidence_reader.restore_evidence

    def noted(*args, **more):
        restored.append(restore(*args, **more))
        return restored[-1]

    monkeypatch.setattr(evidence_reader, "restore_evidence", noted)
    monkeypatch.setattr(evidence_reader, "_readers", {})
    assert {cell: list_marks(database, cell) for cell in POLICY.cells} == expected
    assert any(expected.values())
    assert [slot >= 0 for slot in restored] == [True]


@on_sqlite
def test_a_snapshot_with_other_first_values_is_found_and_deleted(database, monkeypatch):
    fill(database)
    assert not rebuild_derived_tables(database, "story")
    state = load_state(database)
    ticker = Ticker(database, "story", "two")
    ticker.tick(END + HOUR)
    evidence = ticker._evidence
    rows = evidence._units.first_values.encode()
    evidence._units.first_values.restore([row for row in rows if row[2] != "group"])
    monkeypatch.setattr(live_evidence, "MIN_NEW_ROWS", 0)
    monkeypatch.setattr(live_evidence, "SNAPSHOTS_PER_DOUBLING", 10**9)
    snapshot = evidence.encode_if_due(load_state(database).scope.revision)
    assert isinstance(snapshot, EvidenceSnapshot)
    with database.begin_write() as transaction:
        assert EvidenceSnapshots(transaction, state.rollout).store(snapshot)
    differences = rebuild_derived_tables(database, "story", repair=True)
    assert list(differences.describe()) == [
        "evidence_snapshots: the snapshot does not match the counted units"
    ]
    assert not rebuild_derived_tables(database, "story")
