"""A replay at a service's pass times gives its ledger, also where dates pass and nobody ticked."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from rollout.engine.events import GrantExpired, LedgerEvent, ProposalRaised, Widened
from rollout.engine.slots.options import ReplayOptions
from rollout.features.records.record_import import import_records
from rollout.kernel.calendar.instants import Cell, to_instant
from rollout.kernel.policy_files.reader import parse_policy
from rollout.live.policy_application import apply_policy
from rollout.live.tick_passes import Ticker
from tests.chance import list_unsealed_events
from tests.engine.slots.stories import a_history, prepared
from tests.factories import HOUR
from tests.live.test_live import (
    ANA,
    BY_CASE,
    STORY,
    People,
    find_evidence_faults,
    on_sqlite,
    written,
)

DATES = """waves: {stage: supervised, hold: 3h}
limits:
  - {sites: [s0], windows: [day], ends: 2025-06-04}
freezes: [{sites: [s0], hours: "Jun 04 20:10-23:10", reason: fair}]
"""
TEXT = BY_CASE.replace("waves: {stage: supervised, hold: 3h}\n", DATES)
POLICY = parse_policy(TEXT)
AFTER = timedelta(minutes=20)
GAP = 72  # slots of an hour: nobody ticks for three days
DAY, NIGHT, DENVER = Cell("s0", "day"), Cell("s0", "night"), Cell("s1", "night")


def draw_passes(slots, seed):
    """Return the time of each pass by slot, up to 40 minutes late, with a gap of three days."""
    random = Random(seed)  # noqa: S311 - no secret
    middle = slots[90]
    ticked = [slot for slot in slots if not middle < slot < middle + GAP]
    delays = {slot: timedelta(seconds=random.choice((0, 0.7, 40, 2400))) for slot in ticked}
    return {slot: to_instant(slot, POLICY.tick) + delays[slot] for slot in ticked}


def live(database, history, passes):
    """Tick at the times of the passes, with people who approve; return the ledger's events."""
    first = to_instant(min(passes), POLICY.tick)
    apply_policy(database, TEXT, ANA, first, salt=bytes(32), service_salt=bytes(32))
    import_records(database, "story", history, first)
    ticker, people = Ticker(database, "story", "one"), People(database, "story", AFTER)
    for slot, at in passes.items():
        people.act(to_instant(slot, POLICY.tick))
        people.hear(ticker.tick(at))
    return written(database)


@on_sqlite
@pytest.mark.simulation
def test_replay_at_the_recorded_pass_times_gives_the_live_events(database):
    history = a_history(replace(STORY, slots=170), POLICY)
    made = prepared(history, POLICY)
    passes = draw_passes(range(made.units.first_slot, made.units.last_slot + 1), 1)
    found = live(database, history, passes)
    options = ReplayOptions(approval_delay=AFTER, pass_times=passes, skip_idle_slots=False)
    expected = made.run(options).events
    assert list_unsealed_events(found) == list_unsealed_events(expected)
    assert sum(isinstance(event, Widened) for event in found) >= 3
    assert any(isinstance(event, GrantExpired) for event in found)
    assert find_evidence_faults(database) == []
    check_times(found, passes)
    check_dates(found)


def check_times(events: list[LedgerEvent], passes):
    """Check that each tick's events are of its pass and slot, and that no grant began before."""
    at_by_slot = {to_instant(slot, POLICY.tick): at for slot, at in passes.items()}
    late = [event for event in events if event.slot is not None and event.at != event.slot]
    assert late
    for event in late:
        assert event.at == at_by_slot[event.slot]
        if isinstance(event, Widened):
            lasts = POLICY.get_stage(POLICY.stage_ids.index(event.to_stage)).lasts
            assert event.until == event.at + lasts


def check_dates(events: list[LedgerEvent]):
    """Check that each date of the policy held something back, or ended it."""
    widened_at = {
        cell: [e.at for e in events if isinstance(e, Widened) and e.cell == cell]
        for cell in POLICY.cells
    }
    start = datetime(2025, 6, 4, tzinfo=UTC)
    assert widened_at[DAY]
    assert max(widened_at[DAY]) < start + 24 * HOUR  # nothing after the trial's last day
    freeze_start, freeze_end = start + 20 * HOUR + HOUR / 6, start + 23 * HOUR + HOUR / 6
    raised_at = [e.at for e in events if isinstance(e, ProposalRaised) and e.cell == NIGHT]
    assert raised_at[-1] + AFTER < freeze_end - HOUR
    assert freeze_end <= widened_at[NIGHT][-1] < freeze_end + HOUR
    assert not any(freeze_start <= at < freeze_end for at in (*widened_at[DAY], *widened_at[NIGHT]))
