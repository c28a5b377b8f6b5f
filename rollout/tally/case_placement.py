"""Where and when each case of a history was: its window, local day, unit and pick.

This is the part of counting that no dataframe expression can say (sun, holidays, time zones,
keyed draws), done once per case before `resolve`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import narwhals as nw
import numpy as np
import polars as pl
from numpy.typing import NDArray

from rollout.core.calendar.sites import Site, windows_at
from rollout.core.calendar.timezones import local_days
from rollout.core.policy.policy import Policy
from rollout.core.statistics.sampling import draws
from rollout.tally.frames import ATTRIBUTE, Records
from rollout.tally.reviewer_checks import asked_of, mark_left_out, seen_blind
from rollout.tally.slots import EPOCH, micros
from rollout.tally.unit_keys import unit_key
from rollout.tally.units import Placed

NO_TIME, UNKNOWN_SITE, NO_EPISODE = "no time", "unknown site", "no episode"


@dataclass(frozen=True, slots=True)
class History:
    """Records placed under a policy, and how many cases could not be, by reason."""

    placed: Placed
    cases: pl.DataFrame
    left_out: Mapping[str, int]


def place(
    records: Records,
    policy: Policy,
    salt: bytes,
    trained_until: Mapping[str, datetime] | None = None,
) -> History:
    """Place every case that has a time, a site of the policy and a unit; count the others."""
    cases, excluded_counts = _placeable(records, policy)
    cases = _windowed(cases, policy)
    cases = cases.with_columns(pick=_picks(cases, salt))
    trained_until_micros = {
        version: micros(at - EPOCH) for version, at in (trained_until or {}).items()
    }
    decisions = records.decisions.join(cases.select("case_key", "t"), on="case_key")
    decisions = decisions.with_columns(at=pl.coalesce(pl.col("at").dt.epoch("us"), "t")).drop("t")
    blind = decisions.filter(seen_blind(policy))
    placed = Placed(
        cases=_lazy(
            cases.select("case_key", "site", "window", "unit", "pick", "day", "t", "received")
        ),
        predictions=_lazy(records.predictions.with_columns(at=pl.col("at").dt.epoch("us"))),
        decisions=_lazy(mark_left_out(blind, asked_of(records, policy))),
        assisted=_lazy(decisions.filter(pl.col("exposure") == "assisted")),
        trained_until=trained_until_micros,
    )
    return History(placed, cases, excluded_counts)


def _lazy(frame: pl.DataFrame) -> nw.LazyFrame[Any]:
    return nw.from_native(frame.lazy())


def _placeable(records: Records, policy: Policy) -> tuple[pl.DataFrame, dict[str, int]]:
    """Return the cases that can be evidence at all, with `t`, `received` and `unit`."""
    t = pl.col("occurred_at").dt.epoch("us")
    cases = records.cases.with_columns(
        t=t,
        received=pl.coalesce(pl.col("received_at").dt.epoch("us"), t),
        unit=unit_key(policy),
    )
    conditions = {
        NO_TIME: pl.col("t").is_not_null(),
        UNKNOWN_SITE: pl.col("site").is_in([site.id for site in policy.sites]),
        NO_EPISODE: pl.col("unit").is_not_null(),
    }
    excluded_counts = {}
    for reason, condition in conditions.items():
        fitting_cases = cases.filter(condition)
        excluded_counts[reason] = cases.height - fitting_cases.height
        cases = fitting_cases
    return cases, excluded_counts


def _windowed(cases: pl.DataFrame, policy: Policy) -> pl.DataFrame:
    """Add each case's window and local day, site by site."""
    parts = [
        part.with_columns(
            window=_windows(part, policy.site[site], policy),
            day=pl.Series(local_days(policy.site[site], _instants(part)), dtype=pl.Int64),
        )
        for (site,), part in cases.partition_by("site", as_dict=True, maintain_order=True).items()
    ]
    if not parts:
        return cases.with_columns(window=pl.lit(None, pl.String), day=pl.lit(None, pl.Int64))
    return pl.concat(parts)


def _instants(part: pl.DataFrame) -> NDArray[np.datetime64]:
    return part["t"].to_numpy().astype("datetime64[us]")


def _windows(part: pl.DataFrame, site: Site, policy: Policy) -> pl.Series:
    names = [name for name in part.columns if name.startswith(ATTRIBUTE)]
    attributes = {n.removeprefix(ATTRIBUTE): part[n].to_numpy() for n in names}
    return pl.Series(windows_at(site, policy.windows, _instants(part), attributes), dtype=pl.String)


def _picks(cases: pl.DataFrame, salt: bytes) -> pl.Series:
    """Return the draw by which an episode's unit is picked; 0 where there is nothing to pick."""
    shares_unit = cases.select(pl.len().over("unit") > 1).to_series()
    keys = cases.filter(shares_unit)["case_key"].to_list()
    picks = np.zeros(cases.height)
    picks[shares_unit.to_numpy()] = draws(salt, "pick", keys)
    return pl.Series(picks)
