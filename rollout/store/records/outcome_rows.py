"""Stored outcomes as frames: the newest revision of each case, and the earlier ones."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any

import polars as pl
from sqlalchemy import Row

from rollout.core.policy.evidence_sources import NOT_NAMED, UNNAMED, name_sender
from rollout.tally.frames import (
    OUTCOME_FAULT,
    OUTCOME_PREFIX,
    OUTCOME_SOURCE,
    OUTCOME_SOURCE_SCHEMA,
    OWN_PREDICTION_SCHEMA,
    VALUE_PREFIX,
    build_outcomes_schema,
)

JsonParser = Callable[[str | None], Any]


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
    newest: list[dict[str, Any]] = []
    earlier: list[dict[str, Any]] = []
    known_rows = (row for row in rows if row.case_id in keys)
    for case_id, group in groupby(known_rows, key=attrgetter("case_id")):
        *before, last = (
            {"case_key": keys[case_id], **_build_outcome(row, levers, outcomes, parse_json)}
            for row in group
        )
        earlier += before
        newest.append(last)
    schema = build_outcomes_schema(levers, outcomes) | OUTCOME_SOURCE_SCHEMA
    return pl.DataFrame(newest, schema=schema), pl.DataFrame(earlier, schema=schema)


def _build_outcome(
    row: Row[Any], levers: Sequence[str], outcomes: Sequence[str], parse_json: JsonParser
) -> dict[str, Any]:
    answers, values = parse_json(row.answers), parse_json(row.outcome_values) or {}
    has_source = row.source_kind is not None
    return {
        **{VALUE_PREFIX + lever: answers.get(lever) for lever in levers},
        **{OUTCOME_PREFIX + name: values.get(name) for name in outcomes},
        "harm": row.harm,
        "at": row.at,
        OUTCOME_SOURCE: name_sender(row.sender, is_review=False) if has_source else None,
        OUTCOME_FAULT: NOT_NAMED if row.source_kind == UNNAMED else None,
    }


def build_own_predictions(keys: Mapping[int, str], rows: Iterable[Row[Any]]) -> pl.DataFrame:
    """Return the case and sender of predictions as a frame."""
    senders = {(keys[row.case_id], row.sender) for row in rows if row.case_id in keys}
    return pl.DataFrame(sorted(senders), schema=OWN_PREDICTION_SCHEMA, orient="row")
