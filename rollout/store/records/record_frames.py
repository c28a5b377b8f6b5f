"""Stored records as frames, column by column, with instants as the numbers that are stored.

Frames of a dictionary a row took half of a read, and aware datetimes a hundred times as long as
numbers.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache
from json import loads
from typing import Any, Final, NamedTuple

import polars as pl
from sqlalchemy import BigInteger, Column, ColumnElement, Row, Table, Text, type_coerce

from rollout.core.policy.evidence_sources import ACCOUNT
from rollout.core.records.records import UNTIMED
from rollout.store.tables.columns import InstantType, JsonType, encode_json
from rollout.store.tables.tables import cases, decisions, outcomes, predictions
from rollout.tally.case_draws import DRAWS
from rollout.tally.frames import (
    ATTRIBUTE_PREFIX,
    INSTANT,
    NAMED_PLACE_SCHEMA,
    VALUE_PREFIX,
    build_cases_schema,
    build_decisions_schema,
    build_predictions_schema,
)
from rollout.tally.picks import find_known_time

STORED_TYPES: Final = ((JsonType, Text), (InstantType, BigInteger))
READ_COLUMNS: Final = {
    cases: (
        "case_id revision site occurred_at received_at episode attributes sender planted vouched"
        " draws"
    ),
    predictions: (
        "case_id version answers confidence latency_ms error at received_at sender vouched"
        " probabilities"
    ),
    decisions: (
        "case_id reviewer answers unsure exposure task_number started_at submitted_at received_at"
        " review source sender"
    ),
    outcomes: "case_id answers harm at received_at sender outcome_values source_kind",
}
"""The columns that histories read: each costs as much as a twentieth of its rows."""
PROBABILITIES: Final = "probabilities"
RECORD_HASH: Final = "record_hash"
UNTIMED_TEXT: Final = encode_json(dict(UNTIMED))


def parse_json(text: str | None) -> Any:
    """Return the value of stored JSON; None for null."""
    return None if text is None else loads(text)


def _select_as_stored(column: Column[Any]) -> ColumnElement[Any]:
    for column_type, stored_type in STORED_TYPES:
        if isinstance(column.type, column_type):
            return type_coerce(column, stored_type).label(column.name)
    return column


HISTORY_COLUMNS: Final = {
    table.name: {name: _select_as_stored(table.c[name]) for name in names.split()}
    | {RECORD_HASH: table.c.record_hash}
    for table, names in READ_COLUMNS.items()
}
"""The columns by table. JSON is text, so that a reader can parse equal texts once; instants are
microseconds since 1970."""


def choose_columns(table: Table, *, with_hashes: bool, with_probabilities: bool) -> tuple[str, ...]:
    """Return the names of the columns to read."""
    unread = {RECORD_HASH: not with_hashes, PROBABILITIES: not with_probabilities}
    return tuple(name for name in HISTORY_COLUMNS[table.name] if not unread.get(name))


@cache
def build_row_class(table_name: str, names: tuple[str, ...]) -> Any:
    """Return a class of rows: SQLAlchemy's take several times as long to look up a name."""
    return NamedTuple(f"{table_name}_row", [(name, Any) for name in names])


SECOND = 1_000_000  # in microseconds
JsonParser = Callable[[str | None], Any]
KeysById = Mapping[int, str]


def build_case_frame(
    rows: Iterable[Row[Any]],
    keys: KeysById,
    episodes: KeysById,
    attributes: Sequence[str],
    parse_json: JsonParser,
    draws: Mapping[int, str],
) -> pl.DataFrame:
    """Return cases as a frame; `draws` are those of cases that have any, by number."""
    columns = split_columns(cases, rows, keys)
    occurred_at = pl.Series(columns["occurred_at"], dtype=INSTANT)
    known_at = [
        find_known_time(*times)
        for times in zip(
            columns["received_at"], columns["occurred_at"], columns["vouched"], strict=True
        )
    ]
    values = {
        "case_key": columns["case_key"],
        "site": columns["site"],
        "occurred_at": occurred_at,
        "occurred_text": _format_instants(occurred_at),
        "hour_written": occurred_at.dt.hour(),
        "episode": [episodes.get(episode) for episode in columns["episode"]],
        "received_at": columns["received_at"],
        "known_at": known_at,
        DRAWS: list(map(draws.get, columns["case_id"])),
        **read_values(columns["attributes"], ATTRIBUTE_PREFIX, attributes, parse_json),
    }
    return pl.DataFrame(values, schema=build_cases_schema(attributes))


