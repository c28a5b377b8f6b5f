"""Closed units are read newest first by an index, with a limit."""

import pytest
from sqlalchemy import text

from rollout.data.counting.closed_units import (
    NEWEST_QUERY,
    ClosedUnits,
    JudgedUnitStore,
    list_counted_cases,
)
from rollout.data.records.external_keys import ExternalKeys
from rollout.kernel.calendar.instants import Cell
from tests.data.counted_units import counts, unit
from tests.data.databases import on_sqlite
from tests.data.new_rollouts import created
from tests.data.plans import steps, steps_of
from tests.factories import NOON

EVER = range(1_000)


@pytest.fixture
def rollout(database):
    made = created(database)
    several = [unit(f"u{n}", slot=n + 1, occurred=n) for n in range(6)]
    lake = [unit(f"l{n}", slot=9, occurred=n + 1, site="lake") for n in range(3)]
    other = [unit("u1", slot=9, track="guard"), unit("u1", slot=9, version="v2")]
    counts(database, made, *several, *lake, *other)
    return made


def newest(database, rollout, sites=("creek", "lake"), slots=EVER, most=100):
    """Return when the units occurred that are found, and how far back they reach."""
    with database.begin_read() as transaction:
        store = ClosedUnits(transaction, rollout, "v1")
        series = {number for number, cell in store.load_cells().items() if cell.site in sites}
        numbers, reached = store.list_newest(series, slots, most)
        query = text(
            "select unit, occurred from counted_units where track = 'gate' and version = 'v1'"
        )
        occurred = dict(transaction.execute(query).all())
        return [occurred[number] for number in numbers], reached


def test_units_of_one_version_on_the_gate_track_come_newest_first(database, rollout):
    assert newest(database, rollout) == ([5, 4, 3, 3, 2, 2, 1, 1, 0], None)
    assert newest(database, rollout, slots=range(2, 4)) == ([3, 3, 2, 2], None)
    with database.begin_read() as transaction:
        places = ClosedUnits(transaction, rollout, "v1").load_cells()
    assert set(places.values()) == {Cell("creek", "day"), Cell("lake", "day")}


def test_no_more_than_asked_for_and_how_far_they_reach(database, rollout):
    assert newest(database, rollout, most=3) == ([5, 4, 3], 3)
    assert newest(database, rollout, most=8) == ([5, 4, 3, 3, 2, 2, 1, 1], 1)
    assert newest(database, rollout, most=9) == ([5, 4, 3, 3, 2, 2, 1, 1, 0], None)


def test_cases_of_a_cell_and_version_that_counted_up_to_a_slot(database, rollout):
    cell = Cell("creek", "day")
    with database.begin_read() as transaction:
        for until, size in ((2, 2), (3, 3), (9, 6)):
            cases = list_counted_cases(transaction, rollout, cell, "v1", until=until)
            assert len(cases) == size


def test_slots_are_closed_up_to_the_first_with_an_open_case(database, rollout):
    judged = [unit(f"u{n}", slot=n + 10, track="guard", reviewer="bo") for n in (0, 2, 3)]
    left_out = unit("u4", slot=10, track="guard", excluded="trained on")
    counts(database, rollout, *judged, left_out)
    with database.begin_read() as transaction:
        store = JudgedUnitStore(transaction, rollout, Cell("creek", "day"), "v1")
        numbers = ExternalKeys(transaction, rollout).find_ids(["u2"])
        slots = {until: store.load_closed_slots((), until=until).to_list() for until in (12, 13)}
        before = store.load_closed_slots(numbers.values(), until=13).to_list()
    assert slots == {12: [9, 10, 12], 13: [9, 10, 12, 13]}
    assert before == [9, 10]


@pytest.mark.slow
def test_others_are_passed_over_so_many_times(database, rollout, monkeypatch):
    assert newest(database, rollout, ("lake",), most=2) == ([3, 2], 2)
    assert newest(database, rollout, ("lake",), most=3) == ([3, 2, 1], None)
    monkeypatch.setattr("rollout.data.counting.closed_units.MAX_PASSES", 2)
    assert newest(database, rollout, ("lake",), most=1) == ([], 4)
    assert newest(database, rollout, ("lake",), most=2) == ([3], 3)


@on_sqlite
def test_it_reads_an_index_and_nothing_beside_it(database, rollout):
    with database.begin_read() as transaction:
        (step,) = steps_of(transaction, NEWEST_QUERY)
    assert step.startswith("SEARCH counted_units USING COVERING INDEX ix_counted_units_newest")
    assert "(occurred,unit)<(?,?)" in step  # and no step that sorts


@on_sqlite
def test_closed_units_are_found_by_their_numbers_and_not_by_all_receipts(database, rollout):
    with database.begin_read() as transaction:
        store = ClosedUnits(transaction, rollout, "v1")
        found = steps(transaction, lambda: store.load_closed([1, 2], NOON, NOON, NOON))
    assert found[0].startswith("SEARCH counted_units USING PRIMARY KEY (rollout=? AND unit=?")
    assert "SEARCH cases USING PRIMARY KEY (rollout=? AND case_id=?)" in found
