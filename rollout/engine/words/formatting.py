"""Numbers, times, bounds and readings in words, and the words for answers that are right or wrong.

Missing data is "no data", never zero.

Only an outcome says that an answer is wrong; otherwise it differs from humans.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil, floor
from textwrap import wrap
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from rollout.kernel.measures import MEASURES, Statistic
from rollout.kernel.words import say_measured

if TYPE_CHECKING:
    from rollout.kernel.facts import StoredReading
    from rollout.kernel.policy.policy import Policy
    from rollout.kernel.statistics.differences import ShareDifference
    from rollout.kernel.statistics.intervals import Estimate, PairedChange, Share, WeightedShare


NO_DATA = "no data"
LINE_WIDTH = 79  # of texts for a terminal
MAX_PERCENT_DIGITS = 3
MIN_PRINTED_CHANCE = 1e-6  # smaller chances are printed as this
MIN_DECIMAL_CHANCE = 0.05  # "1 in 1" would hide the difference between 0.7 and 1
NO_BREAK_SPACE = "\u00a0"  # a space at which no line is broken
PLAIN_WORD_PATTERN = re.compile(r"\A[a-z]+(?=[\s,.:;!?)'’]|\Z)")
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def format_percent(rate: float | None, digits: int = 1) -> str:
    r"""Format a share in per cent, with up to three digits near 0 and 100.

    >>> [format_percent(rate) for rate in (0.9217, 0.99996, 0.999999, 1.0, None)]
    ['92.2\xa0%', '99.996\xa0%', 'over 99.999\xa0%', '100\xa0%', 'no data']
    """
    return NO_DATA if rate is None else f"{_format_hundredths(rate, digits)}{NO_BREAK_SPACE}%"


def format_percent_range(low: float, high: float) -> str:
    """Format two shares in per cent, with one sign."""
    return f"{_format_hundredths(low)} to {format_percent(high)}"


def _format_hundredths(rate: float, digits: int = 1) -> str:
    if rate in (0.0, 1.0):
        return f"{100 * rate:.0f}"
    if round(100 * rate, digits) not in {0, 100}:
        return f"{100 * rate:.{digits}f}"
    if digits < MAX_PERCENT_DIGITS:
        return _format_hundredths(rate, digits + 1)
    return "under 0.001" if rate < 1 / 2 else "over 99.999"


def format_count(count: int | None) -> str:
    """Format a whole number with separators.

    >>> format_count(37338), format_count(None)
    ('37,338', 'no data')
    """
    return NO_DATA if count is None else f"{count:,}"


def format_rounded_count(count: int) -> str:
    """Format an estimated number with two significant digits.

    >>> format_rounded_count(9194), format_rounded_count(84), format_rounded_count(107)
    ('9,200', '84', '110')
    """
    digits = len(str(count)) - 2
    return format_count(round(count, -digits) if digits > 0 else count)


def format_decimal(value: float | None, digits: int = 3) -> str:
    """Format a decimal number with a typographic minus.

    >>> format_decimal(-0.8024), format_decimal(None)
    ('−0.802', 'no data')
    """
    if value is None:
        return NO_DATA
    return f"{value:z,.{digits}f}".replace("-", "−")


def format_value(value: object) -> str:
    """Format a value of any column; numbers without trailing zeros.

    >>> [format_value(value) for value in (20.0, 1234.5, 0.125, "elk", None)]
    ['20', '1,234.5', '0.125', 'elk', 'no data']
    """
    if isinstance(value, float):
        return f"{value:,.3f}".rstrip("0").rstrip(".")
    return NO_DATA if value is None else str(value)


def format_signed(value: float | None, digits: int = 1) -> str:
    """Format a difference with its sign.

    >>> format_signed(1.868), format_signed(-0.31), format_signed(-0.02), format_signed(0.0)
    ('+1.9', '−0.3', '−0.02', '0.0')
    """
    if value is None:
        return NO_DATA
    if value and not round(value, digits) and digits < 2:
        return format_signed(value, digits + 1)
    return ("+" if round(value, digits) > 0 else "") + format_decimal(value, digits)


def format_chance(p: float) -> str:
    """Format a chance, from 5 % on as a decimal.

    >>> format_chance(0.0002), format_chance(1e-30), format_chance(0.62)
    ('1 in 5,000', 'under 1 in 1,000,000', '0.62')
    """
    if p >= MIN_DECIMAL_CHANCE:
        return format_decimal(p, 2)
    return (
        f"1 in {format_count(round(1 / p))}"
        if p > MIN_PRINTED_CHANCE
        else f"under 1 in {format_count(round(1 / MIN_PRINTED_CHANCE))}"
    )


def format_interval(share: WeightedShare) -> str:
    r"""Format a share's interval, or why it has none.

    >>> from rollout.kernel.statistics.intervals import compute_share
    >>> format_interval(compute_share(295, 300)), format_interval(compute_share(0, 0))
    ('96.2 to 99.5\xa0%', 'no data')
    """
    if share.low is None or share.high is None:
        return NO_DATA if share.rate is None else share.method
    return format_percent_range(share.low, share.high)


def format_change_interval(change: PairedChange | ShareDifference) -> str:
    """Format a change's interval, per 100 cases, or why it has none."""
    if change.low is None or change.high is None:
        return change.method
    return f"{format_signed(change.low)} to {format_signed(change.high)}"


