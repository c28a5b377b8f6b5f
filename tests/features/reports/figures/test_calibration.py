import gzip
from itertools import permutations
from pathlib import Path

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
from rollout.features.reports.figures.calibration import (
    HUMANS,
    MAX_CURVE_POINTS,
    NO_CONFIDENCES,
    NO_PAIRS,
    OUTCOMES,
    compute_calibration_error,
    compute_calibrations,
    compute_risk_area,
    compute_risk_curve,
    find_bins,
    find_risk_threshold,
)
from rollout.features.reports.inputs.pairs import build_case_frame, build_pairs
from rollout.features.reports.pages.charts import draw_reliability_chart, draw_risk_chart
from rollout.kernel.policy_files.reader import parse_policy
from rollout.kernel.statistics.intervals import clopper_pearson
from rollout.kernel.units import Lever

CIFAR = Path(__file__).parents[5] / "shared/data/cifar10-humans"
GOLDEN = {  # of ../shared/data/README.md: calibration error against outcomes, mean confidence
    "cleanlab-cv": (0.032160, 0.961472),
    "resnet-110": (0.030398, 0.968661),
    "preresnet-110": (0.029812, 0.980412),
    "densenet-bc-L190-k40": (0.023312, 0.989379),
}
LABELS = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
PLAIN = """
rollout: pictures
timezone: UTC
levers: [{{id: alarm, labels: [{}]}}]
sites: [test-set]
evidence: {{unit: case}}
gates:
  - {{to: supervised, require: [{{measure: agreement, at_least: 90%}}]}}
  - {{to: autonomous, require: [{{measure: {}}}]}}
"""
BEARS = parse_policy(PLAIN.format("bear, fox", "agreement, at_least: 95%"))
NO_CASES = pl.DataFrame(
    schema={"case_key": pl.String, "window": pl.String, "unit": pl.String, "occurred_us": pl.Int64}
)


def records_of(frame, site="test-set"):
    """Return records of rows case_key, version, model, confidence, human, outcome, episode."""
    nothing = pl.DataFrame(schema=REMARK_SCHEMA)
    once = frame.unique("case_key", maintain_order=True)
    value = "value:alarm"
    return RecordFrames(
        typed(once.with_columns(site=pl.lit(site)), build_cases_schema()),
        typed(
            frame.with_columns(pl.col("model").alias(value)), build_predictions_schema(["alarm"])
        ),
        typed(
            once.drop_nulls("human").with_columns(
                pl.col("human").alias(value), exposure=pl.lit("blind"), reviewer=pl.lit("ana")
            ),
            build_decisions_schema(["alarm"]),
        ),
        typed(
            once.drop_nulls("outcome").with_columns(pl.col("outcome").alias(value)),
            build_outcomes_schema(["alarm"]),
        ),
        nothing,
        nothing,
        {},
    )


def typed(frame, schema):
    missing = [pl.lit(None, k).alias(n) for n, k in schema.items() if n not in frame.columns]
    return frame.with_columns(missing).select(*schema).cast(schema)


def rows(*cases):
    """Return rows of (model, confidence, human, outcome, episode), every field optional."""
    names = ("model", "confidence", "human", "outcome", "episode")
    return pl.DataFrame(
        [
            {"case_key": f"c{n}", "version": "v1", **dict.fromkeys(names)}
            | dict(zip(names, case, strict=False))
            for n, case in enumerate(cases)
        ],
        schema={"case_key": pl.String, "version": pl.String, "model": pl.String,
                "confidence": pl.Float64, "human": pl.String, "outcome": pl.String,
                "episode": pl.String},
    )  # fmt: skip


def told(*cases, policy=BEARS):
    records = records_of(rows(*cases))
    pairs = build_pairs(records, NO_CASES, policy)
    return {
        found.reference: found
        for found in compute_calibrations(
            pairs, records, build_case_frame(records, NO_CASES), policy
        )
    }


