"""Audits by confidence: bands and weights are exact, and so is what the detector promises."""

from dataclasses import replace
from fractions import Fraction
from itertools import product

import narwhals as nw
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.core.policy.policy import Stage
from rollout.core.policy.stages import UnsureShare
from rollout.core.statistics.detector import CostDetector
from rollout.tally.audit_weights import (
    BANDS,
    NO_CONFIDENCE,
    UNRECORDED,
    build_percent_band,
    compute_band_weights,
    count_band_buckets,
    list_band_shares,
)
from rollout.tally.guard_series import compute_detector_series
from rollout.tally.stage_history import build_stage_shares, find_buckets
from rollout.tally.unit_arrays import UnitClasses
from tests.tally.histories import HOUR, a_guard, a_policy
from tests.tally.test_guard_series import KINDS, POLICY, rows_from

STAGE = Stage("a", blind=0.1, audit=0.05, unsure=(UnsureShare(0.6, 0.5), UnsureShare(0.9, 0.2)))
ASKING = a_policy(stages=(Stage("s", blind=0.5), STAGE))


def find_bands(confidences):
    frame = nw.from_native(
        pl.DataFrame({"confidence": confidences}, schema={"confidence": pl.Float64})
    )
    return frame.select(band=build_percent_band(nw.col("confidence"))).to_native()["band"].to_list()


def find_plain_band(confidence):
    """Return the band by exact arithmetic on the decimal edges as Python reads them."""
    if confidence is None or not 0 <= confidence <= 1:
        return NO_CONFIDENCE
    return (
        NO_CONFIDENCE
        + 1
        + sum(confidence >= float(f"0.{n:02d}") for n in range(1, 100))
        + (confidence >= 1)
    )


@given(st.lists(st.none() | st.floats(-0.5, 1.5) | st.sampled_from([n / 100 for n in range(101)])))
def test_a_band_is_the_number_of_whole_percents_that_a_confidence_reaches(confidences):
    assert find_bands(confidences) == list(map(find_plain_band, confidences))


def test_no_number_is_no_confidence():
    assert find_bands([None, float("nan"), 1.0, 0.0]) == [NO_CONFIDENCE, NO_CONFIDENCE, 102, 2]
    assert max(find_bands([1.0])) == BANDS - 1


@given(st.none() | st.floats(-0.1, 1.1), st.floats(0, 1, exclude_max=True))
def test_a_unit_is_drawn_by_its_band_as_the_case_was_by_its_confidence(confidence, value):
    shares = build_stage_shares(ASKING)
    buckets = find_buckets(shares, np.array([value]))
    (band,) = find_bands([confidence])
    levels, bands = np.array([2]), np.array([band])
    is_drawn = bool(shares.find_audited(levels, bands, buckets)[0])
    assert is_drawn == (value < STAGE.find_reviewed_share(confidence))
    assert shares.band_weights[2, band] == STAGE.reviewed_share / STAGE.find_reviewed_share(
        confidence
    )


def test_units_of_before_and_of_stages_without_bands_weigh_one():
    shares = build_stage_shares(ASKING)
    assert (shares.band_weights[:2] == 1).all()
    assert shares.band_weights[2, UNRECORDED] == 1
    assert list_band_shares(ASKING, 2)[UNRECORDED] == STAGE.reviewed_share
    assert count_band_buckets(ASKING, 2)[UNRECORDED] == shares.reviewed_buckets[2]
    assert build_stage_shares(a_policy()).band_buckets is None
    assert (compute_band_weights(a_policy(), 1) == 1).all()


# The promise of the detector

GUARDS = (
    a_guard("agreement", 0.8, at_least=True, false_alarm_every=20),
    a_guard("recall", 0.7, at_least=True, label="bear", false_alarm_every=5),
    a_guard("precision", 0.6, at_least=True, label="fox", false_alarm_every=5),
    a_guard("cost", 4, false_alarm_every=20),
)


