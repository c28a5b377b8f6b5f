"""What the statistics promise, kept by simulated cells, and visibly broken by what breaks it.

Every simulation is seeded. A margin is three standard deviations of the simulated share.
"""

from itertools import pairwise

import numpy as np
import pytest

from rollout.kernel.statistics.detector import (
    compute_action_change_log_factors,
    compute_agreement_log_factors,
    compute_cost_log_factors,
    compute_log_path,
)
from rollout.kernel.statistics.forecast import forecast_opening
from rollout.kernel.statistics.gate_thresholds import GateThreshold, compute_cost_log_e_path
from tests.kernel.statistics.step_detectors import (
    ActionChangeDetector,
    AgreementDetector,
    CostDetector,
)

pytestmark = pytest.mark.simulation

RISK = 0.05
LINE = 0.95
GATE = GateThreshold(LINE, RISK)


def margin(share, runs):
    return 3 * (share * (1 - share) / runs) ** 0.5


def met_when(agreed, gate=GATE):
    """Say for each run and record whether the line is met just then; records on the last axis."""
    successes = np.cumsum(agreed, axis=-1, dtype=np.int64)
    records = np.arange(1, agreed.shape[-1] + 1)
    return gate.are_met(successes, records - successes)


def records_of(rate, runs, records, seed):
    return np.random.default_rng(seed).random((runs, records)) < rate


def test_at_the_line_a_gate_looked_at_after_every_pair_opens_as_rarely_as_its_risk():
    runs = 2_000
    ever = met_when(records_of(LINE, runs, 5_000, seed=1)).any(axis=1).mean()
    exact = forecast_opening(LINE, at_least=LINE, alpha=RISK, horizon=5_000).chance
    assert exact < RISK
    assert ever <= RISK + margin(RISK, runs)
    assert ever == pytest.approx(exact, abs=margin(exact, runs))


def test_a_naive_rate_looked_at_after_every_pair_opens_almost_surely():
    agreed = records_of(LINE, 500, 5_000, seed=2)
    rates = np.cumsum(agreed, axis=1) / np.arange(1, 5_001)
    assert (rates[:, 99:] >= LINE).any(axis=1).mean() > 0.9


def test_a_rate_that_chases_its_own_evidence_below_the_line_opens_as_rarely():
    # perfect while it is winning and its average so far leaves room, worse while it is losing
    runs, records = 1_000, 2_000
    rng = np.random.default_rng(3)
    room, agreed = np.zeros(runs), np.zeros((runs, records), bool)
    won = np.zeros(runs)
    for i in range(records):
        rate = np.where((room >= 0.05) & (won > 0), 1.0, LINE)
        rate = np.where((won <= 0) & (i % 2 == 0), 0.90, rate)
        agreed[:, i] = rng.random(runs) < rate
        room += LINE - rate
        won += agreed[:, i] - LINE
    assert room.min() >= -1e-9
    assert met_when(agreed).any(axis=1).mean() <= RISK + margin(RISK, runs)


def test_a_cell_at_98_percent_opens_after_about_249_records():
    runs = 4_000
    met = met_when(records_of(0.98, runs, 2_500, seed=4))
    first = np.argmax(met, axis=1) + 1
    assert met.any(axis=1).all()
    # it can open at 74, 131, 174, 213, 249, … alone: half of the runs by 249, not by 174
    assert (first <= 174).mean() < 0.5 - margin(0.5, runs)
    assert (first <= 249).mean() > 0.5 + margin(0.5, runs)
    assert first.mean() == pytest.approx(287, abs=3 * first.std() / runs**0.5)


def test_one_record_of_each_burst_keeps_the_promise_and_every_record_breaks_it():
    runs, bursts = 1_000, 1_000
    visits = records_of(LINE, runs, bursts, seed=5)
    one_each = met_when(visits).any(axis=1).mean()
    every = met_when(np.repeat(visits, 5, axis=1)).any(axis=1).mean()
    assert one_each <= RISK + margin(RISK, runs)
    assert every > 0.5


def test_restarts_with_attempts_keep_the_promise_and_naive_ones_break_it():
    runs, restarts, records = 400, 40, 500
    agreed = records_of(LINE, runs, restarts * records, seed=6).reshape(runs, restarts, records)
    naive = met_when(agreed).any(axis=(1, 2)).mean()
    risks = [RISK, *(RISK / (k * (k + 1)) for k in range(2, restarts + 1))]
    kept = np.zeros(runs, bool)
    for attempt, risk in enumerate(risks):
        kept |= met_when(agreed[:, attempt], GateThreshold(LINE, risk)).any(axis=1)
    assert sum(risks) <= 1.5 * RISK
    assert kept.mean() <= 1.5 * RISK + margin(1.5 * RISK, runs)
    assert naive == pytest.approx(0.77, abs=margin(0.77, runs))


