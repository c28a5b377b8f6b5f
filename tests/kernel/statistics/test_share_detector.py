"""The detector of operational guards: vectors, clear tests and false alarms."""

from math import log

import numpy as np
import pytest

from rollout.kernel.statistics import detector
from rollout.kernel.statistics.detector import (
    ShareRecords,
    compute_clear_lengths,
    compute_clear_rate,
    compute_false_alarm_interval,
    compute_log_path,
    find_clear_slot,
    find_episodes,
    find_first_clear,
    measure_stretch,
)


def build_records(buckets, *, interval=1e9, first_slot=0):
    """Return one slot of records for each (bad, records)."""
    is_bad = [n < bad for bad, records in buckets for n in range(records)]
    counts = [records for _, records in buckets]
    return ShareRecords(
        first_slot + np.arange(len(buckets)),
        np.cumsum(counts),
        sum_bad(is_bad),
        np.full(len(buckets), log(interval)),
    )


def compute_path(records, limit):
    """Return the log of the detector's mean sum after each slot."""
    return compute_log_path(*detector._compute_factors(records, limit))


def sum_bad(is_bad):
    """Return how many of the first n records are bad, by n."""
    return np.concatenate([[0], np.cumsum(is_bad, dtype=np.int64)])


@pytest.mark.parametrize(
    ("limit", "buckets", "means"),
    [
        (0.05, [(0, 3), (1, 2), (2, 2), (3, 3)], [0.821845, 9.204585, 1253.222276, 4355962.501709]),
        (0.02, [(0, 20), (2, 2), (2, 2)], [2.657160, 1148.481943, 1410137.612170]),
        (0.02, [(1, 1)] * 4, [18.907085, 578.856871, 19813.459266, 723847.008291]),
        (0.10, [(1, 10), (5, 10), (6, 10)], [1.378279, 530.573866, 584085.342356]),
    ],
)
def test_the_mean_of_the_sums_has_the_published_values(limit, buckets, means):
    path = compute_path(build_records(buckets), limit)
    assert np.exp(path) == pytest.approx(means, abs=6e-7)


@pytest.mark.parametrize(
    ("limit", "share", "lengths"),
    [
        (0.02, 0.06, (74,)),
        (0.02, 0.2, (29, 46)),
        (0.02, 0.4, (14,)),
        (0.02, 1, (5, 8)),
        (0.05, 0.2, (29,)),
        (0.05, 0.4, (14,)),
        (0.05, 1, (5,)),
    ],
)
def test_good_records_that_end_an_episode(limit, share, lengths):
    rate = compute_clear_rate(limit, share)
    assert compute_clear_lengths(rate)[: len(lengths)] == lengths
    good = sum_bad([False] * lengths[0])
    assert find_first_clear(good, np.arange(1, len(good)), rate=rate) == lengths[0] - 1


def test_one_bad_record_makes_the_clear_test_longer():
    rate = compute_clear_rate(0.02, 1)
    # never five good ones in a row before the eighth record
    total_bad = sum_bad([n == 3 for n in range(8)])
    assert find_first_clear(total_bad, np.arange(1, 9), rate=rate) == 7


def test_an_alarm_needs_three_bad_records():
    two = build_records([(1, 1)] * 2, interval=100)
    three = build_records([(1, 1)] * 3, interval=100)
    assert find_episodes(two, limit=0.02, hold=1) == ()
    assert [e.alarm_slot for e in find_episodes(three, limit=0.02, hold=1)] == [2]


def test_a_minimum_of_records_delays_an_alarm():
    records = build_records([(1, 1)] * 25, interval=1000)
    assert find_episodes(records, limit=0.1, hold=1)[0].alarm_slot == 3
    assert find_episodes(records, limit=0.1, hold=1, min_records=20)[0].alarm_slot == 19