def format_ratio(share: Share) -> str:
    """Format a share as counts: `995 of 1,000`."""
    return NO_DATA if share.n == 0 else f"{format_count(share.count)} of {format_count(share.n)}"


def format_local_time(at: datetime, zone: str, reference: datetime | None = None) -> str:
    """Format an instant on a zone's clock, without the year of `reference`.

    >>> from datetime import UTC
    >>> noon = datetime(2025, 10, 20, 12, tzinfo=UTC)
    >>> (
    ...     format_local_time(noon, "Europe/Lisbon"),
    ...     format_local_time(noon, "Europe/Lisbon", reference=noon),
    ... )
    ('Mon 20 Oct 2025 13:00', 'Mon 20 Oct 13:00')
    """
    local_time = at.astimezone(ZoneInfo(zone))
    is_same_year = (
        reference is not None and reference.astimezone(ZoneInfo(zone)).year == local_time.year
    )
    year = "" if is_same_year else f" {local_time:%Y}"
    return f"{local_time:%a} {local_time.day} {local_time:%b}{year} {local_time:%H:%M}"


def format_zoned_time(at: datetime, zone: str, reference: datetime | None = None) -> str:
    """Format an instant like `format_local_time`, with the zone's abbreviation.

    >>> from datetime import UTC
    >>> format_zoned_time(datetime(2025, 10, 20, 12, tzinfo=UTC), "Europe/Lisbon")
    'Mon 20 Oct 2025 13:00 WEST'
    """
    return f"{format_local_time(at, zone, reference)} {at.astimezone(ZoneInfo(zone)).tzname()}"


def format_day(at: datetime, zone: str = "UTC") -> str:
    """Format the day of an instant on a zone's clock: `6 Oct 2025`."""
    local_time = at.astimezone(ZoneInfo(zone))
    return f"{local_time.day} {local_time:%b %Y}"


def describe_duration(span: timedelta) -> str:
    """Format a duration in a fitting unit.

    >>> describe_duration(timedelta(hours=6, minutes=24)), describe_duration(timedelta(days=12))
    ('6.4 hours', '12 days')
    >>> describe_duration(timedelta(hours=1)), describe_duration(timedelta(minutes=20))
    ('1 hour', '20 minutes')
    """
    if span < HOUR:
        return format_quantity(round(span / MINUTE), "minute")
    unit, unit_name = (HOUR, "hour") if span < 2 * DAY else (DAY, "day")
    count = f"{span / unit:.1f}".removesuffix(".0") if span < 10 * unit else f"{span / unit:.0f}"
    return f"{count} {unit_name}{'' if count == '1' else 's'}"


def prevent_breaks(text: str) -> str:
    r"""Return a text without line breaks before per cent signs.

    >>> prevent_breaks("at least 92 %")
    'at least 92\xa0%'
    """
    return text.replace(" %", f"{NO_BREAK_SPACE}%")


def wrap_text(text: str, indent: str = "") -> list[str]:
    """Wrap a text for a terminal; numbers keep their per cent sign."""
    lines = wrap(prevent_breaks(text), LINE_WIDTH, initial_indent=indent, subsequent_indent=indent)
    return [line.replace(NO_BREAK_SPACE, " ") for line in lines]


def format_quantity(count: int, singular: str, plural: str | None = None) -> str:
    """Format a count with its noun.

    >>> (
    ...     format_quantity(1, "cell"),
    ...     format_quantity(3, "case"),
    ...     format_quantity(0, "person", "people"),
    ... )
    ('1 cell', '3 cases', '0 people')
    """
    return f"{format_count(count)} {singular if count == 1 else plural or singular + 's'}"


