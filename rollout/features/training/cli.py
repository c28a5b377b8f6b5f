"""`rollout clean` and `rollout training`: choices about labels, and the export of training rows.

`clean` lists cases to relabel, drop or keep, and records the choices. `training` exports rows with
the source and weight of each label. With recorded files both need no database: train quickly, write
the list, fill in its columns `choice` and `label`, and train again on the rows exported with it.
"""

import csv
import getpass
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Annotated, Any

import polars as pl
import typer

from rollout.engine.evidence.case_placement import place_cases
from rollout.engine.evidence.frames import RecordFrames
from rollout.engine.files.files import RecordPaths
from rollout.engine.records.reviews import (
    CleaningChoice,
    CleaningChoiceRequest,
    check_choice,
    find_final_choices,
)
from rollout.engine.words.formatting import format_count, format_quantity
from rollout.features.replay.requests import Progress, ReplayRequest, read_request_records
from rollout.features.reports.figures.label_issues import (
    FORMATS,
    LabelIssue,
    TrainingExport,
    WorkList,
    build_export_from_records,
    build_item_rows,
    build_work_list,
    compute_digest,
    format_rows,
    read_manifest_hash,
    read_training_rows,
    render_manifest,
)
from rollout.features.reports.figures.label_sources import HUMAN_SOURCES, SOURCES
from rollout.features.reports.inputs.divergence_columns import escape_cell, unescape_cell
from rollout.features.reports.pages.section_summaries import format_loss_kind
from rollout.kernel.atomic_files import write_files_atomically
from rollout.kernel.errors import RefusalError
from rollout.kernel.policy.policy import Policy
from rollout.kernel.policy_files.reader import load_policy
from rollout.terminal.remote import (
    CasesFile,
    ChoicesFile,
    ColumnFile,
    ColumnMappings,
    DecisionsFile,
    LabelPopulation,
    Labels,
    OutcomesFile,
    PolicyFile,
    PredictionsFile,
    SameForm,
    build_choices,
    print_refusals,
    show_progress,
)

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


clean_app = typer.Typer(no_args_is_help=True)
training_app = typer.Typer(no_args_is_help=True)
AllCases = Annotated[bool, typer.Option("--all", help="list all cases, not the first 200")]
OutputFile = Annotated[Path | None, typer.Option(help="file to write (default: print)")]
TrainingFile = Annotated[
    Path, typer.Option(help=f"file to write; its extension sets the format: {', '.join(FORMATS)}")
]
SourceNames = Annotated[
    list[str] | None,
    typer.Option(
        "--source",
        help=f"source of labels (repeatable; default: all but the last): {', '.join(SOURCES)}",
    ),
]


@clean_app.callback()
def describe_clean_commands() -> None:
    """Clean training data: list cases that stand out, and relabel, drop or keep them.

    A choice changes training exports only. It is never evidence.

    Example: `rollout clean list ramps --out list.csv`
    """


@clean_app.command("list-files")
def list_files(  # noqa: PLR0913, PLR0917 - one parameter for each option
    policy: PolicyFile,
    predictions: PredictionsFile,
    decisions: DecisionsFile,
    cases: CasesFile = None,
    outcomes: OutcomesFile = None,
    columns: ColumnFile = None,
    mapped: ColumnMappings = None,
    same_form: SameForm = None,
    labels: Labels = None,
    choices: ChoicesFile = None,
    out: OutputFile = None,
    every: AllCases = False,
) -> None:
    """List cases of recorded files to look at again, as CSV.

    The list has cases where the model was confident and different (its confidence reached its mean
    confidence in that label), where reviewers differ, or where a reviewer may have made a mistake.
    The largest cost times loss comes first; the loss is -ln of the model's probability of the
    human label. Other cases in which model and human differ come last. Without --all the first 200
    are listed. Fill in `choice` (relabel, drop, keep), for relabel also `label`, and pass the file
    to `rollout training export-files --choices`.

    Example: `rollout clean list-files policy.yaml --predictions p.csv --decisions d.csv
    --out list.csv`
    """
    with print_refusals():
        files = read_input_files(
            policy,
            predictions,
            decisions,
            cases,
            outcomes,
            columns,
            mapped,
            same_form=same_form,
            labels=labels,
        )
        file_choices = read_choices(choices, files, datetime.now(UTC))
        issues = build_work_list(
            files.records, files.cases, files.policy, find_final_choices(file_choices)
        )
        listed_issues, note = shorten_work_list(issues, is_complete=every)
        write_or_print(format_work_list(listed_issues), out)
    typer.echo(describe_work_list(files, issues), err=True)
    if note:
        typer.echo(note, err=True)


def write_or_print(text: str, out: Path | None) -> None:
    """Write text to a file, or to the terminal."""
    if out is None:
        typer.echo(text, nl=False)
    else:
        write_files_atomically(out.parent, {out.name: text.encode()})


def format_choice_results(answers: list[Any]) -> str:
    """Return the number of stored choices, and each refused one."""
    counts = dict.fromkeys(("saved", "unchanged", "rejected"), 0)
    for answer in answers:
        counts[answer["status"]] += 1
    count_text = ", ".join(f"{count} {status}" for status, count in counts.items())
    refusals = [a for a in answers if a["status"] == "rejected"]
    return "\n".join([count_text, *(f"  {a['key']}: {a['reason']}" for a in refusals)])


