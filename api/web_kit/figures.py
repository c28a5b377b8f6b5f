"""Figures beside their thresholds."""

from collections.abc import Sequence

from markupsafe import Markup

from rollout.engine.words.formatting import (
    format_bound_value,
    format_count,
    format_estimate,
    format_reading,
    format_threshold,
    is_amount,
    is_difference,
)
from rollout.features.proposals.proposal_details import Proposal
from rollout.features.reports.pages.number_charts import format_pixels
from rollout.kernel.facts import StoredReading
from rollout.kernel.measures import Statistic
from rollout.kernel.policy.policy import Policy
from rollout.kernel.words import say_measured


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
    if is_difference(measure):
        return format_arm_counts(counts)
    if not is_amount(measure):
        return f"{format_count(counts[0])} of {format_count(total)}"
    return f"{format_count(total)} counted"


def format_arm_counts(counts: tuple[int, ...]) -> str:
    """Format the counts of both arms.

    >>> format_arm_counts((31, 1300, 4))
    '31 by the model, 1,300 by humans, 4 unknown'
    """
    model, people, missing = map(format_count, counts)
    return f"{model} by the model, {people} by humans, {missing} unknown"


def name_measure(name: str, unit: str) -> str:
    """Return what a condition measures, an amount with its unit.

    >>> name_measure("gain of profit", "EUR")
    'gain of profit in EUR per unit'
    """
    return f"{name} in {unit} per unit" if unit else name


def format_brief(details: Proposal, policy: Policy, *, limit: int = 3) -> str:
    """Format what a proposal rests on briefly: shares as counts, costs as means."""
    texts = list_brief_grounds(details.readings, details.texts, policy)
    more_text = [f"{len(texts) - limit} more"] if len(texts) > limit else []
    return "; ".join([*texts[:limit], *more_text])


def list_brief_grounds(
    readings: Sequence[StoredReading], texts: Sequence[str], policy: Policy
) -> list[str]:
    """Return briefly what a proposal rests on, a line for each of its texts."""
    brief = [_format_brief_reading(reading, policy) for reading in readings]
    return [*brief, *texts[len(brief) :]]


def _format_brief_reading(reading: StoredReading, policy: Policy) -> str:
    condition = reading.parse_condition()
    if condition.measure.statistic is not Statistic.MEAN:
        return say_measured(reading)
    if len(reading.counts) != len(policy.cost_levels):
        return f"{condition}: {format_count(sum(reading.counts))} units"
    return format_reading(reading, policy)


LEFT, WIDTH = 6, 228
RANGE_FACTOR = 2.4
"""The scale spans this multiple of the distance between threshold and perfect."""
SVG_TEMPLATE = Markup(
    '<svg class="chart scale" width="240" height="34" viewBox="0 0 240 34" role="img" '
    'aria-label="{0}"><rect class="g-track" x="6" y="8" width="228" height="8" rx="1"/>'
    '<rect class="g-reach" x="{1}" y="8" width="{2}" height="8"/>{3}'
    '<circle class="g-dot" cx="{4}" cy="12" r="4"/>'
    '<line class="g-linemark" x1="{5}" x2="{5}" y1="1" y2="23"/>'
    '<text x="{6}" y="33" text-anchor="middle">{7}</text></svg>'
)


def draw_scale(
    measure: str, threshold: float, estimate: float | None, bound: float | None, *, at_least: bool
) -> Markup:
    """Draw a chart of 240 by 34 px, labelled with its figures.

    A bound beyond the edge is drawn as an arrow there.
    """
    if estimate is None or bound is None or is_difference(measure):  # it has no 100 %
        return Markup("")
    low, high = (
        (max(0.0, 1 - RANGE_FACTOR * (1 - threshold)), 1.0)
        if at_least
        else (0.0, RANGE_FACTOR * threshold or 1.0)
    )

    def x(value: float) -> float:
        return LEFT + WIDTH * min(max((value - low) / (high - low), 0.0), 1.0)

    estimate_x, bound_x, threshold_x = x(estimate), x(bound), x(threshold)
    is_inside = low < bound < high
    edge = (
        Markup('<line class="g-lowmark" x1="{0}" x2="{0}" y1="5" y2="19"/>').format(
            format_pixels(bound_x)
        )
        if is_inside
        else Markup('<path class="g-lowmark" d="M{} 7 {} 12l{} 5" fill="none"/>').format(
            *(("12", "6", "6") if at_least else ("228", "234", "-6"))
        )
    )
    return SVG_TEMPLATE.format(
        f"{format_estimate(measure, estimate)},"
        f" {format_bound(measure, bound, threshold, at_least=at_least)}, threshold"
        f" {format_threshold(measure, threshold)}",
        format_pixels(min(estimate_x, bound_x)), format_pixels(abs(estimate_x - bound_x)), edge,
        format_pixels(estimate_x), format_pixels(threshold_x),
        format_pixels(min(max(threshold_x, 24), 216)), format_threshold(measure, threshold),
    )  # fmt: skip
