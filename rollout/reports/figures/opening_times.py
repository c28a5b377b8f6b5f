"""Simulated further units after which a gate opens for one version in one cell."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil, inf, log
from typing import TYPE_CHECKING

from rollout.core.late_modules import LateModule
from rollout.core.statistics.gate_thresholds import (
    compute_cost_log_e_path,
    get_gate_threshold,
)
from rollout.core.statistics.opening_simulation import (
    RUNS,
    draw_class_shares,
    draw_units,
    simulate_openings,
)
from rollout.kernel.measures import Statistic

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from rollout.core.policy.cell_evidence import EvidenceCounts
    from rollout.core.policy.gates import ConditionReading
    from rollout.core.policy.policy import Gate, Policy
    from rollout.core.statistics.evidence import Floats
    from rollout.kernel.measures import Condition
else:
    np = LateModule("numpy")


@dataclass(frozen=True, slots=True)
class OpeningTimes:
    """When a gate opens, over equally likely runs.

    The conditions of a gate are taken to open together with their luck: the first of a run is
    the first of each. So chances are the highest that the conditions allow by themselves.

    Attributes:
        units: further closed units by run, ascending; infinite beyond the horizon.
        ever_chance: share of runs that open within the horizon or whose true shares are within
            every threshold.
        deciding: the condition that opens last, as text; "" if none is unmet.
    """

    units: Floats
    ever_chance: float
    deciding: str


class NoOpeningTimesError(ValueError):
    """There are too few records for a forecast; the text says of what."""


def simulate_gate(
    readings: Sequence[ConditionReading],
    attempt: EvidenceCounts,
    policy: Policy,
    *,
    skipped: Condition | None = None,
) -> OpeningTimes:
    """Return the further closed units after which all conditions are met.

    Conditions about planted cases are excluded: those come as users plant them.

    Args:
        readings: the gate's conditions on the evidence so far.
        attempt: all units of the attempt; about as many of later ones bring a record.
        skipped: a condition that is ignored.

    Raises:
        NoOpeningTimesError: no decided unit, no record of a condition, or a gain.
    """
    if not attempt.decided:
        raise NoOpeningTimesError("no decided unit")
    units, ever_chance, deciding = np.zeros(RUNS), 1.0, ""
    for reading in readings:
        condition = reading.condition
        if condition.population.is_planted or condition == skipped:
            continue
        if condition.population.has_gain:
            raise NoOpeningTimesError(f"{condition} has no forecast")
        records = sum(reading.counts)
        if not records:
            raise NoOpeningTimesError(f"no record of {condition}")
        times, chance = _simulate_condition(condition, reading.counts, reading.risk, policy)
        if condition.population.attribute:
            times = np.maximum(times, condition.population.minimum - records)
        needed = np.sort(draw_units(times, records, max(records, attempt.closed)))
        if not reading.is_met and (not deciding or _rank(needed) > _rank(units)):
            deciding = str(condition)
        units, ever_chance = np.maximum(units, needed), min(ever_chance, chance)
    return OpeningTimes(units, ever_chance, deciding)


def count_required_units(
    gate: Gate, attempt: EvidenceCounts, entered: EvidenceCounts, missing_at_most: float
) -> float:
    """Return the closed units that the gate's minimum and its rule on missing units still need.

    The attempt has a decided unit. What lacks decisions is made up for by units that all have one;
    infinite if no number of them suffices.
    """
    for_minimum = max(0, gate.minimum.units - entered.decided) * attempt.closed / attempt.decided
    if attempt.missing <= missing_at_most * attempt.closed:
        return for_minimum
    if not missing_at_most:
        return inf
    return max(for_minimum, ceil(attempt.missing / missing_at_most) - attempt.closed)


def _rank(units: Floats) -> tuple[int, float]:
    """Return how late runs open: those that never do first, then the median."""
    return int(np.isinf(units).sum()), float(np.median(units))


def _simulate_condition(
    condition: Condition, counts: tuple[int, ...], risk: float, policy: Policy
) -> tuple[Floats, float]:
    """Return the further records by run, ascending, and the chance that it is ever met."""
    if condition.measure.statistic is Statistic.MEAN:
        levels, at_most = policy.cost_shares, policy.scale_cost(condition.threshold)
        return _simulate_cost(counts, levels, at_most, risk)
    return _simulate_share(counts, condition.share, risk)


@lru_cache(maxsize=4096)
def _simulate_cost(
    counts: tuple[int, ...], levels: tuple[float, ...], at_most: float, risk: float
) -> tuple[Floats, float]:
    shares = draw_class_shares(counts)
    times = simulate_openings(
        counts,
        shares,
        lambda totals: (
            compute_cost_log_e_path(totals, levels=levels, at_most=at_most) >= -log(risk)
        ),
    )
    is_within = shares @ np.array(levels) < at_most
    return np.sort(times), float((is_within | np.isfinite(times)).mean())


@lru_cache(maxsize=4096)
def _simulate_share(counts: tuple[int, ...], line: float, risk: float) -> tuple[Floats, float]:
    shares, threshold = draw_class_shares(counts), get_gate_threshold(line, risk)
    times = simulate_openings(
        counts, shares, lambda totals: threshold.are_met(totals[:, 0], totals[:, 1])
    )
    return np.sort(times), float(((shares[:, 0] > line) | np.isfinite(times)).mean())
