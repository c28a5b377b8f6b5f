"""Bands of confidence, by which audits are sampled, and the weights of audited units.

Cases that the model is less sure of may be audited more often. Counted alike they would be biased,
so each weighs the least share over its own (Horvitz and Thompson, Journal of the American
Statistical Association 47 (1952) 663). A counted unit keeps its confidence in whole percent: with
its bucket and the policy of its time anybody can compute its weight again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from rollout.core.late_modules import LateModule

if TYPE_CHECKING:
    import narwhals as nw
    from numpy.typing import NDArray

    from rollout.core.policy.policy import Policy
else:
    nw = LateModule("narwhals")

UNRECORDED: Final = 0
"""The band of units that were counted under a policy without audits by confidence."""
NO_CONFIDENCE: Final = 1
"""The band of units without a confidence in [0, 1]; from the next one on, those of 0 %, 1 %, …"""
BANDS: Final = NO_CONFIDENCE + 1 + 101


def build_percent_band(confidence: nw.Expr) -> nw.Expr:
    """Return the band of a confidence: exactly as many whole percents as it reaches."""
    nearest = (confidence * 100).round(0)  # 0.29 * 100 is below 29
    hundred = confidence * 0 + 100  # by a number Polars multiplies: 47 * 0.01 is above 0.47
    reached = nearest - (confidence < nearest / hundred).cast(nw.Float64)
    is_valid = (confidence >= 0) & (confidence <= 1)
    band = nw.when(is_valid).then(reached + (NO_CONFIDENCE + 1)).otherwise(nw.lit(None))
    return band.fill_null(NO_CONFIDENCE).cast(nw.Int64)


def list_band_shares(policy: Policy, stage_level: int) -> NDArray[np.float64]:
    """Return a stage's share of blind decisions by band, 1 in shadow.

    A unit whose band was not recorded counts if the least share would have sampled it.
    """
    if stage_level == 0:
        return np.ones(BANDS)
    stage = policy.get_stage(stage_level)
    percents = (stage.find_reviewed_share(percent / 100) for percent in range(101))
    return np.array([stage.reviewed_share, stage.find_reviewed_share(None), *percents])


def count_band_buckets(policy: Policy, stage_level: int) -> NDArray[np.int64]:
    """Return the number of buckets of those shares; in shadow, all."""
    if stage_level == 0:
        return np.full(BANDS, policy.count_reviewed_buckets(0), dtype=np.int64)
    edges = np.array(policy.bucket_edges)
    shares = list_band_shares(policy, stage_level)
    return np.searchsorted(edges, shares, side="right").astype(np.int64)


def compute_band_weights(policy: Policy, stage_level: int) -> NDArray[np.float64]:
    """Return the weight of an audited unit by band: the least share over its own."""
    shares = list_band_shares(policy, stage_level)
    return np.asarray(shares[UNRECORDED] / shares) if shares[UNRECORDED] > 0 else np.ones(BANDS)
