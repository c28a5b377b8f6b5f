"""Forecasts: the published laws, walks and delays, and a plain count that they must equal."""

from math import log

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.kernel.statistics import forecast
from rollout.kernel.statistics.evidence import compute_log_e
from rollout.kernel.statistics.forecast import (
    GateForecast,
    OpeningForecast,
    estimate_detection_records,
    estimate_harm,
    forecast_gate,
    forecast_opening,
)


@pytest.mark.parametrize(
    ("at_least", "rate", "chance"),
    [(0.95, 0.95, 0.047131), (0.95, 0.94, 0.013300), (0.99, 0.99, 0.045082)],
)
def test_a_cell_not_above_the_line_opens_as_rarely_as_published(at_least, rate, chance):
    law = forecast_opening(rate, at_least=at_least, alpha=0.05, horizon=20_000)
    assert law == OpeningForecast(pytest.approx(chance, abs=5e-7), None, None, None)


@pytest.mark.parametrize(
    ("at_least", "rate", "mean", "median"),
    [
        (0.95, 0.97, 777.847, 644),
        (0.95, 0.98, 287.223, 249),
        (0.95, 0.99, 136.509, 131),
        (0.99, 0.995, 2335.150, 1925),
        (0.90, 0.95, 216.888, 172),
        (0.90, 0.97, 93.608, 86),
    ],
)
def test_a_good_cell_opens_when_published(at_least, rate, mean, median):
    law = forecast_opening(rate, at_least=at_least, alpha=0.05)
    assert (law.mean, law.median) == (pytest.approx(mean, abs=5e-4), median)
    assert law.chance == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize(
    ("cell", "at_least", "mean", "median", "ninety", "below"),
    [
        ((98, 2), 0.95, 221.312, 184, 431, 0.0703),
        ((195, 5), 0.95, 321.850, 242, 662, 0.0416),
        ((29, 1), 0.9, 85.900, 75, 173, 0.0993),
        ((48, 2), 0.95, 4115.7, 3579, 8181, 0.4096),
    ],
)
def test_the_present_estimate_gives_the_published_forecast(
    cell, at_least, mean, median, ninety, below
):
    said = forecast_gate(*cell, at_least=at_least, alpha=0.05)
    assert said.probability_below == pytest.approx(below, abs=5e-5)
    assert said.opening.mean == pytest.approx(mean, abs=0.05)
    assert (said.opening.median, said.opening.ninety) == (median, ninety)


@pytest.mark.parametrize("cell", [(0, 0), (10, 5), (47, 3)])
def test_a_cell_not_on_course_gets_no_date(cell):
    said = forecast_gate(*cell, at_least=0.95, alpha=0.05)
    assert said.probability_below > 0.5
    assert said.opening is None
    assert said.if_all_agree >= 74


def test_a_gate_that_is_met_needs_nothing():
    said = forecast_gate(100, 0, at_least=0.95, alpha=0.05)
    assert said == GateForecast(0, pytest.approx(0.0013, abs=1e-4), OpeningForecast(1.0, 0.0, 0, 0))


def counted_one_by_one(rate, agreed, disagreed, line, alpha, horizon):
    """Chance of having opened by each time, by the e-values alone."""
    alive, opened, path = {0: 1.0}, 0.0, []
    for time in range(horizon + 1):
        for failures in list(alive):
            s, f = agreed + time - failures, disagreed + failures
            if compute_log_e(s, f, at_least=line) >= -log(alpha):
                opened += alive.pop(failures)
        path.append(opened)
        later = {}
        for failures, chance in alive.items():
            later[failures] = later.get(failures, 0.0) + chance * rate
            later[failures + 1] = later.get(failures + 1, 0.0) + chance * (1 - rate)
        alive = later
    return path


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(
    st.floats(0.5, 1.0),
    st.integers(0, 12),
    st.integers(0, 3),
    st.floats(0.3, 0.8),
    st.floats(0.05, 0.5),
)
def test_the_law_is_that_of_records_counted_one_by_one(rate, agreed, disagreed, line, alpha):
    path = counted_one_by_one(rate, agreed, disagreed, line, alpha, horizon=40)
    law = forecast_opening(
        rate, at_least=line, alpha=alpha, agreed=agreed, disagreed=disagreed, horizon=40
    )
    assert law.chance == pytest.approx(path[-1], abs=1e-9)
    for share, said in ((0.5, law.median), (0.9, law.ninety)):
        within = [time for time, opened in enumerate(path) if opened >= share - 1e-9]
        early = [time for time, opened in enumerate(path) if opened >= share + 1e-9]
        assert said in {*within[:1], *early[:1], *([] if early else [None])}


