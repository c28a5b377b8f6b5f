"""The request of a replay, and reading of the records that it names.

Commands that store or check recorded files read them here, too; the engine isn't imported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
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
    from pathlib import Path

    from rollout.kernel.policy.policy import Policy


Progress = Callable[[str, int, int], None]  # step, done, total


@dataclass(frozen=True, slots=True)
class ReplayRequest:
    """Options of a replay.

    Attributes:
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

    policy: Path
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
