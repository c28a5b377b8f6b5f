"""Planted cases of an import: a declaration counts from when the service received it.

A file may give any time as that of its declaration. Who has seen the answers could choose the cases
by them and give a time before. So an import is refused that has an answer from before.
"""

from datetime import datetime
from itertools import chain
from pathlib import Path

from rollout.formats.records.planted_rows import read_planted_rows
from rollout.services.replay.planted_files import (
    LateDeclaration,
    LateDeclarationError,
    find_late_declaration,
)
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Database
from rollout.store.records.planted_cases import PlantedCases
from rollout.tally.frames import RecordFrames
from rollout.tally.populations import split_populations


def split_imported_cases(
    database: Database, rollout: Rollout, records: RecordFrames, file: Path | None, at: datetime
) -> RecordFrames:
    """Return the records of an import, with those of planted cases set apart.

    Planted are the cases that were declared before, and at `at` those of the file.

    Raises:
        LateDeclarationError: an answer is older than its case's declaration; nothing was stored.
        RecordError: a row of the file can't be used.
    """
    new_keys = () if file is None else [row.key for row in read_planted_rows(file)]
    frames = (records.cases, records.predictions, records.decisions, records.outcomes)
    keys = (key for frame in frames for key in frame["case_key"].unique())
    with database.begin_read() as transaction:
        received = PlantedCases(transaction, rollout).find_times(chain(new_keys, keys))
    declared = {**dict.fromkeys(new_keys, at), **received}
    late = find_late_declaration(records, declared)
    if late is not None:
        raise LateDeclarationError(_describe_late(late, is_new=late.key not in received))
    return split_populations(records, declared.keys())


def _describe_late(late: LateDeclaration, *, is_new: bool) -> str:
    remedy = ", or its row, so that it counts as all others" if is_new else ""
    return (
        f"nothing was imported: case {late.key} has an answer of"
        f" {late.answered_at:%Y-%m-%d %H:%M} UTC, and its declaration as planted came at"
        f" {late.declared_at:%Y-%m-%d %H:%M} UTC. It counts from when the service received it,"
        " whatever a file says; else known answers could be chosen. Remove the records of the"
        f" case{remedy}; declare cases before they are answered (`rollout plant`)"
    )