@pytest.fixture(scope="module")
def golden():
    if not CIFAR.exists():
        pytest.skip(f"the records are not on this machine: {CIFAR}")
    asked = _read("predictions").select("case_key", "confidence", version="model", model="label")
    truth = _read("outcomes").select("case_key", outcome="label")
    both = asked.join(truth, on="case_key").with_columns(human=pl.lit(None, pl.String))
    records = records_of(both.with_columns(episode=pl.lit(None, pl.String)))
    policy = parse_policy(PLAIN.format(", ".join(LABELS), "agreement, at_least: 95%"))
    pairs = build_pairs(records, NO_CASES, policy)
    found = compute_calibrations(pairs, records, build_case_frame(records, NO_CASES), policy)
    return {each.version: each for each in found if each.reference == OUTCOMES}


def _read(name):
    return pl.read_csv(gzip.decompress((CIFAR / f"{name}.csv.gz").read_bytes()))


@pytest.mark.parametrize("version", GOLDEN)
def test_the_golden_calibration_of_four_models_comes_out(golden, version):
    error, confidence = GOLDEN[version]
    found = golden[version]
    assert (found.n, found.without_confidence) == (10_000, 0)
    assert found.ece == pytest.approx(error, abs=5e-7)
    assert found.mean_confidence == pytest.approx(confidence, abs=5e-7)


def test_the_best_model_could_decide_most_cases_within_the_line(golden):
    shares = {version: golden[version].proven.share for version in GOLDEN}
    assert max(shares, key=shares.get) == "densenet-bc-L190-k40"
    assert shares["densenet-bc-L190-k40"] == 1.0
    assert all(golden[v].proven.at_most <= golden[v].largest_risk for v in GOLDEN)
    assert all(golden[v].proven.share <= golden[v].at_threshold.share for v in GOLDEN)


def test_the_last_bin_is_closed_and_the_others_are_open_above():
    assert list(find_bins(np.array([0, 0.0999, 0.1, 0.3, 0.6, 0.7, 0.99, 1]))) == [
        0, 0, 1, 3, 6, 7, 9, 9,
    ]  # fmt: skip


def test_the_error_is_that_of_counting_by_hand():
    generator = np.random.default_rng(1)
    confidence = generator.random(500).round(2)
    right = generator.random(500) < confidence**2
    by_hand = 0.0
    for number in range(10):
        own = [
            (c, r) for c, r in zip(confidence, right, strict=True) if min(int(c * 10), 9) == number
        ]
        if own:
            by_hand += abs(sum(r for _, r in own) - sum(c for c, _ in own)) / 500
    assert compute_calibration_error(confidence, right) == pytest.approx(by_hand, abs=1e-12)


def test_a_version_that_knows_how_sure_it_is_has_a_small_error():
    generator = np.random.default_rng(2)
    confidence = generator.random(20_000)
    assert compute_calibration_error(confidence, generator.random(20_000) < confidence) < 0.02


@pytest.mark.parametrize("confidence", [[0.9, 0.8, 0.8, 0.8], [0.9, 0.9, 0.9, 0.2]])
def test_the_area_takes_equally_sure_cases_in_every_order(confidence):
    confidence, right = np.array(confidence), np.array([True, False, True, True])
    orders = [o for o in permutations(range(4)) if (np.diff(confidence[list(o)]) <= 0).all()]
    areas = [np.mean(np.cumsum(~right[list(o)]) / np.arange(1, 5)) for o in orders]
    assert compute_risk_area(confidence, right) == pytest.approx(np.mean(areas))


def test_the_curve_ends_at_all_cases_and_never_parts_equally_sure_ones():
    confidence = np.array([1.0, 0.5, 0.5, 0.5, 0.0])
    curve = compute_risk_curve(confidence, np.array([True, True, False, True, False]))
    assert [(p.confidence, p.n, p.risk) for p in curve] == [(1, 1, 0), (0.5, 4, 0.25), (0, 5, 0.4)]
    assert all(p.risk < p.at_most <= 1 for p in curve)


def test_a_long_curve_is_thinned_to_a_hundred_points():
    generator = np.random.default_rng(3)
    curve = compute_risk_curve(generator.random(5000), generator.random(5000) < 0.9)
    assert len(curve) == MAX_CURVE_POINTS
    assert (curve[0].n, curve[-1].n) == (1, 5000)


