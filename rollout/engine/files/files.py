"""Read records from files: predictions, decisions, optionally cases, outcomes, planted cases.

Rows can come in any order, repeated, late, or unreadable. Every row is accounted for: rows read =
rows used + rows rejected, by reason. The rules:

- Rows are checked in this order: form of the row, its cells, its case, earlier equal rows. The
  first fault is reported.
- A case is known if any file has its site. A rejected row still contributes the facts of its case.
- A case with a missing, impossible or unreadable time is used without an instant, and its rows get
  a note. A record with an unreadable time of its own (such as `decided_at`) is rejected, because
  without a time it would count as made when the case occurred.
- A decision whose reviewer has the name of a version is rejected: a model is no human.
- A prediction without an answer, or with an error, has failed. A decision without an answer for
  every lever is unsure; one marked unsure has no answer.

Where only a sample of the predictions was labelled on purpose, only labelled cases are kept.

One file given for both sides agrees with itself unless the rows of each side are chosen.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Final

import polars as pl

from rollout.engine.evidence.frames import (
    VALUE_PREFIX,
    LabelCoverage,
    RecordFrames,
    RecordKind,
    RowCount,
    build_outcomes_schema,
)
from rollout.engine.files.cases import WholeFiles, gather_cases
from rollout.engine.files.column_map import DEFAULT_COLUMN_MAP, ColumnError
from rollout.engine.files.file_rows import (
    TextRows,
    add_separator_line,
    convert_to_utf8,
    cut_separator_line,
    read_delimited,
    read_json_lines,
    read_parquet,
    read_unpacked,
    skip_lines,
)
from rollout.engine.files.mapped_rows import (
    RecordError,
    count_by_reason,
    list_column_notes,
    list_unparsed_rows,
    map_rows,
    normalize_rows,
    raise_first_unreadable,
    sort_remarks,
)
from rollout.engine.files.parts import (
    FileRecords,
    RowCondition,
    choose_rows,
    parse_row_condition,
    split_case_rows,
    split_record_rows,
)
from rollout.engine.files.questions import NO_CHOICES, FileChoices, OpenQuestionsError, RowsOfSide
from rollout.engine.files.side_comparison import SharedNames, compare_sides
from rollout.engine.files.text_formats import SiteZones
from rollout.engine.records.records import PlantedDeclaration
from rollout.kernel.errors import RolloutError
from rollout.kernel.policy.evidence_sources import FileReading

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from rollout.engine.files.column_map import ColumnMap
    from rollout.engine.files.mapped_rows import MappedRows

    Progress = Callable[[str, int, int], None]


SIDES = (RecordKind.PREDICTIONS, RecordKind.DECISIONS)
MAX_TEXTS = 50
"""Different texts up to which a column can say whose row it is."""
MODEL_WORDS = re.compile(r"\b(computer|machine|model|ai|algorithm|classifier|automatic|vision)\b")


class OneFileError(RolloutError, ValueError):
    """One file was given for both sides."""


def find_open_sides(
    sources: RecordPaths,
    columns: ColumnMap,
    texts: Mapping[RecordKind, TextRows],
    rows: Mapping[RecordKind, MappedRows],
) -> list[RowsOfSide]:
    """Return for each side of one file whose rows aren't chosen a question with a proposal.

    A file in which the answers of both sides are in different columns has two sides.

    Raises:
        OneFileError: nothing in the file says which rows are the model's.
    """
    wheres = [columns.get_file(kind).where for kind in SIDES]
    if wheres[0] != wheres[1] and all(wheres):
        return []
    is_empty = not rows[RecordKind.PREDICTIONS].cells.height
    if is_empty or not _is_one_file(sources) or not _has_one_answer_column(rows):
        return []
    condition = _propose_model_rows(texts, rows, wheres)
    if condition is None:
        name = sources.predictions.name
        raise OneFileError(
            f"{name} is given for both sides, so that each answer would agree with itself; choose"
            " the rows of each: --predictions-where COLUMN=TEXT --decisions-where COLUMN!=TEXT, or"
            " give two files"
        )
    complement = RowCondition(condition.column, condition.text, not condition.is_equal)
    return [
        RowsOfSide(
            file=sources.predictions.name,
            records=kind,
            condition=str(proposal),
            rows=_count_matches(texts[kind], proposal),
        )
        for kind, proposal, where in zip(SIDES, (condition, complement), wheres, strict=True)
        if not where or wheres[0] == wheres[1]
    ]


def _is_one_file(sources: RecordPaths) -> bool:
    first, second = sources.predictions, sources.decisions
    if first.samefile(second):
        return True
    return first.stat().st_size == second.stat().st_size and (
        first.read_bytes() == second.read_bytes()
    )


def _has_one_answer_column(rows: Mapping[RecordKind, MappedRows]) -> bool:
    """Return whether both sides read their answers from the same columns."""
    answers = [
        {
            name: column
            for name, column in rows[kind].layout.columns.items()
            if name.startswith(VALUE_PREFIX)
        }
        for kind in SIDES
    ]
    return answers[0] == answers[1]


def _propose_model_rows(
    texts: Mapping[RecordKind, TextRows],
    rows: Mapping[RecordKind, MappedRows],
    wheres: Sequence[str],
) -> RowCondition | None:
    """Return which rows are the model's; None if no column says it."""
    if wheres[0] and not wheres[1]:
        return parse_row_condition(wheres[0])
    if wheres[1] and not wheres[0]:
        human = parse_row_condition(wheres[1])
        return RowCondition(human.column, human.text, not human.is_equal)
    cells = texts[RecordKind.PREDICTIONS].cells
    layouts = [rows[kind].layout.columns for kind in SIDES]
    first = [layouts[0].get("model_version"), layouts[1].get("reviewer")]
    names = dict.fromkeys([*(name for name in first if name), *cells.columns])
    scored = rows[RecordKind.PREDICTIONS].get_texts("confidence").is_not_null()
    for name in names:
        column = cells[name]
        if not 2 <= column.n_unique() <= MAX_TEXTS:
            continue
        by_score = column.filter(scored).unique().drop_nulls()
        if by_score.len() == 1 and not (column.filter(~scored) == by_score[0]).any():
            return RowCondition(name, by_score[0], is_equal=True)
    return next(_list_named_models(texts, names), None)


