"""Which column of a file holds what: the column map, and the layout by map and header.

A column map is a small YAML file; every scalar in it is text:

    predictions:
      case_key: image                 # our name: their column
      model_version: {value: v1}      # a constant for all rows
      attributes: [camera, flash]     # only these are attributes of the case
      where: kind=model               # only these rows; != for all others
    decisions:
      label: answer

Flags have the same meaning: `predictions.case_key=image`, `predictions.model_version:=v1`,
`predictions.attributes=camera,flash`. A name without a mapping is its own column. Without
`attributes`, every column without another use is an attribute.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from shlex import quote
from typing import TYPE_CHECKING

from rollout.engine.evidence.frames import (
    ATTRIBUTE_PREFIX,
    CONTENT,
    OUTCOME_PREFIX,
    VALUE_PREFIX,
    RecordKind,
)
from rollout.engine.evidence.version_uses import DRAWS
from rollout.kernel.errors import RolloutError
from rollout.kernel.policy_files.yaml_reader import (
    Document,
    DocumentPath,
    DocumentValue,
    format_path,
    read_document,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from rollout.kernel.policy.evidence_sources import FileReading


CASE_COLUMNS = ("site", "occurred_at", "episode", "received_at")
"""Facts about a case, allowed in files of cases, predictions and decisions."""
RECEIVED_AT = "received_at"
"""When a service got a row's record; in a file without cases also when it got the case."""

COLUMN_NAMES: Mapping[RecordKind, tuple[str, ...]] = {
    RecordKind.CASES: ("case_key", *CASE_COLUMNS, DRAWS),
    RecordKind.PREDICTIONS: (
        *("case_key", *CASE_COLUMNS, "model_version"),
        *("confidence", "predicted_at", "latency_ms", "error", "sampled_arm", "content"),
    ),
    RecordKind.DECISIONS: (
        *("case_key", *CASE_COLUMNS, "reviewer"),
        *("unsure", "exposure", "task_number", "decided_at", "started_at", "source"),
    ),
    RecordKind.OUTCOMES: ("case_key", "harm", "outcome_at"),
}
"""Names that a map can have, in addition to levers (one: `label`; several: their ids)."""

REQUIRED_COLUMNS: Mapping[RecordKind, tuple[str, ...]] = {
    RecordKind.CASES: ("case_key", "site", "occurred_at"),
    RecordKind.PREDICTIONS: ("case_key", "model_version"),
    RecordKind.DECISIONS: ("case_key", "reviewer"),
    RecordKind.OUTCOMES: ("case_key",),
}
"""Required names; predictions and decisions also require each lever."""

WHERE = "where"
"""The name in a map that chooses rows."""

FLAG_FORMAT = "write KIND.NAME=COLUMN, KIND.NAME:=TEXT or KIND.attributes=COLUMN,COLUMN"


class ColumnError(RolloutError, ValueError):
    """Missing or wrongly named columns; `faults` has a sentence for each."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = tuple(faults)


@dataclass(frozen=True, slots=True)
class FileColumns:
    """The column map of one file, by our name; a lever's answer is `value:<lever>`.

    Attributes:
        columns: their column.
        constants: one text for all rows.
        attributes: their column, or None if every column without another use is an attribute.
        where: the rows that hold such records, as `COLUMN=TEXT` or `COLUMN!=TEXT`; "" for all.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)
    attributes: Mapping[str, str] | None = None
    where: str = ""


@dataclass(frozen=True, slots=True)
class ColumnMap:
    """The column maps of all files; empty for the default names."""

    files: Mapping[RecordKind, FileColumns] = field(default_factory=dict)

    def get_file(self, kind: RecordKind) -> FileColumns:
        """Return the map of one file."""
        return self.files.get(kind, FileColumns())


DEFAULT_COLUMN_MAP = ColumnMap()


@dataclass(frozen=True, slots=True)
class FieldNames:
    """Ids of a policy that are names of columns: levers, and outcomes with a value."""

    levers: Sequence[str]
    outcomes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class ColumnMapEntry:
    """One line of a map: a column, a constant, or a list of attributes."""

    location: str
    kind: str
    name: str
    column: str | None = None
    constant: str | None = None
    attributes: Mapping[str, str] | None = None


