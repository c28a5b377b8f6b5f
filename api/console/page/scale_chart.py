"""A bound beside its line, drawn: the share so far as a dot, how far it may be off as a bar."""

from markupsafe import Markup

from api.console.page.figures import bound_of, line_of, value_of


def pixels(value: float) -> str:
    """Return a coordinate or a length, without a decimal that says nothing.

    >>> pixels(12.04), pixels(12.25)
    ('12', '12.2')
    """
    return f"{value:.1f}".removesuffix(".0")


LEFT, WIDTH = 6, 228
SPREAD = 2.4
"""The drawing shows so many times what lies between a line and all right."""
DRAWN = Markup(
    '<svg class="chart scale" width="240" height="34" viewBox="0 0 240 34" role="img" '
    'aria-label="{0}"><rect class="g-track" x="6" y="8" width="228" height="8" rx="1"/>'
    '<rect class="g-reach" x="{1}" y="8" width="{2}" height="8"/>{3}'
    '<circle class="g-dot" cx="{4}" cy="12" r="4"/>'
    '<line class="g-linemark" x1="{5}" x2="{5}" y1="1" y2="23"/>'
    '<text x="{6}" y="33" text-anchor="middle">{7}</text></svg>'
)


def scale(
    measure: str, line: float, estimate: float | None, bound: float | None, *, at_least: bool
) -> Markup:
    """Return a drawing of 240 by 34 px, with its figures as its label; "" without any.

    A bound beyond the edge is drawn as an arrow there.
    """
    if estimate is None or bound is None or measure == "parity":
        return Markup("")
    low, high = (
        (max(0.0, 1 - SPREAD * (1 - line)), 1.0) if at_least else (0.0, SPREAD * line or 1.0)
    )

    def x(value: float) -> float:
        return LEFT + WIDTH * min(max((value - low) / (high - low), 0.0), 1.0)

    estimate_x, bound_x, threshold_x = x(estimate), x(bound), x(line)
    is_inside = low < bound < high
    edge = (
        Markup('<line class="g-lowmark" x1="{0}" x2="{0}" y1="5" y2="19"/>').format(pixels(bound_x))
        if is_inside
        else Markup('<path class="g-lowmark" d="M{} 7 {} 12l{} 5" fill="none"/>').format(
            *(("12", "6", "6") if at_least else ("228", "234", "-6"))
        )
    )
    return DRAWN.format(
        said(measure, line, estimate, bound, at_least=at_least),
        pixels(min(estimate_x, bound_x)), pixels(abs(estimate_x - bound_x)), edge,
        pixels(estimate_x), pixels(threshold_x),
        pixels(min(max(threshold_x, 24), 216)), line_of(measure, line),
    )  # fmt: skip


def said(measure: str, line: float, estimate: float, bound: float, *, at_least: bool) -> str:
    """Say the figures of a drawing."""
    return (
        f"{value_of(measure, estimate)}, {bound_of(measure, bound, line, at_least=at_least)}, "
        f"line {line_of(measure, line)}"
    )