def _list_named_models(
    texts: Mapping[RecordKind, TextRows], names: Mapping[str, None]
) -> Iterator[RowCondition]:
    """Yield the texts that are named like a model, alone in their column."""
    cells = texts[RecordKind.PREDICTIONS].cells
    for name in names:
        column = cells[name]
        if column.n_unique() <= MAX_TEXTS:
            words = column.unique().drop_nulls()
            models = words.filter(words.str.to_lowercase().str.contains(MODEL_WORDS.pattern))
            if models.len() == 1 < words.len():
                yield RowCondition(name, models[0], is_equal=True)


def _count_matches(texts: TextRows, condition: RowCondition) -> int:
    is_equal = texts.cells[condition.column].eq_missing(condition.text)
    return int((is_equal if condition.is_equal else ~is_equal).sum())


DEFAULT_READINGS: Mapping[RecordKind, FileReading] = {}
DELIMITED = {"csv": ",", "tsv": "\t"}
"""Separator by suffix, where no reading names another."""
SUFFIXES = ".csv, .tsv, .jsonl or .ndjson, each also packed as .gz, or .parquet"


@dataclass(frozen=True, slots=True)
class RecordPaths:
    """Paths of the record files; the suffix (see `SUFFIXES`) sets the format of each."""

    predictions: Path
    decisions: Path
    cases: Path | None = None
    outcomes: Path | None = None

    def list_files(self) -> Iterator[tuple[RecordKind, Path]]:
        """Yield the present files in the order of `RecordKind`."""
        paths = (self.cases, self.predictions, self.decisions, self.outcomes)
        for kind, path in zip(RecordKind, paths, strict=True):
            if path is not None:
                yield kind, path