def build_named_places(
    rows: Iterable[Row[Any]],
    keys: KeysById,
    own_records: Collection[tuple[int, str | None]],
    draws: Mapping[int, str],
) -> pl.DataFrame:
    """Return what decisions say of the places of their cases, as a frame.

    `own_records` are case and sender of the cases and predictions: who sent them moves no case.
    """
    columns = split_columns(cases, rows, keys)
    values: dict[str, Sequence[Any]] = {
        name: columns[name] for name in ("case_key", "site", "occurred_at", "received_at")
    }
    has_time = [attributes != UNTIMED_TEXT for attributes in columns["attributes"]]
    senders = zip(columns["case_id"], columns["sender"], strict=True)
    may_move = [sender not in own_records for sender in senders]
    marks: dict[str, Sequence[Any]] = {"has_time": has_time, "may_move": may_move}
    marks[DRAWS] = list(map(draws.get, columns["case_id"]))
    return pl.DataFrame({**values, **marks}, schema=NAMED_PLACE_SCHEMA)


def build_prediction_frame(
    rows: Iterable[Row[Any]],
    keys: KeysById,
    levers: Sequence[str],
    parse_json: JsonParser,
    occurred_times: Mapping[int, int],
) -> pl.DataFrame:
    """Return predictions as a frame; `occurred_times` are those of their cases, by number."""
    columns = split_columns(predictions, rows, keys)
    known_at = [
        find_known_time(received_at, occurred_times[case_id], vouched)
        for case_id, received_at, vouched in zip(
            columns["case_id"], columns["received_at"], columns["vouched"], strict=True
        )
    ]
    values = {
        "case_key": columns["case_key"],
        "version": columns["version"],
        **read_values(columns["answers"], VALUE_PREFIX, levers, parse_json),
        "confidence": columns["confidence"],
        "at": columns["at"],
        "latency_ms": columns["latency_ms"],
        "error": columns["error"],
        "received_at": columns["received_at"],
        "known_at": known_at,
    }
    return pl.DataFrame(values, schema=build_predictions_schema(levers))


def build_decision_frame(
    rows: Iterable[Row[Any]], keys: KeysById, levers: Sequence[str], parse_json: JsonParser
) -> pl.DataFrame:
    """Return decisions as a frame."""
    columns = split_columns(decisions, rows, keys)
    texts, own_times = columns["answers"], columns["submitted_at"]
    answers = read_values(texts, VALUE_PREFIX, levers, parse_json)
    missing = {
        text
        for lever_answers in answers.values()
        for text, answer in zip(texts, lever_answers, strict=True)
        if answer is None
    }
    values = {
        "case_key": columns["case_key"],
        "reviewer": columns["reviewer"],
        **answers,
        "unsure": [
            unsure or text in missing for unsure, text in zip(columns["unsure"], texts, strict=True)
        ],
        "exposure": columns["exposure"],
        "seat": columns["task_number"],
        "at": [
            received_at if at is None else at
            for at, received_at in zip(own_times, columns["received_at"], strict=True)
        ],
        "started_at": [
            None if at is None else started_at
            for at, started_at in zip(own_times, columns["started_at"], strict=True)
        ],
        "source": [
            sender if source == ACCOUNT else source
            for source, sender in zip(columns["source"], columns["sender"], strict=True)
        ],
        "received_at": columns["received_at"],
    }
    return pl.DataFrame(values, schema=build_decisions_schema(levers))


def split_columns(
    table: Table, rows: Iterable[Row[Any]], keys: KeysById
) -> Mapping[str, Sequence[Any]]:
    """Return the columns of the rows of cases with a key, and `case_key`."""
    known_rows = [row for row in rows if row.case_id in keys]
    columns: dict[str, Sequence[Any]] = dict.fromkeys(HISTORY_COLUMNS[table.name], ())
    if known_rows:
        columns.update(zip(known_rows[0]._fields, zip(*known_rows, strict=True), strict=True))
    return {**columns, "case_key": [keys[case_id] for case_id in columns["case_id"]]}


def read_values(
    texts: Sequence[str | None], prefix: str, names: Sequence[str], parse_json: JsonParser
) -> dict[str, list[Any]]:
    """Return the values of stored JSON by prefixed name; equal texts are parsed once."""
    parsed = {text: parse_json(text) or {} for text in set(texts)}
    return {prefix + name: [parsed[text].get(name) for text in texts] for name in names}


def _format_instants(instants: pl.Series) -> pl.Series:
    """Return instants as `datetime.isoformat` writes them, without a fraction of zero."""
    whole = instants.dt.strftime("%Y-%m-%dT%H:%M:%S+00:00")
    is_whole = instants.to_physical() % SECOND == 0
    return whole.zip_with(is_whole, instants.dt.strftime("%Y-%m-%dT%H:%M:%S%.6f+00:00"))
