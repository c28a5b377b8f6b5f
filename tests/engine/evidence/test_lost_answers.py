"""Answers that are lost where the model was bad choose no arm, and lost units are noticed."""

from math import log

import numpy as np
import pytest

from rollout.engine.evidence.outcome_buffer import (
    DRAWN_MODEL,
    DRAWN_PEOPLE,
    NOT_ASKED,
    OutcomeUnits,
    build_arms,
)
from rollout.engine.evidence.stage_history import build_stage_shares, find_buckets
from rollout.kernel.statistics.gain import ArmUnits, compute_gain_log_path
from tests.engine.evidence.test_outcome_buffer import PROPOSING

UNITS, SEEDS = 4_000, 40
SHARES = build_stage_shares(PROPOSING)


def build_units(seed, lost_share):
    """Return units without effect, of whose bad ones of the model the answer is lost in a share."""
    rng = np.random.default_rng(seed)
    bucket = find_buckets(SHARES, rng.random(UNITS))
    score = rng.integers(0, 2, UNITS).astype(float)
    is_model = bucket >= SHARES.blind_buckets[1]
    is_lost = is_model & (score == 0) & (rng.random(UNITS) < lost_share)
    arm = np.where(is_lost, NOT_ASKED, np.where(is_model, DRAWN_MODEL, DRAWN_PEOPLE))
    whole, ones = np.arange(UNITS), np.ones(UNITS)
    unknown = np.full(UNITS, np.nan)
    return OutcomeUnits(whole, whole, bucket, score, ones, arm, unknown, np.zeros(UNITS, np.int64))


def opens(units: ArmUnits) -> bool:
    path = compute_gain_log_path(units, at_least=0.0)
    return bool((path[units.are_arms_as_drawn[units.last_positions]] >= log(20)).any())


def count_openings(lost_share):
    levels = np.ones(UNITS, np.int64)
    return sum(
        opens(build_arms(build_units(seed, lost_share), levels, SHARES, ""))
        for seed in range(SEEDS)
    )


@pytest.mark.slow
def test_no_gate_opens_more_often_where_bad_answers_are_lost():
    assert count_openings(0.1) == count_openings(0.0) <= 0.05 * SEEDS + 2


def test_units_lost_of_one_arm_are_noticed_and_chance_is_not():
    rng = np.random.default_rng(5)
    is_model = rng.random(UNITS) < 0.1
    is_kept = ~is_model | (rng.random(UNITS) < 0.5)
    for kept, expected in ((np.ones(UNITS, bool), True), (is_kept, False)):
        count = int(kept.sum())
        ones = np.ones(count)
        units = ArmUnits(np.arange(count), 0.5 * ones, is_model[kept], 0.1 * ones, ones)
        assert bool(units.are_arms_as_drawn[-1]) is expected


def test_evidence_of_arms_is_the_mixture_of_dirichlet_multinomials():
    ones = np.ones(100)
    model = np.arange(100) < 70
    units = ArmUnits(np.arange(100), ones, model, 0.7 * ones, ones)
    shuffled = ArmUnits(np.arange(100), ones, model[::-1], 0.7 * ones, ones)
    assert np.isclose(units.arm_log_path[-1], shuffled.arm_log_path[-1])
    assert units.arm_log_path[-1] < 0
