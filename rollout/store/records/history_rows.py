"""Rows of decisions, outcomes, probabilities and renamed predictions in a history."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import groupby
from json import loads
from operator import attrgetter
from typing import Any

import polars as pl
from sqlalchemy import Row

from rollout.core.policy.evidence_sources import (
    ACCOUNT,
    NOT_NAMED,
    OWN_PREDICTION,
    UNNAMED,
    name_sender,
)
from rollout.store.records.record_frames import JsonParser, read_values, split_columns
from rollout.store.tables.tables import outcomes as stored_outcomes
from rollout.tally.frames import (
    OUTCOME_FAULT,
    OUTCOME_PREFIX,
    OUTCOME_SOURCE,
    OUTCOME_SOURCE_SCHEMA,
    OWN_PREDICTION_SCHEMA,
    PROBABILITY_SCHEMA,
    UNSOURCED_SCHEMA,
    VALUE_PREFIX,
    build_outcomes_schema,
)


def find_source_fault(row: Row[Any], own_predictions: AbstractSet[tuple[int, str]]) -> str:
    """Return why a decision is from no source of evidence, or ""."""
    if row.source == UNNAMED:
        return NOT_NAMED
    if row.source == ACCOUNT and (row.case_id, row.sender) in own_predictions:
        return OWN_PREDICTION
    return ""


def build_unsourced(keys: Mapping[int, str], rows: Iterable[tuple[Row[Any], str]]) -> pl.DataFrame:
    """Return decisions of no source of evidence as a frame."""
    values = [
        (keys[row.case_id], row.reviewer, row.sender, reason)
        for row, reason in rows
        if row.case_id in keys
    ]
    return pl.DataFrame(values, schema=UNSOURCED_SCHEMA, orient="row")


def pick_decisions(rows: Iterable[Row[Any]]) -> Collection[Row[Any]]:
    """Return each reviewer's decision on a case, preferably from a review task."""
    rows_by_key: dict[tuple[Any, ...], Row[Any]] = {}
    for row in rows:
        previous = rows_by_key.get((row.case_id, row.reviewer))
        if previous is None or previous.review is None or row.review is not None:
            rows_by_key[row.case_id, row.reviewer] = row
    return rows_by_key.values()


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


PredictionKey = tuple[int, str]
Receipt = tuple[int, int]  # in microseconds
BEFORE_ALL = -(2**63)  # of a prediction without a time of its own


def find_first_receipts(rows: Iterable[Row[Any]]) -> dict[PredictionKey, Receipt]:
    """Return when the first revision of each prediction was received, and its own time."""
    receipts: dict[PredictionKey, Receipt] = {}
    for row in rows:
        own_time = BEFORE_ALL if row.at is None else row.at
        key, receipt = (row.case_id, row.version), (row.received_at, own_time)
        receipts[key] = min(receipts.get(key, receipt), receipt)
    return receipts


def select_first_received(
    rows: Collection[Row[Any]],
    receipts: Mapping[PredictionKey, Receipt],
    first_names: Mapping[str, str],
) -> list[Row[Any]]:
    """Return one prediction a case and version, of all its names the one received first.

    Of several that came in one batch it is the first by its time, as in a replay of files, then
    that of the version's first name, then of its older one. A sender could otherwise choose among
    answers after the human decision.
    """
    places = {name: place for place, name in enumerate(first_names, start=1)}
    ordered = sorted(
        rows,
        key=lambda row: (receipts[row.case_id, row.version], places.get(row.version, 0)),
    )
    selected: dict[PredictionKey, Row[Any]] = {}
    for row in ordered:
        selected.setdefault((row.case_id, first_names.get(row.version, row.version)), row)
    row_ids = {id(row) for row in selected.values()}
    return [row for row in rows if id(row) in row_ids]


def use_first_names(frame: pl.DataFrame, first_names: Mapping[str, str]) -> pl.DataFrame:
    """Return a frame with a column `version`, with the first name of each version."""
    return frame.with_columns(pl.col("version").replace(dict(first_names)))