def join_words(names: list[str]) -> str:
    """Format a list: `a, b and c`; empty for an empty one."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


def format_cell_name(site: str | None, window: str | None) -> str:
    """Format the name of a cell; empty without one."""
    return f"{site} · {window}" if site and window else ""


def capitalize_first(text: str) -> str:
    """Return a sentence with a capital letter, unless a key begins it.

    A first word with digits or dashes may be the name of a site, case or version, which is shown
    as it was typed.

    >>> capitalize_first("needs 2 more"), capitalize_first("v1 is retired"), capitalize_first("")
    ('Needs 2 more', 'v1 is retired', '')
    >>> capitalize_first("lis-007056: no such case")
    'lis-007056: no such case'
    """
    return PLAIN_WORD_PATTERN.sub(lambda match: match[0].capitalize(), text, count=1)


def to_sentence(text: str) -> str:
    """Return a text with a full stop, and a capital letter unless a key begins it.

    >>> to_sentence("nothing is held"), to_sentence("v1 is retired.")
    ('Nothing is held.', 'v1 is retired.')
    """
    return f"{capitalize_first(text)}{'' if text.endswith('.') else '.'}"


SIGNIFICANT = 3
LEAST_DIGITS = 1e-4  # what is less has an exponent


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


def format_number_interval(estimate: Estimate, *, signed: bool = True) -> str:
    """Format the ends of an interval, or the reason why there is none."""
    if estimate.low is None or estimate.high is None:
        return estimate.method
    ends = (_format_digits(end, signed=signed) for end in (estimate.low, estimate.high))
    return " to ".join(ends)


def format_decimal_interval(estimate: Estimate) -> str:
    """Format the ends of an interval of a plain number, or the reason why there is none."""
    if estimate.low is None:
        return estimate.method
    return f"{format_decimal(estimate.low)} to {format_decimal(estimate.high)}"


def _format_digits(value: float, *, signed: bool) -> str:
    size = abs(value)
    if size < LEAST_DIGITS:
        return format_decimal(0)
    digits = f"{size:,.0f}" if size >= 100 else f"{size:#.{SIGNIFICANT}g}".rstrip(".")
    return ("−" if value < 0 else "+" if signed else "") + digits


def format_reading(reading: StoredReading, policy: Policy) -> str:
    """Return a frozen reading without its evidence, costs as their mean.

    A reading of a policy with other cost levels keeps its counts.
    """
    condition, counts = reading.parse_condition(), reading.counts
    is_mean = condition.measure.statistic is Statistic.MEAN
    if not is_mean or len(counts) != len(policy.cost_levels):
        return say_measured(reading)
    total = sum(count * cost for count, cost in zip(counts, policy.cost_levels, strict=True))
    mean_text = f"mean {total / max(sum(counts), 1):.3f} {policy.charter.cost_in}"
    return f"{condition}: {mean_text} over {format_quantity(sum(counts), 'unit')}"


OPENING_NOTE: Final = (
    "Read the bound first: a gate opens after a good run, so the agreement so far is then above"
    " the true one, on average by 0.5 percentage points at a threshold of 95 % and by 0.9 to 1.0"
    " at 90 % (computed exactly: risk 5 %, first attempt of a year, true agreement 96.5 to 98 % and"
    " 93 to 96 %)."
    " The bound allows for that."
)
"""Computed anew by tests/features/reports/test_bounds.py."""


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


@dataclass(frozen=True, slots=True)
class TruthWords:
    """What answers are that agree with the truth, and those that don't."""

    right: str
    wrong: str


BY_OUTCOME: Final = TruthWords("right", "wrong")
BY_HUMANS: Final = TruthWords("as humans", "different from humans")
BY_BOTH: Final = TruthWords("right or as humans", "wrong or different from humans")


def choose_words(by_outcome: int, compared: int) -> TruthWords:
    """Return the words for answers to `compared` cases, of which `by_outcome` have an outcome.

    An answer that differs from humans may be the better one, above all where an objective counts
    what answers bring. So a human decision alone makes no answer wrong.

    >>> choose_words(9, 9).wrong, choose_words(0, 9).wrong, choose_words(4, 9).wrong
    ('wrong', 'different from humans', 'wrong or different from humans')
    """
    if not by_outcome:
        return BY_HUMANS
    return BY_OUTCOME if by_outcome == compared else BY_BOTH
