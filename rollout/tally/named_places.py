"""Cases that only a decision places: none was stored in time, or it was stored at another place.

Whoever sends the cases could leave out those that its model would get wrong, or send them as cases
of another cell. So a decision that names its place makes a unit there, which is missing. Guards
count the case where it was stored: who names another place must not blind them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from rollout.core.calendar.instants import count_micros
from rollout.tally.frames import ATTRIBUTE_PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable

    from rollout.core.policy.policy import Policy

PLACE: Final = ("site", "window", "day", "occurred_us", "received", "known")
OWN_PLACE: Final = tuple(f"own_{name}" for name in PLACE)
CASELESS: Final = "caseless"


def replace_by_named(
    cases: pl.DataFrame,
    named_places: pl.DataFrame,
    policy: Policy,
    add_windows: Callable[[pl.DataFrame, Policy], pl.DataFrame],
) -> pl.DataFrame:
    """Return placed cases with those that only a decision places.

    `caseless` is true of them, and `own_site` and so on say where the case was stored. A case is
    stored in time if it came before the missing unit would be counted.
    """
    is_site = pl.col("site").is_in([site.id for site in policy.sites])
    attributes = [name for name in cases.columns if name.startswith(ATTRIBUTE_PREFIX)]
    received = pl.col("received_at").dt.epoch("us")
    places = named_places.filter(is_site).with_columns(
        occurred_us=pl.col("occurred_at").dt.epoch("us"),
        received=received,
        known=received,
    )
    own = cases.select("case_key", *PLACE, *attributes)
    own = own.rename(dict(zip(PLACE, OWN_PLACE, strict=True)))
    both = add_windows(places.join(own, on="case_key", how="left", maintain_order="left"), policy)
    counted = pl.max_horizontal(
        pl.col("occurred_us") + count_micros(policy.evidence.grace), "received"
    )
    is_elsewhere = (pl.col("site") != pl.col("own_site")) | (
        pl.col("has_time") & (pl.col("window") != pl.col("own_window"))
    )
    is_missing = pl.col("own_site").is_null() | (pl.col("own_received") > counted) | is_elsewhere
    caseless = both.filter(is_missing).with_columns(
        unit=_build_unit_key(policy), caseless=pl.lit(value=True)
    )
    others = cases.join(caseless, on="case_key", how="anti", maintain_order="left")
    return pl.concat(
        [others.with_columns(caseless=pl.lit(value=False)), caseless.drop("has_time")],
        how="diagonal",
    )


def _build_unit_key(policy: Policy) -> pl.Expr:
    """Return the unit's key: the case, or all of a site within one clock span."""
    span = policy.evidence.episode_span
    if policy.evidence.unit == "case" or span is None:
        return pl.col("case_key")
    place = pl.col("occurred_us") // count_micros(span)
    return pl.format("{}@{} without a case", pl.col("site"), place)
