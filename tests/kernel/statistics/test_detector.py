"""Detectors: the published vectors, one mechanism for steps and paths, and what an alarm means."""

from dataclasses import FrozenInstanceError
from math import comb, exp, inf, isfinite, log

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rollout.kernel.statistics.detector import (
    compute_action_change_log_factors,
    compute_agreement_log_factors,
    compute_cost_log_factors,
    compute_log_path,
)
from tests.kernel.statistics.step_detectors import (
    ActionChangeDetector,
    AgreementDetector,
    CostDetector,
)

BILLION = 10**9
LOSSES = (0.0, 0.25, 1.0)
references = st.floats(0.01, 0.999)
buckets = st.lists(st.lists(st.integers(0, 6), min_size=3, max_size=3), max_size=12)


def mean_sums(detector, bucket_list):
    means = []
    for bucket in bucket_list:
        detector = detector.update(*bucket)
        means.append(exp(detector.log_value))
    return means


@pytest.mark.parametrize(
    ("reference", "bucket_list", "expected"),
    [
        (0.98, [(1, 1)], [0.634549]),
        (0.98, [(0, 1), (0, 1)], [18.907085, 578.856871]),
        (0.98, [(50, 50), (47, 50), (44, 50)], [2.670290, 53.000131, 11500.685914]),
        (
            0.95,
            [(10, 10), (8, 10), (9, 10), (6, 10)],
            [1.143290, 16.602221, 17.257667, 1791.736277],
        ),
        (0.98, [(97, 100)], [16.174130]),
    ],
)
def test_buckets_of_agreement_have_their_published_means(reference, bucket_list, expected):
    assert mean_sums(AgreementDetector(reference, 10_000), bucket_list) == pytest.approx(
        expected, rel=1e-6
    )


@pytest.mark.parametrize(("size", "expected"), [(1, 532.150542), (10, 1211.812640)])
def test_the_same_hundred_records_weigh_by_their_buckets(size, expected):
    records = np.array([1] * 90 + [0] * 3 + [1] * 7).reshape(-1, size)
    means = mean_sums(AgreementDetector(0.98, 10_000), [(int(b.sum()), size) for b in records])
    assert means[-1] == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(
    ("reference", "groups", "expected"),
    [
        (0.02, [(0, 1), (1, 1), (1, 1)], [0.634549, 26.772482, 757.691298]),
        (
            0.02,
            [(0, 50), (0.25, 4), (0, 10), (1, 2)],
            [7.580973, 4655.526919, 41.010760, 3882.698561],
        ),
    ],
)
def test_losses_have_their_published_means(reference, groups, expected):
    detector, means = CostDetector(reference, 10_000), []
    for loss, records in groups:
        for _ in range(records):
            detector = detector.update([loss], [1])
        means.append(exp(detector.log_value))
    assert means == pytest.approx(expected, rel=1e-6)


@given(buckets, references)
def test_losses_of_nothing_or_all_are_agreements(rows, reference):
    agreement, loss = AgreementDetector(1 - reference, 100), CostDetector(reference, 100)
    for agreed, disagreed, _ in rows:
        agreement = agreement.update(agreed, agreed + disagreed)
        loss = loss.update([0, 1], [agreed, disagreed])
    assert loss.log_sums == pytest.approx(agreement.log_sums, abs=1e-9)


def test_an_action_that_only_the_model_takes_multiplies_by_the_stakes():
    detector = ActionChangeDetector(2, 100).update(1, 0, 1)
    stakes = [2.0**-k for k in range(1, 9)]
    assert detector.log_sums == pytest.approx([log(1 + 0.98 * stake) for stake in stakes])
    detector = detector.update(0, 1, 2)
    sums = [(1 - 1.02 * stake) * (1 - 0.02 * stake) * (1 + 0.98 * stake + 2) for stake in stakes]
    assert detector.log_sums == pytest.approx([log(each) for each in sums])


@given(buckets, references)
def test_a_path_of_agreements_is_its_steps(rows, reference):
    agreed, compared = np.array(rows, np.int64).reshape(-1, 3)[:, 0], [sum(row) for row in rows]
    path = compute_log_path(
        compute_agreement_log_factors(agreed, compared, reference=reference),
        np.array(compared, np.int64),
    )
    detector, steps = AgreementDetector(reference, 100), []
    for bucket in zip(agreed.tolist(), compared, strict=True):
        detector = detector.update(*bucket)
        steps.append(detector.log_value)
    assert path == pytest.approx(steps, abs=1e-9)


@given(buckets, references)
def test_a_path_of_losses_is_its_steps(rows, reference):
    counts = np.array(rows, np.int64).reshape(-1, 3)
    factors = compute_cost_log_factors(counts, losses=LOSSES, reference=reference)
    detector, steps = CostDetector(reference, 100), []
    for row in counts.tolist():
        detector = detector.update(LOSSES, row)
        steps.append(detector.log_value)
    assert compute_log_path(factors, counts.sum(axis=1)) == pytest.approx(steps, abs=1e-9)


