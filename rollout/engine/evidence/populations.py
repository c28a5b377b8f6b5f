"""The two populations of cases: those that occur, and those that users plant.

This is the only place that decides which figures a case belongs to. `split_populations` moves the
records of planted cases out of a history's frames, so what reads these can't count them. Planted
units get a track of their own, which only conditions and figures about planted cases read.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from rollout.engine.evidence.case_placement import PlacedHistory, place_cases
from rollout.engine.evidence.frames import RecordFrames, share_constants
from rollout.engine.evidence.units import TRACKS, add_unit_values, resolve_units
from rollout.engine.evidence.version_uses import add_silent_predictions
from rollout.kernel.late_modules import LateModule
from rollout.kernel.populations import PLANTED_TRACK

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from datetime import datetime

    import narwhals as nw

    from rollout.engine.evidence.decision_resolution import Frame
    from rollout.engine.evidence.version_uses import VersionUses
    from rollout.kernel.policy.policy import Policy
else:
    nw = LateModule("narwhals")

PLANTED_TRACKS: Final = ("gate",)
CASES_AT_ONCE = 125_000
"""Cases whose units are resolved together; more would need more memory, and save no time."""
REPEATED_TEXTS = (
    *("track", "site", "window", "version", "lever", "predicted", "decided", "second"),
    *("reviewer", "excluded"),
)
SPLIT_FRAMES: Final = (
    *("cases", "predictions", "decisions", "outcomes", "earlier_outcomes"),
    *("own_predictions", "first_decisions", "named_places", "guard_cases"),
    *("gold_decisions", "unsourced_decisions"),
    "probabilities",
)


def split_populations(records: RecordFrames, planted_keys: Collection[str]) -> RecordFrames:
    """Return the records of the cases that occur, with those of planted cases as `planted`."""
    if not planted_keys:
        return records
    keys = pl.Series(sorted(planted_keys), dtype=pl.String)
    is_planted = pl.col("case_key").is_in(keys.implode())
    frames = {name: getattr(records, name) for name in SPLIT_FRAMES}
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
    native: pl.LazyFrame = history.placed.decisions.to_native()
    decisions = native.collect().filter(pl.col("case_key").is_not_null())
    numbers = decisions["case_key"].to_numpy()
    is_sole = pl.Series(np.bincount(numbers)[numbers] == 1)
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

    def convert_lazy(frame: Frame) -> Frame:
        native: pl.LazyFrame = frame.to_native()
        return nw.from_native(convert(native.collect()).lazy())

    placed = history.placed
    sole, assisted = placed.sole_decisions, placed.assisted_decisions
    others, silent_from = placed.other_decisions, placed.silent_from
    guard_cases, drawn = placed.guard_cases, placed.drawn
    return replace(
        history,
        cases=convert(history.cases),
        placed=replace(
            placed,
            cases=convert_lazy(placed.cases),
            guard_cases=None if guard_cases is None else convert_lazy(guard_cases),
            predictions=convert_lazy(placed.predictions),
            decisions=convert_lazy(placed.decisions),
            sole_decisions=None if sole is None else convert_lazy(sole),
            assisted_decisions=None if assisted is None else convert_lazy(assisted),
            other_decisions=None if others is None else convert_lazy(others),
            silent_from=None if silent_from is None else convert_lazy(silent_from),
            drawn=None if drawn is None else convert_lazy(drawn),
        ),
    )


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
    if records.planted is None:
        return None
    return place_cases(records.planted, policy, salt, trained_until)


def resolve_planted_units(history: PlacedHistory, policy: Policy) -> pl.DataFrame:
    """Return one row a planted unit, version and lever, which counts when the unit closes.

    The cases that occur begin the use of a version; a planted one does not.
    """
    predicted = _resolve_placed(history, policy, PLANTED_TRACKS)
    closed_units = _add_silent_units(predicted, history, policy, history.uses, PLANTED_TRACKS)
    return closed_units.with_columns(track=pl.lit(PLANTED_TRACK))


def resolve_all_units(
    natural: PlacedHistory, planted: PlacedHistory | None, policy: Policy
) -> pl.DataFrame:
    """Return the units of both populations, told apart by their track."""
    natural_units = resolve_natural_units(natural, policy)
    if planted is None:
        return natural_units
    planted = replace(planted, uses=natural.uses.extend(natural_units))
    return pl.concat([natural_units, resolve_planted_units(planted, policy)])
