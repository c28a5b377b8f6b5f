"""Figures of numbers as text: a value with its unit, an interval."""

from rollout.reports.statistics.number_agreement import NumberEstimate
from rollout.reports.text.formatting import NO_BREAK_SPACE, NO_DATA

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


def format_number_interval(estimate: NumberEstimate, *, signed: bool = True) -> str:
    """Format the ends of an interval, or the reason why there is none."""
    if estimate.low is None or estimate.high is None:
        return estimate.method
    ends = (_format_digits(end, signed=signed) for end in (estimate.low, estimate.high))
    return " to ".join(ends)


def _format_digits(value: float, *, signed: bool) -> str:
    size = abs(value)
    digits = f"{size:,.0f}" if size >= 100 else f"{size:#.{SIGNIFICANT}g}".rstrip(".")
    if not size or "e" in digits:
        digits = f"{size:.3f}"
    sign = "" if not float(digits.replace(",", "")) else "−" if value < 0 else "+" if signed else ""
    return sign + digits
