"""Counted pairs of numbers by side: within the tolerance, below it, above it."""

from collections.abc import Iterable
from dataclasses import dataclass

from rollout.core.policy.measures import AGREE
from rollout.reports.statistics.intervals import Share, compute_share

UNDER, OVER = "under", "over"  # as units are counted


@dataclass(frozen=True, slots=True)
class NumberSides:
    """Where the model's numbers lie, of all compared ones, as independent cases.

    Attributes:
        within: within the tolerance of the human's number.
        below, above: farther off, on that side.
        unusable: failed, late, or a number out of range on either side.
    """

    within: Share
    below: Share
    above: Share
    unusable: Share


def compute_number_sides(counts: Iterable[tuple[str, str, int]]) -> NumberSides:
    """Return the sides of counted pairs: human side, model side, count.

    >>> sides = compute_number_sides([(AGREE, AGREE, 6), (AGREE, UNDER, 3), (AGREE, "(failed)", 1)])
    >>> sides.within.count, sides.below.count, sides.above.count, sides.unusable.count
    (6, 3, 0, 1)
    """
    totals = {AGREE: 0, UNDER: 0, OVER: 0, "": 0}
    for human, model, count in counts:
        totals[model if human == AGREE and model in totals else ""] += count
    n = sum(totals.values())
    within, below, above, unusable = (compute_share(count, n) for count in totals.values())
    return NumberSides(within, below, above, unusable)
