"""What audits by confidence gain and cost a renewal, simulated; decision 0103 has the tables.

A tenth of the cases is unsure, as in `audits_table`, whose stages these are. A grant ends after
`AUDITS` audits of all cases, and is renewed if its evidence suffices at any look in its last fifth.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rollout.core.policy.audit_readings import ROUNDING, average_log_e_path
from rollout.core.policy.measures import Condition
from rollout.core.policy.policy import Policy, Stage
from rollout.tally.gate_series import find_met_counts
from tests.docs.audits_table import BY_CONFIDENCE, UNIFORM, UNSURE_CASES, build_audits
from tests.tally.histories import a_policy

CONDITION: Final = Condition("agreement", 0.95, at_least=True)
POLICY: Final[Policy] = a_policy()
MINIMUM, AUDITS, SEED = 100, 475, 11
ROWS: Final = (  # errors of sure and of unsure cases
    *((0.005, 0.3), (0.02, 0.2), (0.02, 0.02), (0.03, 0.03)),
    *((0.05, 0.05), (0.0, 0.5), (0.0, 0.6), (0.07, 0.07), (0.02, 0.52)),
)
AT_THRESHOLD: Final = ((0.05, 0.05), (0.0, 0.5), (0.01, 0.41), (0.05 / 0.9, 0.0))

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class AuditStories(NamedTuple):
    """Audited cases of many runs in order, shape (runs, audits)."""

    is_unsure: Bools
    is_wrong: Bools
    is_least: Bools  # the least share alone would have drawn it


def build_stories(
    stage: Stage, rates: tuple[float, float], *, runs: int, audits: int = AUDITS
) -> AuditStories:
    """Return audited cases, wrong as often as the rates of sure and unsure say."""
    rng, drawn = np.random.default_rng(SEED), build_audits(stage)
    parts = drawn.shares * np.array([1 - UNSURE_CASES, UNSURE_CASES])
    is_unsure = rng.random((runs, audits)) < parts[1] / parts.sum()
    is_wrong = rng.random((runs, audits)) < np.where(is_unsure, rates[1], rates[0])
    weight = np.where(is_unsure, drawn.weights[1], drawn.weights[0])
    return AuditStories(is_unsure, is_wrong, rng.random((runs, audits)) < weight)


def count(stories: AuditStories, is_counted: Bools) -> Ints:
    """Return agreeing and other cases after each audit, shape (runs, audits, 2)."""
    wrong = stories.is_wrong
    return np.cumsum(np.stack([is_counted & ~wrong, is_counted & wrong], axis=-1), axis=1)


def find_sufficient_uniform(stories: AuditStories) -> Bools:
    """Return after which audits those of the least share suffice by themselves."""
    counts = count(stories, stories.is_least)
    is_met = find_met_counts(CONDITION, counts.reshape(-1, 2), 1.0, POLICY)
    return is_met.reshape(counts.shape[:2]) & (counts.sum(axis=2) >= MINIMUM)


def compute_averages(stories: AuditStories, weights: Floats) -> Floats:
    """Return ln of the mean of both e-values after each audit, shape (runs, audits)."""
    groups = [count(stories, ~stories.is_unsure), count(stories, stories.is_unsure)]
    audits = np.stack(groups, axis=2)
    uniform = count(stories, stories.is_least).reshape(-1, 2)
    path = average_log_e_path(CONDITION, uniform, weights, audits.reshape(-1, 2, 2), POLICY)
    return path.reshape(audits.shape[:2])


def find_sufficient_weighted(stories: AuditStories) -> Bools:
    """Return after which audits all of them suffice, weighted by their shares."""
    is_met = compute_averages(stories, build_audits(BY_CONFIDENCE).weights) >= -ROUNDING
    is_met[:, : MINIMUM - 1] = False
    return is_met


def compare(rates: tuple[float, float], *, runs: int) -> tuple[Bools, Bools, Bools]:
    """Return after which audits they suffice: a uniform share, the least alone, weighted."""
    stories = build_stories(BY_CONFIDENCE, rates, runs=runs)
    uniform = build_stories(UNIFORM, rates, runs=runs)
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


def build_table(runs: int) -> list[tuple[str, ...]]:
    """Return each row's medians, if grants are long enough, and the shares that are renewed."""
    rows = []
    for sure, unsure in ROWS:
        columns = compare((sure, unsure), runs=runs)
        shares = [f"{compute_renewed_share(column) * 100:.0f} %" for column in columns]
        medians = [find_median(column) for column in columns]
        cells = (f"{median or '–'}, {share}" for median, share in zip(medians, shares, strict=True))
        rows.append((f"{sure * 100:g} %, {unsure * 100:g} %", *cells))
    return rows
