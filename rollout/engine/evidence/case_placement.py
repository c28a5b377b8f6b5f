"""The window, local day, unit and selection value of each case.

This part of counting needs sun, holidays, time zones and keyed sampling values, which no dataframe
expression computes. It runs once for each case, before `resolve_units`.

Cases that only a decision places: none was stored in time, or it was stored at another place.

Whoever sends the cases could leave out those that its model would get wrong, or send them as cases
of another cell. So a decision that names its place makes a unit there, which is missing. Guards
count the case where it was stored: who names another place must not blind them. Nor can a sender
move its own cases out of a cell.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from rollout.engine.evidence.frames import (
    ATTRIBUTE_PREFIX,
    SLICES,
    RecordFrames,
    add_slices,
    select_rows,
)
from rollout.engine.evidence.reviewer_checks import is_blind_decision
from rollout.engine.evidence.units import PlacedRecords, build_unit_key
from rollout.engine.evidence.version_uses import ANY_VERSION, NO_USES, VersionUses, list_draws
from rollout.kernel.calendar.instants import EPOCH, compute_local_days, count_micros
from rollout.kernel.calendar.sites import OTHER_WINDOW, Site
from rollout.kernel.calendar.windows import find_windows
from rollout.kernel.late_modules import LateModule
from rollout.kernel.statistics.gate_thresholds import compute_sampling_values

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    import narwhals as nw

    from rollout.engine.evidence.unit_arrays import IntArray
    from rollout.kernel.policy.policy import Policy
else:
    nw = LateModule("narwhals")


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


UNIT_CASE_COLUMNS: Final = (
    *("case_key", "site", "window", "unit", "selection_value", "day", "occurred_us", "received"),
    *("known", SLICES, CASELESS),
)
PICK = "pick"  # purpose of the sampling values that select one case of several
NO_TIME, UNKNOWN_SITE, NO_EPISODE = "no time", "unknown site", "no episode"


@dataclass(frozen=True, slots=True)
class PlacedHistory:
    """Placed records, the number of excluded cases by reason, and the salt of sampling values.

    `cases` are those of gates and guards; `is_registered` is false for those of guards alone.
    `uses` are those of versions that other records than these begin, or end.
    """

    placed: PlacedRecords
    cases: pl.DataFrame
    excluded: Mapping[str, int]
    salt: bytes = field(repr=False)
    uses: VersionUses = NO_USES


def place_cases(
    records: RecordFrames,
    policy: Policy,
    salt: bytes,
    trained_until: Mapping[str, datetime] | None = None,
) -> PlacedHistory:
    """Place the cases with a time, a known site and a unit."""
    cases, excluded_counts = _select_evidence_cases(records.cases, policy)
    cases = _add_windows(cases, policy).with_columns(
        is_registered=pl.lit(value=True), caseless=pl.lit(value=False)
    )
    guard_cases = None
    if not (records.named_places.is_empty() and records.guard_cases.is_empty()):
        sent_cases = _replace_sent(cases, records.guard_cases, policy)
        named_cases = find_named_cases(cases, records.named_places, policy)
        cases = replace_by_named(cases, _add_windows(named_cases, policy), policy)
        guard_cases = _add_draws(list_guard_cases(cases, sent_cases), policy, salt)
    gate_cases = cases = _add_draws(cases, policy, salt)
    if guard_cases is not None:
        others = guard_cases.join(cases, on="case_key", how="anti", maintain_order="left")
        cases = pl.concat([cases, others], how="diagonal_relaxed")
    trained_until_micros = {
        version: count_micros(at - EPOCH) for version, at in (trained_until or {}).items()
    }
    decisions = _select_timed_decisions(records, cases)
    is_blind = is_blind_decision(policy)
    blind = select_rows(decisions, is_blind)
    assisted = decisions.filter(pl.col("exposure") == "assisted")
    draws = list_draws(cases)
    placed = PlacedRecords(
        cases=_to_lazy(gate_cases.select(UNIT_CASE_COLUMNS)),
        predictions=_to_lazy(_time_predictions(records.predictions)),
        decisions=_to_lazy(blind),
        assisted_decisions=None if assisted.is_empty() else _to_lazy(assisted),
        trained_until=trained_until_micros,
        guard_cases=None
        if guard_cases is None
        else _to_lazy(guard_cases.select(UNIT_CASE_COLUMNS)),
        drawn=None if draws is None else _to_lazy(_list_asked(draws)),
        other_decisions=_list_other_decisions(
            records, decisions.filter(~is_blind.fill_null(value=False))
        ),
    )
    return PlacedHistory(placed, cases, excluded_counts, salt)


def _replace_sent(cases: pl.DataFrame, guard_cases: pl.DataFrame, policy: Policy) -> pl.DataFrame:
    """Return cases with those that guards count as another sender sent them."""
    if guard_cases.is_empty():
        return cases
    others = _add_windows(_select_evidence_cases(guard_cases, policy)[0], policy)
    others = others.with_columns(is_registered=pl.lit(value=False), caseless=pl.lit(value=False))
    registered = cases.join(others, on="case_key", how="anti", maintain_order="left")
    return pl.concat([registered, others], how="diagonal_relaxed")


def _add_draws(cases: pl.DataFrame, policy: Policy, salt: bytes) -> pl.DataFrame:
    """Add slices and the selection values by which a unit's case is drawn."""
    cases = add_slices(cases, policy)
    if policy.evidence.unit == "case":
        return cases.with_columns(selection_value=pl.lit(0.0))
    return cases.with_columns(selection_value=_compute_selection_values(cases, salt))