def read_record_files(  # noqa: PLR0913 - what decides how files are read
    sources: RecordPaths,
    *,
    levers: Sequence[str],
    zones: Mapping[str, str],
    default_zone: str,
    columns: ColumnMap = DEFAULT_COLUMN_MAP,
    readings: Mapping[RecordKind, FileReading] = DEFAULT_READINGS,
    strict: bool = False,
    progress: Progress | None = None,
    chosen_sources: Collection[str] = (),
    outcomes: Sequence[str] = (),
    choices: FileChoices = NO_CHOICES,
    compared_levers: Sequence[str] | None = None,
    whole: WholeFiles | None = None,
) -> RecordFrames:
    """Read all record files.

    Each of `levers` (at least one) has a column of answers; each of `outcomes` may have one of
    values. `zones` has the time zone by site; other sites have `default_zone`. `readings` has how
    the files of a kind are written. `strict` stops at the first unreadable row or impossible time.
    `progress` is called with file name, bytes done and bytes in all. If sources are chosen, only
    their decisions are used. `choices` are answers to questions about both sides, whose labels
    are compared on `compared_levers` (default: all). The files of a part of a `whole` are not
    compared: their rows are of one form.

    Raises:
        OpenQuestionsError: both sides may be one; the text names the options that decide.
        NothingSharedError: both sides have too few keys or labels in common.
        OneFileError: one file is given for both sides, and nothing says which rows are whose.
        ColumnError: a column is missing; the message explains the mapping.
        RecordError: a file is unreadable, or with `strict` a row.
        OSError: a file is missing.
        UnknownSourceError: no decision is of a chosen source.
        ValueError: a time zone does not exist.
    """
    site_zones = SiteZones(zones, default_zone)
    texts, files = {}, {}
    for kind, path in sources.list_files():
        reading = readings.get(kind, FileReading())
        file_columns = columns.get_file(kind)
        texts[kind] = choose_rows(
            read_text_rows(path, reading, progress), file_columns.where, path.name
        )
        rows = map_rows(kind, path.name, texts[kind], file_columns, levers, outcomes)
        files[kind] = normalize_rows(rows, reading)
    if questions := find_open_sides(sources, columns, texts, files):
        raise OpenQuestionsError(questions)
    if whole is None:
        listed = readings.get(RecordKind.PREDICTIONS, FileReading()).listed
        names = SharedNames(levers if compared_levers is None else compared_levers, listed)
        sides = compare_sides(files, levers, names, choices)
        if sides.questions:
            raise OpenQuestionsError(sides.questions)
        files = dict(sides.rows)
    return build_records(
        files,
        texts,
        levers=levers,
        site_zones=site_zones,
        strict=strict,
        chosen_sources=chosen_sources,
        outcomes=outcomes,
        whole=whole,
    )


def build_records(  # noqa: PLR0913 - what decides how files are read
    files: Mapping[RecordKind, MappedRows],
    texts: Mapping[RecordKind, TextRows],
    *,
    levers: Sequence[str],
    site_zones: SiteZones,
    strict: bool = False,
    chosen_sources: Collection[str] = (),
    outcomes: Sequence[str] = (),
    whole: WholeFiles | None = None,
) -> RecordFrames:
    """Return the records of files whose rows are normalized.

    Raises:
        ColumnError: no file has the site or time of the cases.
        RecordError: with `strict`, a row is unreadable.
    """
    _check_case_columns(list(files.values()), texts)
    cases, parts, notes = _split_records(files, levers, site_zones, chosen_sources, outcomes, whole)
    unparsed = [list_unparsed_rows(kind, files[kind].file, texts[kind]) for kind in files]
    rejected = pl.concat([*unparsed, *(part.rejected for part in parts.values())])
    rejected, notes = sort_remarks(rejected), sort_remarks(notes)
    if strict:
        raise_first_unreadable([rejected, notes])
    no_outcomes = pl.DataFrame(schema=build_outcomes_schema(levers, outcomes))
    return RecordFrames(
        cases=cases,
        predictions=parts[RecordKind.PREDICTIONS].used,
        decisions=parts[RecordKind.DECISIONS].used,
        outcomes=parts[RecordKind.OUTCOMES].used if RecordKind.OUTCOMES in parts else no_outcomes,
        rejected=rejected,
        notes=notes,
        row_counts={
            kind: RowCount(
                file=files[kind].file,
                rows=texts[kind].count,
                used=part.used.height,
                rejected=count_by_reason(rejected, kind),
                notes=count_by_reason(notes, kind),
            )
            for kind, part in parts.items()
        },
    )


