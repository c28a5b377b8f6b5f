"""Rules for conditions by measure: unit, direction, and use in gates and guards."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType

from rollout.core.policy.outcomes import (
    GAIN,
    GainCondition,
    OutcomeRule,
    find_outcome,
)
from rollout.core.policy.planted_conditions import PLANTED, PlantedCondition
from rollout.core.policy.slice_conditions import SliceCondition
from rollout.formats.policy import scalars
from rollout.formats.policy.model import ConditionShape
from rollout.kernel.measures import Condition

_WEEK = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class MeasureRule:
    """How conditions on one measure are written.

    Attributes:
        unit: of the threshold: share, part (a share that may be 0), cost, per-100,
            count, duration or value (of an outcome).
        is_minimum: whether the threshold is `at_least`, otherwise `at_most`.
        allows_gate: whether gates can use the measure.
        default_effect: effect of a guard by default; empty if guards can't use the measure.
        default_span: span of a guard by default; None if it looks at every unit.
        subject: "label", "action" or "of" if one is required, "harm" if one is optional.
        allows_lever: whether a condition can name a lever.
    """

    unit: str
    is_minimum: bool = False
    allows_gate: bool = False
    default_effect: str = ""
    default_span: timedelta | None = None
    subject: str = ""
    allows_lever: bool = False


MEASURE_RULES: Mapping[str, MeasureRule] = MappingProxyType(
    {
        "agreement": MeasureRule(
            "share",
            is_minimum=True,
            allows_gate=True,
            default_effect="one-stage",
            allows_lever=True,
        ),
        "recall": MeasureRule(
            "share",
            is_minimum=True,
            allows_gate=True,
            default_effect="one-stage",
            subject="label",
            allows_lever=True,
        ),
        "precision": MeasureRule(
            "share",
            is_minimum=True,
            allows_gate=True,
            default_effect="one-stage",
            subject="label",
            allows_lever=True,
        ),
        "cost": MeasureRule("cost", allows_gate=True, default_effect="one-stage"),
        "override": MeasureRule("share", default_effect="one-stage", allows_lever=True),
        "action_change": MeasureRule(
            "per-100", default_effect="report", subject="action", allows_lever=True
        ),
        "drift": MeasureRule("share", default_effect="report", allows_lever=True),
        "missing": MeasureRule("part", default_effect="report", default_span=_WEEK),
        "unaudited": MeasureRule("part", default_effect="one-stage", default_span=_WEEK),
        "latency_p95": MeasureRule(
            "duration", default_effect="suspend", default_span=timedelta(minutes=15)
        ),
        "failures": MeasureRule(
            "part", default_effect="suspend", default_span=timedelta(minutes=15)
        ),
        "heartbeat": MeasureRule("duration", default_effect="suspend"),
        "gain": MeasureRule(
            "value", is_minimum=True, allows_gate=True, default_effect="one-stage", subject="of"
        ),
        "harm": MeasureRule("count", default_effect="shadow", default_span=_WEEK, subject="harm"),
    }
)


def parse_threshold(measure: str, text: str) -> float:
    """Return a threshold in the measure's unit: a share, a cost, a count or seconds.

    Raises:
        ValueError: the text has the wrong form, or no evidence can decide at this threshold.

    >>> (
    ...     parse_threshold("agreement", "95%"),
    ...     parse_threshold("heartbeat", "2h"),
    ...     parse_threshold("cost", "0.3"),
    ... )
    (0.95, 7200.0, 0.3)
    """
    return _PARSERS[MEASURE_RULES[measure].unit](text)


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


_PARSERS: Mapping[str, Callable[[str], float]] = MappingProxyType(
    {
        "share": _parse_share,
        "part": _parse_part,
        "per-100": _parse_per_hundred,
        "cost": _parse_cost,
        "count": scalars.read_count,
        "duration": _parse_seconds,
        "value": scalars.read_number,
    }
)


def read_condition(
    shape: ConditionShape, *, levers: int, outcomes: Iterable[OutcomeRule] = (), arm: str = ""
) -> Condition | None:
    """Return the condition of a row, or None if its threshold is missing or unreadable.

    With a single lever `lever:` is dropped, so that equal conditions compare equal. A gain needs
    its outcome; `arm` is what the model does at the gate's stage.
    """
    rule = MEASURE_RULES[shape.measure]
    text = shape.at_least if rule.is_minimum else shape.at_most
    try:
        threshold = None if text is None else parse_threshold(shape.measure, text)
    except ValueError:
        threshold = None
    if threshold is None:
        return None
    if rule.subject == "of":
        return _build_gain_condition(threshold, shape, outcomes, arm)
    lever = shape.lever if levers > 1 else None
    if shape.slice is not None:
        return SliceCondition(
            shape.measure, threshold, rule.is_minimum, lever=lever, slice=shape.slice
        )
    build = PlantedCondition if shape.of == PLANTED else Condition
    return build(shape.measure, threshold, rule.is_minimum, shape.label, lever, shape.action)


def _build_gain_condition(
    threshold: float, shape: ConditionShape, outcomes: Iterable[OutcomeRule], arm: str
) -> GainCondition | None:
    outcome = find_outcome(outcomes, shape.of or "")
    if outcome is None or outcome.span <= 0:
        return None
    return GainCondition(GAIN, threshold, at_least=True, outcome=outcome, arm=arm)
