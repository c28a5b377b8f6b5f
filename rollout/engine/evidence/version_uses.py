"""Since when each version is in use in each cell, and the cases on which it runs or is silent.

A version is in use from the first unit in a cell that it predicted before anybody decided it, to
its retirement. From then on a case that is decided, and that it has not predicted, is a missing
unit: else a sender could leave out what its model would get wrong.

The first such unit is certain once it has closed. Units close in the order in which they occur, so
whether a version was in use when a case occurred is certain when that case closes. Only cases of
the slot in which that unit occurred may close before it: they count in the slot in which it closes.

A version that runs on a sample of the cases runs on those that were drawn at receipt. A case that
is not drawn for a version is no unit of it: neither evidence nor missing, even if it was predicted.
One that is drawn is a unit of the version in use, decided or not: the service said so, and who
drops a case once it is drawn would choose what is counted.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, NamedTuple

from rollout.kernel.arrays import nw, pl
from rollout.kernel.calendar.instants import FIRST_SLOT, NEVER, count_micros
from rollout.kernel.units import AFTER_CLOSING, SILENT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rollout.engine.evidence.case_placement import PlacedHistory
    from rollout.engine.evidence.frames import RecordFrames
    from rollout.kernel.policy.policy import Policy


DRAWS: Final = "draws"
"""Column of cases: JSON that names each version with a sample, and whether it runs on the case."""
DRAWN: Final = ["case_key", "version"]


def list_draws(cases: pl.DataFrame) -> pl.DataFrame | None:
    """Return case_key, version and is_drawn of the draws of cases; None without any."""
    drawn = cases.select("case_key", DRAWS).drop_nulls(DRAWS)
    if drawn.is_empty():
        return None
    draws = [(text, *draw) for text in drawn[DRAWS].unique() for draw in json.loads(text).items()]
    schema = {DRAWS: pl.String(), "version": pl.String(), "is_drawn": pl.Boolean()}
    return drawn.join(pl.DataFrame(draws, schema=schema, orient="row"), on=DRAWS).drop(DRAWS)


def drop_undrawn(
    records: RecordFrames, first_names: Mapping[str, str] | None = None
) -> RecordFrames:
    """Return the records without predictions of cases that their version's sample leaves out.

    Of versions with several names `first_names` has the first ones, which the result has.
    """
    if first_names:
        cases = _use_first_names(records.cases, first_names)
        places = _use_first_names(records.named_places, first_names)
        guard_cases = _use_first_names(records.guard_cases, first_names)
        records = replace(records, cases=cases, named_places=places, guard_cases=guard_cases)
    frames = [list_draws(f) for f in (records.cases, records.named_places, records.guard_cases)]
    draws = [frame for frame in frames if frame is not None]
    if not draws:
        return records
    undrawn = pl.concat(draws).filter(~pl.col("is_drawn")).unique(DRAWN)
    predictions = records.predictions.join(undrawn, on=DRAWN, how="anti", maintain_order="left")
    return replace(records, predictions=predictions)


def _use_first_names(cases: pl.DataFrame, first_names: Mapping[str, str]) -> pl.DataFrame:
    """Return cases with draws by the first names of versions; drawn by one name is drawn."""
    renamed: dict[str, str] = {}
    for text in cases[DRAWS].drop_nulls().unique():
        draws: dict[str, bool] = {}
        for version, is_drawn in json.loads(text).items():
            name = first_names.get(version, version)
            draws[name] = is_drawn or draws.get(name, False)
        renamed[text] = json.dumps(draws)
    return cases.with_columns(pl.col(DRAWS).replace(renamed)) if renamed else cases


UseKey = tuple[str, str, str]
"""Site, window and version."""
USE_COLUMNS: Final = ("site", "window", "version")
PAIR: Final = ("case_key", "version")


class Use(NamedTuple):
    """When a version's first predicted unit in a cell occurred, and closed; both are slots."""

    occurred: int
    slot: int


@dataclass(frozen=True, slots=True)
class VersionUses:
    """Since when each version is in use by cell, and by version until when (microseconds)."""

    begun: Mapping[UseKey, Use] = field(default_factory=dict)
    retired: Mapping[str, int] = field(default_factory=dict)

    def extend(self, units: pl.DataFrame) -> VersionUses:
        """Return the uses with those that units begin; earlier ones stay."""
        begun = dict(self.begun)
        for key, use in find_uses(units).items():
            begun[key] = min(use, begun.get(key, use))
        return replace(self, begun=begun)

    def assume(self, cases: pl.DataFrame) -> VersionUses:
        """Return the uses with one of `ANY_VERSION` since ever in the cells of placed cases."""
        cells = cases.select("site", "window").unique().iter_rows()
        first = Use(FIRST_SLOT, FIRST_SLOT)
        assumed = {(site, window, ANY_VERSION): first for site, window in cells}
        return replace(self, begun={**self.begun, **assumed})


