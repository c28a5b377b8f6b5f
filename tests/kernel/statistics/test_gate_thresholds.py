"""Integer gate lines say what the e-values say, everywhere."""

from math import log

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rollout.kernel.statistics import gate_thresholds
from rollout.kernel.statistics.evidence import (
    compute_cost_log_e,
    compute_log_e,
    compute_log_mixture,
)
from rollout.kernel.statistics.gate_thresholds import (
    GateThreshold,
    compute_cost_log_e_path,
    compute_least_successes,
    get_gate_threshold,
)

lines = st.sampled_from([0.9, 0.93, 0.95, 0.99]) | st.floats(0.01, 0.99)
risks = st.sampled_from([0.05, 0.01, 0.05 / 6, 1.0]) | st.floats(1e-6, 1.0)
failures = st.integers(0, 400)


@pytest.mark.parametrize(
    ("at_least", "alpha", "totals"),
    [
        (0.95, 0.05, [74, 131, 174, 213, 284, 442, 727, 1500]),
        (0.95, 0.01, [109, 170, 216, 257, 332, 498, 794, 1589]),
        (0.99, 0.05, [377, 663, 883, 1079, 1436, 2233, 3666, 7550]),
        (0.90, 0.05, [36, 64, 86, 105, 140, 218, 359, 744]),
    ],
)
def test_the_least_totals_are_those_published(at_least, alpha, totals):
    failed = np.array([0, 1, 2, 3, 5, 10, 20, 50])
    least = compute_least_successes(failed, at_least=at_least, required_log_e=log(1 / alpha))
    assert (least + failed).tolist() == totals


@given(failures, lines, risks)
@example(0, 0.95, 1.0)
@example(1, 0.95, 1.0)
def test_the_least_successes_meet_the_line_and_one_less_does_not(failed, line, risk):
    least = int(
        compute_least_successes(np.array([failed]), at_least=line, required_log_e=-log(risk))[0]
    )
    assert compute_log_e(least, failed, at_least=line) >= -log(risk)
    if least:
        assert compute_log_e(least - 1, failed, at_least=line) < -log(risk)


def test_a_table_takes_few_e_values(monkeypatch):
    computed_counts = []

    def count_e_values(agreed, disagreed, *, threshold):
        computed_counts.append(np.size(agreed))
        return compute_log_mixture(agreed, disagreed, threshold=threshold)

    monkeypatch.setattr(gate_thresholds, "compute_log_mixture", count_e_values)
    compute_least_successes(np.arange(256), at_least=0.95, required_log_e=log(20))
    assert sum(computed_counts) < 6 * 256  # by bisection alone it was 16 * 256


@given(failures, st.integers(-3, 3) | st.integers(-500, 500), lines, risks)
def test_a_gate_line_decides_as_the_e_value_does(failed, aside, line, risk):
    gate = get_gate_threshold(line, risk)
    successes = max(0, int(gate.find_least_successes(np.array([failed]))[0]) + aside)
    expected = compute_log_e(successes, failed, at_least=line) >= -log(risk)
    assert gate.is_met(successes, failed) == expected
    assert gate.are_met(np.array([successes]), np.array([failed])).tolist() == [expected]


def test_a_line_without_records_has_not_turned_and_is_not_met():
    assert GateThreshold(0.95, 1.0).is_met(0, 0)
    assert not GateThreshold(0.95, 0.05).is_met(0, 0)


def test_beyond_its_longest_table_a_line_still_decides_as_the_e_value_does(monkeypatch):
    monkeypatch.setattr(gate_thresholds, "_MAX_TABLE_LENGTH", 64)
    short, long = (
        GateThreshold(0.9, 0.05),
        compute_least_successes(np.arange(200), at_least=0.9, required_log_e=-log(0.05)),
    )
    assert short.find_least_successes(np.arange(200)).tolist() == long.tolist()
    for failed in (63, 64, 150):
        asked = long[failed] + np.array([-1, 0, 1])
        assert short.are_met(asked, np.full(3, failed)).tolist() == [False, True, True]
        assert [short.is_met(int(s), failed) for s in asked] == [False, True, True]


def test_a_history_of_any_shape_is_judged_at_once():
    rng = np.random.default_rng(3)
    agreed = rng.random((20, 600)) < 0.97
    successes, failed = np.cumsum(agreed, axis=1), np.cumsum(~agreed, axis=1)
    met = GateThreshold(0.95, 0.05).are_met(successes, failed)
    assert met.any()
    assert not met.all()
    line = get_gate_threshold(0.95, 0.05)
    single = [line.is_met(s, f) for s, f in zip(successes.flat, failed.flat, strict=True)]
    assert met.ravel().tolist() == single


def test_no_history_meets_no_line():
    none = np.zeros(0, np.int64)
    assert GateThreshold(0.95, 0.05).are_met(none, none).tolist() == []
    assert compute_least_successes(none, at_least=0.95, required_log_e=3.0).tolist() == []


@given(st.lists(st.lists(st.integers(0, 9), min_size=3, max_size=3), max_size=6))
def test_a_path_of_costs_is_the_e_value_at_each_step(steps):
    levels = [0, 0.25, 1]
    counts = np.cumsum(np.array(steps, np.int64).reshape(-1, 3), axis=0)
    path = compute_cost_log_e_path(counts, levels=levels, at_most=0.05)
    single = [compute_cost_log_e(levels, row, at_most=0.05) for row in counts.tolist()]
    assert path == pytest.approx(single, abs=1e-12)


@pytest.mark.parametrize(
    ("named", "ask"),
    [
        ("at_least", lambda: GateThreshold(95, 0.05)),
        ("risk", lambda: GateThreshold(0.95, 0.0)),
        ("risk", lambda: GateThreshold(0.95, 5)),
        ("successes and failures", lambda: GateThreshold(0.95, 0.05).is_met(3, -1)),
        (
            "failures",
            lambda: compute_least_successes(np.array([-1]), at_least=0.9, required_log_e=3.0),
        ),
        (
            "required_log_e",
            lambda: compute_least_successes(np.array([1]), at_least=0.9, required_log_e=-1),
        ),
        (
            "at_least",
            lambda: compute_least_successes(np.array([1]), at_least=1 - 1e-16, required_log_e=3),
        ),
        ("levels", lambda: compute_cost_log_e_path(np.zeros((2, 2)), levels=[0, 20], at_most=0.1)),
        ("levels", lambda: compute_cost_log_e_path(np.zeros((2, 2)), levels=[0], at_most=0.1)),
    ],
)
def test_an_argument_out_of_its_range_is_named(named, ask):
    with pytest.raises(ValueError, match=f"^{named}"):
        ask()
