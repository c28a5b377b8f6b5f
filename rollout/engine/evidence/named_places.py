"""Cases that only a decision places: none was stored in time, or it was stored at another place.

Whoever sends the cases could leave out those that its model would get wrong, or send them as cases
of another cell. So a decision that names its place makes a unit there, which is missing. Guards
count the case where it was stored: who names another place must not blind them. Nor can a sender
move its own cases out of a cell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from rollout.engine.evidence.frames import ATTRIBUTE_PREFIX
from rollout.kernel.calendar.instants import count_micros

if TYPE_CHECKING:
    from rollout.kernel.policy.policy import Policy


CASELESS, UNIT = "caseless", "unit"
OWN_PLACE: Final = ("site", "window", "received")


def find_named_cases(
    cases: pl.DataFrame, named_places: pl.DataFrame, policy: Policy
) -> pl.DataFrame:
    """Return the cases that decisions place at a known site, without their windows yet.

    `own_site`, `own_window` and `own_received` are those of the stored case, null if there is none;
    the attributes are its, too.
    """
    received = pl.col("received_at").dt.epoch("us")
    places = named_places.filter(pl.col("site").is_in([site.id for site in policy.sites]))
    places = places.with_columns(
        occurred_us=pl.col("occurred_at").dt.epoch("us"), received=received, known=received
    )
    attributes = [name for name in cases.columns if name.startswith(ATTRIBUTE_PREFIX)]
    own = cases.select("case_key", *attributes, *(pl.col(n).alias(f"own_{n}") for n in OWN_PLACE))
    return places.join(own, on="case_key", how="left", maintain_order="left")


def replace_by_named(
    cases: pl.DataFrame, named_cases: pl.DataFrame, policy: Policy
) -> pl.DataFrame:
    """Return placed cases with those that only a decision places, which `caseless` marks.

    A case is stored in time if it came before the missing unit would be counted.
    """
    due = pl.col("occurred_us") + count_micros(policy.evidence.grace)
    is_late = pl.col("own_received") > pl.max_horizontal(due, "received")
    is_in_other_window = pl.col("has_time") & (pl.col("window") != pl.col("own_window"))
    is_elsewhere = (pl.col("site") != pl.col("own_site")) | is_in_other_window
    is_other_place = pl.col("may_move") & (is_late | is_elsewhere)
    caseless = named_cases.filter(pl.col("own_site").is_null() | is_other_place)
    caseless = caseless.with_columns(
        unit=_build_unit_key(policy), caseless=pl.lit(value=True), is_registered=pl.lit(value=True)
    )
    others = cases.join(caseless, on="case_key", how="anti", maintain_order="left")
    others = others.with_columns(caseless=pl.lit(value=False))
    own_names = [f"own_{name}" for name in OWN_PLACE]
    return pl.concat(
        [others, caseless.drop("has_time", "may_move", *own_names)], how="diagonal_relaxed"
    )


def list_guard_cases(cases: pl.DataFrame, sent_cases: pl.DataFrame) -> pl.DataFrame:
    """Return cases as guards count them: where they were sent, if anybody sent them.

    Of `cases` that only a decision places those are among them that nobody sent.
    """
    units = cases.select("case_key", case_unit=UNIT)
    guard_cases = sent_cases.join(units, on="case_key", how="left", maintain_order="left")
    guard_cases = guard_cases.with_columns(
        pl.coalesce("case_unit", UNIT).alias(UNIT), caseless=pl.lit(value=False)
    )
    unsent = cases.join(sent_cases, on="case_key", how="anti", maintain_order="left")
    return pl.concat([guard_cases.drop("case_unit"), unsent], how="diagonal_relaxed")


def _build_unit_key(policy: Policy) -> pl.Expr:
    """Return the unit's key: the case, or all of a site within one clock span."""
    span = policy.evidence.episode_span
    if policy.evidence.unit == "case" or span is None:
        return pl.col("case_key")
    place = pl.col("occurred_us") // count_micros(span)
    return pl.format("{}@{} without a case", pl.col("site"), place)