@given(buckets, st.floats(-99, 99))
def test_a_path_of_actions_is_its_steps(rows, at_most):
    counts = np.array(rows, np.int64).reshape(-1, 3)
    more, fewer, compared = counts[:, 0], counts[:, 1], counts.sum(axis=1)
    factors = compute_action_change_log_factors(more, fewer, compared, at_most=at_most)
    detector, steps = ActionChangeDetector(at_most, 100), []
    for bucket in zip(more.tolist(), fewer.tolist(), compared.tolist(), strict=True):
        detector = detector.update(*bucket)
        steps.append(detector.log_value)
    assert compute_log_path(factors, compared) == pytest.approx(steps, abs=1e-9)


@given(references, st.integers(0, 12))
def test_at_the_reference_the_mean_grows_by_the_records_and_no_more(reference, records):
    start = AgreementDetector(reference, 100).update(3, 4)
    after = sum(
        comb(records, s)
        * reference**s
        * (1 - reference) ** (records - s)
        * exp(start.update(s, records).log_value)
        for s in range(records + 1)
    )
    assert after == pytest.approx(exp(start.log_value) + records, rel=1e-9)


@given(st.floats(0.01, 0.6))
def test_at_the_reference_losses_and_actions_are_fair_too(reference):
    chances = (1 - 1.6 * reference, 0.8 * reference, 0.8 * reference)
    loss = CostDetector(reference, 100)  # 0.8 · (0.25 + 1) = 1
    after = sum(
        chance * exp(loss.update([level], [1]).log_value)
        for chance, level in zip(chances, LOSSES, strict=True)
    )
    assert after == pytest.approx(1, rel=1e-9)
    change = ActionChangeDetector(100 * (reference - 0.3), 100)
    acts = [(reference, (1, 0, 1)), (0.3, (0, 1, 1)), (0.7 - reference, (0, 0, 1))]
    after = sum(chance * exp(change.update(*bucket).log_value) for chance, bucket in acts)
    assert after == pytest.approx(1, rel=1e-9)


@pytest.mark.parametrize(
    "fresh", [AgreementDetector(0.95, 100), CostDetector(0.05, 100), ActionChangeDetector(2, 100)]
)
def test_before_its_first_record_a_detector_knows_nothing(fresh):
    assert fresh.log_value == -inf
    assert not fresh.is_alarm


def test_an_empty_bucket_changes_nothing():
    detector = AgreementDetector(0.95, 100).update(8, 10)
    assert detector.update(0, 0) == detector
    assert AgreementDetector(0.95, 100).update(0, 0).log_value == -inf
    assert CostDetector(0.1, 100).update([0, 1], [0, 0]).log_value == -inf
    assert ActionChangeDetector(2, 100).update(0, 0, 0).log_value == -inf


def test_the_alarm_comes_at_the_mean_that_was_asked_for_and_the_detector_goes_on():
    once = AgreementDetector(0.98, 578.8).update(0, 1)
    twice = once.update(0, 1)
    assert (once.is_alarm, twice.is_alarm) == (False, True)
    assert not AgreementDetector(0.98, 578.9).update(0, 1).update(0, 1).is_alarm
    assert not twice.update(200, 200).is_alarm


def test_a_detector_is_a_value():
    detector = AgreementDetector(0.98, 100)
    with pytest.raises(FrozenInstanceError):
        detector.reference = 0.5
    assert detector.update(0, 1) == detector.update(0, 1)
    assert detector.log_value == -inf
    rebuilt = AgreementDetector(0.98, 100, detector.update(0, 1).log_sums)
    assert rebuilt.update(1, 1) == detector.update(0, 1).update(1, 1)


counts = st.integers(0, BILLION)


@given(counts, counts, counts, st.sampled_from([5e-324, 1e-9, 0.95, 1 - 2**-53]))
@example(BILLION, BILLION, BILLION, 0.95)
@example(0, BILLION, 0, 5e-324)
def test_every_value_after_a_record_is_finite(one, two, three, reference):
    records = max(one + two + three, 1)
    twice = AgreementDetector(reference, 10).update(one, records).update(0, records)
    assert isfinite(twice.log_value)
    assert isfinite(CostDetector(reference, 10).update(LOSSES, [one, two, three + 1]).log_value)
    assert isfinite(ActionChangeDetector(2, 10).update(one, two, records).log_value)


@pytest.mark.parametrize(
    ("named", "ask"),
    [
        ("reference", lambda: AgreementDetector(95, 100)),
        ("reference", lambda: CostDetector(0.0, 100)),
        ("at_most", lambda: ActionChangeDetector(100, 100)),
        ("false_alarm_every", lambda: AgreementDetector(0.95, 0)),
        ("false_alarm_every", lambda: CostDetector(0.05, inf)),
        ("false_alarm_every", lambda: ActionChangeDetector(2, float("nan"))),
        ("compared", lambda: AgreementDetector(0.95, 100).update(3, 2)),
        ("compared", lambda: AgreementDetector(0.95, 100).update(-1, 2)),
        ("compared", lambda: ActionChangeDetector(2, 100).update(2, 2, 3)),
        ("losses", lambda: CostDetector(0.05, 100).update([0, 20], [1, 1])),
        ("losses", lambda: CostDetector(0.05, 100).update([0, 1], [1])),
        ("losses", lambda: compute_cost_log_factors([[1]], losses=[20], reference=0.1)),
        ("counts", lambda: CostDetector(0.05, 100).update([0, 1], [1, -1])),
    ],
)
def test_an_argument_out_of_its_range_is_named(named, ask):
    with pytest.raises(ValueError, match=f"^{named}"):
        ask()
