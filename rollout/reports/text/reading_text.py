"""Readings of a proposal in words: the stored ones have counts by cost level, and logarithms."""

from rollout.core.policy.policy import Policy
from rollout.reports.text.formatting import add_separators, format_quantity


def format_reading(reading: str, policy: Policy) -> str:
    """Return a stored reading with its mean cost, without logarithms.

    A cost reading of a policy with other costs keeps its counts.
    """
    condition, colon, counts = reading.split(", log E", maxsplit=1)[0].rpartition(": ")
    if not colon:  # a reading of a policy, resume or clock has no counts
        return counts
    units = _parse_cost_counts(counts) if condition.startswith("cost") else []
    if len(units) != len(policy.cost_levels):
        return f"{condition}: {add_separators(counts)}"
    total = sum(
        unit_count * cost for unit_count, cost in zip(units, policy.cost_levels, strict=True)
    )
    mean_cost = total / max(sum(units), 1)
    mean_text = f"mean {mean_cost:.3f} {policy.charter.cost_in}"
    return f"{condition}: {mean_text} over {format_quantity(sum(units), 'unit')}"


def _parse_cost_counts(counts: str) -> list[int]:
    """Return the units by cost level; `9 of 10` is 9 without cost and 1 with."""
    free, _, all_units = counts.partition(" of ")
    units = [int(count) for count in free.split()]
    return [*units, int(all_units) - units[0]] if all_units else units
