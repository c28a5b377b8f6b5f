"""Rules of a policy in words: familiar cases, and both errors of a renewal."""

from collections.abc import Iterable
from math import floor

from rollout.engine.evidence.gate_series import UnfamiliarUnits
from rollout.engine.words.formatting import NO_BREAK_SPACE, format_count, format_percent, join_words
from rollout.kernel.measures import Condition, Statistic
from rollout.kernel.policy.familiarity import find_line, format_value
from rollout.kernel.policy.policy import Policy
from rollout.kernel.statistics.forecast import compute_renewal_chance


def describe_familiar_cases(policy: Policy) -> str:
    """Return of which cases gates speak and who decides the others; "" without the rule."""
    rule = policy.evidence.familiar
    if rule is None:
        return ""
    lines = {
        find_line(rule, (guard.condition for guard in policy.list_guards(cell)))
        for cell in policy.cells
    }
    names = join_words([attribute.id for attribute in rule.attributes])
    return (
        f"This speaks of cases whose {names} the version had met at least {rule.at_least} times in"
        f" the cell, agreeing in {min(lines) * 100:g}{NO_BREAK_SPACE}% or more. Humans decide all"
        " others, which count for no gate and no guard."
    )


def describe_unfamiliar_share(recent: UnfamiliarUnits, days: int) -> str:
    """Return which share of a cell's recent units was not familiar; "" without units.

    Args:
        recent: the units of the last days.
        days: how many days these are.
    """
    if not recent.units:
        return ""
    share = format_percent(recent.unfamiliar / recent.units)
    text = (
        f"In the last {days} days {format_count(recent.unfamiliar)} of"
        f" {format_count(recent.units)} units here ({share}) were not familiar"
    )
    if recent.top_value is None:
        return f"{text}."
    value = format_value(recent.top_value)
    return f"{text}, and humans decided them: {format_count(recent.top_units)} with {value}."


BELOW, ABOVE = 0.4, 0.6
"""Parts of the distance from the threshold to 1: the examples at 95 % are 93 % and 98 %."""


def select_renewal_condition(conditions: Iterable[Condition]) -> Condition | None:
    """Return the first condition on a share of the cases that occur, or None."""
    return next(
        (
            condition
            for condition in conditions
            if type(condition) is Condition and condition.measure.statistic is Statistic.SHARE
        ),
        None,
    )


def describe_renewal_errors(condition: Condition, audits: int) -> str:
    r"""Return how often cells are renewed or lapse with a grant's audits, by the exact law.

    >>> from rollout.kernel.measures import MEASURES
    >>> text = describe_renewal_errors(Condition(MEASURES["agreement"], 0.95), 100)
    >>> print(text.replace("; ", ";\n"))
    with 100 audits a cell at the threshold is renewed in 22 %, one at 93 % in 7 %;
    a cell at 98 % lapses in 22 %
    """
    line, show = condition.share, condition.measure.from_share
    below, above = line - BELOW * (1 - line), line + ABOVE * (1 - line)
    at_line, at_below, at_above = (
        compute_renewal_chance(audits, at_least=line, rate=rate) for rate in (line, below, above)
    )
    return (
        f"with {format_count(audits)} audits a cell at the threshold is renewed in"
        f" {_format_chance(at_line)}, one at {show(below) * 100:.3g} % in"
        f" {_format_chance(at_below)}; a cell at {show(above) * 100:.3g} % lapses in"
        f" {_format_chance(1 - at_above)}"
    )


def _format_chance(chance: float) -> str:
    if chance < 0.005:
        return "under 1 %"
    return "over 99 %" if chance > 0.995 else f"{floor(chance * 100 + 0.5)} %"