def read_input_files(  # noqa: PLR0913 - one parameter for each option
    policy: Path,
    predictions: Path,
    decisions: Path,
    cases: Path | None,
    outcomes: Path | None,
    columns: Path | None,
    column_mappings: list[str] | None,
    *,
    same_form: bool | None,
    labels: LabelPopulation | None,
) -> RecordedFiles:
    """Read a policy and recorded files."""
    request = ReplayRequest(
        policy,
        RecordPaths(predictions, decisions, cases, outcomes),
        columns=columns,
        column_mappings=tuple(column_mappings or ()),
        choices=build_choices(same_form=same_form, labels=labels, equal_sides=True),
    )
    with show_progress() as report_progress:
        return read_recorded_files(request, report_progress)


def read_choices(file: Path | None, files: RecordedFiles, at: datetime) -> Sequence[CleaningChoice]:
    """Return the choices of a filled list; empty without a file.

    Raises:
        ValueError: a row is not valid; the text names its line and the valid values.
    """
    if file is None:
        return ()
    case_keys = set(files.records.cases["case_key"])
    levers, by = files.policy.levers, getpass.getuser()
    default_lever = levers[0].id if len(levers) == 1 else ""
    return [
        _build_choice(
            file, row, row.request.lever or default_lever, files.policy, case_keys, by, at
        )
        for row in read_filled_rows(file)
    ]


@training_app.callback()
def describe_training_commands() -> None:
    """Export training rows with a manifest, and verify them against it.

    Example: `rollout training export ramps --out training.parquet`
    """


@training_app.command("export-files")
def export_files(  # noqa: PLR0913, PLR0917 - one parameter for each option
    policy: PolicyFile,
    predictions: PredictionsFile,
    decisions: DecisionsFile,
    out: TrainingFile,
    cases: CasesFile = None,
    outcomes: OutcomesFile = None,
    columns: ColumnFile = None,
    mapped: ColumnMappings = None,
    same_form: SameForm = None,
    labels: Labels = None,
    choices: ChoicesFile = None,
    source: SourceNames = None,
) -> None:
    """Export training rows of recorded files, one for each case and lever.

    A manifest is written next to the file: counts by source, weights, span, policy, and the hash
    of the rows. `--choices` applies a filled list of `rollout clean list-files`.

    Example: `rollout training export-files policy.yaml --predictions p.csv --decisions d.csv
    --choices list.csv --out training.parquet`
    """
    with print_refusals():
        form = find_format(out)
        files = read_input_files(
            policy,
            predictions,
            decisions,
            cases,
            outcomes,
            columns,
            mapped,
            same_form=same_form,
            labels=labels,
        )
        file_choices = read_choices(choices, files, datetime.now(UTC))
        export = build_export_from_records(
            files.policy,
            files.records,
            files.cases,
            sources=tuple(source or HUMAN_SOURCES),
            choices=file_choices,
        )
        write_export(export, out, form)
    typer.echo(format_export(export, out))


@training_app.command("verify")
def verify_rows(
    file: Annotated[Path, typer.Argument(help="exported rows, in any format", metavar="FILE")],
    manifest: Annotated[
        Path | None,
        typer.Option(help="manifest to verify against (default: FILE.manifest.json)"),
    ] = None,
) -> None:
    """Verify exported rows against the hash in their manifest. Exit 1 if they differ.

    Example: `rollout training verify training.parquet`
    """
    with print_refusals():
        rows_hash = compute_digest(read_training_rows(file))
        manifest_file = find_manifest_path(file) if manifest is None else manifest
        manifest_hash = read_manifest_hash(manifest_file)
    if rows_hash != manifest_hash:
        typer.echo(
            f"{file}: the rows differ from {manifest_file.name}: hash {rows_hash}, expected"
            f" {manifest_hash}",
            err=True,
        )
        raise typer.Exit(1)
    typer.echo(f"{file}: rows match {manifest_file.name}, hash {rows_hash}")


def find_format(out: Path) -> str:
    """Return the format for the suffix of a file.

    Raises:
        ValueError: the suffix is unknown.
    """
    form = out.suffix.removeprefix(".")
    if form not in FORMATS:
        raise ValueError(f"--out {out} has no known format; end it in .{', .'.join(FORMATS)}")
    return form


def find_manifest_path(file: Path) -> Path:
    """Return the path of the manifest of exported rows."""
    return file.with_name(f"{file.name}.manifest.json")


def write_export(export: TrainingExport, out: Path, file_format: str) -> None:
    """Write rows and their manifest, both or none."""
    files = {
        out.name: b"".join(format_rows(export.rows, file_format)),
        find_manifest_path(out).name: render_manifest(export.manifest).encode(),
    }
    write_files_atomically(out.parent, files)


def format_export(export: TrainingExport, out: Path) -> str:
    """Return a summary of written rows: counts, sources, exclusions and hash."""
    export_manifest = export.manifest
    sources = ", ".join(
        f"{source_count.rows} {source_count.source}"
        for source_count in export_manifest.sources
        if source_count.rows
    )
    excluded_text = ", ".join(
        f"{count} {reason}" for reason, count in export_manifest.excluded.items()
    )
    lines = [
        (
            f"{out}: {export_manifest.rows} rows of {export_manifest.cases} cases:"
            f" {sources or 'no data'}"
        )
    ]
    lines += [f"excluded: {excluded_text}"] if excluded_text else []
    return "\n".join([*lines, f"sha256 of the rows {export_manifest.sha256}"])