def test_a_dead_model_is_found_and_cleared_once_per_episode():
    buckets = [(0, 1)] * 50 + [(1, 1)] * 6 + [(0, 1)] * 10 + [(1, 1)] * 6
    first, second = find_episodes(build_records(buckets, interval=21_900), limit=0.02, hold=2)
    assert (first.alarm_slot, first.bad, first.records) == (52, 3, 3)
    # three bad records follow the alarm, then five good ones
    assert first.clear_slot == 60
    assert second.alarm_slot == 68
    assert second.clear_slot is None


def test_good_records_of_the_slot_of_an_alarm_end_no_episode():
    records = build_records([(0, 100), (15, 55), (0, 1)], interval=1000)
    (episode,) = find_episodes(records, limit=0.05, hold=1)
    assert (episode.alarm_slot, episode.clear_slot) == (1, None)


def test_bad_records_of_the_slot_after_an_episode_raise_the_next_alarm():
    records = build_records([(20, 20), (0, 40), (20, 20)])
    episodes = find_episodes(records, limit=0.05, hold=1)
    assert [(e.alarm_slot, e.clear_slot) for e in episodes] == [(0, 1), (2, None)]


def test_an_episode_lasts_for_its_span():
    buckets = [(1, 1)] * 4 + [(0, 1)] * 30
    records = build_records(buckets, interval=1000)
    assert find_episodes(records, limit=0.02, hold=20)[0].clear_slot == 22
    assert find_episodes(records, limit=0.02, hold=2)[0].clear_slot == 8


@pytest.mark.parametrize("limit", [0.001, 0.02, 0.1, 0.5])
def test_no_value_of_the_path_exceeds_the_bound(limit):
    generator = np.random.default_rng(7)
    for share in (0.1, 1.0, 5.0):
        sizes = generator.integers(1, 40, 300)
        has_bad = generator.random(300) < 0.2
        bad = np.where(has_bad, 1 + generator.binomial(sizes - 1, min(limit * share, 0.9)), 0)
        records = build_records(list(zip(bad.tolist(), sizes.tolist(), strict=True)))
        bound = detector._compute_bound(records, limit)
        assert compute_path(records, limit).max() <= bound < np.inf


def test_a_healthy_guard_computes_no_path(monkeypatch):
    monkeypatch.setattr(detector, "find_first_alarm", None)
    records = build_records(([(0, 20)] * 30 + [(1, 20)]) * 20, interval=50_000)
    assert find_episodes(records, limit=0.02, hold=1) == ()
    with pytest.raises(TypeError):
        find_episodes(build_records([(0, 1)] * 99 + [(9, 9)]), limit=0.02, hold=1)


def test_without_records_no_episode_ends():
    records = build_records([(1, 1)] * 4, interval=1000)
    assert find_episodes(records, limit=0.02, hold=1)[0].clear_slot is None
    assert find_clear_slot(records.select(after=9), rate=0.5, earliest=9) is None


def test_the_stretch_starts_where_bad_records_gather():
    is_bad = np.array([True] + [False] * 200 + [True, False, True, True])
    assert measure_stretch(is_bad, limit=0.02) == (3, 4)


def test_a_limit_of_zero_still_alarms():
    records = build_records([(0, 1)] * 100 + [(1, 1)] * 3, interval=1000)
    assert len(find_episodes(records, limit=0.0, hold=1)) == 1


def test_the_interval_follows_traffic_down_to_a_thousand():
    assert compute_false_alarm_interval(60, 365) == 21_900
    assert compute_false_alarm_interval(1, 365) == 1000


def test_false_alarms_at_the_limit_are_rarer_than_promised():
    """A site exactly at its limit for 200 times 2,000 records: at most records / interval."""
    generator = np.random.default_rng(16)
    alarms = 0
    for _ in range(200):
        is_bad = generator.random(2000) < 0.02
        slots = np.arange(2000)
        records = ShareRecords(slots, slots + 1, sum_bad(is_bad), np.full(2000, log(2000)))
        alarms += bool(find_episodes(records, limit=0.02, hold=1))
    assert 0 < alarms <= 200 * 0.7  # P(alarm within the interval) < 1 - exp(-1), with noise
