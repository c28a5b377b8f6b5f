"""Versions of a report, what changed between them, and the seal that survives erasures.

A report is provisional while a case of its span is open or not yet counted by a tick, and final
afterwards. Later changes of the records make a further version.

The seal is a hash that stays valid when texts and rows of cases are erased. Every text and every
row of a case is a part that is hashed with a salt of its own; the seal covers the parts' hashes
instead of the parts. Salts follow from the report's `salt` and the part's place, until an erasure:
it replaces `salt` by the `salts` of the parts that stay, so that nobody can test guesses of an
erased part.
"""

import hmac
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from rollout.kernel.errors import RefusalError

if TYPE_CHECKING:
    from rollout.features.reports.inputs.inputs import ReportInputs


SCHEMA: Final = "rollout-report/1"
PROVISIONAL, FINAL = "provisional", "final"
MAX_CHANGES = 200  # changed figures that are listed

VERSION_SECTION: Final = "report_version"
VOLATILE_SECTIONS: Final = frozenset({VERSION_SECTION, "pending_work"})
"""Sections about the time of making; their differences are no changes."""

ROW_KEY_FIELDS: Final = (
    "site", "window", "version", "name", "lever", "label", "action", "reviewer",
    "measure", "guard", "rule", "revision", "stage", "since", "file", "kind",
)  # fmt: skip
"""Fields that identify the rows of a list, as far as present."""

CASE_FIELDS: Final = frozenset({"case_key", "case", "first_case"})
"""Fields that hold the key of a case."""


class UnknownReportFormError(ValueError):
    """A report has a form that this program doesn't know."""


class UnreadableReportError(RefusalError):
    """The report has another form than this program's; only JSON and CSV are available."""

    code = "unreadable-report"


def check_report_form(report: Mapping[str, Any]) -> None:
    """Raise an error unless a stored report has the form of this program.

    Raises:
        UnknownReportFormError: its fields may mean something else than those of the same names.
    """
    if report.get("schema") != SCHEMA:
        raise UnknownReportFormError(f"its form {report.get('schema')!r} is not {SCHEMA}")


@dataclass(frozen=True, slots=True)
class FigureChange:
    """One figure that differs from the version before; values as JSON, None if absent.

    Rows of a list are named by their key fields: `agreements[v1,alarm].agreement.rate`. For lists
    of cases only the number of rows is shown: a later blind reviewer must not see answers here.
    """

    path: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class ReportVersion:
    """Version and state of a report.

    Attributes:
        live: False for a replay, which has one final version.
        name: of the report, the same for all its versions.
        version: from 1, one more for each change.
        state: `provisional` or `final`.
        due: when it can become final; None for a replay.
        counted_until: end of the counted span.
        uncounted_units: units of the span that are not counted yet.
        withheld_cases: cases withheld because they can still be reviewed blind.
        changed: at most 200 figures that differ from the version before.
        more_changed: number of further differences.
        divergences_sha256: of the CSV of all divergences.
    """

    live: bool
    name: str
    version: int
    state: str
    due: datetime | None
    counted_until: datetime | None
    uncounted_units: int
    withheld_cases: int
    changed: tuple[FigureChange, ...] = ()
    more_changed: int = 0
    divergences_sha256: str = ""


def build_report_version(inputs: "ReportInputs") -> ReportVersion:
    """Return the first version; the archive sets its name and the changes."""
    pending = 0 if inputs.pending_units.is_empty() else inputs.pending_units["unit"].n_unique()
    return ReportVersion(
        live=inputs.is_live,
        name="",
        version=1,
        state=_find_state(inputs, pending),
        due=inputs.closes_at,
        counted_until=inputs.counted_until,
        uncounted_units=pending,
        withheld_cases=inputs.withheld_count,
    )


def _find_state(inputs: "ReportInputs", pending: int) -> str:
    if inputs.closes_at is None or inputs.counted_until is None:
        return FINAL
    has_open_cases = pending or inputs.withheld_count or inputs.counted_until < inputs.closes_at
    return PROVISIONAL if has_open_cases else FINAL


