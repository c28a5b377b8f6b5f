"""Costs as shares of a policy's largest cost, as the statistics take them."""

from rollout.core.policy.measures import Condition
from rollout.core.policy.policy import Policy


def scale_cost_levels(policy: Policy) -> tuple[float, ...]:
    """Return the policy's cost levels as shares of its largest cost."""
    return tuple(level / policy.largest_cost for level in policy.cost_levels)


def scale_cost_threshold(condition: Condition, policy: Policy) -> float:
    """Return a cost threshold as a share of the policy's largest cost."""
    return condition.line / policy.largest_cost
