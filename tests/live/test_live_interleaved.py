"""Records that come in slot by slot, late and in parts: what is decided is what replay decides."""

from collections import Counter
from dataclasses import replace
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from rollout.data.database.rollouts import Rollouts
from rollout.data.records.records import RecordStore
from rollout.engine.events import Suspended
from rollout.engine.records.records import Heartbeat
from rollout.engine.slots.options import ReplayOptions
from rollout.engine.slots.record_feed import HistoryFeeds
from rollout.features.records.record_import import import_records
from rollout.kernel.calendar.instants import find_slot_after, to_instant, to_micros
from rollout.kernel.policy_files.reader import parse_policy
from rollout.kernel.words import say_alarms
from rollout.live.evidence import live_evidence
from rollout.live.tick_passes import Ticker
from tests.chance import list_unsealed_events
from tests.data.databases import on_sqlite
from tests.engine.evidence.histories import START
from tests.engine.slots.stories import a_history, prepared
from tests.live.test_live import BY_CASE, BY_EPISODE, STORY, live, replayed, until

pytestmark = pytest.mark.simulation

LONG = BY_EPISODE.replace("30m", "40m").replace(
    "agreement, at_least: 50%, false", "agreement, at_least: 80%, false"
)  # episodes go on when they have closed already
HEARD = "guards:\n  - {measure: heartbeat, at_most: 3h, then: suspend, false_alarm_every: 1d}"
PINGED, HOUR, DAY = "s0", timedelta(hours=1), timedelta(days=1)
RESTART_EVERY = 12  # slots: what a fresh process reads back decides the same
AFTER = timedelta(minutes=20)


@pytest.fixture(autouse=True)
def _snapshots_of_few_units(monkeypatch):
    monkeypatch.setattr(live_evidence, "MIN_NEW_ROWS", 100)


def with_usual_traffic(history):
    """Return a history with a case each half hour at each site in the 30 days before."""
    hours = pl.datetime_range(START - timedelta(days=30), START, "30m", closed="left", eager=True)
    first = history.cases.unique("site", maintain_order=True).drop("occurred_at")
    times = pl.DataFrame({"occurred_at": hours.cast(history.cases.schema["occurred_at"])})
    earlier = first.join(times, how="cross")
    keys = pl.concat_str(pl.lit("usual-"), pl.int_range(pl.len()).cast(pl.String))
    earlier = earlier.with_columns(case_key=keys).select(history.cases.columns)
    return replace(history, cases=pl.concat([earlier, history.cases]))


def list_pings(history):
    """Return a sign of life each half hour, into the longest time without a case."""
    times = history.cases["occurred_at"].sort()
    last = times[int(times.diff().dt.total_microseconds().arg_max()) - 1]
    count = (last + timedelta(hours=5) - START) // timedelta(minutes=30)
    return [START + n * timedelta(minutes=30) for n in range(count)]


class PingedFeeds(HistoryFeeds):
    """A history's feeds, and signs of life of one site."""

    pings = ()

    def read_signs(self, site):
        signs = super().read_signs(site)
        micros = np.array([to_micros(at) for at in self.pings], dtype=np.int64)
        return replace(signs, pings=micros) if site == PINGED else signs


def store_pings(database, pings):
    """Store signs of life; known ones change nothing."""
    with database.begin_write() as transaction:
        store = RecordStore(transaction, Rollouts(transaction).find("story"))
        for at in pings:
            store.store_heartbeat(Heartbeat(site=PINGED, at=at), received_at=at)


def slot_by_slot(database, history, pings=()):
    """Return what brings in, before each slot, what was recorded since the slot before."""
    before, tickers = [], []

    def before_slot(slot, at):
        come = until(history, at)
        new = {k: getattr(come, k) for k in ("cases", "predictions", "decisions", "outcomes")}
        if before:
            new = {kind: frame.join(before[-1][kind], **SAME[kind]) for kind, frame in new.items()}
        before.append({kind: getattr(come, kind) for kind in new})
        import_records(database, "story", replace(history, **new), at)
        store_pings(database, [ping for ping in pings if ping <= at])
        if tickers and slot % RESTART_EVERY:
            return None
        tickers.append(Ticker(database, "story", "one"))
        return tickers[-1]

    return before_slot


SAME = {
    "cases": {"on": "case_key", "how": "anti"},
    "predictions": {"on": ["case_key", "version"], "how": "anti"},
    "decisions": {"on": ["case_key", "reviewer"], "how": "anti"},
    "outcomes": {"on": "case_key", "how": "anti"},
}


@pytest.mark.parametrize(
    ("url", "text"),
    [("sqlite", LONG), ("postgresql", LONG)],
    ids=["sqlite", "postgresql"],
    indirect=["url"],
)
def test_one_ticker_fed_slot_by_slot_decides_as_one_replay_of_all(database, text):
    policy = parse_policy(text)
    history = a_history(replace(STORY, slots=60, seed=13), policy)
    slots, expected = replayed(history, policy, AFTER)
    found = live(database, text, slots, AFTER, before_slot=slot_by_slot(database, history))
    kinds = Counter(type(event).__name__ for event in expected)
    assert kinds["Widened"] >= 3
    assert kinds["Narrowed"] >= 1
    assert any(getattr(event, "guard", "").startswith("agreement") for event in expected)
    assert list_unsealed_events(found) == list_unsealed_events(expected)


@on_sqlite
def test_silence_is_noticed_live_as_in_a_replay(database):
    text = BY_CASE.replace("guards:", HEARD)
    policy = parse_policy(text)
    story = a_history(replace(STORY, slots=60, seed=3), policy)
    pings, history = list_pings(story), with_usual_traffic(story)
    made = prepared(history, policy)
    feeds = PingedFeeds(history, made.placed, policy)
    feeds.pings = pings
    course = ReplayOptions(approval_delay=AFTER, skip_idle_slots=False)
    done = replace(made, feeds=feeds).run(course)
    slots = range(done.first_slot, done.last_slot + 1)
    found = live(database, text, slots, AFTER, before_slot=slot_by_slot(database, history, pings))
    assert list_unsealed_events(found) == list_unsealed_events(done.events)
    suspensions = [event for event in done.events if isinstance(event, Suspended)]
    silences = [event for event in suspensions if event.guard.startswith("heartbeat")]
    by_pings, by_traffic = silences
    assert by_pings.at == to_instant(find_slot_after(pings[-1] + 3 * HOUR, HOUR), HOUR)
    assert say_alarms(by_pings.alarms).endswith("no heartbeat for 3 h in opening hours")
    assert by_traffic.at > pings[-1] + DAY