def test_the_bound_holds_at_every_point_at_once():
    """In 300 histories of equally risky cases the curve leaves its bound in at most 5 %."""
    generator = np.random.default_rng(4)
    missed = 0
    for _ in range(300):
        confidence = generator.integers(0, 20, 400) / 20
        curve = compute_risk_curve(confidence, generator.random(400) >= 0.1)
        missed += any(point.at_most < 0.1 for point in curve)
    assert missed <= 22  # 15 are expected at most; more than 22 in 3 % of the runs


def test_bins_have_exact_intervals_and_the_empty_ones_no_data():
    found = told(*[("bear", 0.95, "bear")] * 19, ("bear", 0.95, "fox"), ("bear", 0.0, "fox"))[
        HUMANS
    ]
    last, first, middle = found.bins[9], found.bins[0], found.bins[5]
    assert (last.right.low, last.right.high) == clopper_pearson(19, 20)
    assert (first.confidence, first.right.count, first.right.n) == (0.0, 0, 1)
    assert (middle.confidence, middle.right.rate, middle.right.low) == (None, None, None)


@pytest.mark.parametrize("against", [HUMANS, OUTCOMES])
def test_a_burst_is_worth_less_than_its_frames(against):
    frames = [("bear", 0.9, "bear", "bear", f"e{n // 10}") for n in range(80)]
    frames += [("bear", 0.9, "fox", "fox", "e8")] * 20
    alone, burst = told(*(frame[:4] for frame in frames))[against], told(*frames)[against]
    assert burst.right.rate == alone.right.rate
    assert burst.right.high - burst.right.low > 1.5 * (alone.right.high - alone.right.low)
    assert burst.curve[-1].at_most > alone.curve[-1].at_most


def test_people_and_outcomes_are_never_mixed():
    found = told(("bear", 0.9, "fox", "bear"), ("bear", 0.9, None, "bear"), ("fox", 0.8, "fox"))
    assert (found[HUMANS].n, found[HUMANS].right.count) == (2, 1)
    assert (found[OUTCOMES].n, found[OUTCOMES].right.count) == (2, 2)


def test_without_outcomes_there_is_nothing_against_them():
    assert list(told(("bear", 0.9, "bear"))) == [HUMANS]


def test_without_confidences_that_is_said_and_nothing_is_zero():
    found = told(("bear", None, "bear"), ("fox", None, "bear"))[HUMANS]
    assert (found.missing_data, found.n, found.without_confidence) == (NO_CONFIDENCES, 0, 2)
    assert (found.ece, found.mean_confidence, found.area, found.right.rate) == (None,) * 4
    assert (found.bins, found.curve, found.at_threshold, found.proven) == ((), (), None, None)
    assert draw_reliability_chart(found, prefix="x") is None
    assert draw_risk_chart(found, prefix="x") is None


def test_without_pairs_that_is_said():
    assert told(("bear", 0.9))[HUMANS].missing_data == NO_PAIRS


def test_some_missing_confidences_are_counted():
    found = told(("bear", None, "bear"), ("bear", 0.9, "bear"))[HUMANS]
    assert (found.missing_data, found.n, found.without_confidence) == ("", 1, 1)


def test_the_strictest_gate_gives_the_line():
    assert find_risk_threshold(BEARS, BEARS.levers[0]) == pytest.approx(0.05)
    cost_alone = parse_policy(
        PLAIN.replace("agreement, at_least: 90%", "cost, at_most: 0.2").format(
            "bear, fox", "cost, at_most: 0.1"
        )
    )
    assert find_risk_threshold(cost_alone, Lever("alarm")) is None
    assert told(("bear", 0.9, "bear"), policy=cost_alone)[HUMANS].at_threshold is None


def test_few_cases_prove_nothing_however_right_they_are():
    found = told(*[("bear", 0.9, "bear")] * 20)[HUMANS]
    assert (found.at_threshold.share, found.proven) == (1.0, None)


def test_the_charts_say_what_they_show():
    found = told(*[("bear", 0.95, "bear")] * 19, ("bear", 0.65, "fox"))[HUMANS]
    drawn = draw_reliability_chart(found, prefix="cal0")
    assert "calibration error" in drawn
    assert 'id="cal0-title"' in drawn
    assert "shaded: up to the upper bound" in draw_risk_chart(found, prefix="risk0")
