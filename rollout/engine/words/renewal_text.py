"""Both errors of a renewal in words: of a cell below the threshold, and of one above it."""

from collections.abc import Iterable
from math import floor

from rollout.engine.words.formatting import format_count
from rollout.kernel.measures import Condition, Statistic
from rollout.kernel.statistics.forecast import compute_renewal_chance

BELOW, ABOVE = 0.4, 0.6
"""Parts of the distance from the threshold to 1: the examples at 95 % are 93 % and 98 %."""


def select_renewal_condition(conditions: Iterable[Condition]) -> Condition | None:
    """Return the first condition on a share of the cases that occur, or None."""
    return next(
        (
            condition
            for condition in conditions
            if type(condition) is Condition and condition.measure.statistic is Statistic.SHARE
        ),
        None,
    )


def describe_renewal_errors(condition: Condition, audits: int) -> str:
    r"""Return how often cells are renewed or lapse with a grant's audits, by the exact law.

    >>> from rollout.kernel.measures import MEASURES
    >>> text = describe_renewal_errors(Condition(MEASURES["agreement"], 0.95), 100)
    >>> print(text.replace("; ", ";\n"))
    with 100 audits a cell at the threshold is renewed in 22 %, one at 93 % in 7 %;
    a cell at 98 % lapses in 22 %
    """
    line, show = condition.share, condition.measure.from_share
    below, above = line - BELOW * (1 - line), line + ABOVE * (1 - line)
    at_line, at_below, at_above = (
        compute_renewal_chance(audits, at_least=line, rate=rate) for rate in (line, below, above)
    )
    return (
        f"with {format_count(audits)} audits a cell at the threshold is renewed in"
        f" {_format_chance(at_line)}, one at {show(below) * 100:.3g} % in"
        f" {_format_chance(at_below)}; a cell at {show(above) * 100:.3g} % lapses in"
        f" {_format_chance(1 - at_above)}"
    )


def _format_chance(chance: float) -> str:
    if chance < 0.005:
        return "under 1 %"
    return "over 99 %" if chance > 0.995 else f"{floor(chance * 100 + 0.5)} %"
