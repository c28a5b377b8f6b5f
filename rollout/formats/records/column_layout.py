"""The layout of a file: which column holds what, by a column map and the file's header."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

from rollout.formats.records.column_map import (
    COLUMN_NAMES,
    REQUIRED_COLUMNS,
    ColumnError,
    FieldNames,
    FileColumns,
)
from rollout.tally.frames import ATTRIBUTE_PREFIX, CONTENT, OUTCOME_PREFIX, VALUE_PREFIX, RecordKind

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence


SYNONYMS: Mapping[str, Sequence[str]] = {
    "case_key": ("case_id", "case", "id", "key", "item", "item_id", "image", "image_id", "file"),
    "site": ("location", "place", "station", "camera", "facility", "plant", "deployment"),
    "occurred_at": (
        *("event_time", "timestamp", "time", "datetime", "date_time", "captured_at", "date"),
        *("created_at", "taken_at", "recorded_at"),
    ),
    "model_version": ("model", "version", "model_name", "classified_by"),
    "label": (
        *("prediction", "pred_label", "predicted_label", "predicted", "pred", "y_pred", "class"),
        *("dec_label", "decision", "verdict", "answer", "annotation", "y_true", "target"),
        *("category", "species", "scientific_name", "result"),
    ),
    "confidence": ("score", "pred_score", "probability", "prob", "conf", "certainty"),
    "predicted_at": ("pred_time", "prediction_time", "inference_time"),
    "latency_ms": ("latency", "duration_ms", "execution_time_ms"),
    "reviewer": (
        *("annotator", "annotator_id", "reviewer_id", "user", "user_id", "worker", "worker_id"),
        *("labeler", "labeller", "who", "decided_by", "reviewed_by", "annotated_by"),
    ),
    "decided_at": ("dec_time", "decision_time", "reviewed_at", "annotated_at", "completed_at"),
    "exposure": ("shown", "assisted"),
}
CUTOFF = 0.75
"""Similarity from which a name is close."""


def suggest_column(name: str, columns: Collection[str]) -> str | None:
    """Return the column that our `name` probably means, or None.

    >>> suggest_column("label", ["image", "Prediction"]), suggest_column("site", ["a"])
    ('Prediction', None)
    """
    by_plain_name = {_simplify(column): column for column in columns}
    for candidate in (name, *SYNONYMS.get(name, ())):
        column = by_plain_name.get(_simplify(candidate))
        if column is not None:
            return column
    close = get_close_matches(_simplify(name), by_plain_name, n=1, cutoff=CUTOFF)
    return by_plain_name[close[0]] if close else None


def _simplify(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


@dataclass(frozen=True, slots=True)
class ColumnLayout:
    """Columns and constants of one file by our names, and its unused columns."""

    columns: Mapping[str, str]
    constants: Mapping[str, str]
    ignored: tuple[str, ...]

    def get_file_column(self, name: str) -> str:
        """Return the file's name for our column `name`; a constant has our name."""
        return self.columns.get(name, name.removeprefix(VALUE_PREFIX).removeprefix(OUTCOME_PREFIX))


def arrange_columns(
    kind: RecordKind,
    file: str,
    file_columns: Sequence[str],
    columns: FileColumns,
    levers: Sequence[str],
    outcomes: Sequence[str] = (),
) -> ColumnLayout:
    """Return the layout of a file of `kind` with the columns `file_columns`.

    Raises:
        ColumnError: a mapped or required column is missing; the message explains the mapping.
    """
    expected = _list_expected_columns(kind, levers, file_columns, outcomes)
    by_name = {
        our_name: file_column
        for our_name, file_column in expected.items()
        if file_column in file_columns
    }
    attributes = {
        ATTRIBUTE_PREFIX + our_name: name for our_name, name in (columns.attributes or {}).items()
    }
    listed = (columns.attributes or {}).values()
    if by_name.get(CONTENT) in listed:  # an attribute of the case, and no hash of a version
        del by_name[CONTENT]
    mapped = {**by_name, **columns.columns, **attributes}
    used = {
        our_name: file_column
        for our_name, file_column in mapped.items()
        if our_name not in columns.constants
    }
    names = FieldNames(levers, outcomes)
    _check_columns(kind, file, file_columns, used, [*used, *columns.constants], names)
    unused = [name for name in file_columns if name not in used.values()]
    # Outcomes come after the decision, so their columns can't be attributes to decide by.
    if columns.attributes is None and kind is not RecordKind.OUTCOMES:
        used, unused = {**used, **{ATTRIBUTE_PREFIX + name: name for name in unused}}, []
    return ColumnLayout(used, columns.constants, tuple(unused))


