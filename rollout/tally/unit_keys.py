"""The key of each case's unit: what is counted once."""

import polars as pl

from rollout.core.policy.policy import Policy
from rollout.tally.slots import micros


def unit_key(policy: Policy) -> pl.Expr:
    """Return the unit's key: the case, its episode, or one span of the clock at its site.

    Null where a case names no episode and the policy gives no span.
    """
    if policy.evidence.unit == "case":
        return pl.col("case_key")
    span = policy.evidence.episode_span
    if span is None:
        return pl.col("episode")
    slot = pl.col("occurred_at").dt.epoch("us") // micros(span)
    return pl.coalesce("episode", pl.format("{}@{}", pl.col("site"), slot))
