"""Read conditions: the threshold in its measure's unit, label, lever and population."""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from rollout.formats.policy import scalars
from rollout.formats.policy.model import WrittenCondition
from rollout.kernel.measures import MEASURES, Condition, Measure, Subject, ThresholdUnit
from rollout.kernel.outcomes import (
    OutcomeRule,
    find_outcome,
)
from rollout.kernel.populations import ALL_UNITS, PLANTED, BothArms, EachValue, PlantedUnits


def parse_threshold(measure: Measure, text: str) -> float:
    """Return a threshold in the measure's unit: a share, a cost, a count or seconds.

    Raises:
        ValueError: the text has the wrong form, or no evidence can decide at this threshold.

    >>> (
    ...     parse_threshold(MEASURES["agreement"], "95%"),
    ...     parse_threshold(MEASURES["heartbeat"], "2h"),
    ...     parse_threshold(MEASURES["cost"], "0.3"),
    ... )
    (0.95, 7200.0, 0.3)
    """
    return _PARSERS[measure.unit](text)


def _parse_share(text: str) -> float:
    threshold = scalars.read_share(text)
    if not 0 < threshold < 1:
        raise ValueError(f"{text!r} can never be proven; write more than 0% and less than 100%")
    return threshold


def _parse_part(text: str) -> float:
    threshold = scalars.read_share(text)
    if threshold >= 1:
        raise ValueError(f"{text!r} would never be passed; write less than 100%")
    return threshold


def _parse_per_hundred(text: str) -> float:
    threshold = scalars.read_cost(text)
    if threshold >= 100:
        raise ValueError(f"{text!r} per 100 would never be passed; write less than 100")
    return threshold


def _parse_cost(text: str) -> float:
    threshold = scalars.read_cost(text)
    if threshold == 0:
        raise ValueError("no evidence can show that nothing is ever lost; write more than 0")
    return threshold


def _parse_seconds(text: str) -> float:
    return scalars.read_positive_duration(text).total_seconds()


_PARSERS: Mapping[ThresholdUnit, Callable[[str], float]] = MappingProxyType(
    {
        ThresholdUnit.SHARE: _parse_share,
        ThresholdUnit.PART: _parse_part,
        ThresholdUnit.PER_HUNDRED: _parse_per_hundred,
        ThresholdUnit.COST: _parse_cost,
        ThresholdUnit.COUNT: scalars.read_count,
        ThresholdUnit.SECONDS: _parse_seconds,
        ThresholdUnit.VALUE: scalars.read_number,
    }
)


def is_of_outcome(row: WrittenCondition) -> bool:
    """Return whether a row is about an outcome, which its `of` names."""
    return MEASURES[row.measure].subject is Subject.OUTCOME


def read_condition(
    row: WrittenCondition, *, levers: int, outcomes: Iterable[OutcomeRule] = (), arm: str = ""
) -> Condition | None:
    """Return the condition of a row, or None if its threshold is missing or unreadable.

    With a single lever `lever:` is dropped, so that equal conditions compare equal. A gain needs
    its outcome; `arm` is what the model does at the gate's stage.
    """
    measure = MEASURES[row.measure]
    text = row.at_least if measure.at_least else row.at_most
    try:
        threshold = None if text is None else parse_threshold(measure, text)
    except ValueError:
        threshold = None
    if threshold is None:
        return None
    if is_of_outcome(row):
        return _build_gain_condition(threshold, row, outcomes, arm)
    lever = row.lever if levers > 1 else None
    if row.slice is not None:
        return Condition(measure, threshold, lever=lever, population=EachValue(row.slice))
    population = PlantedUnits() if row.of == PLANTED else ALL_UNITS
    return Condition(measure, threshold, row.label, lever, row.action, population)


def _build_gain_condition(
    threshold: float, row: WrittenCondition, outcomes: Iterable[OutcomeRule], arm: str
) -> Condition | None:
    outcome = find_outcome(outcomes, row.of or "")
    if outcome is None or outcome.span <= 0:
        return None
    return Condition(MEASURES[row.measure], threshold, population=BothArms(outcome, arm))
