"""`rollout init`: report how recorded files are read, and draft a policy for them."""

import shlex
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from rollout.engine.evidence.frames import RecordFrames, RecordKind
from rollout.engine.evidence.late_senders import find_late_senders
from rollout.engine.files.files import RecordPaths
from rollout.engine.files.policy_draft import describe_draft_levers
from rollout.engine.files.questions import OpenQuestionsError
from rollout.engine.files.recognition import RecognizedFile, describe_outliers
from rollout.engine.words.evidence_text import describe_late_cases
from rollout.features.policies.drafting import (
    DraftRequest,
    FileReport,
    apply_answer,
    apply_reading_option,
    draft_policy_text,
    format_file_report,
    list_refusals,
    read_draft_files,
    report_files,
)
from rollout.features.reports.figures.label_sources import describe_coverage
from rollout.kernel.policy.evidence_sources import FileReading
from rollout.kernel.policy_files.fields import read_share
from rollout.terminal.remote import (
    Backtest,
    CasesFile,
    ColumnFile,
    ColumnMappings,
    DecisionsWhere,
    EqualSides,
    Labels,
    PredictionsWhere,
    SameForm,
    ask_questions,
    build_choices,
    print_refusals,
)

EXIT_TOO_MANY_REJECTED = 1


class DraftExposure(StrEnum):
    """What reviewers had seen, for files that don't say."""

    BLIND = "blind"
    ASSISTED = "assisted"
    UNKNOWN = "unknown"


def draft(  # noqa: PLR0913, PLR0917 - one parameter for each option
    predictions: Annotated[
        Path,
        typer.Argument(
            help="predictions of the model: CSV, JSON lines or Parquet", metavar="PREDICTIONS"
        ),
    ],
    decisions: Annotated[Path, typer.Argument(help="human decisions", metavar="DECISIONS")],
    rollout: Annotated[str, typer.Option(help="name of the rollout")] = "my-rollout",
    timezone: Annotated[str, typer.Option(help="time zone of times without offset")] = "UTC",
    cases: CasesFile = None,
    columns: ColumnFile = None,
    mapped: ColumnMappings = None,
    predictions_where: PredictionsWhere = None,
    decisions_where: DecisionsWhere = None,
    same_form: SameForm = None,
    labels: Labels = None,
    equal_sides: EqualSides = False,
    backtest: Backtest = None,
    date_format: Annotated[
        list[str] | None,
        typer.Option(
            help="times: day-first, month-first, year-first, basic, unix-seconds,"
            " unix-milliseconds, or a pattern as %d-%b-%Y %H:%M (repeatable)"
        ),
    ] = None,
    delimiter: Annotated[
        list[str] | None, typer.Option(help="between columns: , ; | or tab (repeatable)")
    ] = None,
    decimal: Annotated[
        list[str] | None, typer.Option(help="decimal sign: . or , (repeatable)")
    ] = None,
    encoding: Annotated[
        list[str] | None, typer.Option(help="as utf-8, latin-1, utf-16 (repeatable)")
    ] = None,
    unsure: Annotated[
        list[str] | None,
        typer.Option(help='label that means "no answer"; "" if none does (repeatable)'),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(help="text such as none that is a label, not a missing answer (repeatable)"),
    ] = None,
    exposure: Annotated[
        DraftExposure | None,
        typer.Option(help="what reviewers had seen, where the decisions don't say"),
    ] = None,
    percent: Annotated[
        bool | None, typer.Option(help="confidence is from 0 to 100, or from 0 to 1")
    ] = None,
    allow_rejected: Annotated[
        str, typer.Option(help="share of a file's rows that may be unreadable")
    ] = "10%",
) -> None:
    """Draft a minimal policy for two recorded files, and report how they are read.

    The policy goes to standard output; the report to standard error, first. Encoding, separator,
    decimal sign, forms of times, percent and labels such as `unsure` are recognized; if two
    readings fit, `init` asks in a terminal and refuses elsewhere. An option for one file names it:
    `--date-format decisions=day-first`. What was chosen stands in the policy's `import`, and other
    commands read the files in the same way. Exit code 1: too many rows can't be read.

    Example: `rollout init predictions.csv decisions.csv --timezone Europe/Vienna > policy.yaml`
    """
    with print_refusals():
        allowed = _read_allowed_share(allow_rejected)
        options = {
            "--date-format": date_format,
            "--delimiter": delimiter,
            "--decimal": decimal,
            "--encoding": encoding,
            "--unsure": unsure,
            "--label": label,
        }
        request = DraftRequest(
            RecordPaths(predictions, decisions, cases),
            rollout=rollout,
            timezone=timezone,
            columns=columns,
            column_mappings=tuple(mapped or ()),
            readings=_build_readings(options, exposure, percent=percent),
            choices=build_choices(
                predictions_where,
                decisions_where,
                same_form=same_form,
                labels=labels,
                equal_sides=equal_sides,
                backtest=backtest,
            ),
            now=datetime.now(UTC),
        )
        request, files, records = _recognize(request)
        reports = report_files(files, records, timezone)
        for report in reports:
            typer.echo("\n".join(format_file_report(report)), err=True)
        _refuse_unreadable(reports, allowed)
        for line in describe_outliers(records, request.now):
            typer.echo(line, err=True)
        late = None if records.backtest else find_late_senders(records)
        if late is not None:
            typer.echo(describe_late_cases(late), err=True)
        if coverage_text := describe_coverage(records.labels):
            typer.echo(coverage_text, err=True)
        readings = {kind.value: file.reading for kind, file in files.items()}
        for line in describe_draft_levers(records, readings):
            typer.echo(line, err=True)
        typer.echo(_describe_next_commands(request), err=True)
        typer.echo(draft_policy_text(request, files, records), nl=False)


