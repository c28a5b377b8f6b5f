"""Coefficients case by case, as their sources define them: what vectors are compared with."""

from math import isnan

from rollout.features.reports.figures.ratings import compute_alphas, compute_label_parts
from rollout.kernel.units import compute_overlap


def compute_masi_distance(first, second):
    """Return the MASI distance of two sets: 1 - Jaccard index x monotonicity.

    Monotonicity is 1 for equal sets, 2/3 if one contains the other, 1/3 for other common labels.

    >>> round(compute_masi_distance({"a", "b"}, {"a"}), 4)
    0.6667

    Source: Passonneau, Proceedings of LREC (2006) 831.
    """
    first, second = set(first), set(second)
    if first == second:
        return 0.0
    monotonicity = 2 / 3 if first <= second or second <= first else 1 / 3
    return 1 - compute_overlap(first, second) * monotonicity


def compute_alpha(values):
    """Return nominal Krippendorff's alpha of value counts per case; None if undefined.

    Source: Krippendorff, Content Analysis (2004), chapter 11.
    """
    parts = compute_label_parts(values[values.sum(axis=1) >= 2])
    alphas = compute_alphas(parts.sum(axis=0, keepdims=True))
    return float(alphas[0]) if len(alphas) and not isnan(alphas[0]) else None
