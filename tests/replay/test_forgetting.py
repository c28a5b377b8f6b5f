"""Gates that forget: blocks against a recount, series against readings, skipped slots, a repair."""

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.core.policy.evidence_blocks import BlockRule
from rollout.core.policy.gates import is_gate_open, read_gate, read_renewal
from rollout.core.scope.events import ProposalRaised, Widened
from rollout.tally.count_windows import find_block_starts
from rollout.tally.slots import to_instant
from tests.replay.stories import (
    replay_changed_story,
    replay_with_and_without_skips,
)

RULES = (BlockRule(), BlockRule(5), BlockRule(20))
SEEDS = (18, 61, 88)


@cache
def replay(seed, *, skip=True):
    def forget(policy):
        return replace(policy, evidence=replace(policy.evidence, forget=RULES[seed % 3]))

    return replay_changed_story(seed, forget, skip=skip)


# Blocks


def recount_starts(rule, slots, closed, tick):
    """Return the number of each row's block, row by row."""
    numbers, number, units, monday = [], -1, 0, None
    for place, (slot, is_closed) in enumerate(zip(slots, closed, strict=True)):
        at = to_instant(slot, tick)
        day = at.date() - timedelta(days=at.weekday())
        is_new_slot = place == 0 or slot > slots[place - 1]
        if rule.units and is_new_slot:
            number = units // rule.units
        elif not rule.units:
            monday = day if monday is None else monday
            number = (day - monday).days // 7
        units += is_closed
        numbers.append(number)
    return numbers


SMALL_RULES = st.sampled_from([BlockRule(), BlockRule(2), BlockRule(3)])
ROWS = st.lists(st.tuples(st.sampled_from([0, 0, 1, 8]), st.booleans()), max_size=60)


@given(ROWS, SMALL_RULES, st.sampled_from([1, 24]), st.integers(-400, 400_000))
def test_each_row_is_in_the_block_of_a_recount(rows, rule, hours, first):
    gaps, closed = zip(*rows, strict=True) if rows else ((), ())
    slots = first + np.cumsum(np.array(gaps, dtype=np.int64) % 9)
    counts = np.concatenate([[0], np.cumsum(np.array(closed, dtype=np.int64))])
    tick = timedelta(hours=hours)
    starts = find_block_starts(rule, slots, counts, tick)
    found = np.searchsorted(starts, np.arange(len(slots)), side="right") - 1
    expected = recount_starts(rule, slots.tolist(), closed, tick)
    if rule.units:  # a slot may hold several blocks; then the empty ones between have no row
        assert (np.diff(found) > 0).tolist() == (np.diff(expected) > 0).tolist()
    else:
        assert found.tolist() == expected
    assert (np.diff(starts) >= 0).all()


@given(ROWS, SMALL_RULES, st.integers(0, 60))
def test_later_rows_move_no_start(rows, rule, until):
    gaps, closed = zip(*rows, strict=True) if rows else ((), ())
    slots = np.cumsum(np.array(gaps, dtype=np.int64) % 9)
    counts = np.concatenate([[0], np.cumsum(np.array(closed, dtype=np.int64))])
    kept = slots <= until
    whole = find_block_starts(rule, slots, counts, timedelta(hours=24))
    part = find_block_starts(rule, slots[kept], counts[: kept.sum() + 1], timedelta(hours=24))
    assert whole[whole < kept.sum()].tolist() == part.tolist()


# Stories


def check_series(seed):
    """Compare series, readings and quick answers at each slot; return how often gates are met."""
    result, met = replay(seed), Counter()
    slots = range(result.first_slot, result.last_slot + 2)
    for view in result.views.values():
        share = view.state.risk_share
        for level in range(1, len(view.policy.stage_ids)):
            if view.policy.find_gate(level, view.cell) is None:
                continue
            series = view.get_gate_series(level, view.attempt_window)
            for slot in slots:
                counts = view.read_evidence(slot).attempt
                parts = (view.policy, view.cell, level, share, counts, counts)
                reading = read_gate(*parts)
                assert reading.is_met == is_gate_open(*parts)
                assert (series.met.find_next(slot) == slot) == reading.is_met
                assert (series.turned.find_next(slot) == slot) == reading.has_turned
                met[reading.is_met] += 1
                met["blocks"] += any(len(r.blocks) > 1 for r in reading.readings)
        for level, grant in enumerate(view.state.grants, start=1):
            span = view.read_evidence(result.last_slot).spans[grant.stage]
            reading = read_renewal(view.policy, view.cell, level, span)
            assert not any(r.blocks for r in reading.readings)
    return met


@pytest.mark.slow
def test_a_series_says_what_the_gate_reads_at_every_slot():
    met = sum((check_series(seed) for seed in SEEDS), Counter())
    assert min(met[True], met[False], met["blocks"]) > 100


def test_blocks_add_up_to_the_counts():
    for seed in SEEDS:
        for view in replay(seed).views.values():
            counts = view.read_evidence(replay(seed).last_slot).attempt
            assert set(counts.blocks) == {c.key for c in view.conditions}
            for key, blocks in counts.blocks.items():
                width = len(counts.counts[key])
                sums = np.array(blocks, dtype=np.int64).reshape(-1, width).sum(axis=0)
                assert tuple(sums.tolist()) == counts.counts[key]


@pytest.mark.slow
def test_skipping_slots_changes_no_ledger():
    events = replay_with_and_without_skips(replay, range(6))
    lines = [line for e in events if isinstance(e, ProposalRaised) for line in e.readings]
    assert any(" over blocks " in line for line in lines)
    assert any(isinstance(event, Widened) for event in events)


@pytest.mark.simulation
def test_skipping_slots_changes_no_ledger_of_many_stories():
    events = replay_with_and_without_skips(replay, range(6, 60))
    kinds = {type(event).__name__ for event in events}
    assert kinds >= {"Widened", "Renewed", "TakenOver", "Narrowed", "ProposalVoided"}


@pytest.mark.simulation
def test_a_series_says_what_the_gate_reads_at_every_slot_of_many_stories():
    assert sum((check_series(seed) for seed in range(60, 80)), Counter())[True]
