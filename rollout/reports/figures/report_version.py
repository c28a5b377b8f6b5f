"""Versions of a report: provisional or final, and the changes since the last version.

A report is provisional while a case of its span is open or not yet counted by a tick, and final
afterwards. Later changes of the records make a further version.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rollout.reports.inputs.inputs import ReportInputs

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
