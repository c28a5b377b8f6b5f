"""A small chart: estimate as a dot, bound as a bar, threshold as a mark."""

from markupsafe import Markup

from api.console.page.figures import format_bound
from rollout.core.policy.outcomes import GAIN
from rollout.reports.pages.chart_coordinates import format_pixels
from rollout.reports.text.bound_text import format_estimate, format_threshold

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
    if estimate is None or bound is None or measure in {"parity", GAIN}:  # these have no 100 %
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
        describe_scale(measure, threshold, estimate, bound, at_least=at_least),
        format_pixels(min(estimate_x, bound_x)), format_pixels(abs(estimate_x - bound_x)), edge,
        format_pixels(estimate_x), format_pixels(threshold_x),
        format_pixels(min(max(threshold_x, 24), 216)), format_threshold(measure, threshold),
    )  # fmt: skip


def describe_scale(
    measure: str, threshold: float, estimate: float, bound: float, *, at_least: bool
) -> str:
    """Describe the figures of a chart."""
    return (
        f"{format_estimate(measure, estimate)},"
        f" {format_bound(measure, bound, threshold, at_least=at_least)}, threshold"
        f" {format_threshold(measure, threshold)}"
    )
