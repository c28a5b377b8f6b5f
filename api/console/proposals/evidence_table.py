"""Rows of a proposal's evidence tables."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Final

from api.console.page.figures import format_arm_counts
from rollout.core.calendar.opening_hours import list_open_spans
from rollout.core.calendar.sites import Cell
from rollout.core.policy.gain_readings import round_down
from rollout.core.policy.policy import Policy
from rollout.kernel.measures import Condition, Statistic
from rollout.kernel.readings import RECENT_DAYS
from rollout.reports.statistics.bounds import ConditionEvidence
from rollout.reports.text.formatting import (
    capitalize_first,
    format_count,
    format_percent,
    join_words,
)
from rollout.reports.text.value_text import format_bound_value, format_estimate
from rollout.services.proposals.proposal_evidence import (
    GateMinimumProgress,
    ProposalEvidence,
    ReadingComparison,
)

TimeSpan = tuple[datetime, datetime]
LOOK_BACK, LOOK_AHEAD = timedelta(days=2), timedelta(days=9)
AROUND_THE_CLOCK: Final = "Around the clock"
NOT_SOON: Final = "Not within the next week"


@dataclass(frozen=True, slots=True)
class WindowTimes:
    """Current or next occurrence of a window at a site.

    Attributes:
        start, end: of the current or next occurrence, or None.
        text: a text instead of it.
        now: whether it is open.
        hours: as in the policy, or "".
        condition_text: required case attributes, in words, or "".
    """

    start: datetime | None
    end: datetime | None
    text: str
    now: bool
    hours: str
    condition_text: str


def compute_window_times(policy: Policy, cell: Cell, at: datetime) -> WindowTimes:
    """Return the occurrence of a cell's window around an instant.

    Hours of earlier windows are subtracted, unless those also require attributes of a case.
    """
    site, first, last = policy.sites_by_id[cell.site], at - LOOK_BACK, at + LOOK_AHEAD
    window = next(item for item in policy.windows if item.id == cell.window)
    earlier = takewhile(lambda item: item.id != cell.window, policy.windows)
    excluded = [
        span_item
        for other_window in earlier
        if not other_window.when
        for span_item in list_open_spans(other_window.hours, site, first, last)
    ]
    remaining = subtract_spans(list_open_spans(window.hours, site, first, last), excluded)
    condition_text = join_words(
        [f"{name} is {' or '.join(values)}" for name, values in window.when.items()]
    )
    span = next((item for item in remaining if item[1] > at), None)
    if span is None:
        return WindowTimes(
            None, None, NOT_SOON, now=False, hours=window.hours or "", condition_text=condition_text
        )
    if span[0] <= first and span[1] >= last:
        return WindowTimes(
            None, None, AROUND_THE_CLOCK, now=True, hours="", condition_text=condition_text
        )
    is_now = span[0] <= at
    return WindowTimes(
        *span,
        "Now" if is_now else "Next",
        now=is_now,
        hours=window.hours or "",
        condition_text=condition_text,
    )


def subtract_spans(spans: Iterable[TimeSpan], excluded: Iterable[TimeSpan]) -> list[TimeSpan]:
    """Subtract time spans from time spans.

    >>> noon = datetime(2027, 6, 1, 12)
    >>> hour = timedelta(hours=1)
    >>> left = subtract_spans([(noon, noon + 5 * hour)], [(noon + hour, noon + 2 * hour)])
    >>> [((a - noon) // hour, (b - noon) // hour) for a, b in left]
    [(0, 1), (2, 5)]
    """
    remaining = list(spans)
    for since, until in excluded:
        pieces = (piece for a, b in remaining for piece in ((a, min(b, since)), (max(a, until), b)))
        remaining = [(a, b) for a, b in pieces if a < b]
    return remaining


NO_VALUE: Final = "–"
MET, NOT_MET = "met", "not met"
TURNED_TEXT: Final = (
    "the counts speak rather against the threshold than for it: an e-value below 1; or a minimum"
    " isn't met"
)


@dataclass(frozen=True, slots=True)
class ConditionRow:
    """A condition in the table; `now` describes today's evidence."""

    name: str
    counted: str
    share: str
    bound: str
    threshold: str
    met: bool
    now: str


@dataclass(frozen=True, slots=True)
class RequirementRow:
    """A minimum of the gate: its count, its threshold, whether it is met."""

    name: str
    have: str
    threshold: str
    met: bool


def build_condition_rows(
    readings: tuple[ReadingComparison, ...], policy: Policy
) -> tuple[ConditionRow, ...]:
    """Return the rows of the conditions whose figures could be parsed."""
    return tuple(
        _build_row(reading, reading.frozen, policy)
        for reading in readings
        if reading.frozen is not None
    )


def list_plain_readings(readings: tuple[ReadingComparison, ...]) -> tuple[str, ...]:
    """Return the readings whose figures could not be parsed."""
    return tuple(reading.text for reading in readings if reading.frozen is None)


def _build_row(
    reading: ReadingComparison, frozen: ConditionEvidence, policy: Policy
) -> ConditionRow:
    return ConditionRow(
        name=_format_row_name(frozen.condition, policy),
        counted=format_evidence_counts(frozen, policy),
        share=format_evidence_estimate(frozen),
        bound=format_evidence_bound(frozen),
        threshold=format_condition_threshold(frozen.condition),
        met=frozen.is_met,
        now=_describe_change(reading.current, frozen, policy),
    )


def _format_row_name(condition: Condition, policy: Policy) -> str:
    """Return the measure, for costs with its unit: `Cost, mean days late per unit`."""
    name, unit = capitalize_first(condition.name), condition.find_unit(policy.charter.cost_in)
    if condition.population.has_gain:
        return f"{name}, per unit"
    return f"{name}, mean {unit} per unit" if unit else name


def _describe_change(
    current: ConditionEvidence | None, frozen: ConditionEvidence, policy: Policy
) -> str:
    if current is None:
        return "no longer required"
    if current.counts == frozen.counts:
        return "unchanged"
    bound = format_evidence_bound(current)
    side = "at least" if current.condition.at_least else "at most"
    least = "" if bound == NO_VALUE else f", {side} {bound}"
    return f"{format_evidence_counts(current, policy)}{least}: {MET if current.is_met else NOT_MET}"


def format_condition_threshold(condition: Condition) -> str:
    """Return the threshold: `95 %`, or `at most 0.2` if less is better."""
    return condition.threshold_text if condition.at_least else f"at most {condition.threshold_text}"


def format_evidence_counts(evidence: ConditionEvidence, policy: Policy) -> str:
    """Format the counts: agreeing units for shares, units by cost level for costs."""
    counts = evidence.counts
    if evidence.condition.measure.statistic is Statistic.MEAN:
        levels = zip(policy.cost_levels, counts, strict=True)
        return (
            ", ".join(
                f"{format_count(count)} at cost {level:g}" for level, count in levels if count
            )
            or "0"
        )
    if evidence.condition.measure.statistic is Statistic.DIFFERENCE:
        return format_arm_counts(counts)
    if len(counts) == 2:
        return f"{format_count(counts[0])} of {format_count(sum(counts))}"
    return f"{format_count(sum(counts))} with two decisions"


def format_evidence_estimate(evidence: ConditionEvidence) -> str:
    """Format the observed share or mean cost."""
    if evidence.estimate is None:
        return NO_VALUE
    if evidence.condition.population.has_gain:
        return evidence.condition.population.outcome.format_amount(evidence.estimate)
    return format_estimate(evidence.condition.measure.name, evidence.estimate)


def format_evidence_bound(evidence: ConditionEvidence) -> str:
    """Format the bound with enough digits not to read like its threshold."""
    if evidence.bound is None:
        return NO_VALUE
    condition = evidence.condition
    if condition.population.has_gain:
        return condition.population.outcome.format_amount(round_down(evidence.bound))
    return format_bound_value(
        condition.measure.name, evidence.bound, condition.threshold, at_least=condition.at_least
    )


def describe_void_risk(evidence: ProposalEvidence) -> str:
    """Describe what becomes of a proposal whose gate isn't met now, "" if it is met."""
    if evidence.has_turned:
        return f"The evidence has turned ({TURNED_TEXT}): the next tick voids this proposal."
    current = [reading.current for reading in evidence.readings if reading.current is not None]
    if all(condition.is_met for condition in current):
        return ""
    return (
        "The evidence doesn't meet the gate now, but an approval still counts and the last one "
        f"still takes effect: only evidence that has turned ({TURNED_TEXT}) voids the proposal."
    )


def build_requirement_rows(progress: GateMinimumProgress) -> tuple[RequirementRow, ...]:
    """Return the rows of the gate's minimums, as counted now."""
    minimum = progress.minimum
    days, limit = f"Missing, last {RECENT_DAYS} days", progress.missing_at_most
    return (
        _build_minimum_row("Units", progress.units, minimum.units),
        _build_minimum_row("Days", progress.days, minimum.days),
        _build_minimum_row("Reviewers", progress.reviewers, minimum.reviewers),
        _build_missing_row("Missing units", (progress.missing_units, progress.closed_units), limit),
        _build_missing_row(days, (progress.recent_missing, progress.recent_closed), limit),
    )


def _build_missing_row(
    name: str, counts: tuple[int, int], missing_at_most: float
) -> RequirementRow:
    missing, closed = counts
    share_text = f", {format_percent(missing / closed)}" if closed else ""
    return RequirementRow(
        name,
        f"{format_count(missing)} of {format_count(closed)}{share_text}",
        f"at most {format_percent(missing_at_most, 0)}",
        missing <= missing_at_most * closed,
    )


def _build_minimum_row(name: str, count: int, minimum: int) -> RequirementRow:
    return RequirementRow(
        name, format_count(count), f"at least {format_count(minimum)}", count >= minimum
    )