def _list_expected_columns(
    kind: RecordKind,
    levers: Sequence[str],
    file_columns: Sequence[str],
    outcomes: Sequence[str],
) -> dict[str, str]:
    names = {name: name for name in COLUMN_NAMES[kind] if name not in levers}
    if kind is RecordKind.CASES:
        return names
    if kind is RecordKind.OUTCOMES:
        names |= {OUTCOME_PREFIX + outcome: outcome for outcome in outcomes}
    if len(levers) == 1 and "label" in file_columns:
        return {**names, VALUE_PREFIX + levers[0]: "label"}
    return {**names, **{VALUE_PREFIX + lever: lever for lever in levers}}


def _check_columns(
    kind: RecordKind,
    file: str,
    file_columns: Sequence[str],
    used: Mapping[str, str],
    available: Sequence[str],
    names: FieldNames,
) -> None:
    """Raise ColumnError for missing columns that are mapped or required."""
    levers = names.levers
    columns = f"found: {', '.join(file_columns) or 'no columns'}"
    unused = [column for column in file_columns if column not in used.values()]
    faults = [
        f"{file}: no column {file_column!r}, which is mapped to {_format_name(our_name, levers)!r};"
        f" {columns}"
        for our_name, file_column in used.items()
        if file_column not in file_columns
    ]
    faults += [
        f"{file}: no column for {_format_name(name, levers)!r}; {columns}. Name it in the column"
        f" map, `{kind}: {{{_format_name(name, levers)}: THEIR_COLUMN}}`, or give one text for all"
        f" rows, `{kind}: {{{_format_name(name, levers)}: {{value: TEXT}}}}`"
        f"{format_suggestion(kind, _format_name(name, levers), unused)}"
        for name in _list_required_columns(kind, levers)
        if name not in available
    ]
    values = {
        "harm",
        *(VALUE_PREFIX + lever for lever in levers),
        *(OUTCOME_PREFIX + outcome for outcome in names.outcomes),
    }
    if kind is RecordKind.OUTCOMES and not values & set(available):
        value_names = ", ".join(_format_name(name, levers) for name in sorted(values))
        faults.append(f"{file}: an outcome needs one of {value_names}; {columns}")
    if faults:
        raise ColumnError(faults)


def format_suggestion(kind: RecordKind, name: str, columns: Sequence[str]) -> str:
    """Return a sentence that names the column meant by `name`, or an empty text."""
    column = suggest_column(name, columns)
    return "" if column is None else f"; did you mean --map {kind}.{name}={column}?"


def _list_required_columns(kind: RecordKind, levers: Sequence[str]) -> tuple[str, ...]:
    if kind in (RecordKind.PREDICTIONS, RecordKind.DECISIONS):
        return (*REQUIRED_COLUMNS[kind], *(VALUE_PREFIX + lever for lever in levers))
    return REQUIRED_COLUMNS[kind]


def _format_name(name: str, levers: Sequence[str]) -> str:
    """Return the name as it is written in a map."""
    if name.startswith(VALUE_PREFIX):
        return "label" if len(levers) == 1 else name.removeprefix(VALUE_PREFIX)
    return name.removeprefix(ATTRIBUTE_PREFIX).removeprefix(OUTCOME_PREFIX)
