"""Gain of the model's arm: published vectors, bounds, and what an unknown outcome does."""

from math import exp, log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.kernel.statistics.gain import (
    ArmUnits,
    compute_gain_alarm_path,
    compute_gain_interval,
    compute_gain_log_path,
    compute_gain_lower_bound,
    estimate_gain,
)

FALSE_ALARMS_EVERY = 2_000.0


def compute_gain_log_e(units, *, at_least):
    """Return ln E after the last slot; 0.0 without units."""
    path = compute_gain_log_path(units, at_least=at_least)
    return float(path[-1]) if len(path) else 0.0


def arms(rows, slots=None):
    """Build units of (outcome or None, arm, share), one a slot unless `slots` are given."""
    scores, sides, shares = zip(*rows, strict=True)
    return ArmUnits(
        slots=np.arange(len(rows)) if slots is None else np.asarray(slots),
        scores=np.array([0.0 if score is None else score for score in scores]),
        is_model=np.array([side == "model" for side in sides]),
        shares=np.array(shares, float),
        known_shares=np.array([float(score is not None) for score in scores]),
    )


def m(score, share=0.5):
    return (score, "model", share)


def p(score, share=0.5):
    return (score, "people", share)


GOOD = [m(0.9), p(0.6)] * 20
MIXED = [m(0.7, 0.1), p(0.5, 0.1)] * 30 + [m(0.7, 0.9), p(0.5, 0.9)] * 30


@pytest.mark.parametrize(
    ("rows", "at_least", "log_e"),
    [
        ([m(1)], 0, 0.183926152),
        ([p(1)], 0, -0.225555282),
        (GOOD, 0, 5.061473524),
        (GOOD, 0.05, 3.852604291),
        ([m(1, 0.3), p(0, 0.3), p(1, 0.3)] * 60, 0, 26.959928323),
        ([m(0.8, 0.1), *[p(0.5, 0.1)] * 9] * 12, -0.02, 3.514989817),
        (MIXED, 0, 9.821543274),
        (GOOD + [m(0), p(1)] * 2, 0, 1.217007333),
    ],
)
def test_gates_have_their_published_log_e(rows, at_least, log_e):
    assert compute_gain_log_e(arms(rows), at_least=at_least) == pytest.approx(log_e, abs=1e-9)


@pytest.mark.parametrize(
    ("rows", "at_least", "mean"),
    [
        ([m(0.5)], -0.05, 0.990384),
        ([m(0.4), p(0.7)] * 20, -0.05, 1174.946790),
        ([m(0.7), p(0.7)] * 50 + [m(0.4), p(0.7)] * 20, -0.05, 1320.915407),
        ([m(0.3, 0.9), p(0.7, 0.9)] * 30, 0, 41721.393403),
    ],
)
def test_guards_have_their_published_mean_sum(rows, at_least, mean):
    path = compute_gain_alarm_path(arms(rows), at_least=at_least)
    assert exp(path[-1]) == pytest.approx(mean, abs=1e-6)


def test_units_of_one_slot_share_the_mean_of_the_slots_before():
    units = arms([m(1), p(0), m(1), p(1)], slots=[0, 0, 0, 4])
    assert units.means == pytest.approx([0.5, 0.5, 0.5, 2.5 / 4])
    assert len(compute_gain_log_path(units, at_least=0)) == 2


def test_the_bound_is_where_the_gate_would_just_open():
    units = arms(GOOD)
    bound = compute_gain_lower_bound(units, alpha=0.05)
    assert compute_gain_log_e(units, at_least=bound) == pytest.approx(-log(0.05), abs=1e-6)
    lower, upper = compute_gain_interval(units, alpha=0.1)
    assert lower == pytest.approx(bound)
    assert lower < estimate_gain(units) < upper
    swapped = [(row[0], "people" if row[1] == "model" else "model", 0.5) for row in GOOD]
    assert compute_gain_interval(arms(swapped), alpha=0.1) == pytest.approx((-upper, -lower))


def test_without_units_nothing_is_known():
    nothing = arms([m(1)]).select(np.array([False]))
    assert compute_gain_log_e(nothing, at_least=0) == 0
    assert compute_gain_interval(nothing, alpha=0.05) == (-1, 1)
    assert estimate_gain(nothing) is None
    assert len(compute_gain_alarm_path(nothing, at_least=0)) == 0


def test_arms_of_different_shares_are_compared_by_share():
    """A mean over both shares would show a loss: most of the model's units are of the bad time."""
    rows = [m(0.9, 0.1), *[p(0.8, 0.1)] * 9, *[m(0.3, 0.9)] * 9, p(0.2, 0.9)]
    assert estimate_gain(arms(rows)) == pytest.approx(0.1)


@pytest.mark.parametrize("at_least", [-1, 1, 2])
def test_a_threshold_beyond_the_range_is_refused(at_least):
    with pytest.raises(ValueError, match="give a share of the range"):
        compute_gain_log_e(arms(GOOD), at_least=at_least)


def test_a_certain_arm_is_refused():
    with pytest.raises(ValueError, match="probabilities"):
        compute_gain_log_e(arms([m(1, 1.0)]), at_least=0)


unit_rows = st.lists(
    st.tuples(
        st.none() | st.floats(0, 1),
        st.sampled_from(("model", "people")),
        st.sampled_from((0.1, 0.5, 0.9)),
    ),
    min_size=1,
    max_size=25,
)


