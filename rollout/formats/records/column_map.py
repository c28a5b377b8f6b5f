"""Which column of a file holds what: names known by default, and maps for other names.

A map is a small YAML file, every scalar of it read as text:

    predictions:
      case_key: image                 # our name: their column
      model_version: {value: v1}      # the same text in every row
      attributes: [camera, flash]     # only these become attributes of the case
    decisions:
      label: answer

or flags of the same meaning: `predictions.case_key=image`, `predictions.model_version:=v1`,
`predictions.attributes=camera,flash`. Names that are not mapped are looked for under their own
name. Where `attributes` is not given, every column that is not used otherwise becomes one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rollout.formats.policy.yaml_reader import Document, Place, Value, field_path, read_lines
from rollout.tally.frames import ATTRIBUTE, VALUE, Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

CASE_FACTS = ("site", "occurred_at", "episode", "received_at")
"""What a file may say of a case; cases, predictions and decisions files all may."""

NAMES: Mapping[Kind, tuple[str, ...]] = {
    Kind.CASES: ("case_key", *CASE_FACTS),
    Kind.PREDICTIONS: (
        *("case_key", *CASE_FACTS, "model_version"),
        *("confidence", "predicted_at", "latency_ms", "error"),
    ),
    Kind.DECISIONS: (
        *("case_key", *CASE_FACTS, "reviewer"),
        *("unsure", "exposure", "task_number", "decided_at", "started_at"),
    ),
    Kind.OUTCOMES: ("case_key", "harm", "outcome_at"),
}
"""Names that a map may give, beside the levers' (one lever: `label`; several: their ids)."""

REQUIRED: Mapping[Kind, tuple[str, ...]] = {
    Kind.CASES: ("case_key", "site", "occurred_at"),
    Kind.PREDICTIONS: ("case_key", "model_version"),
    Kind.DECISIONS: ("case_key", "reviewer"),
    Kind.OUTCOMES: ("case_key",),
}
"""Names without which a file cannot be read; predictions and decisions need each lever too."""

FORM = "write KIND.NAME=COLUMN, KIND.NAME:=TEXT or KIND.attributes=COLUMN,COLUMN"


class ColumnFault(ValueError):  # noqa: N818 - a fault is what the user is shown, one sentence each
    """Columns that are missing or named wrongly; `faults` holds one sentence for each."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = tuple(faults)


@dataclass(frozen=True, slots=True)
class FileColumns:
    """The map of one file: our name → their column, → one text for all rows; attributes.

    A lever's answer is called `value:<lever>` here. `attributes` (our name → their column) is
    None where every column that is not used otherwise shall become one.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)
    attributes: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class ColumnMap:
    """The maps of all files; an empty one means the default names."""

    files: Mapping[Kind, FileColumns] = field(default_factory=dict)

    def of(self, kind: Kind) -> FileColumns:
        """Return the map of one file."""
        return self.files.get(kind, FileColumns())


DEFAULT = ColumnMap()


@dataclass(frozen=True, slots=True)
class Arrangement:
    """Where in one file everything stands: found columns, constants, and columns left over."""

    columns: Mapping[str, str]
    constants: Mapping[str, str]
    ignored: tuple[str, ...]

    def theirs(self, name: str) -> str:
        """Return what the file calls `name`; a constant has our name."""
        return self.columns.get(name, name.removeprefix(VALUE))


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a map: `name` of `kind` is a column, a constant, or a list of attributes."""

    where: str
    kind: str
    name: str
    column: str | None = None
    constant: str | None = None
    attributes: Mapping[str, str] | None = None


def read_columns(path: Path, *, levers: Sequence[str]) -> ColumnMap:
    """Read a map from a YAML file; raises ColumnFault with every fault that is in it."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ColumnFault([f"{path.name}: not UTF-8 text: {error.reason}"]) from error
    return parse_columns(text, source=path.name, levers=levers)


def parse_columns(text: str, *, source: str, levers: Sequence[str]) -> ColumnMap:
    """Read a map from YAML text; an empty text is the default map.

    Raises:
        ColumnFault: the text is no YAML, or names what does not exist; with file and line.

    >>> parse_columns("decisions: {label: answer}", source="map.yaml", levers=["alarm"]).of(
    ...     Kind.DECISIONS
    ... ).columns
    {'value:alarm': 'answer'}
    """
    document = read_lines(text)
    faults = [
        f"{source}:{document.line(fault.place)}: {field_path(fault.place)} {fault.says}"
        for fault in document.faults
    ]
    entries = [] if document.value is None else list(_entries(document, source, faults))
    return _column_map(entries, levers, faults)


