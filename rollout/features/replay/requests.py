"""The request of a replay, and reading of the records that it names: `rollout.read_records`.

Commands that store or check recorded files read them here, too; the engine isn't imported.

The content of a version is the hash of its weights and pre-processing, in files in a column
`content`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from rollout.engine.evidence.case_placement import split_populations
from rollout.engine.evidence.frames import CONTENT, INSTANT, VALUE_PREFIX, RecordFrames, RecordKind
from rollout.engine.files.cases import WholeFiles, count_backtest, find_backtest_question
from rollout.engine.files.column_map import (
    ColumnMap,
    build_policy_columns,
    parse_column_flags,
    read_column_map,
)
from rollout.engine.files.files import (
    RecordPaths,
    read_planted_rows,
    read_record_files,
    select_labelled,
)
from rollout.engine.files.questions import NO_CHOICES, FileChoices, OpenQuestionsError
from rollout.engine.slots.options import ReplayOptions
from rollout.kernel.errors import RolloutError
from rollout.kernel.policy.evidence_sources import FileReading
from rollout.kernel.policy.stages import shorten_content

if TYPE_CHECKING:
    from datetime import datetime

    from rollout.kernel.policy.policy import Policy


class LateDeclarationError(RolloutError, ValueError):
    """A case was declared as planted when its answers could be known."""


@dataclass(frozen=True, slots=True)
class LateDeclaration:
    """The first case of those that were declared after an answer to them."""

    key: str
    declared_at: datetime
    answered_at: datetime


def split_declared_cases(records: RecordFrames, file: Path | None) -> RecordFrames:
    """Return the records of files, with those of the cases that `file` declares set apart.

    Raises:
        LateDeclarationError: a case was declared after an answer to it.
        RecordError: a row of the file can't be used.
    """
    if file is None:
        return records
    declared = {declaration.key: declaration.declared_at for declaration in read_planted_rows(file)}
    late = find_late_declaration(records, declared)
    if late is not None:
        raise LateDeclarationError(
            f"{file.name}: case {late.key} was declared as planted at"
            f" {late.declared_at:%Y-%m-%d %H:%M} UTC, after an answer of"
            f" {late.answered_at:%Y-%m-%d %H:%M} UTC. A case that was planted when answers could be"
            " known would be a choice of results; remove its row, so that it counts as all others"
        )
    return split_populations(records, declared.keys())


def find_late_declaration(
    records: RecordFrames, declared: Mapping[str, datetime]
) -> LateDeclaration | None:
    """Return a case that was declared after a prediction, decision or outcome of it, if any.

    An answer without a time is as old as its case.
    """
    declarations = pl.DataFrame(
        list(declared.items()),
        schema={"case_key": pl.String(), "declared_at": INSTANT},
        orient="row",
    )
    frames = (records.predictions, records.decisions, records.outcomes)
    answers = pl.concat([frame.select("case_key", "at") for frame in frames])
    timed = answers.join(declarations, on="case_key").join(
        records.cases.select("case_key", "occurred_at"), on="case_key", how="left"
    )
    late = (
        timed.with_columns(pl.coalesce("at", "occurred_at").alias("at"))
        .filter(pl.col("at") <= pl.col("declared_at"))
        .sort("case_key", "at")
    )
    rows = late.select("case_key", "declared_at", "at").head(1).rows()
    return LateDeclaration(*rows[0]) if rows else None


ADVICE = "give other weights another version name"


def list_file_contents(records: RecordFrames) -> dict[str, str]:
    """Return by version the content that its predictions declare, without those that don't.

    Of several contents of a version, which `check_file_contents` refuses, the first one.
    """
    contents: dict[str, str] = {}
    for version, content in _list_declarations(records):
        contents.setdefault(version, content)
    return contents


def list_declared_contents(
    records: RecordFrames, declared: Mapping[str, str], policy: Policy
) -> dict[str, str]:
    """Return the contents by version of files, of options and of the policy."""
    return {**list_file_contents(records), **declared, **policy.contents_by_version}


def check_file_contents(records: RecordFrames, declared: Mapping[str, str], policy: Policy) -> None:
    """Raise ValueError if a version in the files has another content elsewhere.

    Args:
        records: the files' records.
        declared: contents by version of the option `--content`.
        policy: the policy, which may declare some too.
    """
    sources = {"--content": declared, "the policy": policy.contents_by_version}
    first_contents = list_file_contents(records)
    for version, content in _list_declarations(records):
        first = first_contents[version]
        others = {"another row": content}
        others |= {name: values[version] for name, values in sources.items() if version in values}
        for name, other in others.items():
            if other != first:
                file = records.row_counts[RecordKind.PREDICTIONS].file
                raise ValueError(
                    f"{file}: {version} has the content {shorten_content(first)}, and {name} says"
                    f" {shorten_content(other)}; correct one of them, or {ADVICE}"
                )


def _list_declarations(records: RecordFrames) -> Iterator[tuple[str, str]]:
    """Yield each version with each of its contents, in the order of the file."""
    populations = (records,) if records.planted is None else (records, records.planted)
    for part in populations:
        if CONTENT in part.predictions.columns:
            declared = part.predictions.select("version", CONTENT).drop_nulls()
            yield from declared.unique(maintain_order=True).iter_rows()


Progress = Callable[[str, int, int], None]  # step, done, total


@dataclass(frozen=True, slots=True)
class ReplayRequest:
    """Options of a replay.

    Attributes:
        policy: its file; None for a policy without one, whose report names no command.
        columns: a file with the names of the records' columns.
        column_mappings: the same as flags, such as `predictions.case_key=image`; they override it.
        options: salt, simulated approvals, skipping.
        trained_until: end of the training data by version; earlier cases are no evidence.
        contents: by version the SHA-256 of its weights and pre-processing, beside those of the
            files and the policy.
        strict: stop at the first unreadable row.
        chosen_sources: sources whose decisions are evidence; () for all.
        planted: a file that declares the planted cases.
        choices: answers to questions about both sides of the files.
        asks: whether a question about predictions made after the decisions stops the reading; else
            they are missing.
        whole: what the files are a part of; None if they are all.
    """

    policy: Path | None
    sources: RecordPaths
    columns: Path | None = None
    column_mappings: tuple[str, ...] = ()
    options: ReplayOptions = field(default_factory=ReplayOptions)
    trained_until: Mapping[str, datetime] = field(default_factory=dict)
    contents: Mapping[str, str] = field(default_factory=dict)
    strict: bool = False
    chosen_sources: tuple[str, ...] = ()
    planted: Path | None = None
    choices: FileChoices = NO_CHOICES
    asks: bool = False
    whole: WholeFiles | None = None


@dataclass(frozen=True, slots=True)
class RecordedHistory:
    """Records of files, with the request that they were read by.

    `records` has data frames: `cases`, `predictions`, `decisions`, `outcomes`, and `rejected` with
    the rows that can't be used.
    """

    request: ReplayRequest
    records: RecordFrames


def read_records(  # noqa: PLR0913 - what decides how files are read
    policy: Policy,
    predictions: str | Path,
    decisions: str | Path,
    *,
    cases: str | Path | None = None,
    outcomes: str | Path | None = None,
    planted: str | Path | None = None,
    columns: str | Path | None = None,
    mapped: Sequence[str] = (),
    sources: Sequence[str] = (),
    contents: Mapping[str, str] | None = None,
    strict: bool = False,
    choices: FileChoices = NO_CHOICES,
) -> RecordedHistory:
    """Read recorded files as a policy's `import` says that they are written.

    Args:
        policy: names the levers, and the sites with their time zones.
        predictions: CSV, JSON lines or Parquet, like all files; `docs/files.md` has the columns.
        decisions: of humans.
        cases: sites, times and attributes of the cases.
        outcomes: what became known later.
        planted: declares the planted cases.
        columns: YAML file with the names of the columns.
        mapped: the same as texts, such as `predictions.case_key=image`; they override it.
        sources: whose decisions are used; () for all.
        contents: by version the SHA-256 of its weights and pre-processing.
        strict: stop at the first row that can't be read.
        choices: answers to open questions.

    Raises:
        OpenQuestionsError: the files can be read in several ways; the text has the choices.
        RolloutError: a file can't be read, or a column is missing.
        OSError: a file is missing.
    """
    request = ReplayRequest(
        None,
        RecordPaths(Path(predictions), Path(decisions), to_path(cases), to_path(outcomes)),
        columns=to_path(columns),
        column_mappings=tuple(mapped),
        contents=contents or {},
        strict=strict,
        chosen_sources=tuple(sources),
        planted=to_path(planted),
        choices=choices,
        asks=True,
    )
    return RecordedHistory(request, read_request_records(request, policy))


def to_path(path: str | Path | None) -> Path | None:
    """Return the path of an optional file.

    >>> to_path(None)
    """
    return None if path is None else Path(path)


def build_readings(policy: Policy) -> dict[RecordKind, FileReading]:
    """Return how the files of each kind are written, with the labels and sites of the policy."""
    listed = {VALUE_PREFIX + lever.id: lever.labels for lever in policy.levers}
    listed["site"] = tuple(site.id for site in policy.sites)
    return {
        kind: replace(
            policy.file_readings.get(kind, FileReading()),
            set_labels=policy.set_labels,
            listed=listed,
        )
        for kind in RecordKind
    }


def build_request_columns(
    request: ReplayRequest, policy: Policy, readings: Mapping[RecordKind, FileReading]
) -> ColumnMap:
    """Return the columns of a request's files: those of the policy, of a file, of options."""
    levers = [lever.id for lever in policy.levers]
    outcomes = [outcome.id for outcome in policy.outcomes]
    base_columns = (
        build_policy_columns(readings, levers=levers, outcomes=outcomes)
        if request.columns is None
        else read_column_map(request.columns, levers=levers, outcomes=outcomes)
    )
    flags = (*request.column_mappings, *request.choices.mappings)
    return parse_column_flags(flags, levers=levers, outcomes=outcomes, base=base_columns)