@pytest.mark.parametrize(("rate", "median"), [(1.0, 74), (0.0, None)])
def test_a_model_that_is_always_or_never_right_has_a_plain_law(rate, median):
    law = forecast_opening(rate, at_least=0.95, alpha=0.05, horizon=2_000)
    assert (law.chance, law.mean, law.median) == (rate, median, median)


@pytest.mark.parametrize(("agreed", "chance"), [(0, 0.0), (10, 1.0)])
def test_a_share_of_nothing_is_not_walked_to_the_horizon(agreed, chance, monkeypatch):
    """Seen: a cell's page of 3.5 s, one case judged wrong under a threshold of 12 %."""
    times, walk = [], forecast._walk_to_opening
    monkeypatch.setattr(
        forecast, "_walk_to_opening", lambda found, rate: walk(times_of(found), rate)
    )

    def times_of(found):
        times.extend(found)
        return iter(times)

    law = forecast_opening(0.0, at_least=0.12, alpha=0.1, agreed=agreed)
    assert (law.chance, law.median, len(times) < 10) == (chance, 0 if chance else None, True)


def test_a_hopeless_model_opens_by_its_first_records_or_never():
    # 74 in a row, or 130 of 131, …: the later times add next to nothing
    law = forecast_opening(0.5, at_least=0.95, alpha=0.05, horizon=5_000)
    assert law.chance == pytest.approx(0.5**74, rel=1e-3, abs=0)


@pytest.mark.simulation
@pytest.mark.parametrize(
    ("reference", "every", "fallen_to", "published"),
    [
        (0.98, 1e4, 0.95, 348),
        (0.98, 1e4, 0.90, 85),
        (0.98, 1e4, 0.80, 28),
        (0.98, 1e4, 0.50, 8),
        (0.98, 1e4, 0.0, 3),
        (0.98, 1e5, 0.90, 115),
        (0.98, 1e5, 0.50, 10),
        (0.95, 1e4, 0.90, 287),
        (0.95, 1e4, 0.80, 56),
        (0.95, 1e4, 0.50, 11),
        (0.95, 1e4, 0.0, 4),
        (0.95, 1e5, 0.90, 418),
        (0.95, 1e5, 0.50, 14),
        (0.9, 5e3, 0.7, 45),
        (0.9, 5e3, 0.5, 16),
        (0.9, 5e3, 0.0, 5),
    ],
)
def test_the_records_until_an_alarm_are_those_simulated_within_8_percent(
    reference, every, fallen_to, published
):
    assert estimate_detection_records(reference, every, fallen_to) == pytest.approx(
        published, rel=0.08
    )


@pytest.mark.simulation
@pytest.mark.parametrize(
    ("fallen_to", "published"),
    [(0.945, 9375), (0.94, 4307), (0.93, 1328), (0.92, 642), (0.90, 286)],
)
def test_small_falls_are_foreseen_within_13_percent(fallen_to, published):
    assert estimate_detection_records(0.95, 1e4, fallen_to) == pytest.approx(published, rel=0.13)


@pytest.mark.parametrize(
    ("fallen_to", "records", "audited", "published"),
    [(0.95, 348, 0.2, 87), (0.90, 85, 0.05, 170), (0.0, 3, 0.01, 300), (0.50, 14, 0.1, 70)],
)
def test_the_harm_is_the_published_one(fallen_to, records, audited, published):
    harm = estimate_harm(
        fallen_to, records=records, audited=audited, cases_per_hour=40, hours_late=0
    )
    assert harm == pytest.approx(published, abs=0.6)


def test_late_reviews_add_what_is_done_meanwhile():
    late = estimate_harm(0.9, records=85, audited=0.05, cases_per_hour=40, hours_late=6)
    assert late == pytest.approx(170 + 24)


@pytest.mark.parametrize(
    ("named", "ask"),
    [
        ("rate", lambda: forecast_opening(1.1, at_least=0.9, alpha=0.05)),
        ("at_least", lambda: forecast_opening(0.9, at_least=1.0, alpha=0.05)),
        ("alpha", lambda: forecast_gate(9, 1, at_least=0.9, alpha=0.0)),
        ("share_after_fall", lambda: estimate_detection_records(0.9, 1e4, 0.9)),
        ("false_alarm_every", lambda: estimate_detection_records(0.9, 0, 0.5)),
        (
            "audited",
            lambda: estimate_harm(0.9, records=9, audited=0, cases_per_hour=1, hours_late=0),
        ),
        (
            "share_after_fall",
            lambda: estimate_harm(9, records=9, audited=1, cases_per_hour=1, hours_late=0),
        ),
    ],
)
def test_an_argument_out_of_its_range_is_named(named, ask):
    with pytest.raises(ValueError, match=f"^{named}"):
        ask()