def read_text_rows(path: Path, reading: FileReading, progress: Progress | None = None) -> TextRows:
    """Read the rows of one file as text.

    Raises:
        RecordError: the suffix is unknown, or the whole file is unreadable.
        OSError: the file is missing.
    """
    suffix = find_suffix(path)
    size = path.stat().st_size

    def report_progress(share: float) -> None:
        if progress is not None:
            progress(path.name, round(share * size), size)

    report_progress(0.0)
    content = read_unpacked(path)
    if suffix != "parquet":
        content = convert_to_utf8(content, reading.encoding, path.name)
    rows = parse_rows(content, suffix, path.name, reading.delimiter, report_progress)
    report_progress(1.0)
    return rows


def find_suffix(path: Path) -> str:
    """Return the suffix that sets a file's format, without `.gz`.

    Raises:
        RecordError: the suffix is unknown.
    """
    suffix = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    is_packed = path.name.lower().endswith(".gz")
    if suffix not in (*DELIMITED, "jsonl", "ndjson", "parquet") or (
        is_packed and suffix == "parquet"
    ):
        raise RecordError(path.name, None, None, "suffix", f"unknown; files end in {SUFFIXES}")
    return suffix


def parse_rows(
    content: bytes,
    suffix: str,
    file: str,
    delimiter: str | None,
    report_progress: Callable[[float], None] | None = None,
) -> TextRows:
    """Return the rows of a file's content, in UTF-8 if it is text."""
    if suffix in DELIMITED:
        content, separator = cut_separator_line(content)
        rows = read_delimited(
            content, file=file, separator=delimiter or separator or DELIMITED[suffix]
        )
        rows = skip_lines(rows)
        return rows if separator is None else add_separator_line(rows)
    if suffix == "parquet":
        return read_parquet(content, file=file)
    return read_json_lines(content, progress=report_progress or (lambda _: None))


def _split_records(
    files: Mapping[RecordKind, MappedRows],
    levers: Sequence[str],
    zones: SiteZones,
    chosen_sources: Collection[str],
    outcomes: Sequence[str],
    whole: WholeFiles | None,
) -> tuple[pl.DataFrame, dict[RecordKind, FileRecords], pl.DataFrame]:
    """Return the cases, the records of each file, and all notes."""
    parts: dict[RecordKind, FileRecords] = {}
    described_files = dict(files)
    if RecordKind.CASES in files:
        described_files[RecordKind.CASES], parts[RecordKind.CASES] = split_case_rows(
            files[RecordKind.CASES]
        )
    facts = gather_cases(list(described_files.values()), zones, whole)
    versions = set(files[RecordKind.PREDICTIONS].get_texts("model_version").unique().drop_nulls())
    if whole is not None:
        versions |= whole.versions
    arguments = (levers, zones.names, chosen_sources, outcomes, versions)
    parts[RecordKind.DECISIONS] = split_record_rows(files[RecordKind.DECISIONS], facts, *arguments)
    by_case = parts[RecordKind.DECISIONS].used.group_by("case_key")
    decided = by_case.agg(decided=pl.min_horizontal("at", "received_at").min())
    facts = replace(facts, decided=decided)
    for kind, rows in files.items():
        if kind not in parts:
            parts[kind] = split_record_rows(rows, facts, *arguments)
    parts = {kind: parts[kind] for kind in files}
    columns = [list_column_notes(rows) for rows in files.values()]
    cleared = [rows.remarks for rows in files.values()]
    notes = [*columns, *cleared, facts.notes, *(part.notes for part in parts.values())]
    return facts.cases, parts, pl.concat(notes)


def _check_case_columns(files: Sequence[MappedRows], texts: Mapping[RecordKind, TextRows]) -> None:
    """Raise if no file has the columns `site` and `occurred_at`.

    Raises:
        ColumnError: the columns are missing.
        RecordError: a file of JSON lines has no columns, because all its lines are unreadable.
    """
    described_files = [
        file for file in files if file.kind is not RecordKind.OUTCOMES and file.cells.width
    ]
    names = ", ".join(
        file.file if file.cells.width else f"{file.file} (which holds no row)"
        for file in files
        if file.kind is not RecordKind.OUTCOMES
    )
    missing = [
        f"none of {names} has a column {name!r}; name it by --map predictions.{name}=COLUMN, give"
        f" all rows one text by --map predictions.{name}:=TEXT, or give a file of cases"
        for name in ("site", "occurred_at")
        if described_files and not any(name in file.cells.columns for file in described_files)
    ]
    for file in files if missing else ():
        for unparsed in texts[file.kind].unparsed.head(1).iter_rows(named=True):
            if not file.cells.width:
                raise RecordError(
                    file.file, unparsed["line"], None, unparsed["reason"], unparsed["detail"]
                )
    if missing:
        raise ColumnError(missing)