@given(unit_rows, st.data())
def test_a_missing_outcome_never_helps_the_gate(rows, data):
    """Whatever the last slot's outcome is, the gate sees at least what it sees without it."""
    score = data.draw(st.floats(0, 1))
    known = compute_gain_log_e(arms([*rows[:-1], (score, *rows[-1][1:])]), at_least=0.01)
    missing = compute_gain_log_e(arms([*rows[:-1], (None, *rows[-1][1:])]), at_least=0.01)
    assert missing <= known + 1e-12


@given(unit_rows)
def test_units_without_outcomes_never_open_a_gate_nor_alarm_a_guard(rows):
    units = arms([(None, *row[1:]) for row in rows])
    assert compute_gain_log_e(units, at_least=0) < 0
    assert len(compute_gain_alarm_path(units, at_least=0)) == 0


@given(unit_rows, st.floats(-0.9, 0.9), st.floats(0.001, 0.09))
def test_a_higher_threshold_has_less_evidence(rows, at_least, step):
    units = arms(rows)
    higher = compute_gain_log_e(units, at_least=at_least + step)
    assert higher <= compute_gain_log_e(units, at_least=at_least) + 1e-12


def test_half_an_episode_without_outcomes_is_half_as_bad_as_it_could_be():
    half = ArmUnits(
        slots=np.array([0, 1]),
        scores=np.array([0.8, 0.8]),
        is_model=np.array([True, False]),
        shares=np.array([0.5, 0.5]),
        known_shares=np.array([0.5, 0.5]),
    )
    assert half.worst_scores == pytest.approx([0.4, 0.9])
    assert half.means == pytest.approx([0.5, (0.5 + 0.8) / 2])


# Short form of the published simulations


def draw_units(rng, count, *, effect, share, mean=0.5, spread=None):
    is_model = rng.random(count) < share
    means = mean + effect * (is_model - 0.5)
    scores = (
        (rng.random(count) < means).astype(float)
        if spread is None
        else np.clip(rng.normal(means, spread), 0, 1)
    )
    slots = np.arange(count)
    return ArmUnits(slots, scores, is_model, np.full(count, share), np.ones(count))


def find_first(path, threshold):
    reached = np.flatnonzero(path >= threshold)
    return int(reached[0]) + 1 if len(reached) else None


@pytest.mark.simulation
@pytest.mark.parametrize(("share", "published"), [(0.1, 0.016), (0.5, 0.025)])
def test_a_model_without_gain_opens_a_gate_as_rarely_as_published(share, published):
    """Published are 1,000 runs of 5,000 units; these are 300, so the range is wide."""
    rng, runs = np.random.default_rng(16), 300
    opened = 0
    for _ in range(runs):
        units = draw_units(rng, 5_000, effect=0.0, share=share)
        opened += find_first(compute_gain_log_path(units, at_least=0.0), -log(0.05)) is not None
    assert opened / runs <= 0.05
    assert opened / runs == pytest.approx(published, abs=0.025)


@pytest.mark.simulation
@pytest.mark.parametrize(
    ("effect", "share", "spread", "median"),
    [(0.1, 0.5, 0.2, 126), (0.1, 0.1, 0.2, 414), (0.2, 0.3, None, 245), (0.05, 0.5, 0.2, 483)],
)
def test_a_gate_opens_after_the_published_number_of_units(effect, share, spread, median):
    rng = np.random.default_rng(1)
    needed = [
        find_first(
            compute_gain_log_path(
                draw_units(rng, 6 * median, effect=effect, share=share, spread=spread), at_least=0.0
            ),
            -log(0.05),
        )
        or 6 * median
        for _ in range(200)
    ]
    assert np.median(needed) == pytest.approx(median, rel=0.2)


@pytest.mark.simulation
def test_a_guard_finds_a_loss_after_the_published_delay_and_rarely_without_one():
    rng, line = np.random.default_rng(2), -0.05

    def run(effect, count):
        path = compute_gain_alarm_path(
            draw_units(rng, count, effect=effect, share=0.5, spread=0.2), at_least=line
        )
        return find_first(path, log(FALSE_ALARMS_EVERY)) or count

    at_line = [run(line, 10_000) for _ in range(60)]
    assert np.mean(at_line) >= FALSE_ALARMS_EVERY * 0.8
    delays = [run(-0.2, 3_000) for _ in range(100)]
    assert np.mean(delays) == pytest.approx(98, rel=0.2)


@pytest.mark.simulation
def test_missing_outcomes_cost_the_published_number_of_units():
    """Units until the gate opens at an effect of .1 (binary): 702 / 1,079 / 3,273."""
    rng, medians = np.random.default_rng(3), []
    for missing in (0.0, 0.02):
        needed = []
        for _ in range(150):
            units = draw_units(rng, 6_000, effect=0.1, share=0.5)
            known = (rng.random(len(units)) >= missing).astype(float)
            units = ArmUnits(units.slots, units.scores, units.is_model, units.shares, known)
            needed.append(
                find_first(compute_gain_log_path(units, at_least=0.0), -log(0.05)) or 6_000
            )
        medians.append(np.median(needed))
    assert medians == pytest.approx([702, 1_079], rel=0.3)
