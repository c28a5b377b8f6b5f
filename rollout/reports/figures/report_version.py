"""Which version of a report this is: until when it may change, and what changed since the last.

A report is provisional while a case of its span is open: a verdict may still come in, or the tick
has not counted it. Then it is final. What is said later all the same makes a further version.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any, Final

from rollout.reports.inputs.inputs import Inputs

PROVISIONAL, FINAL = "provisional", "final"
MOST = 200  # changed figures that are listed

OWN: Final = "edition"
PRESENT: Final = frozenset({OWN, "desk"})
"""Sections that tell of the moment of making: in them nothing counts as a change."""

NAMES: Final = (
    "site", "window", "version", "name", "lever", "label", "action", "reviewer",
    "measure", "guard", "rule", "revision", "stage", "since", "file", "kind",
)  # fmt: skip
"""What rows of a list are known by, as far as they have it."""

CASE_FIELDS: Final = frozenset({"case_key", "case", "first_case"})
"""What a report's rows call a case."""


@dataclass(frozen=True, slots=True)
class Changed:
    """One figure that differs from the version before; values as JSON, None where there is none.

    A row of a list is named by what it is of: `agreements[v1,alarm].agreement.rate`. A list whose
    rows are of cases is one figure, and only how many they are is said: whoever judges one of them
    later would read here what was said of it.
    """

    path: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class Edition:
    """Which version this is.

    Attributes:
        live: whether it is of a running service; a replay has one version, and is final.
        name: under which it is made again.
        version: 1, and one more each time something has changed.
        state: `provisional` or `final`.
        due: from when on it is final, once the tick has counted; None of a replay.
        settled_until: up to when units are counted.
        waiting: units of the span that are not counted yet.
        kept_back: cases left out since somebody may still judge them blind.
        changed: what differs from the version before, at most 200 figures.
        more_changed: how many more differ.
        divergences_sha256: of the CSV of all divergences.
    """

    live: bool
    name: str
    version: int
    state: str
    due: datetime | None
    settled_until: datetime | None
    waiting: int
    kept_back: int
    changed: tuple[Changed, ...] = ()
    more_changed: int = 0
    divergences_sha256: str = ""


def edition_of(inputs: Inputs) -> Edition:
    """Return the first version; whoever keeps reports says its name and what changed."""
    pending = 0 if inputs.waiting.is_empty() else inputs.waiting["unit"].n_unique()
    return Edition(
        live=inputs.live,
        name="",
        version=1,
        state=_state(inputs, pending),
        due=inputs.due,
        settled_until=inputs.settled_until,
        waiting=pending,
        kept_back=inputs.kept_back,
    )


def _state(inputs: Inputs, waiting: int) -> str:
    if inputs.due is None or inputs.settled_until is None:
        return FINAL
    has_open_cases = waiting or inputs.kept_back or inputs.settled_until < inputs.due
    return PROVISIONAL if has_open_cases else FINAL


def canonical(report: Any) -> str:
    """Return the one text of plain values: sorted keys, no spaces, UTF-8 as it is.

    Raises:
        ValueError: a figure is infinite or undefined; that is a fault of ours.
    """
    return json.dumps(
        report, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def hash_of(text: str) -> str:
    """Return the SHA-256 by which a report's text is cited."""
    return sha256(text.encode()).hexdigest()


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[Changed, ...]:
    """Return the figures in which two versions differ, by their paths.

    Args:
        before: an earlier version as plain values.
        after: a later one. What either says of its moment of making is left out, save that it
            has become final.
    """
    old, new = dict(_figures(before)), dict(_figures(after))
    paths = [path for path in {**old, **new} if old.get(path) != new.get(path)]
    return tuple(
        Changed(path, _told(old.get(path)), _told(new.get(path))) for path in sorted(paths)
    )


def _told(figure: str | None) -> str | None:
    """Return a figure as it is listed: rows of cases as how many they are."""
    if figure is None or not figure.startswith("[{"):
        return figure
    return canonical(f"{len(json.loads(figure))} rows of cases")


def names_case(row: Any) -> bool:
    """Say whether a row of a list is of a case."""
    return isinstance(row, Mapping) and any(isinstance(row.get(name), str) for name in CASE_FIELDS)


def _figures(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield f"{OWN}.state", canonical(report[OWN]["state"])
    for name, section in report.items():
        if name not in PRESENT:
            yield from _leaves(section, name)


def _leaves(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _leaves(item, f"{path}.{name}")
    elif isinstance(value, list) and any(names_case(item) for item in value):
        yield path, canonical(value)
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        for name, row in zip(_named(value), value, strict=True):
            yield from _leaves(row, f"{path}[{name}]")
    else:
        yield path, canonical(value)


def _named(rows: list[Any]) -> list[str]:
    """Return what rows are known by; their numbers where that names two alike."""
    names = [",".join(_name(row)) for row in rows]
    has_duplicates = len(set(names)) < len(names) or "" in names
    return [str(index) for index in range(len(rows))] if has_duplicates else names


def _name(row: Any) -> Iterator[str]:
    for name in NAMES:
        if isinstance(row, Mapping) and isinstance(row.get(name), str | int):
            yield str(row[name])
