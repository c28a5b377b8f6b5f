"""Draft a policy for uploaded files, plan it and replay it, as `init`, `plan` and `replay` do.

A run has a process of low priority and limited memory.
"""

import gzip
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter

from rollout.engine.evidence.frames import RecordKind, RowCount
from rollout.engine.files.files import RecordPaths
from rollout.engine.files.policy_draft import describe_draft_levers
from rollout.engine.files.questions import (
    NO_CHOICES,
    NO_LABEL,
    Choice,
    FileChoices,
    OpenQuestionsError,
    ReadingQuestion,
    describe_question,
    list_options,
)
from rollout.features.policies.drafting import (
    READING_OPTIONS,
    DraftRequest,
    apply_reading_option,
    draft_policy_text,
    find_population_questions,
    format_file_report,
    list_refusals,
    read_draft_records,
    recognize_draft_files,
    report_files,
)
from rollout.features.policies.planning import build_policy_plan, format_plan
from rollout.features.policies.traffic import compute_recorded_traffic
from rollout.features.replay.replay import (
    build_replay_inputs,
    replay_records,
)
from rollout.features.replay.requests import Progress, ReplayRequest, read_request_records
from rollout.features.reports.figures.facts import ReportFacts, compute_report_facts
from rollout.features.reports.pages.html_report import render_html_report
from rollout.features.reports.pages.text_report import render_text_report
from rollout.features.uploads.upload_runs import (
    ADVICE,
    DECISIONS_FILE,
    FILE_NAMES,
    MAX_INFLATION,
    MAX_MINUTES,
    MAX_ROWS,
    PREDICTIONS_FILE,
    STEPS,
    UploadedFile,
    UploadOptions,
    UploadResult,
)
from rollout.kernel.policy.evidence_sources import FileReading
from rollout.kernel.policy.policy import Policy
from rollout.kernel.policy_files.reader import parse_policy
from rollout.live.work.user_runs import answer_request, build_answer, report_step

GZIP_MARK: Final = b"\x1f\x8b"
OTHER_KINDS: Final = {
    b"PK\x03\x04": "a zip file or an Excel workbook",
    b"PAR1": "a Parquet file",
    b"%PDF": "a PDF",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
}
"""First bytes of files that are sent by mistake, with what they are."""
MAX_LINES_A_ROW: Final = 10
"""More lines than this for each allowed row are refused unread: cells may span lines."""
_CHUNK_BYTES: Final = 2**20


def prepare_file(path: Path) -> None:
    """Unpack a file in place and refuse what can't be a CSV file of the allowed size.

    Raises:
        ValueError: the text says what to do instead.
    """
    with path.open("rb") as file:
        start = file.read(4)
    if start.startswith(GZIP_MARK):
        try:
            _unpack_gzip(path)
        finally:
            _get_unpacked_path(path).unlink(missing_ok=True)  # kept files would keep it too
        with path.open("rb") as file:
            start = file.read(4)
    if not start:
        raise ValueError(f"{path.name} is empty; choose the file again")
    if start in OTHER_KINDS:
        raise ValueError(
            f"{path.name} is {OTHER_KINDS[start]}; export it as CSV, or run {ADVICE} with its"
            " right name"
        )
    _check_lines(path)


def _unpack_gzip(path: Path) -> None:
    """Replace a gzip file by its content, which is at most ten times as large."""
    limit, size = path.stat().st_size * MAX_INFLATION, 0
    unpacked_path = _get_unpacked_path(path)
    try:
        with gzip.open(path) as source, unpacked_path.open("wb") as target:
            while chunk := source.read(_CHUNK_BYTES):
                if not size and chunk.startswith(GZIP_MARK):  # a run over kept files unpacks again
                    raise ValueError(f"{path.name} is packed twice; pack it once")
                size += len(chunk)
                if size > limit:
                    raise ValueError(
                        f"{path.name} unpacks to more than {MAX_INFLATION} times its size; send it"
                        f" unpacked, or run {ADVICE}"
                    )
                target.write(chunk)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path.name} is damaged: {error}; pack it again") from error
    except OSError as error:
        raise ValueError(
            f"{path.name} could not be unpacked: the service's disk is full or fails; tell who runs"
            f" it, or run {ADVICE}"
        ) from error
    unpacked_path.replace(path)


