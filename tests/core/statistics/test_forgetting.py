"""Mixtures over the starts of blocks: their values, their promise and what they gain and cost."""

from itertools import accumulate
from math import exp, inf, log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.core.statistics.evidence import compute_log_e
from rollout.core.statistics.forgetting import mix_log_e, sum_from_starts
from rollout.core.statistics.gate_thresholds import GateThreshold
from rollout.core.statistics.truncated_beta import compute_log_mixture

RISK, LINE = 0.05, 0.95
BLOCK = 100
ALL_BLOCKS = st.lists(st.tuples(st.integers(0, 120), st.integers(0, 20)), min_size=1, max_size=12)
LINES = st.sampled_from([0.5, 0.9, 0.95, 0.99])


def mix(blocks, line=LINE):
    sums = sum_from_starts(np.array(blocks, dtype=np.int64))
    log_e = compute_log_mixture(sums[:, 0], sums[:, 1], threshold=line)
    return float(mix_log_e(log_e, np.array([len(blocks)]))[0])


@pytest.mark.parametrize(
    ("blocks", "line", "log_m"),
    [
        ([(74, 0)], 0.95, 2.793945122),
        ([(90, 10), (100, 0), (100, 0)], 0.95, 6.678532820),
        ([(180, 20)] * 4 + [(197, 3)] * 3, 0.95, 4.478554718),
        ([(45, 5), (0, 0), (60, 0)], 0.90, 3.370251354),
    ],
)
def test_mixtures_have_their_values(blocks, line, log_m):
    """Each was computed by two routes: closed form, and quadrature with 40 digits."""
    assert mix(blocks, line) == pytest.approx(log_m, abs=5e-10)


@given(ALL_BLOCKS, LINES)
def test_a_mixture_is_the_weighted_sum_of_the_e_values_from_each_start(blocks, line):
    total = 0.2 / len(blocks)
    for j in range(1, len(blocks) + 1):
        agreed, disagreed = map(sum, zip(*blocks[j - 1 :], strict=True))
        weight = 0.8 if j == 1 else 0.2 / (j * (j - 1))
        total += weight * exp(compute_log_e(agreed, disagreed, at_least=line))
    assert mix(blocks, line) == pytest.approx(log(total), abs=1e-9)


@given(ALL_BLOCKS, LINES)
def test_an_empty_last_block_changes_nothing(blocks, line):
    assert mix([*blocks, (0, 0)], line) == pytest.approx(mix(blocks, line), abs=1e-9)


@given(ALL_BLOCKS, LINES, st.data())
def test_one_more_agreement_raises_a_mixture_and_one_less_lowers_it(blocks, line, data):
    place = data.draw(st.integers(0, len(blocks) - 1))
    agreed, disagreed = blocks[place]
    more = [*blocks[:place], (agreed + 1, disagreed), *blocks[place + 1 :]]
    worse = [*blocks[:place], (agreed, disagreed + 1), *blocks[place + 1 :]]
    assert mix(worse, line) <= mix(blocks, line) < mix(more, line)


@given(ALL_BLOCKS, LINES)
def test_a_mixture_lies_between_its_first_part_and_its_best_start(blocks, line):
    sums = sum_from_starts(np.array(blocks))
    values = compute_log_mixture(sums[:, 0], sums[:, 1], threshold=line)
    assert values[0] + log(0.8) <= mix(blocks, line) <= max(0.0, values.max()) + 1e-9


@given(st.lists(ALL_BLOCKS, min_size=1, max_size=6))
def test_looks_are_mixed_each_for_itself(looks):
    parts = [sum_from_starts(np.array(blocks)) for blocks in looks]
    sums, starts = np.concatenate(parts), np.array([0, *map(len, looks)])
    log_e = compute_log_mixture(sums[:, 0], sums[:, 1], threshold=LINE)
    assert mix_log_e(log_e, starts).tolist() == pytest.approx([0.0, *map(mix, looks)], abs=1e-9)