def columns_from_flags(
    flags: Iterable[str], *, levers: Sequence[str], base: ColumnMap = DEFAULT
) -> ColumnMap:
    """Read a map from flags; what they say replaces what `base` says of the same name.

    Raises:
        ColumnFault: a flag has another form, or names what does not exist.

    >>> flags = ["predictions.case_key=image", "predictions.model_version:=v1"]
    >>> columns_from_flags(flags, levers=["alarm"]).of(Kind.PREDICTIONS).constants
    {'model_version': 'v1'}
    """
    faults: list[str] = []
    entries = [entry for flag in flags if (entry := _flag(flag, faults)) is not None]
    return _column_map(entries, levers, faults, base)


def arrange(
    kind: Kind, file: str, found: Sequence[str], columns: FileColumns, levers: Sequence[str]
) -> Arrangement:
    """Find everything that `kind` may hold among the columns `found` in `file`.

    Raises:
        ColumnFault: a mapped column is not there, or a required one is missing; the message
            names the columns found and says how to map.
    """
    expected = _wanted(kind, levers, found)
    by_name = {
        our_name: file_column for our_name, file_column in expected.items() if file_column in found
    }
    attributes = {
        ATTRIBUTE + our_name: name for our_name, name in (columns.attributes or {}).items()
    }
    mapped = {**by_name, **columns.columns, **attributes}
    used = {
        our_name: file_column
        for our_name, file_column in mapped.items()
        if our_name not in columns.constants
    }
    _refuse_missing(kind, file, found, used, [*used, *columns.constants], levers)
    unused = [name for name in found if name not in used.values()]
    # An outcome comes after everything: what stands beside it is no attribute to decide by.
    if columns.attributes is None and kind is not Kind.OUTCOMES:
        used, unused = {**used, **{ATTRIBUTE + name: name for name in unused}}, []
    return Arrangement(used, columns.constants, tuple(unused))


def _wanted(kind: Kind, levers: Sequence[str], found: Sequence[str]) -> dict[str, str]:
    names = {name: name for name in NAMES[kind] if name not in levers}
    if kind is Kind.CASES:
        return names
    if len(levers) == 1 and "label" in found:
        return {**names, VALUE + levers[0]: "label"}
    return {**names, **{VALUE + lever: lever for lever in levers}}


def _refuse_missing(
    kind: Kind,
    file: str,
    found: Sequence[str],
    taken: Mapping[str, str],
    known: Sequence[str],
    levers: Sequence[str],
) -> None:
    """Raise ColumnFault for columns that are mapped and absent, or required and absent."""
    columns = f"found: {', '.join(found) or 'no columns'}"
    faults = [
        f"{file}: no column {file_column!r}, which is mapped to {_plain(our_name, levers)!r};"
        f" {columns}"
        for our_name, file_column in taken.items()
        if file_column not in found
    ]
    faults += [
        f"{file}: no column for {_plain(name, levers)!r}; {columns}. Name it in the column map, "
        f"`{kind}: {{{_plain(name, levers)}: THEIR_COLUMN}}`, or give one text for all rows, "
        f"`{kind}: {{{_plain(name, levers)}: {{value: TEXT}}}}`"
        for name in _required(kind, levers)
        if name not in known
    ]
    values = {"harm", *(VALUE + lever for lever in levers)}
    if kind is Kind.OUTCOMES and not values & set(known):
        names = ", ".join(_plain(name, levers) for name in sorted(values))
        faults.append(f"{file}: an outcome needs one of {names}; {columns}")
    if faults:
        raise ColumnFault(faults)


def _required(kind: Kind, levers: Sequence[str]) -> tuple[str, ...]:
    if kind in (Kind.PREDICTIONS, Kind.DECISIONS):
        return (*REQUIRED[kind], *(VALUE + lever for lever in levers))
    return REQUIRED[kind]


