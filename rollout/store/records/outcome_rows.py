"""Stored outcomes as frames: the newest revision of each case, and the earlier ones."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any

import polars as pl
from sqlalchemy import Row

from rollout.core.policy.evidence_sources import NOT_NAMED, UNNAMED, name_sender
from rollout.store.records.record_frames import JsonParser, read_values, split_columns
from rollout.store.tables.tables import outcomes as stored_outcomes
from rollout.tally.frames import (
    OUTCOME_FAULT,
    OUTCOME_PREFIX,
    OUTCOME_SOURCE,
    OUTCOME_SOURCE_SCHEMA,
    OWN_PREDICTION_SCHEMA,
    VALUE_PREFIX,
    build_outcomes_schema,
)


def build_outcome_frames(
    keys: Mapping[int, str],
    rows: Iterable[Row[Any]],
    *,
    levers: Sequence[str],
    outcomes: Sequence[str],
    parse_json: JsonParser,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return each case's newest revision, then the earlier ones, oldest first.

    Args:
        keys: the cases' keys by number; others are omitted.
        rows: in the order of cases and revisions.
        levers: ids of levers.
        outcomes: ids of outcomes.
        parse_json: reads stored answers and values.
    """
    newest: list[Row[Any]] = []
    earlier: list[Row[Any]] = []
    for _, group in groupby(rows, key=attrgetter("case_id")):
        *before, last = group
        earlier += before
        newest.append(last)

    def build_frame(some_rows: Sequence[Row[Any]]) -> pl.DataFrame:
        columns = split_columns(stored_outcomes, some_rows, keys)
        sources = list(zip(columns["source_kind"], columns["sender"], strict=True))
        values = {
            "case_key": columns["case_key"],
            **read_values(columns["answers"], VALUE_PREFIX, levers, parse_json),
            **read_values(columns["outcome_values"], OUTCOME_PREFIX, outcomes, parse_json),
            "harm": columns["harm"],
            "at": columns["at"],
            OUTCOME_SOURCE: [
                None if kind is None else name_sender(sender, is_review=False)
                for kind, sender in sources
            ],
            OUTCOME_FAULT: [NOT_NAMED if kind == UNNAMED else None for kind, _ in sources],
        }
        return pl.DataFrame(values, schema=schema)

    schema = build_outcomes_schema(levers, outcomes) | OUTCOME_SOURCE_SCHEMA
    return build_frame(newest), build_frame(earlier)


def build_own_predictions(keys: Mapping[int, str], rows: Iterable[Row[Any]]) -> pl.DataFrame:
    """Return the case and sender of predictions as a frame."""
    senders = {(keys[row.case_id], row.sender) for row in rows if row.case_id in keys}
    return pl.DataFrame(sorted(senders), schema=OWN_PREDICTION_SCHEMA, orient="row")
