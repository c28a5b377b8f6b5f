"""Gates over a wave: sums against a recount, series against readings, skipped slots, the ledger."""

from collections import Counter
from dataclasses import replace
from functools import cache

import pytest

from rollout.core.calendar.sites import Cell
from rollout.core.policy.gates import is_gate_open, read_gate
from rollout.core.policy.policy import Waves
from rollout.core.policy.wave_conditions import WaveCondition, parse_wave_counts
from rollout.core.scope.events import ProposalRaised, Widened
from tests.replay.stories import (
    replay_changed_story,
    replay_with_and_without_skips,
)

SEEDS = (18, 31, 61)
LINES = (0.6, 0.45)


def pool_agreement(gate):
    condition = WaveCondition("agreement", LINES[0], at_least=True, each_line=LINES[1])
    return replace(gate, require=(condition,))


@cache
def replay(seed, *, skip=True):
    return replay_changed_story(seed, pool_first_wave, skip=skip)


def pool_first_wave(policy):
    sites = tuple(replace(site, wave=1 + (i == 2)) for i, site in enumerate(policy.sites))
    waves = policy.waves or Waves("supervised", hold=5 * policy.tick)
    gates = tuple(pool_agreement(g) if g.to == "supervised" else g for g in policy.gates)
    return replace(policy, sites=sites, waves=waves, gates=gates)


def check_series(seed):
    """Compare series, readings and quick answers at each slot; return how often gates are met."""
    result, met = replay(seed), Counter()
    for view in result.views.values():
        share, policy = view.state.risk_share, view.policy
        if policy.find_gate(1, view.cell) is None:
            continue
        series = view.get_gate_series(1, view.attempt_window)
        for slot in range(result.first_slot, result.last_slot + 2):
            counts = view.read_evidence(slot).attempt
            parts = (policy, view.cell, 1, share, counts, counts)
            reading = read_gate(*parts)
            assert reading.is_met == is_gate_open(*parts)
            assert (series.met.find_next(slot) == slot) == reading.is_met
            if reading.has_turned:  # a slot too many only costs time
                assert series.turned.find_next(slot) == slot
            met[reading.is_met] += 1
            (wave,) = reading.readings
            met["cells"] += len(wave.wave) > 1
            if reading.is_met:
                assert min(part.agreed for part in wave.wave) > 0
    return met


@pytest.mark.slow
def test_a_series_says_what_the_gate_reads_at_every_slot():
    met = sum((check_series(seed) for seed in SEEDS), Counter())
    assert min(met[True], met[False], met["cells"]) > 100


def test_a_first_attempt_counts_what_each_cell_counts_by_itself():
    compared = later = 0
    for seed in (*SEEDS, *range(8)):
        result = replay(seed)
        slot = result.last_slot
        for view in result.views.values():
            (counts,) = view.read_evidence(slot).attempt.waves.values() or ((),)
            sites = [site.id for site in view.policy.sites]
            own_wave = view.policy.sites_by_id[view.cell.site].wave
            expected = [s for s in sites if view.policy.sites_by_id[s].wave == own_wave]
            assert [part.site for part in counts] == (expected if counts else [])
            for part in counts:
                if part.site == view.cell.site:  # also of a later attempt
                    closed = view.attempt_window.closed_counts[-1]
                    assert part.agreed + part.disagreed == closed
                    later += view.state.attempt > 1 and closed < len(view.visible_rows)
                other = result.views.get((Cell(part.site, view.cell.window), view.version))
                if other is not None and view.state.attempt == other.state.attempt == 1:
                    own = other.attempt_window.judged_counts[-1]
                    assert part.agreed + part.disagreed >= own
                    compared += own > 0
    assert compared > 5
    assert later


@pytest.mark.slow
def test_skipping_slots_changes_no_ledger_and_proposals_list_each_cell():
    events = replay_with_and_without_skips(replay, range(8))
    raised = [e for e in events if isinstance(e, ProposalRaised) and e.to_stage == "supervised"]
    lines = [line for event in raised for line in event.readings if " over sites " in line]
    assert len(lines) == len(raised) > 3
    for line in lines:
        counts = parse_wave_counts(line.partition(" over sites ")[2].partition(" (")[0])
        total = sum(part.agreed + part.disagreed for part in counts)
        assert f" of {total}, log E " in line
        assert all(part.agreed for part in counts)
    assert any(isinstance(event, Widened) for event in events)


@pytest.mark.simulation
def test_skipping_slots_changes_no_ledger_of_many_stories():
    kinds = {type(event).__name__ for event in replay_with_and_without_skips(replay, range(8, 60))}
    assert kinds >= {"Widened", "Renewed", "TakenOver", "Narrowed", "ProposalVoided"}
