"""The window, local day, unit, selection value and population of each case.

This part of counting needs sun, holidays, time zones and keyed sampling values, which no dataframe
expression computes. It runs once for each case, before `resolve_units`.

Cases that only a decision places: none was stored in time, or it was stored at another place.
Whoever sends the cases could leave out those that its model would get wrong, or send them as cases
of another cell. So a decision that names its place makes a unit there, which is missing. Guards
count the case where it was stored: who names another place must not blind them. Nor can a sender
move its own cases out of a cell.

There are two populations: cases that occur, and those that users plant. This is the only place that
decides which figures a case belongs to. `split_populations` moves the records of planted cases out
of a history's frames, so what reads these can't count them. Planted units get a track of their own,
which only conditions and figures about planted cases read.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from rollout.engine.evidence.frames import (
    ATTRIBUTE_PREFIX,
    SLICES,
    RecordFrames,
    add_slices,
    select_rows,
    share_constants,
)
from rollout.engine.evidence.picks import add_effective_times
from rollout.engine.evidence.reviewer_checks import is_blind_decision
from rollout.engine.evidence.units import (
    TRACKS,
    PlacedRecords,
    build_unit_key,
    resolve_units,
)
from rollout.engine.evidence.version_uses import (
    ANY_VERSION,
    NO_USES,
    VersionUses,
    add_silent_predictions,
    list_draws,
)
from rollout.kernel.arrays import Ints, nw
from rollout.kernel.calendar.instants import (
    EPOCH,
    OTHER_WINDOW,
    Site,
    compute_local_days,
    count_micros,
)
from rollout.kernel.calendar.windows import find_windows
from rollout.kernel.policy.familiarity import FamiliarityRule, encode_case_values
from rollout.kernel.populations import PLANTED_TRACK
from rollout.kernel.statistics.sampling import compute_sampling_values
from rollout.kernel.units import CASELESS_UNIT

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from datetime import datetime

    from rollout.engine.evidence.decision_resolution import Frame
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
    is_known_site = pl.col("site").is_in([site.id for site in policy.sites])
    places = named_places.filter(is_known_site).with_columns(
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
    guard_cases = sent_cases.join(
        units, on="case_key", how="left", maintain_order="left"
    ).with_columns(pl.coalesce("case_unit", UNIT).alias(UNIT), caseless=pl.lit(value=False))
    unsent = cases.join(sent_cases, on="case_key", how="anti", maintain_order="left")
    return pl.concat([guard_cases.drop("case_unit"), unsent], how="diagonal_relaxed")


def _build_unit_key(policy: Policy) -> pl.Expr:
    """Return the unit's key: the case, or all of a site within one clock span."""
    key, span = pl.col("case_key"), policy.evidence.episode_span
    if policy.evidence.unit == "case":
        return key
    if span is not None:
        key = pl.format("{}@{}", pl.col("site"), pl.col("occurred_us") // count_micros(span))
    return pl.format(CASELESS_UNIT, key)


UNIT_CASE_COLUMNS: Final = (
    *("case_key", "site", "window", "unit", "selection_value", "day", "occurred_us", "received"),
    *("known", "effective_us", SLICES, CASELESS),
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
        sent_cases = add_effective_times(list_guard_cases(cases, sent_cases), records, policy)
        guard_cases = _add_draws(sent_cases, policy, salt)
    gate_cases = cases = _add_draws(add_effective_times(cases, records, policy), policy, salt)
    if guard_cases is not None:
        others = guard_cases.join(cases, on="case_key", how="anti", maintain_order="left")
        cases = pl.concat([cases, others], how="diagonal_relaxed")
    decisions = _select_timed_decisions(records.decisions, records, cases)
    is_blind = is_blind_decision(policy)
    blind = select_rows(decisions, is_blind)
    earlier = _select_timed_decisions(records.earlier_decisions, records, cases)
    assisted = pl.concat([decisions, earlier], how="diagonal").filter(
        pl.col("exposure") == "assisted"
    )
    draws = list_draws(cases)
    placed = PlacedRecords(
        cases=_to_lazy(gate_cases.select(UNIT_CASE_COLUMNS)),
        predictions=_to_lazy(_time_predictions(records.predictions)),
        decisions=_to_lazy(blind),
        assisted_decisions=None if assisted.is_empty() else _to_lazy(assisted),
        earlier_decisions=None if earlier.is_empty() else _to_lazy(earlier.filter(is_blind)),
        trained_until={
            version: count_micros(at - EPOCH) for version, at in (trained_until or {}).items()
        },
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
    return {name: first for name, (first, _) in find_prediction_spans(records, cases).items()}


def find_prediction_spans(
    records: RecordFrames, cases: pl.DataFrame
) -> dict[str, tuple[datetime, datetime]]:
    """Return the times of each version's first and last prediction, by the first."""
    at = pl.coalesce("at", "occurred_at")
    spans = (
        records.predictions.select("case_key", "version", "at")
        .join(cases.select("case_key", "occurred_at"), on="case_key")
        .group_by("version")
        .agg(first=at.min(), last=at.max())
    )
    return {name: (first, last) for name, first, last in spans.sort("first", "version").iter_rows()}


def _time_predictions(predictions: pl.DataFrame) -> pl.DataFrame:
    """Return predictions with times in microseconds; null: the case's time."""
    at, received = pl.col("at").dt.epoch("us"), pl.col("received_at").dt.epoch("us")
    known_at = pl.coalesce(pl.col("known_at").dt.epoch("us"), received, at)
    return predictions.with_columns(
        at=at, prediction_received=pl.coalesce(received, at), prediction_known=known_at
    )


def _select_timed_decisions(
    decisions: pl.DataFrame, records: RecordFrames, cases: pl.DataFrame
) -> pl.DataFrame:
    """Return decisions of records on placed cases with `at` and `received` in microseconds.

    `at` is the earlier of what they state and their receipt; without either it is the case's time.
    """
    at, received_at = pl.col("at").dt.epoch("us"), pl.col("received_at").dt.epoch("us")
    decisions = decisions.with_columns(
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
    at, received, sourced = (
        pl.col(name).dt.epoch("us") for name in ("at", "received_at", "sourced_at")
    )
    firsts = records.first_decisions.select("case_key", at=at, received=received, sourced=sourced)
    # what a service received has its receipt there
    known_at = at if firsts.is_empty() else pl.lit(None, pl.Int64)
    outcomes = records.outcomes.select("case_key", at=at, received=known_at, sourced=known_at)
    frames = (firsts, outcomes, seen_decisions.select("case_key", "at", "received", sourced="at"))
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
    attributes = {
        name.removeprefix(ATTRIBUTE_PREFIX): cases[name].to_numpy()
        for name in cases.columns
        if name.startswith(ATTRIBUTE_PREFIX)
    }
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


def _group_by_calendar(site_ids: pl.Series, policy: Policy) -> Iterator[tuple[Site, Ints]]:
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
    values, keys = np.zeros(cases.height), cases.filter(shares_unit)["case_key"].to_list()
    values[shares_unit.to_numpy()] = compute_sampling_values(salt, PICK, keys)
    return pl.Series(values)


PLANTED_TRACKS: Final = ("gate",)
CASES_AT_ONCE = 125_000
"""Cases whose units are resolved together; more would need more memory, and save no time."""
REPEATED_TEXTS = (
    *("track", "site", "window", "version", "lever", "predicted", "decided", "second"),
    *("reviewer", "excluded"),
)
UNSPLIT_FRAMES: Final = ("rejected", "notes")
"""Frames that say which rows of files were left out or changed, whatever their case."""


def split_populations(records: RecordFrames, planted_keys: Collection[str]) -> RecordFrames:
    """Return the records of the cases that occur, with those of planted cases as `planted`."""
    if not planted_keys:
        return records
    keys = pl.Series(sorted(planted_keys), dtype=pl.String)
    is_planted = pl.col("case_key").is_in(keys.implode())
    frames: dict[str, Any] = {
        part.name: frame
        for part in fields(records)
        if isinstance(frame := getattr(records, part.name), pl.DataFrame)
        and part.name not in UNSPLIT_FRAMES
    }
    planted = {name: frame.filter(is_planted) for name, frame in frames.items()}
    natural = {name: frame.filter(~is_planted) for name, frame in frames.items()}
    return replace(records, **natural, planted=replace(records, **planted))


def resolve_natural_units(
    history: PlacedHistory, policy: Policy, *, tracks: Collection[str] = TRACKS
) -> pl.DataFrame:
    """Return the units of placed cases on their tracks, with their attribute values.

    Among them are those of versions in use that are silent, which the units of others begin.
    """
    units = _resolve_placed(history, policy, tracks)
    return _add_silent_units(units, history, policy, history.uses.extend(units), tracks)


def _add_silent_units(
    units: pl.DataFrame,
    history: PlacedHistory,
    policy: Policy,
    uses: VersionUses,
    tracks: Collection[str],
) -> pl.DataFrame:
    silent = add_silent_predictions(history, policy, uses)
    if silent is None:
        return units
    more = _resolve_placed(silent, policy, tracks)
    return pl.concat([units, more]) if policy.evidence.unit == "case" else more


def _resolve_placed(
    history: PlacedHistory, policy: Policy, tracks: Collection[str]
) -> pl.DataFrame:
    units = resolve_units(history.placed, policy, tracks=tracks).collect("polars").to_native()
    return add_unit_values(units, history.cases, policy)


def add_unit_values(units: pl.DataFrame, cases: pl.DataFrame, policy: Policy) -> pl.DataFrame:
    """Return units with the column `attribute_values`; "" if the policy asks for none.

    It holds the values of each case of the unit, the judged one first. Of an episode those cases
    count that had occurred and arrived by the unit's slot, so later ones change nothing.

    Args:
        units: rows as `rollout.engine.evidence.units.resolve_units` returns them.
        cases: the placed cases, with their attributes.
        policy: for the rule and the tick.
    """
    rule = policy.evidence.familiar
    if rule is None:
        return units.with_columns(attribute_values=pl.lit(""))
    values = cases.select(
        "case_key",
        "unit",
        "is_registered",
        arrived=pl.max_horizontal("occurred_us", "received"),
        values=encode_values(cases, rule),
    )
    own = values.select("case_key", own="values")
    units = units.join(own, on="case_key", how="left", maintain_order="left")
    others = pl.lit("")
    if policy.evidence.unit != "case":
        units = _join_other_values(units, values, count_micros(policy.tick))
        others = pl.col("others")
    return units.with_columns(attribute_values=pl.format("[{}{}]", "own", others)).drop(
        "own", "others", strict=False
    )


def _join_other_values(units: pl.DataFrame, values: pl.DataFrame, tick: int) -> pl.DataFrame:
    """Add the values of an episode's other registered cases that differ from the judged one's."""
    keys = ("unit", "slot", "own")
    others = (
        units.select(keys)
        .unique()
        .join(values.filter("is_registered"), on="unit")
        .filter(pl.col("arrived") <= pl.col("slot") * tick, pl.col("values") != pl.col("own"))
        .group_by(keys)
        .agg(others="," + pl.col("values").unique().sort().str.join(","))
    )
    joined = units.join(others, on=keys, how="left", maintain_order="left")
    return joined.with_columns(pl.col("others").fill_null(""))


def encode_values(cases: pl.DataFrame, rule: FamiliarityRule) -> pl.Series:
    """Return the stored text of each case's values; equal cases are read once."""
    names = sorted(rule.attribute_names)
    columns = [
        pl.col(column) if column in cases.columns else pl.lit(None, pl.String)
        for column in (ATTRIBUTE_PREFIX + name for name in names)
    ]
    attributes = cases.select(
        column.cast(pl.String).alias(name) for name, column in zip(names, columns, strict=True)
    )
    different = attributes.unique()
    texts = [
        encode_case_values(rule.list_values({n: v for n, v in row.items() if v is not None}))
        for row in different.iter_rows(named=True)
    ]
    encoded = different.with_columns(text=pl.Series(texts, dtype=pl.String))
    return attributes.join(encoded, on=names, how="left", nulls_equal=True, maintain_order="left")[
        "text"
    ]


@dataclass(frozen=True)
class NumberedUnits:
    """Units as `resolve_natural_units` returns them, in fewer bytes.

    Attributes:
        frame: the units, with repeated texts as categories.
        keys: sorted keys of cases; `unit` and `case_key` of the frame are places in it. None if
            they are keys themselves.
    """

    frame: pl.DataFrame
    keys: pl.Series | None = None

    def list_units(self) -> pl.DataFrame:
        """Return the units with keys."""
        return self._add_keys(self.frame)

    def list_gate_units(self) -> pl.DataFrame:
        """Return the units of the gate track, with keys."""
        return self._add_keys(self.frame.filter(pl.col("track") == "gate"))

    def _add_keys(self, units: pl.DataFrame) -> pl.DataFrame:
        if self.keys is None:
            return units
        keys = self.keys.gather(units["unit"])
        return units.with_columns(unit=keys, case_key=keys)


def number_units(history: PlacedHistory, policy: Policy) -> NumberedUnits:
    """Return the result of `resolve_natural_units` in fewer bytes.

    Cases are resolved in parts, because joined rows are several times as large as their units, and
    by number, because their keys are several times as slow to join and to sort.
    """
    if policy.evidence.unit != "case":
        return NumberedUnits(encode_repeated_texts(resolve_natural_units(history, policy)))
    numbered, keys = _number_cases(history)
    units = _resolve_parts(numbered, policy, keys.len())
    silent = add_silent_predictions(numbered, policy, history.uses.extend(units))
    if silent is not None:
        units = pl.concat([units, _resolve_parts(silent, policy, keys.len())], rechunk=False)
    return NumberedUnits(share_constants(units), keys)


def _resolve_parts(history: PlacedHistory, policy: Policy, case_count: int) -> pl.DataFrame:
    parts = (
        _resolve_placed(_select_part(history, start), policy, TRACKS)
        for start in range(0, max(case_count, 1), CASES_AT_ONCE)
    )
    return pl.concat([encode_repeated_texts(part) for part in parts], rechunk=False)


def encode_repeated_texts(units: pl.DataFrame) -> pl.DataFrame:
    """Return units with repeated texts as categories, a quarter of their size."""
    return units.with_columns(pl.col(REPEATED_TEXTS).cast(pl.Categorical))


def _number_cases(history: PlacedHistory) -> tuple[PlacedHistory, pl.Series]:
    """Return a history of cases that are units, by places of their keys, and the sorted keys."""
    case_keys = history.cases["case_key"]
    order = case_keys.arg_sort()
    case_numbers = np.empty(len(order), dtype=np.uint32)
    case_numbers[order.to_numpy()] = np.arange(len(order), dtype=np.uint32)
    numbers = pl.DataFrame({"case_key": case_keys, "number": case_numbers})

    def number(frame: pl.DataFrame) -> pl.DataFrame:
        column = numbers["number"]
        if not frame["case_key"].equals(case_keys):  # null for those of no placed case
            rows = frame.select("case_key").join(
                numbers, on="case_key", how="left", maintain_order="left"
            )
            column = rows["number"]
        columns = {name: column for name in ("case_key", "unit") if name in frame.columns}
        return frame.with_columns(**columns)

    numbered = _split_sole_decisions(_replace_frames(history, number))
    return numbered, case_keys.gather(order)


def _split_sole_decisions(history: PlacedHistory) -> PlacedHistory:
    """Return a history of numbered cases whose sole decisions are told apart."""
    frames = (history.placed.decisions, history.placed.earlier_decisions)
    decisions, *earlier = (
        f.to_native().collect().drop_nulls("case_key") for f in frames if f is not None
    )
    numbers = pl.concat([frame["case_key"] for frame in (decisions, *earlier)]).to_numpy()
    is_sole = pl.Series(np.bincount(numbers)[numbers[: decisions.height]] == 1)
    placed = replace(
        history.placed,
        decisions=nw.from_native(decisions.filter(~is_sole).lazy()),
        sole_decisions=nw.from_native(decisions.filter(is_sole).lazy()),
    )
    return replace(history, placed=placed)


def _select_part(history: PlacedHistory, start: int) -> PlacedHistory:
    """Return the placed records of `CASES_AT_ONCE` numbered cases."""
    is_part = pl.col("case_key").is_between(start, start + CASES_AT_ONCE - 1)
    return _replace_frames(history, lambda frame: frame.filter(is_part))


def _replace_frames(
    history: PlacedHistory, convert: Callable[[pl.DataFrame], pl.DataFrame]
) -> PlacedHistory:
    """Return the history with its cases and placed records converted."""

    def convert_lazy(frame: Frame | None) -> Any:
        return None if frame is None else _to_lazy(convert(frame.to_native().collect()))

    names = {part.name for part in fields(PlacedRecords)} - {"trained_until"}
    frames = {name: convert_lazy(getattr(history.placed, name)) for name in names}
    return replace(history, cases=convert(history.cases), placed=replace(history.placed, **frames))


def place_planted_cases(
    records: RecordFrames,
    policy: Policy,
    salt: bytes,
    trained_until: Mapping[str, datetime] | None = None,
) -> PlacedHistory | None:
    """Place the planted cases of a history; None without any.

    Units are made within each population, so a
    planted case can't change which case of an episode is counted.
    """
    planted = records.planted
    return None if planted is None else place_cases(planted, policy, salt, trained_until)


def resolve_planted_units(history: PlacedHistory, policy: Policy) -> pl.DataFrame:
    """Return one row a planted unit, version and lever, which counts when the unit closes.

    The cases that occur begin the use of a version; a planted one does not.
    """
    predicted = _resolve_placed(history, policy, PLANTED_TRACKS)
    return _add_silent_units(predicted, history, policy, history.uses, PLANTED_TRACKS).with_columns(
        track=pl.lit(PLANTED_TRACK)
    )


def resolve_all_units(
    natural: PlacedHistory, planted: PlacedHistory | None, policy: Policy
) -> pl.DataFrame:
    """Return the units of both populations, told apart by their track."""
    natural_units = resolve_natural_units(natural, policy)
    if planted is None:
        return natural_units
    planted = replace(planted, uses=natural.uses.extend(natural_units))
    return pl.concat([natural_units, resolve_planted_units(planted, policy)])