def _plain(name: str, levers: Sequence[str]) -> str:
    """Return the name as a map writes it."""
    if name.startswith(VALUE):
        return "label" if len(levers) == 1 else name.removeprefix(VALUE)
    return name.removeprefix(ATTRIBUTE)


def _flag(flag: str, faults: list[str]) -> Entry | None:
    left, equals, right = flag.partition("=")
    kind, dot, name = left.removesuffix(":").partition(".")
    if not (equals and dot and name and right):
        faults.append(f"{flag!r} is no column flag; {FORM}")
        return None
    if name == "attributes":
        columns = [column.strip() for column in right.split(",")]
        return Entry(flag, kind, name, attributes=dict(zip(columns, columns, strict=True)))
    if left.endswith(":"):
        return Entry(flag, kind, name, constant=right)
    return Entry(flag, kind, name, column=right)


def _column_map(
    entries: Iterable[Entry], levers: Sequence[str], faults: list[str], base: ColumnMap = DEFAULT
) -> ColumnMap:
    """Check the names of all entries and put them over `base`."""
    files = dict(base.files)
    for entry in entries:
        kind, fault = _checked(entry, levers)
        if fault is None:
            files[kind] = _with_entry(files.get(kind, FileColumns()), entry, levers)
        else:
            faults.append(fault)
    if faults:
        raise ColumnFault(faults)
    return ColumnMap(files)


def _checked(entry: Entry, levers: Sequence[str]) -> tuple[Kind, str | None]:
    if entry.kind not in list(Kind):
        return Kind.CASES, f"{entry.where}: no file {entry.kind!r}; there are {', '.join(Kind)}"
    kind = Kind(entry.kind)
    names = [*NAMES[kind], "attributes"]
    if kind is not Kind.CASES:
        names += [*levers, *(["label"] if len(levers) == 1 else [])]
    if entry.name not in names:
        return kind, f"{entry.where}: {kind} have no {entry.name!r}; there are {', '.join(names)}"
    return kind, None


def _with_entry(file: FileColumns, entry: Entry, levers: Sequence[str]) -> FileColumns:
    if entry.attributes is not None:
        return FileColumns(file.columns, file.constants, entry.attributes)
    is_label = entry.name == "label" and len(levers) == 1
    lever = levers[0] if is_label else entry.name
    name = VALUE + lever if is_label or entry.name in levers else entry.name
    columns = {
        our_name: file_column for our_name, file_column in file.columns.items() if our_name != name
    }
    constants = {our_name: text for our_name, text in file.constants.items() if our_name != name}
    if entry.column is not None:
        columns[name] = entry.column
    if entry.constant is not None:
        constants[name] = entry.constant
    return FileColumns(columns, constants, file.attributes)


def _entries(document: Document, source: str, faults: list[str]) -> Iterator[Entry]:
    """Yield what a map says, line by line; what has not the form of a map goes to `faults`."""
    for kind, body in _pairs(document, (), source, faults):
        for name, value in _pairs(document, (kind,), source, faults, body):
            location = f"{source}:{document.line((kind, name))}"
            entry = _entry(location, kind, name, value)
            if entry is None:
                faults.append(
                    f"{location}: {kind}.{name} is neither a column, nor {{value: TEXT}}, nor (for "
                    "attributes) a list of columns"
                )
            else:
                yield entry


def _pairs(
    document: Document, place: Place, source: str, faults: list[str], value: Value | None = None
) -> list[tuple[str, Value]]:
    value = document.value if not place else value
    if isinstance(value, dict):
        return list(value.items())
    faults.append(f"{source}:{document.line(place)}: expected lines `name: …`, found {value!r}")
    return []


def _entry(where: str, kind: str, name: str, value: Value) -> Entry | None:
    match value:
        case str() if value and name != "attributes":
            return Entry(where, kind, name, column=value)
        case [*columns] if name == "attributes":
            pairs = {column: column for column in columns if isinstance(column, str)}
            return (
                Entry(where, kind, name, attributes=pairs) if len(pairs) == len(columns) else None
            )
        case {"value": str(text)} if name != "attributes" and len(value) == 1:
            return Entry(where, kind, name, constant=text)
        case dict() if name == "attributes":
            pairs = {
                our_name: file_column
                for our_name, file_column in value.items()
                if isinstance(file_column, str)
            }
            return Entry(where, kind, name, attributes=pairs) if len(pairs) == len(value) else None
    return None
