"""Divergences: every pair whose answers differ, costliest first."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from rollout.engine.evidence.frames import ATTRIBUTE_PREFIX, RecordFrames
from rollout.features.reports.inputs.divergence_columns import (
    COLUMNS,
    FORMULA_PATTERN,
    NUMBER_PATTERN,
    Divergence,
    escape_cell,
)
from rollout.features.reports.inputs.inputs import ReportInputs
from rollout.features.reports.inputs.pairs import Pairs, join_comparison, list_attributes
from rollout.features.reports.inputs.pictures import MediaFinder, find_no_media, find_picture
from rollout.kernel.policy.policy import Policy
from rollout.kernel.units import WHOLE_UNIT


def escape_frame(frame: pl.DataFrame) -> pl.DataFrame:
    """Return a frame with escaped texts and column names."""
    texts = pl.col(pl.String)
    is_formula = texts.str.contains(FORMULA_PATTERN) & ~texts.str.contains(NUMBER_PATTERN)
    return frame.with_columns(
        pl.when(is_formula).then(pl.lit("'") + texts).otherwise(texts).name.keep()
    ).rename(escape_cell)


MAX_LISTED = 20
MAX_PICTURES = 5  # divergences whose pictures can be embedded in the report


@dataclass(frozen=True, slots=True)
class DivergenceFigures:
    """Number of divergences, those that differ in action, and the costliest ones.

    `outcome_known` counts those with an outcome; `model_right` and `human_right` those with a
    right answer. All three are None without outcomes.
    """

    count: int
    in_action: int
    outcome_known: int | None
    model_right: int | None
    human_right: int | None
    top: tuple[Divergence, ...]


def build_divergence_frame(pairs: Pairs, records: RecordFrames, policy: Policy) -> pl.DataFrame:
    """Return all divergences with the columns of `divergences.csv`, costliest first.

    After `COLUMNS` follow the attributes (`attribute:camera`). Ties are sorted by confidence, then
    by case. `records` are those of the cases.
    """
    differing = pairs.frame.filter(~pl.col("agrees") & (pl.col("lever") != WHOLE_UNIT))
    zones = {site.id: site.timezone for site in policy.sites}
    timed = differing.with_columns(
        occurred_at=pl.from_epoch("occurred_us", time_unit="us").dt.replace_time_zone("UTC")
    )
    parts = [
        part.with_columns(
            occurred_local=pl.coalesce(
                pl.col("occurred_at")
                .dt.convert_time_zone(zones.get(str(site), policy.timezone))
                .dt.strftime("%Y-%m-%dT%H:%M:%S%:z"),
                "occurred_text",
            )
        )
        for (site,), part in timed.partition_by("site", as_dict=True).items()
    ]
    frame = pl.concat(parts) if parts else timed.with_columns(occurred_local="occurred_text")
    attributes = [name for name in frame.columns if name.startswith(ATTRIBUTE_PREFIX)]
    return _add_record_columns(frame, records).select(*COLUMNS, *attributes).sort(
        "cost", "confidence", "case_key", "version", "lever",
        descending=[True, True, False, False, False], nulls_last=True,
    )  # fmt: skip


def _add_record_columns(frame: pl.DataFrame, records: RecordFrames) -> pl.DataFrame:
    """Return the frame with the columns that come from other records."""
    for name, column in COLUMNS.items():
        if not column.taken_from:
            continue
        kind, _, record_column = column.taken_from.partition(".")
        record_frame: pl.DataFrame = getattr(records, kind)
        keys = [key for key in ("case_key", "version") if key in record_frame.columns]
        values = record_frame.select(*keys, pl.col(record_column).alias(name))
        frame = frame.drop(name, strict=False).join(values, on=keys, how="left")
    return frame


def compute_divergences(
    frame: pl.DataFrame, policy: Policy, media: MediaFinder = find_no_media
) -> DivergenceFigures:
    """Return divergence counts and the costliest divergences with pictures.

    An answer is right if it agrees with the outcome; a number, if it is within the tolerance.
    """
    with_outcome = frame.filter(pl.col("outcome").is_not_null())
    outcomes = None if with_outcome.is_empty() else with_outcome
    return DivergenceFigures(
        count=frame.height,
        in_action=frame.filter(pl.col("human_action") != pl.col("model_action")).height,
        outcome_known=None if outcomes is None else outcomes.height,
        model_right=_count_right(outcomes, "model", policy),
        human_right=_count_right(outcomes, "human", policy),
        top=tuple(_build_divergences(frame.head(MAX_LISTED), media)),
    )


def _count_right(outcomes: pl.DataFrame | None, side: str, policy: Policy) -> int | None:
    if outcomes is None:
        return None
    parts = ((lever, outcomes.filter(pl.col("lever") == lever.id)) for lever in policy.levers)
    return sum(
        int(join_comparison(lever, part, "outcome", side, right="agrees")["right"].sum())
        for lever, part in parts
    )


def _build_divergences(frame: pl.DataFrame, media: MediaFinder) -> Iterator[Divergence]:
    references_by_case = media(frame["case_key"].unique().to_list())
    for index, row in enumerate(frame.iter_rows(named=True)):
        references = references_by_case.get(row["case_key"], ())
        yield build_divergence(row, find_picture(references, may_embed=index < MAX_PICTURES))


def build_divergence(row: Mapping[str, Any], picture: str | None = None) -> Divergence:
    """Return the divergence of a row of `build_divergence_frame`."""
    values = {name: row[name] for name in COLUMNS}
    return Divergence(**values, attributes=dict(list_attributes(row)), picture=picture)


def format_csv(frame: pl.DataFrame) -> bytes:
    """Return the rows as UTF-8 CSV with a header, UTC instants and escaped formulas."""
    instants = pl.col("occurred_at").dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    return escape_frame(frame.with_columns(occurred_at=instants)).write_csv().encode()


def render_divergences_csv(inputs: ReportInputs) -> bytes:
    """Return `divergences.csv`: every divergence, costliest first."""
    return format_csv(build_divergence_frame(inputs.pairs, inputs.records, inputs.policy))
