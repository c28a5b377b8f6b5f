"""How long a site may be silent, by the figures of the specification."""

import pytest

from rollout.kernel.statistics.detector import (
    compute_silence_threshold,
    estimate_silent_hours,
    measure_sign_interval,
)


@pytest.mark.parametrize(("per_day", "threshold"), [(60, 9.994242), (300, 11.603680)])
def test_the_threshold_is_one_false_alarm_a_year(per_day, threshold):
    assert compute_silence_threshold(per_day) == pytest.approx(threshold, abs=1e-6)


@pytest.mark.parametrize(
    ("per_hour", "per_day", "quiet_days", "minutes"),
    [
        (27.5, 300, 1 / 2, 51),
        (27.5, 300, 1 / 3, 76),
        (27.5, 300, 1 / 4, 101),
        (3.43, 60, 1 / 2, 350),
    ],
)
def test_silence_by_traffic_alone_is_noticed_after_so_many_minutes(
    per_hour, per_day, quiet_days, minutes
):
    assert round(estimate_silent_hours(per_hour, per_day, quiet_days) * 60) == minutes


def test_a_site_with_hardly_any_traffic_needs_some_of_it():
    assert compute_silence_threshold(0.001) > 0


@pytest.mark.parametrize(
    ("signs", "interval"),
    [
        ([], None),
        ([0, 5], None),
        ([0, 5, 10], 5),
        ([0, 5, 10, 700, 705, 710], 5),  # a night between them
        ([*range(0, 500, 50), *range(500, 700, 5)], 5),  # the latest ones count
    ],
)
def test_the_interval_is_that_of_the_latest_signs(signs, interval):
    assert measure_sign_interval(signs) == interval
