"""The probabilities of stored predictions as a frame."""

from collections.abc import Iterable, Mapping
from json import loads
from typing import Any

import polars as pl
from sqlalchemy import Row

from rollout.tally.frames import PROBABILITY_SCHEMA


def build_probability_frame(keys: Mapping[int, str], rows: Iterable[Row[Any]]) -> pl.DataFrame:
    """Return what predictions give to each label that they list.

    The rows hold JSON as stored.
    """
    values = [
        (keys[row.case_id], row.version, label, probability)
        for row in rows
        if row.case_id in keys and row.probabilities
        for label, probability in loads(row.probabilities).items()
    ]
    return pl.DataFrame(values, schema=PROBABILITY_SCHEMA, orient="row")