def read_request_records(
    request: ReplayRequest, policy: Policy, progress: Progress | None = None
) -> RecordFrames:
    """Read the records of `request`, with times in the zones of their sites.

    The policy's import section says how the files are written; columns of the request override it.

    Raises:
        ValueError: a version in the files has another content in the request or the policy.
        OpenQuestionsError: nobody said whether predictions count that were made after decisions.
    """
    levers = [lever.id for lever in policy.levers]
    readings = build_readings(policy)
    records = read_record_files(
        request.sources,
        levers=levers,
        zones={site.id: site.timezone for site in policy.sites},
        default_zone=policy.timezone,
        columns=build_request_columns(request, policy, readings),
        readings=readings,
        strict=request.strict,
        progress=progress,
        chosen_sources=request.chosen_sources,
        outcomes=[outcome.id for outcome in policy.outcomes],
        choices=request.choices,
        compared_levers=[
            lever.id for lever in policy.levers if lever.number is None and not lever.many
        ],
        whole=request.whole,
    )
    records = select_labelled(records, request.choices.labels)
    file = request.sources.predictions.name
    if request.asks and (question := find_backtest_question(file, records, request.choices)):
        raise OpenQuestionsError([question])
    records = count_backtest(records, request.choices)
    records = split_declared_cases(records, request.planted)
    check_file_contents(records, request.contents, policy)
    return records
