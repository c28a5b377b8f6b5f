"""Numbers, bounds and readings in words."""

from math import ceil, floor
from typing import TYPE_CHECKING, Final

from rollout.core.policy.policy import Policy
from rollout.kernel.measures import MEASURES, Statistic
from rollout.kernel.readings import StoredReading
from rollout.kernel.words import say_figures
from rollout.reports.text.formatting import (
    NO_BREAK_SPACE,
    NO_DATA,
    add_separators,
    format_count,
    format_decimal,
    format_percent,
    format_quantity,
    format_signed,
)

if TYPE_CHECKING:
    from rollout.reports.statistics.intervals import Estimate

SIGNIFICANT = 3


def format_number_value(value: float | None, unit: str, *, signed: bool = True) -> str:
    """Format a number with three significant digits, at least to the unit.

    >>> format_number_value(-1234.56, "EUR").replace(NO_BREAK_SPACE, " ")
    '−1,235 EUR'
    >>> format_number_value(0.01234, "%").replace(NO_BREAK_SPACE, " ")
    '+0.0123 %'
    >>> format_number_value(None, "EUR")
    'no data'
    """
    if value is None:
        return NO_DATA
    return f"{_format_digits(value, signed=signed)}{NO_BREAK_SPACE}{unit}".rstrip()


def format_number_interval(estimate: "Estimate", *, signed: bool = True) -> str:
    """Format the ends of an interval, or the reason why there is none."""
    if estimate.low is None or estimate.high is None:
        return estimate.method
    ends = (_format_digits(end, signed=signed) for end in (estimate.low, estimate.high))
    return " to ".join(ends)


def format_decimal_interval(estimate: "Estimate") -> str:
    """Format the ends of an interval of a plain number, or the reason why there is none."""
    if estimate.low is None:
        return estimate.method
    return f"{format_decimal(estimate.low)} to {format_decimal(estimate.high)}"


def _format_digits(value: float, *, signed: bool) -> str:
    size = abs(value)
    digits = f"{size:,.0f}" if size >= 100 else f"{size:#.{SIGNIFICANT}g}".rstrip(".")
    if not size or "e" in digits:
        digits = f"{size:.3f}"
    sign = "" if not float(digits.replace(",", "")) else "−" if value < 0 else "+" if signed else ""
    return sign + digits


def format_reading(reading: StoredReading, policy: Policy) -> str:
    """Return a frozen reading without its evidence, costs as their mean.

    A reading of a policy with other cost levels keeps its counts.
    """
    condition, counts = reading.parse_condition(), reading.counts
    is_mean = condition.measure.statistic is Statistic.MEAN
    if not is_mean or len(counts) != len(policy.cost_levels):
        return f"{condition}: {_separate_counts(say_figures(reading, condition))}"
    total = sum(count * cost for count, cost in zip(counts, policy.cost_levels, strict=True))
    mean_text = f"mean {total / max(sum(counts), 1):.3f} {policy.charter.cost_in}"
    return f"{condition}: {mean_text} over {format_quantity(sum(counts), 'unit')}"


def _separate_counts(counts: str) -> str:
    """Return counts with separators; where names stand among them, only `1080 of 1130`."""
    words = counts.split(" ")
    if any(not word.isdecimal() and word != "of" for word in words):
        return add_separators(counts)
    return " ".join(format_count(int(word)) if word.isdecimal() else word for word in words)


OPENING_NOTE: Final = (
    "Read the bound first: a gate opens after a good run, so the agreement so far is then above"
    " the true one, on average by 0.5 percentage points at a threshold of 95 % and by 0.9 to 1.0"
    " at 90 % (computed exactly: risk 5 %, first attempt of a year, true agreement 96.5 to 98 % and"
    " 93 to 96 %)."
    " The bound allows for that."
)
"""Computed anew by tests/reports/statistics/test_bounds.py."""


def format_estimate(measure: str, value: float | None) -> str:
    """Format an estimate in its measure's unit."""
    match MEASURES[measure].statistic:
        case Statistic.DIFFERENCE:
            return format_signed(value, 2)
        case Statistic.MEAN:
            return format_decimal(value)
        case _:
            return format_percent(value)


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
    match MEASURES[measure].statistic:
        case Statistic.DIFFERENCE:
            return f"{floor(round(bound * 100, 6)) / 100:+.2f}"
        case Statistic.MEAN:
            return _format_cost_bound(bound, threshold)
        case _:
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
    return f"{threshold:g}" if is_amount(measure) else format_share_threshold(threshold)


def is_amount(measure: str) -> bool:
    """Return whether a measure's values are amounts, not shares."""
    return MEASURES[measure].statistic in {Statistic.MEAN, Statistic.DIFFERENCE}


def is_difference(measure: str) -> bool:
    """Return whether a measure compares two arms, so that values may be negative."""
    return MEASURES[measure].statistic is Statistic.DIFFERENCE
