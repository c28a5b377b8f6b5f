"""Predictions of files under several names of one version: the first of a case counts."""

from collections.abc import Mapping
from dataclasses import replace

import polars as pl

from rollout.tally.frames import RecordFrames


def merge_renamed_predictions(
    records: RecordFrames, first_names: Mapping[str, str]
) -> RecordFrames:
    """Return records with one prediction a case and version, under the version's first name.

    Of several answers to a case the first by its time counts, one without a time before all. Of
    answers at the same time it is that of the version's first name, then of its older one. A
    service counts the one received first: files have no times of receipt of predictions.
    """
    places = {name: place for place, name in enumerate(first_names, start=1)}
    ranked = records.predictions.with_row_index("row").with_columns(
        place=pl.col("version").replace_strict(places, default=0, return_dtype=pl.Int64),
        version=pl.col("version").replace(dict(first_names)),
    )
    counted = (
        ranked.sort("at", "place")
        .unique(["case_key", "version"], keep="first", maintain_order=True)
        .sort("row")
    )
    return replace(records, predictions=counted.select(records.predictions.columns))
