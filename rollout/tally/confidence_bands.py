"""The confidence band of each unit, by which the floors of a policy count it."""

import narwhals as nw

from rollout.core.policy.policy import Policy


def build_band_columns(policy: Policy) -> dict[str, nw.Expr]:
    """Return the column `band`: how many floors above the lowest the confidence reaches.

    A missing confidence reaches none, as does one above 1. There is no column without such floors.
    """
    floors = policy.evidence.higher_floors
    if not floors:
        return {}
    confidence = nw.col("confidence")
    reached = (
        ((confidence >= floor) & (confidence <= 1)).fill_null(value=False).cast(nw.Int64)
        for floor in floors
    )
    return {"band": nw.sum_horizontal(*reached)}
