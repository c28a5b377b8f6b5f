"""A record that comes late, or with the instant of another one, is read by guards, too."""

from datetime import timedelta
from types import SimpleNamespace

import pytest

from rollout.data.counting.count_queue import StoredArrivals
from rollout.engine.records.records import Heartbeat
from rollout.features.records import record_import
from rollout.kernel.calendar.instants import to_micros
from rollout.live.tick_passes import Ticker
from tests.engine.evidence import histories
from tests.factories import HOUR, MINUTE
from tests.live.guarded_shop import (
    SITES,
    Shop,
    _snapshots_of_few_cases,
    fill,
    note_loaded,
)

pytestmark = pytest.mark.slow

__all__ = ["_snapshots_of_few_cases"]


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_what_a_long_import_stores_is_read_by_processes_that_ticked_meanwhile(
    database, monkeypatch
):
    shop = fill(Shop(database))
    ticker = Ticker(database, "shop", "one")
    shop.tick(ticker)
    began_at, hours = shop.now, (shop.now - histories.START) // HOUR
    frames = histories.records(
        histories.cases(("i1", hours, {"site": "kiosk"}), attributes=("guest",)),
        histories.predictions(("i1", "low"), levers=("price",)),
        histories.decisions(levers=("price",)),
        histories.outcomes(levers=("price",)),
    )

    seconds = [0.0, 3600.0]  # it takes so long until it stores
    monkeypatch.setattr(record_import, "time", SimpleNamespace(monotonic=lambda: seconds.pop(0)))
    locate_cases = record_import.locate_cases

    def locate_slowly(*args):
        shop.send_case(site="stall")
        shop.tick(ticker)
        return locate_cases(*args)

    monkeypatch.setattr(record_import, "locate_cases", locate_slowly)
    record_import.import_records(database, "shop", frames, began_at)
    shop.send_case(site="stall")
    shop.tick(ticker)  # and renews the snapshot
    assert len(shop.assert_same().read_signs("kiosk").cases) == 5


def test_a_heartbeat_that_comes_late_is_read_as_by_a_process_that_starts_now(database):
    shop = fill(Shop(database))
    shop.send(*(Heartbeat(site="kiosk", at=shop.now - hours * HOUR) for hours in (0, 2)))
    feeds = shop.begin()
    late, shop.now = shop.now - HOUR, shop.now + 5 * HOUR
    shop.send(Heartbeat(site="kiosk", at=late))
    with database.begin_read() as transaction:
        changed = feeds.load_heartbeats(transaction, shop.load_state(), SITES, shop.now)
        again = feeds.load_heartbeats(transaction, shop.load_state(), SITES, shop.now)
    assert (changed, again) == ({"kiosk"}, set())
    pings = [each.read_signs("kiosk").pings.tolist() for each in (feeds, shop.begin())]
    assert to_micros(late) in pings[0]
    assert pings[0] == pings[1]


def test_a_record_with_the_instant_of_one_that_was_read_is_read_too(database):
    shop = fill(Shop(database))
    ticker = Ticker(database, "shop", "one")
    shop.tick(ticker)  # what the first one reads of the last minutes is read again
    shop.now += 55 * MINUTE
    shop.send_case("c99")
    sent_at = shop.now
    shop.tick(ticker)  # between the parts of a large batch, which have one instant
    ticked_at, shop.now = shop.now, sent_at - timedelta(seconds=1)
    shop.predict("c99", answer=None)
    shop.now = ticked_at
    shop.tick(ticker)
    read = shop.begin(reads_all=True)
    assert ticker._evidence.feeds.observes_same(read, shop.load_state())
    shop.assert_same()


def stamp_late(shop, hours):
    """Send a case whose receipt a clock stamps some hours too early, as if it were set back."""
    shop.now -= hours * HOUR
    key = shop.send_case(ago=-hours * HOUR)
    shop.predict(key, answer=None)
    shop.now += hours * HOUR
    return key


@pytest.mark.parametrize("hours", [1, 11])
def test_an_arrival_stamped_late_is_found_before_the_next_snapshot(database, monkeypatch, hours):
    shop = fill(Shop(database))
    ticker = Ticker(database, "shop", "one")
    shop.now += 11 * HOUR
    shop.tick(ticker)
    stamp_late(shop, hours)
    fill(shop, 1)  # makes a snapshot due
    shop.tick(ticker)
    shop.assert_same()
    batches = note_loaded(monkeypatch)
    shop.tick(ticker)
    assert batches == []  # found once


def test_an_arrival_stamped_late_is_found_by_a_process_that_begins(database, monkeypatch):
    shop = fill(Shop(database))
    shop.tick()
    shop.now += 2 * HOUR
    stamp_late(shop, 3)
    batches = note_loaded(monkeypatch)
    shop.begin()
    assert sum(batches) > 0
    shop.assert_same()


def test_late_arrivals_are_searched_in_sums_alone(database, monkeypatch):
    shop = fill(Shop(database))
    ticker = Ticker(database, "shop", "one")
    shop.tick(ticker)
    listed, list_since = [], StoredArrivals.list_since

    def list_and_note(own, since, **before):
        listed.append({"since": since, **before})
        return list_since(own, since, **before)

    monkeypatch.setattr(StoredArrivals, "list_since", list_and_note)
    for _ in range(8):
        shop.now += HOUR
        shop.tick(ticker)
    assert not [times for times in listed if "before" in times]
    stamp_late(shop, 2)
    for _ in range(2):  # the second search, too
        fill(shop, 1)
        shop.tick(ticker)
    assert [times["before"] - times["since"] for times in listed if "before" in times] == [
        10 * MINUTE
    ]
