"""Cleaning in files: the work list as a table to fill in, and the choices that it comes back with.

Train quickly, write the list, fill in its columns `choice` and `label`, train again on what is
exported with it. No database is needed.
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from io import StringIO
from pathlib import Path

import polars as pl

from rollout.core.errors import Refusal
from rollout.core.policy.policy import Policy
from rollout.core.records.label_cleaning import Choice, check_choice, holding
from rollout.formats.policy.reader import read_policy
from rollout.reports.figures.label_issues import WorkItem, as_rows, work_items
from rollout.reports.figures.training import Export, export_of_records
from rollout.reports.inputs.table_cells import as_text, said_in
from rollout.services.replay.replay import Order, Progress, records_of
from rollout.tally.case_placement import place
from rollout.tally.frames import Records

NEEDED = ("case_key", "choice")
TAKEN = ("lever", "label", "reason", "version", "report")


@dataclass(frozen=True, slots=True)
class Filled:
    """A row of a list that somebody has filled in, and the line where it stands."""

    line: int
    key: str
    choice: str
    lever: str = ""
    label: str | None = None
    reason: str = ""
    version: str = ""
    report: str = ""


@dataclass(frozen=True)
class RecordedFiles:
    """A policy and recorded files, read and placed; nothing is replayed."""

    policy: Policy
    records: Records
    cases: pl.DataFrame


def read_files(order: Order, progress: Progress | None = None) -> RecordedFiles:
    """Read the files of `order`.

    Raises:
        PolicyFaults: the policy is refused; its text has one line for each fault.
        RecordFault: a row can't be read, and `strict` was asked for.
    """
    policy = read_policy(order.policy)
    records = records_of(order, policy, progress)
    return RecordedFiles(policy, records, place(records, policy, order.course.salt).cases)


def list_of_files(found: RecordedFiles, choices: Sequence[Choice] = ()) -> Sequence[WorkItem]:
    """Return the work list of recorded files, with what was chosen before."""
    return work_items(found.records, found.cases, found.policy, holding(choices))


def export_of_files(
    found: RecordedFiles, sources: Sequence[str], choices: Sequence[Choice] = ()
) -> Export:
    """Return the rows of recorded files to train on, after what was chosen.

    Raises:
        ValueError: a source is none that there is.
    """
    return export_of_records(
        found.policy, found.records, found.cases, sources=sources, choices=choices
    )


def list_text(items: Sequence[WorkItem]) -> str:
    """Return a work list as CSV; its columns choice, label and reason are to be filled in."""
    rows = list(as_rows(items))
    text = StringIO(newline="")
    writer = csv.DictWriter(text, rows[0].keys() if rows else NEEDED, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def _cell(value: object) -> object:
    return as_text(value) if isinstance(value, str) else value


def read_filled(file: Path) -> Sequence[Filled]:
    """Return the rows of a list about which something was chosen; rows without are left.

    Raises:
        ValueError: a column is missing, or a row names no case.
    """
    with file.open(encoding="utf-8-sig", newline="") as text:
        rows = csv.DictReader(text)
        missing_columns = [name for name in NEEDED if name not in (rows.fieldnames or ())]
        if missing_columns:
            raise ValueError(
                f"{file}: no column {missing_columns[0]}; run `rollout clean list-files` first"
            )
        return list(_filled(file, rows))


def _filled(file: Path, rows: "csv.DictReader[str]") -> Iterator[Filled]:
    for row in rows:
        choice = (row["choice"] or "").strip()
        if not choice:
            continue
        if not row["case_key"]:
            raise ValueError(f"{file}, line {rows.line_num}: no case_key; say which case it is")
        optional_values = {name: said_in(row[name]) for name in TAKEN if row.get(name)}
        yield Filled(rows.line_num, said_in(row["case_key"]), choice, **optional_values)


def choices_of_rows(
    file: Path, rows: Sequence[Filled], found: RecordedFiles, by: str, at: datetime
) -> Sequence[Choice]:
    """Return filled rows as choices.

    Raises:
        ValueError: names the line of the first that means nothing, and what would be right.
    """
    case_keys = set(found.records.cases["case_key"])
    levers = found.policy.levers
    default_lever = levers[0].id if len(levers) == 1 else ""
    return [
        _choice(file, row, row.lever or default_lever, found.policy, case_keys, by, at)
        for row in rows
    ]


def _choice(
    file: Path,
    row: Filled,
    lever: str,
    policy: Policy,
    known: set[str],
    by: str,
    at: datetime,
) -> Choice:
    try:
        check_choice(policy, lever, row.choice, row.label, row.reason)
    except Refusal as refusal:
        raise ValueError(f"{file}, line {row.line}: {refusal}") from refusal
    if row.key not in known:
        raise ValueError(f"{file}, line {row.line}: no case {row.key} in these records")
    provenance: Mapping[str, str] = {"version": row.version, "report": row.report}
    return Choice(
        key=row.key,
        lever=lever,
        choice=row.choice,
        by=by,
        at=at,
        label=row.label,
        reason=row.reason,
        **provenance,
    )