def read_column_map(
    path: Path, *, levers: Sequence[str], outcomes: Sequence[str] = ()
) -> ColumnMap:
    """Read a column map from a YAML file.

    Raises:
        ColumnError: the file has faults; all are listed.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ColumnError([f"{path.name}: not UTF-8 text: {error.reason}"]) from error
    return parse_column_map(text, source=path.name, levers=levers, outcomes=outcomes)


def parse_column_map(
    text: str, *, source: str, levers: Sequence[str], outcomes: Sequence[str] = ()
) -> ColumnMap:
    """Read a map from YAML text; an empty text is the default map.

    Raises:
        ColumnError: the text is not YAML or has unknown names; with file and line.

    >>> parse_column_map(
    ...     "decisions: {label: answer}", source="map.yaml", levers=["alarm"]
    ... ).get_file(RecordKind.DECISIONS).columns
    {'value:alarm': 'answer'}
    """
    document = read_document(text)
    faults = [
        f"{source}:{document.find_line(fault.path)}: {format_path(fault.path)} {fault.text}"
        for fault in document.faults
    ]
    entries = [] if document.value is None else list(_read_entries(document, source, faults))
    return _build_column_map(entries, FieldNames(levers, outcomes), faults)


def parse_column_flags(
    flags: Iterable[str],
    *,
    levers: Sequence[str],
    outcomes: Sequence[str] = (),
    base: ColumnMap = DEFAULT_COLUMN_MAP,
) -> ColumnMap:
    """Read a map from flags; they override `base`.

    Raises:
        ColumnError: a flag has the wrong form or an unknown name.

    >>> flags = ["predictions.case_key=image", "predictions.model_version:=v1"]
    >>> parse_column_flags(flags, levers=["alarm"]).get_file(RecordKind.PREDICTIONS).constants
    {'model_version': 'v1'}
    """
    faults: list[str] = []
    entries = [entry for flag in flags if (entry := _parse_flag(flag, faults)) is not None]
    return _build_column_map(entries, FieldNames(levers, outcomes), faults, base)


def build_policy_columns(
    readings: Mapping[RecordKind, FileReading],
    *,
    levers: Sequence[str],
    outcomes: Sequence[str] = (),
) -> ColumnMap:
    """Return the column map of a policy's import section.

    Raises:
        ColumnError: a name is unknown.
    """
    entries = [
        ColumnMapEntry("import of the policy", kind, name, column, constant, attributes)
        for kind, reading in readings.items()
        for name, column, constant, attributes in (
            *((name, column, None, None) for name, column in reading.columns.items()),
            *((name, None, text, None) for name, text in reading.constants.items()),
            *([("attributes", None, None, reading.attributes)] if reading.attributes else []),
        )
    ]
    return _build_column_map(entries, FieldNames(levers, outcomes), [])


def _parse_flag(flag: str, faults: list[str]) -> ColumnMapEntry | None:
    left, equals, right = flag.partition("=")
    kind, dot, name = left.removesuffix(":").partition(".")
    if not (equals and dot and name and right):
        faults.append(f"{flag!r} is no column flag; {FLAG_FORMAT}")
        return None
    if name == "attributes":
        columns = [column.strip() for column in right.split(",")]
        return ColumnMapEntry(flag, kind, name, attributes=dict(zip(columns, columns, strict=True)))
    if left.endswith(":"):
        return ColumnMapEntry(flag, kind, name, constant=right)
    return ColumnMapEntry(flag, kind, name, column=right)


def _build_column_map(
    entries: Iterable[ColumnMapEntry],
    names: FieldNames,
    faults: list[str],
    base: ColumnMap = DEFAULT_COLUMN_MAP,
) -> ColumnMap:
    """Return `base` with all entries; raise ColumnError for `faults` and unknown names."""
    files = dict(base.files)
    for entry in entries:
        kind, fault = _check_entry(entry, names)
        if fault is None:
            files[kind] = _add_entry(files.get(kind, FileColumns()), entry, names)
        else:
            faults.append(fault)
    if faults:
        raise ColumnError(faults)
    return ColumnMap(files)


def _check_entry(entry: ColumnMapEntry, fields: FieldNames) -> tuple[RecordKind, str | None]:
    levers = fields.levers
    if entry.kind not in list(RecordKind):
        return (
            RecordKind.CASES,
            f"{entry.location}: no file {entry.kind!r}; there are {', '.join(RecordKind)}",
        )
    kind = RecordKind(entry.kind)
    names = [*COLUMN_NAMES[kind], WHERE, "attributes"]
    if kind is not RecordKind.CASES:
        names += [*levers, *(["label"] if len(levers) == 1 else [])]
    if kind is RecordKind.OUTCOMES:
        names += fields.outcomes
    if entry.name not in names:
        return (
            kind,
            f"{entry.location}: {kind} have no {entry.name!r}; there are {', '.join(names)}",
        )
    return kind, None


def _add_entry(file: FileColumns, entry: ColumnMapEntry, fields: FieldNames) -> FileColumns:
    levers = fields.levers
    if entry.attributes is not None:
        return replace(file, attributes=entry.attributes)
    if entry.name == WHERE:
        return replace(file, where=entry.column or entry.constant or "")
    is_label = entry.name == "label" and len(levers) == 1
    lever = levers[0] if is_label else entry.name
    name = VALUE_PREFIX + lever if is_label or entry.name in levers else entry.name
    if entry.kind == RecordKind.OUTCOMES and entry.name in fields.outcomes:
        name = OUTCOME_PREFIX + entry.name
    columns = {
        our_name: file_column for our_name, file_column in file.columns.items() if our_name != name
    }
    constants = {our_name: text for our_name, text in file.constants.items() if our_name != name}
    if entry.column is not None:
        columns[name] = entry.column
    if entry.constant is not None:
        constants[name] = entry.constant
    return replace(file, columns=columns, constants=constants)


def _read_entries(document: Document, source: str, faults: list[str]) -> Iterator[ColumnMapEntry]:
    """Yield the entries of a map; append malformed lines to `faults`."""
    for kind, body in _read_pairs(document, (), source, faults):
        for name, value in _read_pairs(document, (kind,), source, faults, body):
            location = f"{source}:{document.find_line((kind, name))}"
            entry = _build_entry(location, kind, name, value)
            if entry is None:
                faults.append(
                    f"{location}: {kind}.{name} is neither a column, nor {{value: TEXT}}, nor (for "
                    "attributes) a list of columns"
                )
            else:
                yield entry


def _read_pairs(
    document: Document,
    path: DocumentPath,
    source: str,
    faults: list[str],
    value: DocumentValue | None = None,
) -> list[tuple[str, DocumentValue]]:
    value = document.value if not path else value
    if isinstance(value, dict):
        return list(value.items())
    faults.append(f"{source}:{document.find_line(path)}: expected lines `name: …`, found {value!r}")
    return []


def _build_entry(
    location: str, kind: str, name: str, value: DocumentValue
) -> ColumnMapEntry | None:
    match value:
        case str() if value and name != "attributes":
            return ColumnMapEntry(location, kind, name, column=value)
        case [*columns] if name == "attributes":
            pairs = {column: column for column in columns if isinstance(column, str)}
            return (
                ColumnMapEntry(location, kind, name, attributes=pairs)
                if len(pairs) == len(columns)
                else None
            )
        case {"value": str(text)} if name != "attributes" and len(value) == 1:
            return ColumnMapEntry(location, kind, name, constant=text)
        case dict() if name == "attributes":
            pairs = {
                our_name: file_column
                for our_name, file_column in value.items()
                if isinstance(file_column, str)
            }
            return (
                ColumnMapEntry(location, kind, name, attributes=pairs)
                if len(pairs) == len(value)
                else None
            )
    return None


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
    "decided_at": (
        *("dec_time", "decision_time", "reviewed_at", "annotated_at", "completed_at"),
        *("submitted_at", "answered_at", "labeled_at", "labelled_at"),
    ),
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
    """Columns and constants of one file by our names, and its unused columns.

    `hints` has a sentence for each of our names that a column without a use may mean.
    """

    columns: Mapping[str, str]
    constants: Mapping[str, str]
    ignored: tuple[str, ...]
    hints: tuple[str, ...] = ()

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
    hints = tuple(
        f"no column {name}{suggestion}"
        for name in COLUMN_NAMES[kind]
        if name in expected.keys() - used.keys() - columns.constants.keys()
        and (suggestion := format_suggestion(kind, name, unused))
    )
    # Outcomes come after the decision, so their columns can't be attributes to decide by.
    if columns.attributes is None and kind is not RecordKind.OUTCOMES:
        used, unused = {**used, **{ATTRIBUTE_PREFIX + name: name for name in unused}}, []
    return ColumnLayout(used, columns.constants, tuple(unused), hints)


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
        f"{file}: no column for {_format_name(name, levers)!r}; {columns}. Name it by"
        f" --map {kind}.{_format_name(name, levers)}=COLUMN, or give all rows one text by"
        f" --map {kind}.{_format_name(name, levers)}:=TEXT"
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
    return "" if column is None else f"; did you mean --map {quote(f'{kind}.{name}={column}')}?"


def _list_required_columns(kind: RecordKind, levers: Sequence[str]) -> tuple[str, ...]:
    if kind in (RecordKind.PREDICTIONS, RecordKind.DECISIONS):
        return (*REQUIRED_COLUMNS[kind], *(VALUE_PREFIX + lever for lever in levers))
    return REQUIRED_COLUMNS[kind]


def _format_name(name: str, levers: Sequence[str]) -> str:
    """Return the name as it is written in a map."""
    if name.startswith(VALUE_PREFIX):
        return "label" if len(levers) == 1 else name.removeprefix(VALUE_PREFIX)
    return name.removeprefix(ATTRIBUTE_PREFIX).removeprefix(OUTCOME_PREFIX)