def test_a_cell_at_its_cost_line_opens_as_rarely_as_its_risk():
    runs, records, levels = 400, 1_000, (0.0, 0.25, 1.0)
    drawn = np.random.default_rng(7).choice(3, p=(0.9, 0.08, 0.02), size=(runs, records))
    counts = np.cumsum(drawn[..., None] == np.arange(3), axis=1)
    log_e = compute_cost_log_e_path(counts.reshape(-1, 3), levels=levels, at_most=0.04)
    ever = (log_e.reshape(runs, records) >= -np.log(RISK)).any(axis=1).mean()
    assert 0 < ever <= RISK + margin(RISK, runs)


def alarms_in(log_factors, compared, every, look=4_000):
    """Run a detector over all buckets, starting anew after each alarm; return where it alarmed."""
    found, start, reach = [], 0, look
    while start < len(compared):
        path = compute_log_path(log_factors[start : start + reach], compared[start : start + reach])
        over = np.flatnonzero(path >= np.log(every))
        if over.size:
            start, reach = start + int(over[0]) + 1, look
            found.append(start)
        elif start + reach >= len(compared):
            break
        else:
            reach *= 2
    return found


@pytest.mark.parametrize("size", [1, 10])
def test_a_detector_at_its_reference_alarms_as_rarely_as_promised(size):
    every, buckets = 500, 200_000 // size
    agreed = np.random.default_rng(9).binomial(size, LINE, buckets)
    compared = np.full(buckets, size)
    alarms = alarms_in(
        compute_agreement_log_factors(agreed, compared, reference=LINE), compared, every
    )
    promised = size * buckets / every
    assert 0.1 * promised < len(alarms) <= promised


def test_cost_and_action_detectors_at_their_references_alarm_as_rarely_as_promised():
    every, records = 500, 100_000
    rng = np.random.default_rng(10)
    losses, chances = (0.0, 0.25, 1.0), (0.9, 0.08, 0.02)
    lost = rng.choice(3, p=chances, size=records)[:, None] == np.arange(3)
    acted = rng.choice(3, p=(0.05, 0.03, 0.92), size=records)
    one = np.ones(records, np.int64)
    costs = compute_cost_log_factors(lost, losses=losses, reference=0.04)
    actions = compute_action_change_log_factors(acted == 0, acted == 1, one, at_most=2)
    for factors in (costs, actions):
        assert 0 < len(alarms_in(factors, one, every)) <= records / every


@pytest.mark.parametrize(("fallen_to", "delay"), [(0.95, 346), (0.90, 85), (0.80, 28), (0.50, 8)])
def test_a_fall_is_noticed_as_soon_as_published(fallen_to, delay):
    runs = 300
    agreed = np.random.default_rng(11).binomial(1, fallen_to, 2 * runs * delay)
    compared = np.ones(len(agreed), np.int64)
    factors = compute_agreement_log_factors(agreed, compared, reference=0.98)
    found = alarms_in(factors, compared, 10_000, look=2 * delay)
    waits = np.diff([0, *found])[:runs]
    assert len(waits) == runs
    assert waits.mean() == pytest.approx(delay, abs=0.6 + 3 * waits.std() / runs**0.5)


def test_a_rise_of_costs_or_actions_is_noticed():
    cost, change = CostDetector(0.04, 10_000), ActionChangeDetector(2, 10_000)
    for _ in range(12):
        cost = cost.update((0, 0.25, 1), (14, 4, 2))
        change = change.update(4, 0, 20)
    assert cost.is_alarm
    assert change.is_alarm


def test_one_event_in_small_slots_is_noticed_sooner_than_in_large_ones():
    agreed = np.random.default_rng(12).binomial(1, 0.85, 400)
    waits = []
    for size in (1, 10, 100):
        detector, seen = AgreementDetector(0.98, 10_000), 0
        while not detector.is_alarm:
            detector = detector.update(int(agreed[seen : seen + size].sum()), size)
            seen += size
        waits.append(seen)
    assert all(sooner <= later for sooner, later in pairwise(waits))
    assert waits[0] < waits[-1]
