"""What a tick has just stored it uses as it was stored, and reads it only if others counted too."""

import pytest

from rollout import faults
from rollout.data.counting import counted_units
from rollout.data.counting.counted_units import CountedUnits, read_joined_lines, summarize_counted
from rollout.engine.events import RecordsCounted, select_events
from rollout.features.erasure.erasure import erase_name
from rollout.kernel.calendar.instants import find_slot_before
from rollout.live.rollout_state import load_rollout_state
from rollout.live.tick_passes import Ticker
from tests.factories import HOUR
from tests.live.test_due_counting import (
    ADMIN,
    DUE,
    ErasureRequest,
    PageSize,
    apply_text,
    build_case,
    count_due,
    decide,
    predict,
    store,
)
from tests.live.test_races import run_once

VERSIONS = ("b-2", "B1", "b1", "a")
"""In an order that depends on the collation of a database."""


def store_decided(database, *keys, episode=None):
    for key in keys:
        reviewers = (decide(key, "ana", 5), decide(key, "bo", 6))
        predictions = (predict(key, version) for version in VERSIONS)
        store(database, build_case(key, episode), *predictions, *reviewers)


def describe_evidence(ticker):
    """Return the units in a ticker's memory, with what their numbers stand for."""
    units = ticker._evidence.memory.units
    series = {key: table.tolist() for key, table in units.list_series()}
    return series, units.unit_classes.classes, units.reviewers


def assert_as_stored(database, ticker, events, at=DUE):
    """Assert that evidence and digest are those of who reads all counted units."""
    (counted,) = select_events(events, RecordsCounted)
    slot = find_slot_before(at, HOUR)
    with database.begin_read() as transaction:
        rollout = load_rollout_state(transaction, "lake").rollout
        lines = read_joined_lines(transaction, rollout, after=-1, until=slot)
        summary = summarize_counted(lines, ())
    assert (counted.records, counted.digest) == (summary.records, summary.digest)
    fresh = Ticker(database, "lake", "fresh")
    fresh.tick(at + HOUR)
    assert describe_evidence(ticker) == describe_evidence(fresh)


@pytest.fixture
def read_back(monkeypatch):
    """Return the parts of counted units that are read from the store."""
    reads = []
    load, read = CountedUnits.load_units, read_joined_lines
    monkeypatch.setattr(
        CountedUnits, "load_units", lambda *a, **k: reads.append("units") or load(*a, **k)
    )
    monkeypatch.setattr(
        counted_units, "read_joined_lines", lambda *a, **k: reads.append("lines") or read(*a, **k)
    )
    return reads


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["case", "episode"])
def test_an_ordinary_tick_reads_no_counted_unit_back(database, read_back, unit):
    apply_text(database, unit)
    ticker = Ticker(database, "lake", "one")
    store_decided(database, "b1", "b2", "b3", episode="e" if unit == "episode" else None)

    events = ticker.tick(DUE)

    assert read_back == []
    assert_as_stored(database, ticker, events)
    assert ticker._counted._units == []


def test_what_another_process_counts_in_the_same_slot_is_read(database, read_back):
    apply_text(database)
    ticker = Ticker(database, "lake", "one", page_size=PageSize(entries=1, cases=1))
    store_decided(database, "b1", "b2")
    passes = iter([lambda: None, lambda: count_due(database)])

    with faults.install_action(lambda *_: next(passes, lambda: None)(), "tick.read"):
        events = ticker.tick(DUE)

    assert read_back == ["units", "lines"]
    assert_as_stored(database, ticker, events)


def test_a_name_that_is_erased_before_the_decision_is_in_no_memory(database, read_back):
    apply_text(database)
    ticker = Ticker(database, "lake", "one")
    store_decided(database, "b1")
    request = ErasureRequest(ADMIN, "lake", "requested", DUE)

    with faults.install_action(
        run_once(lambda: erase_name(database, request, "ana")), "tick.evidence"
    ):
        events = ticker.tick(DUE)

    assert read_back == ["units", "lines"]
    assert "ana" not in describe_evidence(ticker)[2]
    assert_as_stored(database, ticker, events)


def test_more_units_than_memory_should_hold_are_read(database, read_back, monkeypatch):
    monkeypatch.setattr(counted_units, "UNITS_AT_MOST", 3)
    apply_text(database)
    ticker = Ticker(database, "lake", "one")
    store_decided(database, "b1", "b2")

    events = ticker.tick(DUE)

    assert read_back == ["units", "lines"]
    assert_as_stored(database, ticker, events)
