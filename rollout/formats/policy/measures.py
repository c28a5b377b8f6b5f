"""What a condition may say of each measure: its unit and direction, where it may stand.

One row per measure of the policy file; the line of a condition is read by the measure's unit.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType

from rollout.core.policy.measures import Condition
from rollout.formats.policy import scalars
from rollout.formats.policy.model import ConditionShape

_WEEK = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class MeasureRule:
    """How one measure is written.

    Attributes:
        unit: of its line: share, part (a share that may be 0), difference, cost, per-100, count,
            duration.
        at_least: whether its line is a floor; otherwise it is a ceiling.
        gate: whether a gate may ask for it.
        then: what a guard does by default, empty where no guard may watch it.
        over: the span that a guard looks back by default, None where it looks at every unit.
        of: what it is of: "label" or "action" where one is needed, "harm" where one may stand.
        lever: whether it may be of one lever.
    """

    unit: str
    at_least: bool = False
    gate: bool = False
    then: str = ""
    over: timedelta | None = None
    of: str = ""
    lever: bool = False


RULES: Mapping[str, MeasureRule] = MappingProxyType(
    {
        "agreement": MeasureRule("share", at_least=True, gate=True, then="one-stage", lever=True),
        "recall": MeasureRule(
            "share", at_least=True, gate=True, then="one-stage", of="label", lever=True
        ),
        "precision": MeasureRule(
            "share", at_least=True, gate=True, then="one-stage", of="label", lever=True
        ),
        "cost": MeasureRule("cost", gate=True, then="one-stage"),
        "parity": MeasureRule("difference", at_least=True, gate=True, lever=True),
        "override": MeasureRule("share", then="one-stage", lever=True),
        "action_change": MeasureRule("per-100", then="report", of="action", lever=True),
        "missing": MeasureRule("part", then="report", over=_WEEK),
        "unaudited": MeasureRule("part", then="one-stage", over=_WEEK),
        "latency_p95": MeasureRule("duration", then="suspend", over=timedelta(minutes=15)),
        "failures": MeasureRule("part", then="suspend", over=timedelta(minutes=15)),
        "heartbeat": MeasureRule("duration", then="suspend"),
        "harm": MeasureRule("count", then="shadow", over=_WEEK, of="harm"),
    }
)


def read_line(measure: str, text: str) -> float:
    """Read a condition's line in the measure's unit: a share, a cost, a count, seconds.

    Raises:
        ValueError: the text has another form, or no evidence could ever decide at such a line.

    >>> read_line("agreement", "95%"), read_line("heartbeat", "2h"), read_line("cost", "0.3")
    (0.95, 7200.0, 0.3)
    """
    return _READERS[RULES[measure].unit](text)


def _share(text: str) -> float:
    threshold = scalars.share(text)
    if not 0 < threshold < 1:
        raise ValueError(f"{text!r} can never be shown; write more than 0% and less than 100%")
    return threshold


def _part(text: str) -> float:
    threshold = scalars.share(text)
    if threshold >= 1:
        raise ValueError(f"{text!r} would never be passed; write less than 100%")
    return threshold


def _difference(text: str) -> float:
    threshold = scalars.signed_share(text)
    if not -1 < threshold <= 0:
        raise ValueError(f"{text!r} is no loss of agreement; write 0% or less, such as -3%")
    return threshold


def _per_hundred(text: str) -> float:
    threshold = scalars.cost(text)
    if threshold >= 100:
        raise ValueError(f"{text!r} per 100 would never be passed; write less than 100")
    return threshold


def _cost(text: str) -> float:
    threshold = scalars.cost(text)
    if threshold == 0:
        raise ValueError("no evidence can show that nothing is ever lost; write more than 0")
    return threshold


def _seconds(text: str) -> float:
    return scalars.positive(text).total_seconds()


_READERS: Mapping[str, Callable[[str], float]] = MappingProxyType(
    {
        "share": _share,
        "part": _part,
        "difference": _difference,
        "per-100": _per_hundred,
        "cost": _cost,
        "count": scalars.count,
        "duration": _seconds,
    }
)


def read_condition(shape: ConditionShape, *, levers: int) -> Condition | None:
    """Return the condition that a row states, None if its line is missing or can't be read.

    With one lever `lever:` says nothing and is dropped, so that equal conditions are equal.
    """
    rule = RULES[shape.measure]
    text = shape.at_least if rule.at_least else shape.at_most
    try:
        threshold = None if text is None else read_line(shape.measure, text)
    except ValueError:
        threshold = None
    if threshold is None:
        return None
    lever = shape.lever if levers > 1 else None
    return Condition(shape.measure, threshold, rule.at_least, shape.label, lever, shape.action)
