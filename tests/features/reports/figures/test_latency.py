from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from rollout.engine.evidence.frames import (
    REMARK_SCHEMA,
    RecordFrames,
    build_cases_schema,
    build_decisions_schema,
    build_outcomes_schema,
    build_predictions_schema,
)
from rollout.features.reports.figures.facts import (
    NO_ERROR_TEXT,
    ORDER_METHOD,
    UNBOUNDED_METHOD,
    compute_latencies,
    compute_quantile,
)
from rollout.kernel.policy_files.reader import parse_policy

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
POLICY = parse_policy("""
rollout: bears
timezone: UTC
levers:
  - {id: alarm, labels: [bear, fox], answer_within: 2m, unanswered: fox}
  - {id: gate, labels: [open, shut]}
sites: [creek, meadow]
evidence: {unit: case}
gates: [{to: supervised, require: [{measure: agreement, lever: alarm, at_least: 90%}]}]
""")


def answers(*given, version="v1"):
    """Return latencies of answers: site, milliseconds, seconds until it came, label, error."""
    predictions, cases, times = [], [], []
    for number, (site, took, after, label, error) in enumerate(given):
        key = f"c{number}"
        at = None if after is None else NOON + timedelta(seconds=after)
        predictions.append(
            {"case_key": key, "version": version, "value:alarm": label, "value:gate": "open",
             "at": at, "latency_ms": took, "error": error}
        )  # fmt: skip
        cases.append({"case_key": key, "site": site})
        times.append({"case_key": key, "occurred_us": int(NOON.timestamp() * 1e6), "unit": key})
    levers, nothing = ["alarm", "gate"], pl.DataFrame(schema=REMARK_SCHEMA)
    records = RecordFrames(
        pl.DataFrame(cases, schema=build_cases_schema()),
        pl.DataFrame(predictions, schema=build_predictions_schema(levers)),
        pl.DataFrame(schema=build_decisions_schema(levers)),
        pl.DataFrame(schema=build_outcomes_schema(levers)),
        nothing, nothing, {},
    )  # fmt: skip
    schema = {"case_key": pl.String, "occurred_us": pl.Int64, "unit": pl.String}
    placed = pl.DataFrame(times, schema=schema)
    return compute_latencies(records, placed, POLICY)


def test_quantiles_are_values_of_the_records():
    found = compute_quantile(np.arange(1.0, 1001.0), 95)
    assert (found.value, found.method) == (950.0, ORDER_METHOD)
    assert found.low < 950 < found.high <= 1000


@pytest.mark.parametrize("percent", [50, 95, 99])
@pytest.mark.parametrize("n", [30, 400])
def test_the_interval_of_a_quantile_covers(percent, n):
    generator = np.random.default_rng(percent * n)
    truth = -np.log(1 - percent / 100)
    found = [compute_quantile(generator.exponential(size=n), percent) for _ in range(500)]
    missed = sum(
        (f.low is not None and f.low > truth) or (f.high is not None and f.high < truth)
        for f in found
    )
    assert missed <= 34  # of 500 at 5 %: more in 3 % of the runs


def test_one_answer_has_no_interval():
    found = compute_quantile(np.array([7.0]), 50)
    assert (found.value, found.low, found.high, found.method) == (7.0, None, None, UNBOUNDED_METHOD)


def test_few_answers_bound_the_slowest_from_below_alone():
    found = compute_quantile(np.arange(1.0, 101.0), 99)
    assert found.low is not None
    assert found.high is None


def test_without_times_there_is_no_quantile():
    (found,) = answers(("creek", None, 1, "bear", None))
    assert (found.predictions, found.timed, found.quantiles) == (1, 0, ())


def test_an_answer_is_late_after_the_policys_time_and_not_on_it():
    (found,) = answers(("creek", 5, 120, "bear", None), ("creek", 5, 121, "bear", None))
    (late,) = found.late
    assert (late.lever, late.answer_within, late.limit) == ("alarm", 120.0, "2m")
    assert (late.late.count, late.late.n) == (1, 2)


def test_without_a_time_of_its_own_it_is_late_by_how_long_it_took():
    (found,) = answers(("creek", 120_001, None, "bear", None), ("creek", None, None, "bear", None))
    assert (found.late[0].late.count, found.late[0].late.n) == (1, 1)


def test_a_failed_answer_is_counted_by_its_error_and_is_not_late():
    (found,) = answers(
        ("creek", None, 500, None, "timeout"),
        ("creek", None, 500, None, "timeout"),
        ("creek", None, 500, None, None),
        ("creek", 8, 1, "bear", None),
    )
    assert (found.failed.count, found.failed.n) == (3, 4)
    assert found.errors == (("timeout", 2), (NO_ERROR_TEXT, 1))
    assert (found.late[0].late.count, found.late[0].late.n) == (0, 1)


def test_sites_follow_the_whole_in_the_policys_order():
    found = answers(("meadow", 9, 1, "bear", None), ("creek", 3, 1, "bear", None))
    assert [(f.site, f.predictions) for f in found] == [(None, 2), ("creek", 1), ("meadow", 1)]
    assert [f.quantiles[0].value for f in found] == [3.0, 3.0, 9.0]


def test_one_site_is_not_said_twice():
    assert [f.site for f in answers(("creek", 3, 1, "bear", None))] == [None]


def test_nothing_asked_is_nothing_said():
    assert answers() == ()