def locate_cases(records: RecordFrames, policy: Policy) -> pl.DataFrame:
    """Return the cases with a time, a known site and a unit, each with its window and unit.

    They are those of `place_cases`, without what counting needs beside them.
    """
    return _add_windows(_select_evidence_cases(records.cases, policy)[0], policy)


def find_first_predictions(records: RecordFrames, cases: pl.DataFrame) -> dict[str, datetime]:
    """Return the time of each version's first prediction of one of the cases, in order.

    The time of the case replaces a missing one.
    """
    spans = find_prediction_spans(records, cases)
    return {version: first for version, (first, _) in spans.items()}


def find_prediction_spans(
    records: RecordFrames, cases: pl.DataFrame
) -> dict[str, tuple[datetime, datetime]]:
    """Return the times of each version's first and last prediction, by the first."""
    timed_predictions = records.predictions.select("case_key", "version", "at").join(
        cases.select("case_key", "occurred_at"), on="case_key"
    )
    at = pl.coalesce("at", "occurred_at")
    spans = timed_predictions.group_by("version").agg(first=at.min(), last=at.max())
    return {name: (first, last) for name, first, last in spans.sort("first", "version").iter_rows()}


def _time_predictions(predictions: pl.DataFrame) -> pl.DataFrame:
    """Return predictions with times in microseconds; null: the case's time."""
    at, received = pl.col("at").dt.epoch("us"), pl.col("received_at").dt.epoch("us")
    known_at = pl.coalesce(pl.col("known_at").dt.epoch("us"), received, at)
    return predictions.with_columns(
        at=at, prediction_received=pl.coalesce(received, at), prediction_known=known_at
    )


def _select_timed_decisions(records: RecordFrames, cases: pl.DataFrame) -> pl.DataFrame:
    """Return the decisions on placed cases with `at` and `received` in microseconds.

    `at` is the earlier of what they state and their receipt; without either it is the case's time.
    """
    at, received_at = pl.col("at").dt.epoch("us"), pl.col("received_at").dt.epoch("us")
    decisions = records.decisions.with_columns(
        at=pl.min_horizontal(at, received_at), received=pl.coalesce(received_at, at)
    )
    if cases.height == records.cases.height and not decisions["at"].null_count():
        return decisions
    timed = decisions.join(cases.select("case_key", "occurred_us"), on="case_key")
    return timed.with_columns(
        at=pl.coalesce("at", "occurred_us"), received=pl.coalesce("received", "occurred_us")
    ).drop("occurred_us")


def _list_other_decisions(
    records: RecordFrames, seen_decisions: pl.DataFrame
) -> nw.LazyFrame[Any] | None:
    """Return when cases were decided otherwise than by the blind decisions of the frames.

    These are decisions with the model's answer in sight, outcomes, and what only the service knows:
    first revisions and decisions of no source.
    """
    at, received = (pl.col(name).dt.epoch("us") for name in ("at", "received_at"))
    firsts = records.first_decisions.select("case_key", at=at, received=received)
    # what a service received has its receipt there
    known_at = at if firsts.is_empty() else pl.lit(None, pl.Int64)
    outcomes = records.outcomes.select("case_key", at=at, received=known_at)
    frames = (firsts, outcomes, seen_decisions.select("case_key", "at", "received"))
    times = [frame for frame in frames if not frame.is_empty()]
    return _to_lazy(pl.concat(times).drop_nulls("at")) if times else None


