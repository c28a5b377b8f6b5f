"""The rule of familiar cases in words."""

from rollout.core.policy.familiarity import find_line
from rollout.core.policy.policy import Policy
from rollout.reports.text.formatting import NO_BREAK_SPACE, join_words


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
