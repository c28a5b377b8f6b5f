"""On which cases a version runs that runs on a sample of them, as it was drawn at receipt.

A case that is not drawn for a version is no unit of it: neither evidence nor missing, even if it
was predicted. One that is drawn is a unit of the version in use, decided or not: the service said
so, and who drops a case once it is drawn would choose what is counted.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from rollout.kernel.late_modules import LateModule

if TYPE_CHECKING:
    from collections.abc import Mapping

    import polars as pl

    from rollout.engine.evidence.frames import RecordFrames
else:
    pl = LateModule("polars")

DRAWS: Final = "draws"
"""Column of cases: JSON that names each version with a sample, and whether it runs on the case."""
PAIR: Final = ["case_key", "version"]


def list_draws(cases: pl.DataFrame) -> pl.DataFrame | None:
    """Return case_key, version and is_drawn of the draws of cases; None without any."""
    drawn = cases.select("case_key", DRAWS).drop_nulls(DRAWS)
    if drawn.is_empty():
        return None
    draws = [(text, *draw) for text in drawn[DRAWS].unique() for draw in json.loads(text).items()]
    schema = {DRAWS: pl.String(), "version": pl.String(), "is_drawn": pl.Boolean()}
    table = pl.DataFrame(draws, schema=schema, orient="row")
    return drawn.join(table, on=DRAWS).drop(DRAWS)


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
    undrawn = pl.concat(draws).filter(~pl.col("is_drawn")).unique(PAIR)
    predictions = records.predictions.join(undrawn, on=PAIR, how="anti", maintain_order="left")
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
