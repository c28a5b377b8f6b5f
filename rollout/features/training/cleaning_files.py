"""Label cleaning with files: a work list to fill in, and its choices; needs no database.

Train quickly, write the list, fill in its columns `choice` and `label`, and train again on the
rows exported with it.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from io import StringIO
from pathlib import Path

import polars as pl

from rollout.engine.evidence.case_placement import place_cases
from rollout.engine.evidence.frames import RecordFrames
from rollout.engine.records.reviews import (
    CleaningChoice,
    CleaningChoiceRequest,
    check_choice,
    find_final_choices,
)
from rollout.engine.words.formatting import format_count, format_quantity
from rollout.features.replay.requests import Progress, ReplayRequest, read_request_records
from rollout.features.reports.figures.label_issues import (
    LabelIssue,
    TrainingExport,
    WorkList,
    build_export_from_records,
    build_item_rows,
    build_work_list,
)
from rollout.features.reports.inputs.divergence_columns import escape_cell, unescape_cell
from rollout.features.reports.pages.section_summaries import format_loss_kind
from rollout.kernel.errors import RefusalError
from rollout.kernel.policy.policy import Policy
from rollout.kernel.policy_files.reader import load_policy

REQUIRED_COLUMNS = ("case_key", "choice")
MAX_LISTED_CASES = 200  # without --all
OPTIONAL_COLUMNS = ("lever", "label", "reason", "version", "report")


@dataclass(frozen=True, slots=True)
class FilledRow:
    """A filled row of a work list, with its line number."""

    line: int
    request: CleaningChoiceRequest


@dataclass(frozen=True)
class RecordedFiles:
    """A policy with its recorded files, read and placed but not replayed."""

    policy: Policy
    records: RecordFrames
    cases: pl.DataFrame


def read_recorded_files(request: ReplayRequest, progress: Progress | None = None) -> RecordedFiles:
    """Read the files of `request`.

    Raises:
        PolicyFaults: the policy is not valid; the text has one line per fault.
        RecordError: a row can't be read, and `strict` is set.
    """
    assert request.policy is not None  # noqa: S101 - a command names it
    policy = load_policy(request.policy)
    records = read_request_records(request, policy, progress)
    return RecordedFiles(policy, records, place_cases(records, policy, request.options.salt).cases)


def list_file_label_issues(
    files: RecordedFiles, choices: Sequence[CleaningChoice] = ()
) -> WorkList:
    """Return the work list of recorded files, with earlier choices."""
    return build_work_list(files.records, files.cases, files.policy, find_final_choices(choices))


def export_files_for_training(
    files: RecordedFiles, sources: Sequence[str], choices: Sequence[CleaningChoice] = ()
) -> TrainingExport:
    """Return the training rows of recorded files with the choices applied.

    Raises:
        ValueError: a source does not exist.
    """
    return build_export_from_records(
        files.policy, files.records, files.cases, sources=sources, choices=choices
    )


def format_work_list(items: Sequence[LabelIssue]) -> str:
    """Format a work list as CSV with empty columns choice, label and reason."""
    rows = list(build_item_rows(items))
    text = StringIO(newline="")
    writer = csv.DictWriter(text, rows[0].keys() if rows else REQUIRED_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {
            name: escape_cell(value) if isinstance(value, str) else value
            for name, value in row.items()
        }
        for row in rows
    )
    return text.getvalue()


def shorten_work_list(
    items: Sequence[LabelIssue], *, is_complete: bool
) -> tuple[Sequence[LabelIssue], str]:
    """Return the cases to list, and how many are left out, "" for none.

    >>> shorten_work_list([], is_complete=False)
    ([], '')
    """
    if is_complete or len(items) <= MAX_LISTED_CASES:
        return items, ""
    text = f"{format_count(MAX_LISTED_CASES)} of {format_count(len(items))} cases shown"
    return items[:MAX_LISTED_CASES], f"{text}; --all lists all of them"


def describe_work_list(files: RecordedFiles, items: WorkList) -> str:
    """Return how many cases of each kind a work list has, and what it can't show."""
    counts = items.count_kinds()
    kinds = ", ".join(f"{format_count(n)} {format_loss_kind(kind)}" for kind, n in counts.items())
    text = f"{format_quantity(len(items), 'case')} to look at again{f': {kinds}' if kinds else ''}"
    if files.records.predictions["confidence"].null_count() == files.records.predictions.height:
        text += (
            "; the predictions have no confidence, so cases where the model was confident and"
            " wrong are among the unsure ones"
        )
    return text


def read_filled_rows(file: Path) -> Sequence[FilledRow]:
    """Return the rows of a work list that have a choice.

    Raises:
        ValueError: a column is missing, or a row names no case.
    """
    with file.open(encoding="utf-8-sig", newline="") as text:
        rows = csv.DictReader(text)
        missing_columns = [name for name in REQUIRED_COLUMNS if name not in (rows.fieldnames or ())]
        if missing_columns:
            raise ValueError(
                f"{file}: no column {missing_columns[0]}; run `rollout clean list-files` first"
            )
        return list(_parse_filled_rows(file, rows))


def _parse_filled_rows(file: Path, rows: "csv.DictReader[str]") -> Iterator[FilledRow]:
    for row in rows:
        choice = (row["choice"] or "").strip()
        if not choice:
            continue
        if not row["case_key"]:
            raise ValueError(f"{file}, line {rows.line_num}: no case_key; say which case it is")
        optional_values = {
            name: unescape_cell(row[name]) for name in OPTIONAL_COLUMNS if row.get(name)
        }
        key = unescape_cell(row["case_key"])
        request = CleaningChoiceRequest(key=key, choice=choice, **optional_values)
        yield FilledRow(rows.line_num, request)


def build_file_choices(
    file: Path, rows: Sequence[FilledRow], files: RecordedFiles, by: str, at: datetime
) -> Sequence[CleaningChoice]:
    """Convert filled rows to choices.

    Raises:
        ValueError: a row is not valid; the text names its line and the valid values.
    """
    case_keys = set(files.records.cases["case_key"])
    levers = files.policy.levers
    default_lever = levers[0].id if len(levers) == 1 else ""
    return [
        _build_choice(
            file, row, row.request.lever or default_lever, files.policy, case_keys, by, at
        )
        for row in rows
    ]


def _build_choice(
    file: Path,
    row: FilledRow,
    lever: str,
    policy: Policy,
    case_keys: set[str],
    by: str,
    at: datetime,
) -> CleaningChoice:
    request = row.request
    try:
        check_choice(policy, lever, request.choice, request.label, request.reason)
    except RefusalError as refusal:
        raise ValueError(f"{file}, line {row.line}: {refusal}") from refusal
    if request.key not in case_keys:
        raise ValueError(f"{file}, line {row.line}: no case {request.key} in these records")
    return CleaningChoice(**{**asdict(request), "lever": lever}, by=by, at=at)