def read_losses(guard):
    """Return each kind's loss, None where the guard doesn't count it, and the reference."""
    counts = UnitClasses(KINDS, POLICY).get_class_counts(guard.condition)
    levels = [0, 1]
    reference = 1 - guard.condition.line
    if guard.condition.measure == "cost":
        levels = [level / POLICY.largest_cost for level in POLICY.cost_levels]
        reference = guard.condition.line / POLICY.largest_cost
    losses = [
        next((y for y, n in zip(levels, row, strict=True) if n), None) for row in counts.tolist()
    ]
    return losses, reference


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.condition.measure)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 30), st.integers(0, len(KINDS) - 1), st.sampled_from([1.0, 0.5, 0.1])
        ),
        min_size=1,
        max_size=60,
    )
)
def test_a_weighted_path_is_the_plain_detector_stepped_slot_by_slot(guard, rows):
    rows = sorted(rows)
    weights = np.array([weight for *_, weight in rows])
    arrays = rows_from([(slot, kind) for slot, kind, _ in rows])
    series = compute_detector_series(guard, arrays, UnitClasses(KINDS, POLICY), POLICY, weights)
    losses, reference = read_losses(guard)
    sums, records = np.zeros(8), 0
    for slot in range(32):
        now = [(losses[kind], weight) for at, kind, weight in rows if at == slot]
        now = [row for row in now if row[0] is not None]
        sums += len(now)
        for loss, weight in now:
            sums *= compute_factors(loss, weight, reference)
        records += len(now)
        reading = series.read_at(slot, HOUR)
        assert reading.records == records
        if abs(sums.mean() / guard.false_alarm_every - 1) > 1e-9:
            assert reading.is_alarm == (sums.mean() >= guard.false_alarm_every)


def compute_factors(loss, weight, reference):
    """Return the eight factors of one record, from their definition."""
    odds = reference / (1 - reference)
    shares = [1 / (1 + odds * 2**k) for k in range(1, 9)]
    return np.array(
        [
            1 + weight * ((1 - loss) * p / (1 - reference) + loss * (1 - p) / reference - 1)
            for p in shares
        ]
    )


@pytest.mark.parametrize(
    "audits", [((0.5, 0.1), (0.05, 0.9)), ((0.4, 0.3), (0.2, 0.3), (0.04, 0.4))]
)
@pytest.mark.parametrize("reference", [0.02, 0.05, 0.3])
def test_at_the_reference_a_sum_grows_by_one_a_record_on_average(audits, reference):
    """Whatever the errors are where: the least sure may be much worse, or as good as the others.

    One case: it is of a band, audited with its share, wrong with its rate; the average rate of all
    cases is the reference. Then the mean sum after it is the sum before and the audited share.
    """
    least = min(share for share, _ in audits)
    for skew in (0.0, 0.5, 1.0):
        rates = [reference * ((1 - skew) + skew * factor) for factor in list_factors(audits)]
        assert abs(sum(r * c for r, (_, c) in zip(rates, audits, strict=True)) - reference) < 1e-12
        before, mean, counted = 7.0, np.zeros(8), 0.0
        for (share, cases), rate in zip(audits, rates, strict=True):
            for loss, chance in ((1, rate), (0, 1 - rate)):
                factors = compute_factors(loss, least / share, reference)
                mean += cases * share * chance * (before + 1) * factors
            mean += cases * (1 - share) * before
            counted += cases * share
        assert mean == pytest.approx(np.full(8, before + counted), rel=1e-12)


def list_factors(audits):
    """Return how many times the average the errors of each band are, all in the first one."""
    return [1 / audits[0][1], *(0.0 for _ in audits[1:])]


def test_counting_such_audits_alike_would_alarm_where_nothing_is_wrong():
    """A tenth unsure and .7 right, all of them audited; 2 % of the others: the truth is 96.1 %."""
    audits, rates = ((1.0, 0.1), (0.02, 0.9)), (0.3, 0.01)
    found = sum(s * c * r for (s, c), r in zip(audits, rates, strict=True))
    drawn = sum(share * cases for share, cases in audits)
    weighed = sum(0.02 * c * r for (_, c), r in zip(audits, rates, strict=True))
    assert 1 - found / drawn == pytest.approx(0.744, abs=5e-4)
    assert 1 - weighed / 0.02 == pytest.approx(0.961)


def test_a_detector_of_costs_steps_with_the_same_weights():
    detector = CostDetector(0.05, 20).update((0, 1), (3, 1), weight=0.25)
    sums = 4 * compute_factors(0, 0.25, 0.05) ** 3 * compute_factors(1, 0.25, 0.05)
    assert np.exp(detector.log_value) == pytest.approx(sums.mean())
    assert Fraction(1, 4) == Fraction(0.25)


@pytest.mark.parametrize(("blind", "audit"), list(product((0.0, 0.2), (0.05, 0.1))))
def test_the_least_share_is_that_of_a_stage_without_confidence(blind, audit):
    plain = Stage("a", blind=blind, audit=audit)
    unsure = replace(plain, unsure=(UnsureShare(0.9, 0.5),))
    assert unsure.reviewed_share == plain.reviewed_share == unsure.find_reviewed_share(0.9)
    assert unsure.find_reviewed_share(0.89) == blind + (1 - blind) * 0.5