def _get_unpacked_path(path: Path) -> Path:
    return path.with_name(path.name + ".unpacked")


def _check_lines(path: Path) -> None:
    """Refuse a file of so many lines that reading them would take minutes."""
    with path.open("rb") as file:
        lines = sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(_CHUNK_BYTES), b""))
    if lines > MAX_ROWS * MAX_LINES_A_ROW:
        raise ValueError(f"{path.name} has {lines:,} lines; {describe_row_limit()}")


def check_rows(file: str, rows: int) -> None:
    """Raise ValueError if a file has too many rows."""
    if rows > MAX_ROWS:
        raise ValueError(f"{file} has {rows:,} rows; {describe_row_limit()}")


def describe_row_limit() -> str:
    """Return the limit of rows and what to do instead."""
    return f"at most {MAX_ROWS:,} are run here; run {ADVICE}"


ALLOWED_UNREADABLE: Final = 0.1
"""Share of a file's rows, as `rollout init` allows by default."""
POLICY_FILE: Final = "policy.yaml"
REPORT_WIDTH: Final = 80
CHOICE_OPTIONS: Final = frozenset({"--same-form", "--labels", "--equal-sides", "--backtest"})
"""Options about both files that the form has, beside those on how a file is written."""


def run_uploaded_files(folder: Path, options: UploadOptions, report_step: Progress) -> UploadResult:
    """Run the three commands on the files of a folder; nothing else is read.

    Raises:
        ValueError: a file or the policy can't be used; the text says what to do.
        RefusalError: the policy is invalid.
    """
    sources = RecordPaths(folder / PREDICTIONS_FILE, folder / DECISIONS_FILE)
    report_step(STEPS[0], 0, len(STEPS))
    for name in FILE_NAMES:
        prepare_file(folder / name)
    hashes = {name: sha256((folder / name).read_bytes()).hexdigest() for name in FILE_NAMES}
    text = options.policy_text
    reading: tuple[str, ...] = ()
    if not text:
        report_step(STEPS[1], 1, len(STEPS))
        text, reading = _draft_policy(sources, options)
    (folder / POLICY_FILE).write_text(text, encoding="utf-8")
    policy = parse_policy(text)
    replay = _replay_files(
        ReplayRequest(folder / POLICY_FILE, sources, choices=_build_choices(options), asks=True),
        policy,
        report_step,
    )
    report_step(STEPS[4], 4, len(STEPS))
    return UploadResult(
        policy_text=text,
        policy_hash=policy.hash,
        is_drafted=not options.policy_text,
        files=tuple(
            UploadedFile(name, hashes[name], count.rows, count.used)
            for name, count in zip(FILE_NAMES, replay.row_counts, strict=True)
        ),
        reading=reading,
        plan=replay.plan,
        summary=render_text_report(replay.facts, REPORT_WIDTH),
        report=render_html_report(replay.facts),
        first=replay.first,
        last=replay.last,
        salt=sha256(replay.salt).hexdigest(),
    )


@dataclass(frozen=True, slots=True)
class _PlannedReplay:
    """The plan and the facts of the report, without the records: charts need their memory."""

    plan: str
    facts: ReportFacts
    row_counts: tuple[RowCount, RowCount]
    first: datetime
    last: datetime
    salt: bytes


