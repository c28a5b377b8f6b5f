"""Alarms over streams: vectors by plain arithmetic, false alarms by simulation, and recovery."""

from math import exp

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.kernel.statistics.detector import UnitStream, find_recovery_slot, list_alarm_episodes


def stream(*buckets, limit=0.1, first_slot=0):
    """Return a stream of (bad, units) a slot; None skips a slot."""
    rows = [(first_slot + i, *b) for i, b in enumerate(buckets) if b is not None]
    slots, bad, units = (np.array([row[i] for row in rows], dtype=np.int64) for i in range(3))
    return UnitStream(slots, units - bad, bad, limit)


def plain_sum(buckets, limit):
    """Return the mean of the eight sums, with Python's own numbers."""
    sums = [0.0] * 8
    for bad, units in buckets:
        for k in range(8):
            odds = 2.0 ** (k + 1) * limit / (1 - limit)
            fallen = odds / (1 + odds)
            factor = (fallen / limit) ** bad * ((1 - fallen) / (1 - limit)) ** (units - bad)
            sums[k] = factor * (sums[k] + units)
    return sum(sums) / 8


@pytest.mark.parametrize(
    ("buckets", "limit", "expected"),
    [
        (((0, 3), (1, 2), (2, 2), (3, 3)), 0.05, 4355962.501709),
        (((1, 10), (5, 10), (6, 10)), 0.10, 584085.342356),
    ],
)
def test_a_streams_sum_is_the_detectors(buckets, limit, expected):
    path = stream(*buckets, limit=limit).compute_log_path()
    assert exp(path[-1]) == pytest.approx(expected, abs=1e-3)
    assert exp(path[-1]) == pytest.approx(plain_sum(buckets, limit), rel=1e-9)


def test_an_alarm_names_the_bad_value_and_lasts_until_its_own_units_recover():
    good = stream(*[(0, 3)] * 200)
    bad = stream(*[(0, 1)] * 20, *[(1, 1)] * 12, *[(0, 1)] * 168)
    (episode,) = list_alarm_episodes([good, bad], false_alarm_every=1000)
    assert episode.stream == 1
    assert 20 <= episode.slot < 32
    assert episode.end is not None
    assert 32 + 30 < episode.end < 32 + 70
    assert episode.bad == episode.slot - 19


def test_without_units_nothing_alarms_and_nothing_recovers():
    assert not list(list_alarm_episodes([], false_alarm_every=1))
    assert not list(list_alarm_episodes([stream()], false_alarm_every=1))
    assert find_recovery_slot(stream(), after=-1) is None


BUCKETS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 3))
    .map(lambda b: (b[0], sum(b)))
    .filter(lambda b: b[1] > 0),
    max_size=30,
)


@given(first=BUCKETS, second=BUCKETS)
def test_an_alarm_ends_only_with_units_of_the_named_stream(first, second):
    streams = [stream(*first), stream(*second)]
    for episode in list_alarm_episodes(streams, false_alarm_every=20):
        later = streams[episode.stream].select_after(episode.slot)
        if episode.end is not None:
            until = later.slots <= episode.end
            assert later.good_counts[until].sum() > 30


def test_of_several_bad_streams_an_alarm_names_the_one_with_the_largest_sum():
    good, bad = stream(*[(0, 3)] * 60), stream(*[(0, 1)] * 20, *[(1, 1)] * 40)
    worse = stream(*[(0, 1)] * 20, *[(2, 2)] * 40)
    episode = next(iter(list_alarm_episodes([good, bad, worse], false_alarm_every=1000)))
    log_sums = [s.read_log_sum(episode.slot) for s in (good, bad, worse)]
    assert episode.stream == 2 == log_sums.index(max(log_sums))
    assert (episode.bad, episode.units) == (2 * (episode.slot - 19), 20 + 2 * (episode.slot - 19))


@pytest.mark.simulation
@pytest.mark.parametrize(
    "shares", [(1.0,), (0.7, 0.2, 0.1), (0.02,) * 50], ids=["one", "three", "fifty"]
)
def test_false_alarms_of_values_at_the_line_are_as_rare_as_promised(shares):
    """All values exactly at the threshold; 100 units between false alarms are promised."""
    every, rng = 100, np.random.default_rng(7)
    lengths = []
    for _ in range(40):
        value = rng.choice(len(shares), 1000, p=shares)
        is_bad = rng.random(1000) < 0.1
        streams = [
            UnitStream(
                where, 1 - is_bad[where].astype(np.int64), is_bad[where].astype(np.int64), 0.1
            )
            for where in (np.flatnonzero(value == v) for v in range(len(shares)))
        ]
        first = next(iter(list_alarm_episodes(streams, false_alarm_every=every)), None)
        lengths.append(1000 if first is None else first.slot + 1)
    assert np.mean(lengths) >= every


@pytest.mark.simulation
def test_a_share_that_stays_beyond_its_limit_seldom_recovers_falsely():
    rng, lengths = np.random.default_rng(9), []
    for _ in range(15):
        bad = (rng.random(4000) < 0.1).astype(np.int64)
        end = find_recovery_slot(UnitStream(np.arange(4000), 1 - bad, bad, 0.1), after=-1)
        lengths.append(4000 if end is None else end + 1)
    assert np.mean(lengths) >= 1000


@pytest.mark.simulation
@pytest.mark.parametrize("share", [0.3, 0.05])
def test_false_alarms_of_drift_at_the_tolerance_are_as_rare_as_promised(share):
    """A share exactly at the edge of what is tolerated, in both directions' streams."""
    every, rng, lengths = 100, np.random.default_rng(8), []
    for _ in range(40):
        has_value = rng.random(1000) < share + 0.1
        slots, ones = np.arange(1000), has_value.astype(np.int64)
        streams = [UnitStream(slots, 1 - ones, ones, share + 0.1)]
        streams += [UnitStream(slots, ones, 1 - ones, 1.1 - share)] if share > 0.1 else []
        first = next(
            iter(list_alarm_episodes(streams, false_alarm_every=every, overlap=len(streams))), None
        )
        lengths.append(1000 if first is None else first.slot + 1)
    assert np.mean(lengths) >= every
