"""Bounds beside their thresholds; rounding never makes an unmet bound look met."""

from math import ceil, floor
from typing import Final

from rollout.core.policy.outcomes import GAIN
from rollout.reports.text.formatting import (
    NO_BREAK_SPACE,
    format_decimal,
    format_percent,
    format_signed,
)

COST_MEASURES: Final = frozenset({"cost"})
OPENING_NOTE: Final = (
    "Read the bound first: a gate opens after a good run, so the agreement so far is then above"
    " the true one, on average by 0.5 percentage points at a threshold of 95 % and by 0.9 to 1.0"
    " at 90 % (computed exactly: risk 5 %, first attempt of a year, true agreement 96.5 to 98 % and"
    " 93 to 96 %; with the whole risk, as under counting rules 1, by 0.6 to 0.7 at 95 %)."
    " The bound allows for that."
)
"""Computed anew by tests/reports/statistics/test_bounds.py."""
FORGETTING_NOTE: Final = (
    "The gates of this policy forget a bad past: a bound speaks of the best stretch of units from"
    " the start of a block to now, so it may be better than the value of all units so far."
)


def format_estimate(measure: str, value: float | None) -> str:
    """Format an estimate in its measure's unit."""
    if measure == GAIN:
        return format_signed(value, 2)
    return format_decimal(value) if measure in COST_MEASURES else format_percent(value)


def format_share_bound(bound: float, threshold: float, *, at_least: bool = True) -> str:
    r"""Format a bound of a share, rounded towards caution.

    >>> (
    ...     format_share_bound(0.9556, 0.95),
    ...     format_share_bound(0.94996, 0.95),
    ...     format_share_bound(0.9504, 0.95),
    ... )
    ('95.5\xa0%', '94.9\xa0%', '95.04\xa0%')
    >>> format_share_bound(0.0512, 0.05, at_least=False)
    '5.2\xa0%'
    """
    for digits in (1, 2, 3, 4):
        scale = 10**digits
        exact = round(bound * 100 * scale, 6)
        rounded = (floor(exact) if at_least else ceil(exact)) / scale
        if rounded != round(threshold * 100, 6) or bound == threshold:
            break
    return f"{rounded:.{digits}f}{NO_BREAK_SPACE}%"


def format_share_threshold(threshold: float) -> str:
    r"""Format a threshold of a share as the policy does.

    >>> format_share_threshold(0.95), format_share_threshold(0.925)
    ('95\xa0%', '92.5\xa0%')
    """
    return f"{round(threshold * 100, 6):g}{NO_BREAK_SPACE}%"


def format_bound_value(measure: str, bound: float, threshold: float, *, at_least: bool) -> str:
    """Format a bound in its measure's unit."""
    if measure in COST_MEASURES:
        return _format_cost_bound(bound, threshold)
    if measure == GAIN:
        return f"{floor(round(bound * 100, 6)) / 100:+.2f}"
    return format_share_bound(bound, threshold, at_least=at_least)


def _format_cost_bound(bound: float, threshold: float) -> str:
    """Format a cost bound, rounded up, with extra digits near the threshold."""
    for digits in (3, 4, 5, 6):
        rounded = ceil(round(bound * 10**digits, 6)) / 10**digits
        if rounded != threshold or bound == threshold:
            break
    return format_decimal(rounded, digits)


def format_threshold(measure: str, threshold: float) -> str:
    """Format a threshold in its measure's unit."""
    is_plain = measure in {*COST_MEASURES, GAIN}
    return f"{threshold:g}" if is_plain else format_share_threshold(threshold)
