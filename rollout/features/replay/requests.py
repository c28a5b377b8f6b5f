"""The request of a replay, and reading of the records that it names: `rollout.read_records`.

Commands that store or check recorded files read them here, too; the engine isn't imported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rollout.engine.evidence.frames import VALUE_PREFIX, RecordFrames, RecordKind
from rollout.engine.files.cases import count_backtest, find_backtest_question
from rollout.engine.files.column_map import (
    build_policy_columns,
    parse_column_flags,
    read_column_map,
)
from rollout.engine.files.files import RecordPaths, read_record_files, select_labelled
from rollout.engine.files.questions import NO_CHOICES, FileChoices, OpenQuestionsError
from rollout.engine.slots.options import ReplayOptions
from rollout.features.replay.file_contents import check_file_contents, split_declared_cases
from rollout.kernel.policy.evidence_sources import FileReading

if TYPE_CHECKING:
    from datetime import datetime

    from rollout.kernel.policy.policy import Policy


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
    outcomes = [outcome.id for outcome in policy.outcomes]
    set_labels = policy.set_labels
    listed = {VALUE_PREFIX + lever.id: lever.labels for lever in policy.levers}
    listed["site"] = tuple(site.id for site in policy.sites)
    readings = {
        kind: replace(
            policy.file_readings.get(kind, FileReading()), set_labels=set_labels, listed=listed
        )
        for kind in RecordKind
    }
    base_columns = (
        build_policy_columns(readings, levers=levers, outcomes=outcomes)
        if request.columns is None
        else read_column_map(request.columns, levers=levers, outcomes=outcomes)
    )
    records = read_record_files(
        request.sources,
        levers=levers,
        zones={site.id: site.timezone for site in policy.sites},
        default_zone=policy.timezone,
        columns=parse_column_flags(
            (*request.column_mappings, *request.choices.mappings),
            levers=levers,
            outcomes=outcomes,
            base=base_columns,
        ),
        readings=readings,
        strict=request.strict,
        progress=progress,
        chosen_sources=request.chosen_sources,
        outcomes=outcomes,
        choices=request.choices,
        compared_levers=[
            lever.id for lever in policy.levers if lever.number is None and not lever.many
        ],
    )
    records = select_labelled(records, request.choices.labels)
    file = request.sources.predictions.name
    if request.asks and (question := find_backtest_question(file, records, request.choices)):
        raise OpenQuestionsError([question])
    records = count_backtest(records, request.choices)
    records = split_declared_cases(records, request.planted)
    check_file_contents(records, request.contents, policy)
    return records
