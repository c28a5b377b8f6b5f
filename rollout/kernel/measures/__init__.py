"""Measures of gates and guards: one class each, listed once."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from rollout.kernel.measures.base import (
    Condition,
    Measure,
    MeasureKey,
    Statistic,
    Subject,
    ThresholdUnit,
    Watch,
)
from rollout.kernel.measures.measure_kinds import (
    ActionChange,
    Agreement,
    Cost,
    DriftMeasure,
    Failures,
    GainMeasure,
    Harm,
    HeartbeatMeasure,
    LatencyMeasure,
    Missing,
    Override,
    Precision,
    Recall,
    Unaudited,
)

__all__ = [
    "AGREEMENT",
    "COST",
    "MEANS",
    "MEASURES",
    "RECALL",
    "UNAUDITED",
    "Condition",
    "Measure",
    "MeasureKey",
    "Statistic",
    "Subject",
    "ThresholdUnit",
    "Watch",
]

AGREEMENT: Final = Agreement()
"""What a gate asks for most often, and what pages put first."""
COST: Final = Cost()
RECALL: Final = Recall()
UNAUDITED: Final = Unaudited()
"""What a guard of every policy with audits watches."""
MEASURES: Final[Mapping[str, Measure]] = MappingProxyType(
    {
        measure.name: measure
        for measure in (
            AGREEMENT,
            RECALL,
            Precision(),
            COST,
            Override(),
            ActionChange(),
            DriftMeasure(),
            Missing(),
            UNAUDITED,
            LatencyMeasure(),
            Failures(),
            HeartbeatMeasure(),
            Harm(),
            GainMeasure(),
        )
    }
)
"""All measures by name, in the order of the reference page."""
MEANS: Final = frozenset(
    name for name, measure in MEASURES.items() if measure.statistic is Statistic.MEAN
)
"""Names of those of which a missing unit has the largest value."""