def format_canonical(report: Any) -> str:
    """Return plain values as canonical JSON: sorted keys, no spaces, UTF-8.

    Raises:
        ValueError: a figure is infinite or undefined.
    """
    return json.dumps(
        report, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def compute_hash(text: str) -> str:
    """Return the SHA-256 of a report's text."""
    return sha256(text.encode()).hexdigest()


def compare_versions(
    before: Mapping[str, Any], after: Mapping[str, Any]
) -> tuple[FigureChange, ...]:
    """Return the figures that differ between two versions, sorted by path.

    Args:
        before: the earlier version as plain values.
        after: the later one. `VOLATILE_SECTIONS` are excluded, except for the state.
    """
    old, new = dict(_list_figures(before)), dict(_list_figures(after))
    paths = [path for path in {**old, **new} if old.get(path) != new.get(path)]
    return tuple(
        FigureChange(path, _format_figure(old.get(path)), _format_figure(new.get(path)))
        for path in sorted(paths)
    )


def _format_figure(figure: str | None) -> str | None:
    """Return a figure as listed; for rows of cases only their number."""
    if figure is None or not figure.startswith("[{"):
        return figure
    return format_canonical(f"{len(json.loads(figure))} rows of cases")


def is_case_row(row: Any) -> bool:
    """Return whether a row of a list is about a case."""
    return isinstance(row, Mapping) and any(isinstance(row.get(name), str) for name in CASE_FIELDS)


def _list_figures(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield f"{VERSION_SECTION}.state", format_canonical(report[VERSION_SECTION]["state"])
    for name, section in report.items():
        if name not in VOLATILE_SECTIONS:
            yield from _list_leaves(section, name)


def _list_leaves(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _list_leaves(item, f"{path}.{name}")
    elif isinstance(value, list) and any(is_case_row(item) for item in value):
        yield path, format_canonical(value)
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        for name, row in zip(_name_rows(value), value, strict=True):
            yield from _list_leaves(row, f"{path}[{name}]")
    else:
        yield path, format_canonical(value)


def _name_rows(rows: list[Any]) -> list[str]:
    """Return a unique name of each row: its key fields, else its index."""
    names = [",".join(_list_row_keys(row)) for row in rows]
    has_duplicates = len(set(names)) < len(names) or "" in names
    return [str(index) for index in range(len(rows))] if has_duplicates else names


def _list_row_keys(row: Any) -> Iterator[str]:
    for name in ROW_KEY_FIELDS:
        if isinstance(row, Mapping) and isinstance(row.get(name), str | int):
            yield str(row[name])


SALT, SALTS, ERASED = "salt", "salts", "erased"
SALT_FIELDS: Final = frozenset({SALT, SALTS})
PART_DOMAIN: Final = b"rollout-report-part-1\n"
SALT_BYTES: Final = 16
TABLE: Final = "divergences.csv"
"""The first part of the place of a line of the table of divergences."""
ERASED_TEXT: Final = "(erased)"
STORED_PICTURE: Final = "stored with the case"
"""Stands for a picture that is shown from the case's media, and not sealed."""

Parts = Iterator[tuple[str, Any]]
FindSalt = Callable[[str], bytes]


def compute_seal(body: str) -> str:
    """Return the seal of a report's text."""
    values = json.loads(body)
    content = {name: value for name, value in values.items() if name not in SALT_FIELDS}
    return compute_hash(format_canonical(_fold(content, "", _get_salts(values))))


def compute_table_seal(values: Mapping[str, Any], table: str) -> str:
    """Return the seal of the table of divergences, of a report with these values."""
    find_salt = _get_salts(values)
    parts = (_hash_line(number, line, find_salt) for number, line in _number_lines(table))
    return compute_hash("\n".join(parts))


def find_pictured_cases(values: Mapping[str, Any]) -> frozenset[str]:
    """Return the keys of the cases whose picture is stored with the case."""
    return frozenset(
        row["case_key"]
        for row in values["divergences"]["top"]
        if row.get("picture") == STORED_PICTURE
    )


def restore_report(values: Mapping[str, Any], pictures: Mapping[str, str | None]) -> dict[str, Any]:
    """Return a report as it is shown: with pictures by case, without erased rows and salts."""
    return {
        name: _restore(value, pictures) for name, value in values.items() if name not in SALT_FIELDS
    }


def restore_table(table: str) -> str:
    """Return the table of divergences without erased lines."""
    return "".join(line for _, line in _number_lines(table) if not _is_erased_line(line))


def erase_parts(body: str, table: str, is_erased: Callable[[Any], bool]) -> tuple[str, str] | None:
    """Return text and table without the parts for which `is_erased`; None if there is none.

    `is_erased` gets texts, rows of cases, and lines of the table.
    """
    values = json.loads(body)
    content = {name: value for name, value in values.items() if name not in SALT_FIELDS}
    parts = [*_list_parts(content, ""), *_list_lines(table)]
    places = {place for place, part in parts if part is not None and is_erased(part)}
    if not places:
        return None
    find_salt = _get_salts(values)
    salts = {place: find_salt(place).hex() for place, _ in parts if place not in places}
    erased_body = _erase(content, "", places, find_salt)
    lines = (
        f"{ERASED}:{_hash_line(number, line, find_salt)}\n"
        if f"{TABLE}/{number}" in places
        else line
        for number, line in _number_lines(table)
    )
    return format_canonical({**erased_body, SALTS: salts}), "".join(lines)


def _get_salts(values: Mapping[str, Any]) -> FindSalt:
    if SALTS in values:
        salts: Mapping[str, str] = values[SALTS]
        return lambda place: bytes.fromhex(salts[place])
    secret = bytes.fromhex(values.get(SALT, ""))  # a report without one is not what was sealed
    return lambda place: hmac.digest(secret, place.encode(), "sha256")[:SALT_BYTES]


def _hash_part(part: Any, salt: bytes) -> str:
    return sha256(PART_DOMAIN + salt + format_canonical(part).encode()).hexdigest()


def _walk(value: Any, place: str, replace_part: Callable[[str, Any], Any]) -> Any:
    """Return a value with each part replaced; rows of cases are parts in lists only."""
    if isinstance(value, str) or _is_erased(value):
        return replace_part(place, value)
    if isinstance(value, Mapping):
        return {
            name: _walk(item, _join_place(place, name), replace_part)
            for name, item in value.items()
        }
    if isinstance(value, list):
        places = (_join_place(place, str(index)) for index in range(len(value)))
        return [
            replace_part(row_place, row)
            if is_case_row(row)
            else _walk(row, row_place, replace_part)
            for row_place, row in zip(places, value, strict=True)
        ]
    return value


def _fold(value: Any, place: str, find_salt: FindSalt) -> Any:
    """Return a value with the hash of each part in its place."""

    def replace_part(place: str, part: Any) -> str:
        return str(part[ERASED]) if _is_erased(part) else _hash_part(part, find_salt(place))

    return _walk(value, place, replace_part)


def _erase(value: Any, place: str, places: Iterable[str], find_salt: FindSalt) -> Any:
    def replace_part(place: str, part: Any) -> Any:
        return {ERASED: _hash_part(part, find_salt(place))} if place in places else part

    return _walk(value, place, replace_part)


def _list_parts(value: Any, place: str) -> Parts:
    parts: list[tuple[str, Any]] = []

    def add_part(place: str, part: Any) -> Any:
        if not _is_erased(part):
            parts.append((place, part))
        return part

    _walk(value, place, add_part)
    yield from parts


def _list_lines(table: str) -> Parts:
    """Yield the rows of the table that are not erased; the header is None."""
    for number, line in _number_lines(table):
        if not _is_erased_line(line):
            yield f"{TABLE}/{number}", line if number else None


def _number_lines(table: str) -> Iterator[tuple[int, str]]:
    """Yield number and text of each row; a quoted cell may have several lines."""
    number, row = 0, ""
    for line in table.split("\n"):
        row += line
        if row.count('"') % 2:
            row += "\n"
        elif row:
            yield number, f"{row}\n"
            number, row = number + 1, ""


def _hash_line(number: int, line: str, find_salt: FindSalt) -> str:
    if _is_erased_line(line):
        return line.removeprefix(f"{ERASED}:").rstrip("\n")
    return _hash_part(line, find_salt(f"{TABLE}/{number}"))


def _is_erased_line(line: str) -> bool:
    return line.startswith(f"{ERASED}:")


def _is_erased(value: Any) -> bool:
    return isinstance(value, Mapping) and value.keys() == {ERASED}


def _join_place(place: str, name: str) -> str:
    """Return a place as a JSON pointer (RFC 6901)."""
    return f"{place}/{name.replace('~', '~0').replace('/', '~1')}"


def leave_out_pictures(value: Any) -> Any:
    """Return a report's values with references instead of embedded pictures."""
    if isinstance(value, Mapping):
        return {
            name: STORED_PICTURE
            if name == "picture" and isinstance(item, str) and item.startswith("data:")
            else leave_out_pictures(item)
            for name, item in value.items()
        }
    return [leave_out_pictures(item) for item in value] if isinstance(value, list) else value


def _restore(value: Any, pictures: Mapping[str, str | None]) -> Any:
    if _is_erased(value):
        return ERASED_TEXT
    if isinstance(value, Mapping):
        restored = {name: _restore(item, pictures) for name, item in value.items()}
        if restored.get("picture") == STORED_PICTURE:
            restored["picture"] = pictures.get(restored["case_key"])
        return restored
    if isinstance(value, list):
        return [_restore(item, pictures) for item in value if not _is_erased(item)]
    return value