# Simulations: looks and blocks of 100 records


def mix_paths(agreed):
    """Return ln M of runs of records after each block; shape (runs, blocks)."""
    blocks = agreed.reshape(len(agreed), -1, BLOCK).sum(axis=2)
    runs, count = blocks.shape
    paths = np.empty((runs, count))
    for look in range(1, count + 1):
        successes = np.cumsum(blocks[:, look - 1 :: -1], axis=1)[:, ::-1]
        sizes = BLOCK * np.arange(look, 0, -1)
        log_e = compute_log_mixture(successes, sizes - successes, threshold=LINE)
        paths[:, look - 1] = mix_log_e(log_e.ravel(), np.full(runs, look))
    return paths


def draw(rates, runs, seed):
    return np.random.default_rng(seed).random((runs, len(rates))) < np.array(rates)


NULLS = {
    "at the threshold": [LINE] * 4_000,
    "improving up to it": np.linspace(0.85, LINE, 4_000).tolist(),
    "bad weeks between": ([LINE] * 500 + [0.90] * 100) * 6 + [LINE] * 400,
}


@pytest.mark.simulation
@pytest.mark.parametrize("name", NULLS)
def test_a_cell_that_is_never_good_opens_as_rarely_as_its_risk(name):
    """1,000 runs of 4,000 records, none with a chance above the threshold."""
    runs = 1_000
    ever = (mix_paths(draw(NULLS[name], runs, seed=13)) >= -log(RISK)).any(axis=1).mean()
    assert ever <= RISK + 3 * (RISK * (1 - RISK) / runs) ** 0.5
    if name == "at the threshold":
        assert ever > 0


@pytest.mark.simulation
def test_the_best_start_alone_would_break_the_promise():
    """So the test above can fail: what isn't weighted opens too often."""
    agreed = draw([LINE] * 4_000, 300, seed=13)
    blocks = agreed.reshape(300, -1, BLOCK).sum(axis=2)
    gate, ever = GateThreshold(LINE, RISK), np.zeros(300, dtype=bool)
    for start in range(blocks.shape[1]):
        successes = np.cumsum(blocks[:, start:], axis=1)
        sizes = BLOCK * np.arange(1, successes.shape[1] + 1)
        ever |= gate.are_met(successes, sizes - successes).any(axis=1)
    assert ever.mean() > 3 * RISK


def count_until_open(paths):
    """Return the median of the records to the first look that opens; inf if most never do."""
    is_open = paths >= -log(RISK)
    first = np.where(is_open.any(axis=1), (is_open.argmax(axis=1) + 1) * BLOCK, inf)
    return float(np.median(first))


def keep_all(agreed):
    """Return ln E of the whole past after each block."""
    successes = np.cumsum(agreed, axis=1)[:, BLOCK - 1 :: BLOCK]
    sizes = np.array(list(accumulate([BLOCK] * successes.shape[1])))
    return compute_log_mixture(successes, sizes - successes, threshold=LINE)


@pytest.mark.simulation
@pytest.mark.parametrize(
    ("bad", "rate", "whole", "forgetting"),
    [
        (0, 0.93, 300, 300),
        (500, 0.93, 1_000, 500),
        (2_500, 0.93, 2_900, 700),
        (2_500, 0.90, 5_400, 700),
    ],
)
def test_a_repaired_cell_opens_soon(bad, rate, whole, forgetting):
    """Median records after the repair (.985, threshold .95), 300 runs; ± two looks."""
    agreed = draw([rate] * bad + [0.985] * 7_000, 300, seed=bad + int(rate * 100))
    assert count_until_open(keep_all(agreed)) - bad == pytest.approx(whole, abs=200)
    found = count_until_open(mix_paths(agreed[:, : bad + 2_000])) - bad
    assert found == pytest.approx(forgetting, abs=100)