def _list_asked(draws: pl.DataFrame) -> pl.DataFrame:
    """Return case_key and version of drawn cases, each also of `ANY_VERSION`."""
    drawn = draws.filter("is_drawn").select("case_key", "version")
    return pl.concat([drawn, drawn.with_columns(version=pl.lit(ANY_VERSION)).unique()])


def _to_lazy(frame: pl.DataFrame) -> nw.LazyFrame[Any]:
    return nw.from_native(frame.lazy())


def _select_evidence_cases(
    cases: pl.DataFrame, policy: Policy
) -> tuple[pl.DataFrame, dict[str, int]]:
    """Return the cases that can be evidence, with `occurred_us`, `received` and `unit`."""
    occurred_us = pl.col("occurred_at").dt.epoch("us")
    cases = cases.with_columns(
        occurred_us=occurred_us,
        received=pl.coalesce(pl.col("received_at").dt.epoch("us"), occurred_us),
        known=pl.coalesce(
            *(pl.col(name).dt.epoch("us") for name in ("known_at", "received_at")), occurred_us
        ),
        unit=build_unit_key(policy),
    )
    conditions = {
        NO_TIME: pl.col("occurred_us").is_not_null(),
        UNKNOWN_SITE: pl.col("site").is_in([site.id for site in policy.sites]),
        NO_EPISODE: pl.col("unit").is_not_null(),
    }
    excluded_counts = {}
    for reason, condition in conditions.items():
        fitting_cases = select_rows(cases, condition)
        excluded_counts[reason] = cases.height - fitting_cases.height
        cases = fitting_cases
    return cases, excluded_counts


def _add_windows(cases: pl.DataFrame, policy: Policy) -> pl.DataFrame:
    """Add each case's window and local day.

    Sites with one calendar are read at once: a batch of 500 cases has as many sites as a day.
    """
    if cases.is_empty():
        return cases.with_columns(window=pl.lit(None, pl.String), day=pl.lit(None, pl.Int64))
    instants = cases["occurred_us"].to_numpy().astype("datetime64[us]")
    columns = [name for name in cases.columns if name.startswith(ATTRIBUTE_PREFIX)]
    attributes = {name.removeprefix(ATTRIBUTE_PREFIX): cases[name].to_numpy() for name in columns}
    window_ids = [*(window.id for window in policy.windows), OTHER_WINDOW]
    numbers, days = np.zeros((2, cases.height), dtype=np.int64)
    for site, rows in _group_by_calendar(cases["site"], policy):
        site_attributes = {name: values[rows] for name, values in attributes.items()}
        site_windows = find_windows(site, policy.windows, instants[rows], site_attributes)
        for number, window_id in enumerate(window_ids):
            numbers[rows[site_windows == window_id]] = number
        days[rows] = compute_local_days(site, instants[rows])
    return cases.with_columns(
        window=pl.Series(window_ids, dtype=pl.String).gather(numbers), day=pl.Series(days)
    )


def _group_by_calendar(site_ids: pl.Series, policy: Policy) -> Iterator[tuple[Site, IntArray]]:
    """Yield a site of each calendar, and the positions of all sites with that calendar."""
    sites: dict[tuple[object, ...], Site] = {}
    numbers: dict[str, int] = {}
    for site_id in site_ids.unique(maintain_order=True):
        site = policy.sites_by_id[site_id]
        calendar = (site.timezone, site.country, site.coordinates)
        sites.setdefault(calendar, site)
        numbers[site_id] = list(sites).index(calendar)
    calendar_numbers = site_ids.replace_strict(numbers, return_dtype=pl.Int64).to_numpy()
    for number, site in enumerate(sites.values()):
        yield site, np.flatnonzero(calendar_numbers == number)


def _compute_selection_values(cases: pl.DataFrame, salt: bytes) -> pl.Series:
    """Return the values that select each unit's case; 0 without a choice."""
    shares_unit = cases.select(pl.len().over("unit") > 1).to_series()
    keys = cases.filter(shares_unit)["case_key"].to_list()
    values = np.zeros(cases.height)
    values[shares_unit.to_numpy()] = compute_sampling_values(salt, PICK, keys)
    return pl.Series(values)
