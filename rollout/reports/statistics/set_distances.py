"""MASI distances of all pairs of sets at once, and which of them agree."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rollout.kernel.label_sets import SLACK, split_label_set

Floats = NDArray[np.float64]


def compare_sets(texts: Sequence[str], overlap: float) -> tuple[Floats, Floats]:
    """Return the MASI distance of each pair of sets, and 1 where two agree, else 0.

    Both have the shape (sets, sets). The distance is 1 less overlap times monotonicity, which is 1
    for equal sets, 2/3 if one contains the other and 1/3 for other common labels; the other is
    what `do_sets_agree` says.

    Source: Passonneau, Proceedings of LREC (2006) 831.
    """
    sets = [split_label_set(text) for text in texts]
    labels = sorted(frozenset[str]().union(*sets))
    has_label = np.array([[label in labels_of for label in labels] for labels_of in sets], float)
    has_label = has_label.reshape(len(sets), len(labels))
    common, size = has_label @ has_label.T, has_label.sum(axis=1)
    either = size[:, None] + size[None, :] - common
    jaccard = np.where(either > 0, common / np.maximum(either, 1), 1.0)
    contains = common == np.minimum(size[:, None], size[None, :])
    monotonicity = np.where(common == either, 1.0, np.where(contains, 2 / 3, 1 / 3))
    return 1 - jaccard * monotonicity, (jaccard >= overlap - SLACK).astype(float)