NO_USES: Final = VersionUses()
LAST_USE: Final = Use(NEVER, NEVER)
ANY_VERSION: Final = ""
"""Stands for a version whose use begins after a case has come: its silence counts all the same."""


def list_first_uses(
    units: pl.DataFrame, begun: Mapping[UseKey, Use], case_numbers: Mapping[str, int]
) -> list[tuple[UseKey, Use, int]]:
    """Return the units that bring a version into use in a cell, or earlier than known."""
    if all(use >= begun.get(key, LAST_USE) for key, use in find_uses(units).items()):
        return []  # as for most pages
    return [
        (key, use, case_numbers[case_key])
        for *names, occurred, slot, case_key in _select_predicted(units)
        .select(*USE_COLUMNS, "occurred", "slot", "case_key")
        .unique()
        .collect()
        .iter_rows()
        if (use := Use(occurred, slot)) < begun.get(key := tuple(names), LAST_USE)
    ]


def find_uses(units: pl.DataFrame) -> dict[UseKey, Use]:
    """Return the uses that closed units begin: rows as `units.resolve_units` returns them."""
    first = pl.col("occurred", "slot").sort_by("occurred", "slot").first()
    uses = _select_predicted(units).group_by(USE_COLUMNS).agg(first).collect()
    return {
        (str(site), str(window), str(version)): Use(occurred, slot)
        for site, window, version, occurred, slot in uses.iter_rows()
    }


def _select_predicted(units: pl.DataFrame) -> pl.LazyFrame:
    """Return the gates' units that a version predicted in time, before anybody decided them."""
    is_predicted = ~pl.col("predicted").cast(pl.String).is_in(sorted(SILENT))
    is_closed = pl.col("excluded").cast(pl.String).eq_missing(AFTER_CLOSING)
    is_gate = pl.col("track").cast(pl.String) == "gate"
    return units.lazy().filter(is_gate, is_predicted, ~is_closed)


def add_silent_predictions(
    history: PlacedHistory, policy: Policy, uses: VersionUses
) -> PlacedHistory | None:
    """Return the history with a prediction that nobody sent for each case that a version lacks.

    Of cases that are units only those predictions are in it, as the others count by themselves.
    None if each version predicted all it should.
    """
    predictions: pl.LazyFrame = history.placed.predictions.to_native()
    pairs = list_silent_pairs(history, predictions, uses, count_micros(policy.tick))
    if pairs is None or pairs.is_empty():
        return None
    receipts = dict.fromkeys(("prediction_received", "prediction_known"), pl.lit(NEVER, pl.Int64))
    silent = pairs.lazy().select(*PAIR).with_columns(**receipts)
    if policy.evidence.unit == "case":
        added = pl.concat([predictions.clear(), silent], how="diagonal")
        cases = history.placed.cases.to_native().join(silent, on="case_key", how="semi")
    else:
        added = pl.concat([predictions, silent], how="diagonal")
        cases = history.placed.cases.to_native()
    placed = replace(
        history.placed,
        cases=nw.from_native(cases),
        predictions=nw.from_native(added.select(predictions.collect_schema().names())),
        silent_from=nw.from_native(pairs.lazy()),
    )
    return replace(history, placed=placed)


def list_silent_pairs(
    history: PlacedHistory, predictions: pl.LazyFrame, uses: VersionUses, tick: int
) -> pl.DataFrame | None:
    """Return the cases that versions in use did not predict: case_key, version and used."""
    if not uses.begun:
        return None
    cases = history.cases.select("case_key", "site", "window", "effective_us")
    predicted = predictions.select(*PAIR).collect()
    if any(version == ANY_VERSION for _, _, version in uses.begun):  # it said what any version said
        by_any = predicted.select("case_key", version=pl.lit(ANY_VERSION)).unique()
        predicted = pl.concat([predicted, by_any])
    versions = {version for _, _, version in uses.begun}
    own = predicted.filter(pl.col("version").is_in(sorted(versions))).join(
        cases.select("case_key"), on="case_key", how="semi"
    )
    if own.height == cases.height * len(versions):  # as a rule each predicts each case, once
        return None
    rows = [(*key, *use, uses.retired.get(key[-1], NEVER)) for key, use in uses.begun.items()]
    table = pl.DataFrame(rows, schema=(*USE_COLUMNS, "since", "used", "until"), orient="row")
    table = table.with_columns(pl.col("version").cast(predicted.schema["version"]))
    in_use = (
        cases.lazy()
        .join(table.lazy(), on=["site", "window"])
        .filter(
            pl.col("effective_us") // tick >= pl.col("since"),
            pl.col("effective_us") < pl.col("until"),
        )
    )
    pairs = in_use.select(*PAIR, "used").join(predicted.lazy(), on=PAIR, how="anti")
    if (draws := list_draws(history.cases)) is not None:
        pairs = pairs.join(draws.lazy().filter(~pl.col("is_drawn")), on=PAIR, how="anti")
    return pairs.collect()
