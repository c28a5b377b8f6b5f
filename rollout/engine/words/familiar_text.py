"""The rule of familiar cases in words."""

from rollout.engine.evidence.gate_series import UnfamiliarUnits
from rollout.engine.words.formatting import NO_BREAK_SPACE, format_count, format_percent, join_words
from rollout.kernel.policy.familiarity import find_line, format_value
from rollout.kernel.policy.policy import Policy


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
