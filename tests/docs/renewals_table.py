"""What audits by confidence gain and cost a renewal, simulated; decision 0103 has the tables.

A tenth of the cases is unsure, as in `audits_table`, whose stages these are. A grant ends after
`AUDITS` audits of all cases, and is renewed if its evidence suffices at any look in its last fifth.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rollout.core.policy.audit_readings import are_audits_met
from rollout.core.policy.measures import Condition
from rollout.core.policy.policy import Policy, Stage
from rollout.tally.gate_series import find_met_counts
from tests.docs.audits_table import BY_CONFIDENCE, UNIFORM, UNSURE_CASES, build_audits
from tests.tally.histories import a_policy

CONDITION: Final = Condition("agreement", 0.95, at_least=True)
POLICY: Final[Policy] = a_policy()
MINIMUM, AUDITS, SEED = 100, 475, 11
RIGHT_ROWS: Final = ((0.005, 0.3), (0.02, 0.2), (0.02, 0.02), (0.03, 0.03))
WRONG_ROWS: Final = ((0.05, 0.05), (0.0, 0.5), (0.07, 0.07), (0.02, 0.52))

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


class AuditStories(NamedTuple):
    """Audited cases of many runs in order, shape (runs, audits)."""

    is_unsure: Bools
    is_wrong: Bools
    is_least: Bools  # the least share alone would have drawn it


def build_stories(
    stage: Stage, rates: tuple[float, float], *, runs: int, seed: int
) -> AuditStories:
    """Return audited cases, wrong as often as the rates of sure and unsure say."""
    rng, audits = np.random.default_rng(seed), build_audits(stage)
    parts = audits.shares * np.array([1 - UNSURE_CASES, UNSURE_CASES])
    is_unsure = rng.random((runs, AUDITS)) < parts[1] / parts.sum()
    is_wrong = rng.random((runs, AUDITS)) < np.where(is_unsure, rates[1], rates[0])
    weight = np.where(is_unsure, audits.weights[1], audits.weights[0])
    return AuditStories(is_unsure, is_wrong, rng.random((runs, AUDITS)) < weight)


def count(stories: AuditStories, is_counted: Bools) -> Ints:
    """Return agreeing and other cases after each audit, shape (runs, audits, 2)."""
    wrong = stories.is_wrong
    return np.cumsum(np.stack([is_counted & ~wrong, is_counted & wrong], axis=-1), axis=1)


def find_sufficient_uniform(stories: AuditStories) -> Bools:
    """Return after which audits those of the least share suffice by themselves."""
    counts = count(stories, stories.is_least)
    is_met = find_met_counts(CONDITION, counts.reshape(-1, 2), 1.0, POLICY)
    return is_met.reshape(counts.shape[:2]) & (counts.sum(axis=2) >= MINIMUM)


def find_sufficient_weighted(stories: AuditStories) -> Bools:
    """Return after which audits all of them suffice, weighted by their shares."""
    weights = build_audits(BY_CONFIDENCE).weights
    groups = [count(stories, ~stories.is_unsure), count(stories, stories.is_unsure)]
    audits = np.stack(groups, axis=2)
    uniform = count(stories, stories.is_least).reshape(-1, 2)
    is_met = are_audits_met(CONDITION, uniform, weights, audits.reshape(-1, 2, 2), POLICY)
    is_met = is_met.reshape(audits.shape[:2])
    is_met[:, : MINIMUM - 1] = False
    return is_met


def compare(rates: tuple[float, float], *, runs: int, seed: int) -> tuple[Bools, Bools, Bools]:
    """Return after which audits they suffice: a uniform share, the least alone, weighted."""
    stories = build_stories(BY_CONFIDENCE, rates, runs=runs, seed=seed)
    uniform = build_stories(UNIFORM, rates, runs=runs, seed=seed)
    return (
        find_sufficient_uniform(uniform),
        find_sufficient_uniform(stories),
        find_sufficient_weighted(stories),
    )


def find_median(is_sufficient: Bools) -> int | None:
    """Return the median of audits until they suffice; None if that takes longer than a grant."""
    firsts = np.where(is_sufficient.any(axis=1), is_sufficient.argmax(axis=1) + 1.0, np.inf)
    median = np.median(firsts)
    return int(median) if np.isfinite(median) else None


def compute_renewed_share(is_sufficient: Bools) -> float:
    """Return the share of grants that are renewed."""
    return float(is_sufficient[:, AUDITS * 4 // 5 :].any(axis=1).mean())