MAX_UNASKED = 0.05
"""Share of predicted cases without a decision up to which a draft counts them as missing."""
SAMPLED, ALL = "sampled", "all"


def select_labelled(records: RecordFrames, labels: str | None) -> RecordFrames:
    """Return the records with their coverage; for a sample only those of labelled cases.

    A case is labelled by a decision, or by an outcome with an answer.
    """
    answers = pl.any_horizontal(
        pl.col(VALUE_PREFIX + lever).is_not_null() for lever in records.levers
    )
    frames = (records.decisions, records.outcomes.filter(answers))
    keys = pl.concat([frame.get_column("case_key") for frame in frames])
    predicted = records.predictions.select(pl.col("case_key").unique()).to_series()
    rejected = records.rejected.filter(pl.col("records") == RecordKind.DECISIONS.value)
    is_labelled = predicted.is_in(keys.implode())
    coverage = LabelCoverage(
        predicted=predicted.len(),
        labelled=int(is_labelled.sum()),
        missing=int((~is_labelled & ~predicted.is_in(rejected["case_key"].implode())).sum()),
        is_sample=labels == SAMPLED,
    )
    if coverage.is_sample:
        records = records.select_cases(keys)
    return replace(records, labels=coverage)


DECLARED_COLUMNS: Final = ("case_key", "declared_at")


def read_whole_rows(
    path: Path, required_columns: Sequence[str], optional_columns: Sequence[str] = ()
) -> TextRows:
    """Return the rows of a file of which nothing may be skipped: CSV, TSV, JSON lines or Parquet.

    Raises:
        RecordError: a row can't be read, or a column is missing or unknown.
        OSError: the file is missing.
    """
    rows = read_text_rows(path, FileReading())
    for fault in rows.unparsed.head(1).iter_rows(named=True):
        raise RecordError(path.name, fault["line"], None, fault["reason"], fault["detail"])
    columns = (*required_columns, *optional_columns)
    missing = [column for column in required_columns if column not in rows.cells.columns]
    unknown = [column for column in rows.cells.columns if column not in columns]
    for column in (*missing, *unknown):
        reason = "missing" if column in missing else "unknown"
        raise RecordError(path.name, None, column, reason, f"columns are {', '.join(columns)}")
    return rows


def read_planted_rows(path: Path) -> tuple[PlantedDeclaration, ...]:
    """Return the declarations of a file: CSV, TSV, JSON lines or Parquet.

    Raises:
        RecordError: a column is missing or unknown, or a row can't be used; nothing is skipped.
        OSError: the file is missing.
    """
    rows = read_whole_rows(path, DECLARED_COLUMNS)
    lines_by_key: dict[str, int] = {}
    declarations = []
    for line, row in zip(rows.lines, rows.cells.iter_rows(named=True), strict=True):
        declaration = _read_row(path.name, line, row)
        if declaration.key in lines_by_key:
            text = (
                f"{declaration.key} is declared in line {lines_by_key[declaration.key]}; remove one"
            )
            raise RecordError(path.name, line, "case_key", "duplicate", text)
        lines_by_key[declaration.key] = line
        declarations.append(declaration)
    return tuple(declarations)


def _read_row(file: str, line: int, row: dict[str, str | None]) -> PlantedDeclaration:
    key, text = row["case_key"], row["declared_at"]
    if not key:
        raise RecordError(file, line, "case_key", "missing-value", "name the case")
    try:
        declared_at = datetime.fromisoformat(text or "")
    except ValueError:
        declared_at = None
    if declared_at is None or declared_at.tzinfo is None:
        example = "write a time with its offset, such as 2026-11-01T08:00Z"
        raise RecordError(file, line, "declared_at", "unreadable-time", f"{text!r}; {example}")
    return PlantedDeclaration(key, declared_at)
