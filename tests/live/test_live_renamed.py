"""A version under several names: live and replay count the same answers and continue the same."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from rollout.engine.events import VersionFirstUsed, VersionRenamed
from rollout.engine.files.files import RecordPaths
from rollout.engine.slots.options import ReplayOptions
from rollout.features.records.record_import import VersionStatements, import_records
from rollout.features.replay.replay import replay_records
from rollout.features.replay.requests import ReplayRequest
from rollout.kernel.calendar.instants import to_instant
from rollout.live.tick_passes import Ticker
from tests.chance import list_unsealed_events
from tests.engine.slots.stories import Story, a_history
from tests.live.test_live import BY_CASE, find_evidence_faults, live, parse_policy

STORY = Story(
    seed=5, slots=40, busy=2.5, late=0.15, missing=0.03, quiet=False, versions=1, on_grid=False
)
CONTENTS = {"v1": "ab" * 32, "v1b": "ab" * 32, "v1c": "ab" * 32}


def rename(history):
    """Name the version v1b half way and v1c later; v1b answers some cases again, otherwise."""
    number = pl.col("case_key").str.slice(1).cast(pl.Int64)
    half, end = pl.len() // 2, 4 * pl.len() // 5
    name = pl.when(number < half).then(pl.lit("v1")).when(number < end).then(pl.lit("v1b"))
    times = history.cases.select("case_key", "occurred_at")
    timed = history.predictions.join(times, on="case_key", maintain_order="left")
    renamed = timed.with_columns(
        version=name.otherwise(pl.lit("v1c")),
        at=pl.coalesce("at", pl.col("occurred_at") + pl.duration(minutes=2)),
    ).drop("occurred_at")
    again = renamed.filter(pl.col("version") == "v1b").gather_every(2)
    again = again.with_columns(
        version=pl.lit("v1"),
        at=pl.col("at") + pl.duration(minutes=pl.int_range(pl.len()) % 3 - 1),
        **{"value:alarm": pl.lit("fox")},
    )
    return replace(history, predictions=pl.concat([renamed, again]))


@pytest.mark.simulation
@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_stream_with_renames_gives_the_same_ledger_live_and_replayed(database):
    policy, after = parse_policy(BY_CASE), timedelta(minutes=20)
    history = rename(a_history(STORY, policy))
    options = ReplayOptions(approval_delay=after, skip_idle_slots=False)
    nowhere = RecordPaths(Path(), Path())
    request = ReplayRequest(Path(), nowhere, options=options, contents=CONTENTS)
    result = replay_records(request, policy, history).result
    slots = range(result.first_slot, result.last_slot + 1)
    expected = [e for e in result.events if e.at <= to_instant(slots[-1], policy.tick)]
    tickers = []

    def import_first(_slot, at):
        if not tickers:
            import_records(database, "story", history, at, VersionStatements(contents=CONTENTS))
            tickers.append(Ticker(database, "story", "one"))
        return tickers[0]

    found = live(database, BY_CASE, slots, after, before_slot=import_first)
    kinds = [type(event) for event in expected]
    assert (kinds.count(VersionFirstUsed), kinds.count(VersionRenamed)) == (1, 2)
    assert "Widened" in {kind.__name__ for kind in kinds}
    assert list_unsealed_events(found) == list_unsealed_events(expected)
    assert find_evidence_faults(database) == []
