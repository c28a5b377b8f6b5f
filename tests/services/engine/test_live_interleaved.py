"""Records that come in slot by slot, late and in parts: what is decided is what replay decides."""

from collections import Counter
from dataclasses import replace
from datetime import timedelta

import polars as pl
import pytest

from rollout.formats.policy.reader import parse_policy
from rollout.services.engine.ticks import Ticker
from rollout.services.records.record_import import import_records
from tests.chance import list_unsealed_events
from tests.replay.stories import a_history
from tests.services.engine.test_live import BY_CASE, BY_EPISODE, STORY, live, replayed, until
from tests.tally.histories import START

pytestmark = pytest.mark.simulation

LONG = BY_EPISODE.replace("30m", "40m").replace(
    "agreement, at_least: 50%, false", "agreement, at_least: 80%, false"
)  # episodes go on when they have closed already
HEARD = (
    "guards:\n  - {measure: heartbeat, at_most: 3h, then: suspend, quiet_days: 100%,"
    " false_alarm_every: 1d}"
)
RESTART_EVERY = 12  # slots: what a fresh process reads back decides the same
AFTER = timedelta(minutes=20)


def with_usual_traffic(history):
    """Return a history with a case an hour at each site in the 30 days before."""
    hours = pl.datetime_range(START - timedelta(days=30), START, "1h", closed="left", eager=True)
    first = history.cases.unique("site", maintain_order=True).drop("occurred_at")
    earlier = first.join(
        pl.DataFrame({"occurred_at": hours.cast(history.cases.schema["occurred_at"])}), how="cross"
    )
    keys = pl.concat_str(pl.lit("usual-"), pl.int_range(pl.len()).cast(pl.String))
    earlier = earlier.with_columns(case_key=keys).select(history.cases.columns)
    return replace(history, cases=pl.concat([earlier, history.cases]))


def slot_by_slot(database, history):
    """Return what brings in, before each slot, what was recorded since the slot before."""
    before, tickers = [], []

    def before_slot(slot, at):
        come = until(history, at)
        new = {k: getattr(come, k) for k in ("cases", "predictions", "decisions", "outcomes")}
        if before:
            new = {kind: frame.join(before[-1][kind], **SAME[kind]) for kind, frame in new.items()}
        before.append({kind: getattr(come, kind) for kind in new})
        import_records(database, "story", replace(history, **new), at)
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
    ("url", "text", "seed", "guard"),
    [
        ("sqlite", BY_CASE, 3, "heartbeat"),
        ("sqlite", LONG, 13, "agreement"),
        ("postgresql", LONG, 13, "agreement"),
    ],
    ids=["sqlite-case", "sqlite-episode", "postgresql-episode"],
    indirect=["url"],
)
def test_one_ticker_fed_slot_by_slot_decides_as_one_replay_of_all(database, text, seed, guard):
    text = text.replace("guards:", HEARD)
    policy = parse_policy(text)
    history = a_history(replace(STORY, slots=60, seed=seed), policy)
    if guard == "heartbeat":
        history = with_usual_traffic(history)
    slots, expected = replayed(history, policy, AFTER)
    found = live(database, text, slots, AFTER, before_slot=slot_by_slot(database, history))
    kinds = Counter(type(event).__name__ for event in expected)
    assert kinds["Widened"] >= 3
    assert kinds["Narrowed"] >= 1
    assert any(getattr(event, "guard", "").startswith(guard) for event in expected)
    assert list_unsealed_events(found) == list_unsealed_events(expected)