def _replay_files(request: ReplayRequest, policy: Policy, report_step: Progress) -> _PlannedReplay:
    try:
        records = read_request_records(request, policy)
    except OpenQuestionsError as error:
        raise ValueError("\n".join(map(_format_question, error.questions))) from error
    for count in records.row_counts.values():
        check_rows(count.file, count.rows)
    report_step(STEPS[2], 2, len(STEPS))
    plan = format_plan(build_policy_plan(policy, compute_recorded_traffic(records, policy)))
    report_step(STEPS[3], 3, len(STEPS))
    inputs = build_replay_inputs(replay_records(request, policy, records))
    counts = records.row_counts
    return _PlannedReplay(
        plan=plan,
        facts=compute_report_facts(inputs),
        row_counts=(counts[RecordKind.PREDICTIONS], counts[RecordKind.DECISIONS]),
        first=inputs.first,
        last=inputs.last,
        salt=request.options.salt,
    )


def _draft_policy(sources: RecordPaths, options: UploadOptions) -> tuple[str, tuple[str, ...]]:
    """Return the text of a draft, and how the files were read.

    Raises:
        ValueError: several readings fit, or too many rows can't be read.
    """
    request = DraftRequest(
        sources,
        rollout=options.rollout,
        timezone=options.timezone,
        readings=_build_readings(options),
        choices=_build_choices(options),
    )
    files = recognize_draft_files(request)
    for file in files.values():
        if file.texts is not None:
            check_rows(dict(sources.list_files())[file.kind].name, file.texts.count)
    _refuse_questions([question for file in files.values() for question in file.questions])
    records = read_draft_records(request, files)
    _refuse_questions(find_population_questions(request, records))
    reports = report_files(files, records, options.timezone)
    if refusals := list_refusals(reports, ALLOWED_UNREADABLE):
        raise ValueError("\n".join(refusals))
    readings = {kind.value: file.reading for kind, file in files.items()}
    lines = [line for report in reports for line in format_file_report(report)]
    lines += describe_draft_levers(records, readings)
    return draft_policy_text(request, files, records), tuple(lines)


def _build_readings(options: UploadOptions) -> dict[RecordKind, FileReading]:
    reading = FileReading()
    for option, text in options.readings:
        if option not in CHOICE_OPTIONS:
            reading = apply_reading_option(reading, option, "" if text == NO_LABEL else text)
    readings = dict.fromkeys(RecordKind, reading)
    if options.exposure:
        readings[RecordKind.DECISIONS] = replace(reading, exposure=options.exposure)
    return readings


def _build_choices(options: UploadOptions) -> FileChoices:
    choices = NO_CHOICES
    for option, text in options.readings:
        if option in CHOICE_OPTIONS:
            choices = choices.add(Choice(option, text, text))
    return choices


def _refuse_questions(questions: Sequence[ReadingQuestion]) -> None:
    """Raise ValueError if questions are open; the text names the choices."""
    if questions:
        raise ValueError("\n".join(map(_format_question, questions)))


def _format_question(question: ReadingQuestion) -> str:
    options = dict.fromkeys(choice.option for choice in question.choices)
    fields = " or the ".join(option.removeprefix("--").replace("-", " ") for option in options)
    values = " or ".join(dict.fromkeys(choice.value or NO_LABEL for choice in question.choices))
    text = describe_question(question)
    if not options.keys() <= READING_OPTIONS.keys() | CHOICE_OPTIONS:
        return f"{text}; run {ADVICE} with {' or '.join(list_options(question))}"
    return f"{text}; choose the {fields} under “How the files are written”: {values}"


MEMORY_TEXT: Final = f"it needs more than 1 GiB of memory; run {ADVICE}"


def run_requested(values: dict[str, Any]) -> dict[str, Any]:
    """Return the message that ends a run: its result, or an error."""
    options = TypeAdapter(UploadOptions).validate_python(values["options"])
    folder = Path(values["folder"])
    return build_answer(lambda: run_uploaded_files(folder, options, report_step), MEMORY_TEXT)


if __name__ == "__main__":
    answer_request(run_requested, MAX_MINUTES * 60)
