"""What audits by confidence gain and cost a guard: audited cases until its alarm, simulated.

A tenth of the cases is unsure. Decision 0101 has the table, the page of guards some figures.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rollout.core.policy.policy import Policy, Stage
from rollout.core.policy.stages import UnsureShare
from rollout.tally.audit_weights import compute_band_weights, list_band_shares
from tests.tally.histories import a_policy

REFERENCE, EVERY, UNSURE_CASES = 0.05, 10_000, 0.1
BY_CONFIDENCE = Stage("autonomous", audit=0.05, unsure=(UnsureShare(0.9, 0.5),))
UNIFORM = Stage("autonomous", audit=0.9 * 0.05 + 0.1 * 0.5)  # as many audits
UNSURE, SURE = 1, 100  # bands without a confidence, and of 98 %
ROWS = (
    ("unsure cases alone got worse", 0.01, 0.6),
    ("unsure cases got much worse", 0.04, 0.6),
    ("all got worse alike", 0.1, 0.1),
)


class Audits(NamedTuple):
    """Shares and weights of sure and unsure cases."""

    shares: NDArray[np.float64]
    weights: NDArray[np.float64]


def build_audits(stage: Stage) -> Audits:
    """Return what the program draws and weighs at a stage."""
    policy: Policy = a_policy(stages=(stage,))
    bands = [SURE, UNSURE]
    return Audits(list_band_shares(policy, 1)[bands], compute_band_weights(policy, 1)[bands])


def simulate(
    audits: Audits, rates: tuple[float, float], *, runs: int, records: int, seed: int
) -> tuple[NDArray[np.float64], float]:
    """Return the audited cases until each run's first alarm, and the mean number of alarms.

    Only audited cases are simulated: which share of them is unsure follows from the shares.
    """
    rng = np.random.default_rng(seed)
    parts = audits.shares * np.array([1 - UNSURE_CASES, UNSURE_CASES])
    unsure = (rng.random((records, runs)) < parts[1] / parts.sum()).astype(np.int64)
    wrong = rng.random((records, runs)) < np.array(rates)[unsure]
    odds = REFERENCE / (1 - REFERENCE)
    good = np.array([1 / (1 + odds * 2.0**k) for k in range(1, 9)])
    right_factor, wrong_factor = good / (1 - REFERENCE), (1 - good) / REFERENCE
    sums, first, alarms = np.zeros((runs, 8)), np.full(runs, np.inf), 0
    for row in range(records):
        weight = audits.weights[unsure[row]][:, None]
        factor = np.where(wrong[row][:, None], wrong_factor, right_factor)
        sums = (sums + 1) * (1 + weight * (factor - 1))
        is_alarm = sums.mean(axis=1) >= EVERY
        alarms += int(is_alarm.sum())
        first = np.where(is_alarm & np.isinf(first), row + 1, first)
        sums[is_alarm] = 0
    return first, alarms / runs


def build_table(runs: int) -> list[tuple[str, int, int]]:
    """Return each row's median of audited cases until the alarm, uniform and by confidence."""
    rows = []
    for number, (name, *rates) in enumerate(ROWS):
        medians = [
            simulate(
                build_audits(stage), (rates[0], rates[1]), runs=runs, records=8000, seed=number
            )[0]
            for stage in (UNIFORM, BY_CONFIDENCE)
        ]
        rows.append((name, *(int(np.median(first)) for first in medians)))
    return rows


def count_false_alarms(runs: int) -> list[float]:
    """Return the mean false alarms in 30,000 audited cases at the reference; 3 are allowed."""
    return [
        simulate(build_audits(stage), (0.01, 0.41), runs=runs, records=30_000, seed=9)[1]
        for stage in (UNIFORM, BY_CONFIDENCE)
    ]
