"""Figures beside their thresholds."""

from rollout.core.policy.outcomes import GAIN
from rollout.core.policy.policy import Policy
from rollout.reports.text.bound_text import COST_MEASURES, format_bound_value
from rollout.reports.text.formatting import (
    add_separators,
    format_count,
)
from rollout.services.proposals.proposal_evidence import FROZEN_FIGURES_PATTERN


def format_bound(measure: str, bound: float, threshold: float, *, at_least: bool) -> str:
    """Format a bound in its measure's unit, with "at least" or "at most".

    >>> format_bound("cost", 0.2111, 0.2, at_least=False)
    'at most 0.212'
    """
    side_text = "at least" if at_least else "at most"
    return f"{side_text} {format_bound_value(measure, bound, threshold, at_least=at_least)}"


def format_counts(measure: str, counts: tuple[int, ...]) -> str:
    """Format counts: `418 of 426`, the arms of a gain, or the total for other measures.

    >>> format_counts("agreement", (418, 8)), format_counts("cost", (60, 3, 1))
    ('418 of 426', '64 counted')
    """
    total = sum(counts)
    if measure == GAIN:
        return format_arm_counts(counts)
    if len(counts) == 2 and measure not in COST_MEASURES:
        return f"{format_count(counts[0])} of {format_count(total)}"
    return f"{format_count(total)} counted"


def format_arm_counts(counts: tuple[int, ...]) -> str:
    """Format the counts of both arms.

    >>> format_arm_counts((31, 1300, 4))
    '31 by the model, 1,300 by humans, 4 unknown'
    """
    model, people, missing = map(format_count, counts)
    return f"{model} by the model, {people} by humans, {missing} unknown"


def get_condition_subject(condition: str) -> str:
    """Return the measure and label of a condition.

    >>> get_condition_subject("recall of bear at least 80 %")
    'recall of bear'
    """
    for separator in (" at least ", " at most "):
        head, match, _ = condition.rpartition(separator)
        if match:
            return head
    return condition


def name_measure(condition: str, measure: str, cost_in: str = "") -> str:
    """Return measure and label of a condition; a cost or gain with its unit.

    >>> name_measure("gain of profit at least 0 EUR", "gain")
    'gain of profit in EUR per unit'
    """
    subject = get_condition_subject(condition)
    unit = cost_in if measure in COST_MEASURES else ""
    if measure == GAIN:
        unit = condition.rpartition(" at least ")[2].partition(" ")[2]  # `0 EUR`
    return f"{subject} in {unit} per unit" if unit else subject


def format_brief(readings: tuple[str, ...], policy: Policy, *, limit: int = 3) -> str:
    """Format frozen readings briefly: shares as counts, costs as means."""
    texts = [_format_brief_reading(reading, policy) for reading in readings]
    more_text = [f"{len(texts) - limit} more"] if len(texts) > limit else []
    return "; ".join([*texts[:limit], *more_text])


def _format_brief_reading(reading: str, policy: Policy) -> str:
    match = FROZEN_FIGURES_PATTERN.search(reading)
    if match is None:
        return reading.split(", log E", maxsplit=1)[0]
    condition, counts = reading[: match.start()], match["counts"]
    first_count, _, total = counts.partition(" of ")
    units = [int(count) for count in first_count.split()]
    units += [int(total) - units[0]] if total else []
    if condition.startswith("cost ") and len(units) == len(policy.cost_levels):
        costs = zip(units, policy.cost_levels, strict=True)
        mean = sum(count * cost for count, cost in costs) / max(sum(units), 1)
        unit = policy.charter.cost_in
        return f"{condition}: mean {mean:.3f} {unit} over {format_count(sum(units))} units"
    return f"{condition}: " + (
        add_separators(counts) if total else f"{format_count(sum(units))} units"
    )