def _read_allowed_share(text: str) -> float:
    try:
        return read_share(text)
    except ValueError as error:
        raise ValueError(f"--allow-rejected {error}") from None


def _build_readings(
    options: Mapping[str, list[str] | None], exposure: DraftExposure | None, *, percent: bool | None
) -> dict[RecordKind, FileReading]:
    """Return what the options say about each file."""
    readings = dict.fromkeys(RecordKind, FileReading(percent=percent))
    for option, texts in options.items():
        for text in texts or ():
            kinds, value = _split_option(text)
            for kind in kinds:
                readings[kind] = apply_reading_option(readings[kind], option, value)
    if exposure is not None:
        readings[RecordKind.DECISIONS] = replace(
            readings[RecordKind.DECISIONS], exposure=exposure.value
        )
    return readings


def _split_option(text: str) -> tuple[tuple[RecordKind, ...], str]:
    """Return the files that an option is for and its value: `decisions=day-first`, or `;`."""
    kind, equals, value = text.partition("=")
    if equals and kind in list(RecordKind):
        return (RecordKind(kind),), value
    return tuple(RecordKind), text


def _recognize(
    request: DraftRequest,
) -> tuple[DraftRequest, Mapping[RecordKind, RecognizedFile], RecordFrames]:
    """Return the files with their records, and the request with the answers of a terminal."""
    while True:
        try:
            return request, *read_draft_files(request)
        except OpenQuestionsError as error:
            for question, answer in ask_questions(error.questions):
                request = apply_answer(request, question, answer)


def _describe_next_commands(request: DraftRequest) -> str:
    """Return the commands that use the policy once it is in a file; it keeps how files are read."""
    sources = request.sources
    options = {
        "--predictions": sources.predictions,
        "--decisions": sources.decisions,
        "--cases": sources.cases,
    }
    parts = [part for name, path in options.items() if path for part in (name, str(path))]
    planned = [*parts, *request.choices.list_arguments()]
    replayed = [*parts, *request.choices.list_replay_arguments(), "--out", "replay"]
    return (
        "Next, with the policy in policy.yaml:\n"
        f"  rollout plan policy.yaml {shlex.join(planned)}\n"
        f"  rollout replay policy.yaml {shlex.join(replayed)}"
    )


def _refuse_unreadable(reports: tuple[FileReport, ...], allowed: float) -> None:
    """Exit with code 1 if too many rows of a file can't be read."""
    if refusals := list_refusals(reports, allowed):
        typer.echo("\n".join(refusals), err=True)
        raise typer.Exit(EXIT_TOO_MANY_REJECTED)
